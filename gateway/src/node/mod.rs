//! What paired devices reach: registration, and the stream that carries invocations to them and results back.
//!
//! - `service`: gRPC's side of it;
//! - `stream`: one device's stream, one loop;
//! - `dispatcher`: the invocations that a stream carries; `flight`: where each is; `writes`: what is written of it;
//! - `uploads`: outputs that are too large for a result;
//! - `presence`: what the Device shows of its session; `orphans`: and of sessions of an earlier life;
//! - `live`: the streams that are live; `outbox`: what waits to be sent on one; `registrations`: what devices said of
//!   themselves before their stream; `pace`: how often a device may begin; `jitter`: who tries again when;
//! - `played` (a feature): the same, moved by hand in a world that is played;
//! - `api`: requests to the API server; `status`: how refusals look in gRPC; `metrics`.
//!
//! What the cluster looks like comes from [`crate::index`], what is to be done from [`crate::domain`].

mod api;
mod dispatcher;
mod flight;
mod jitter;
mod live;
mod metrics;
mod orphans;
pub mod outbox;
mod pace;
mod presence;
mod registrations;
pub mod service;
mod status;
mod stream;
mod uploads;
mod writes;

#[cfg(test)]
mod tests;

#[cfg(feature = "played")]
pub use self::stream::played;

use std::{fmt, sync::Arc, time::Duration};

use crds::names::{
    ADVERTISE_ANNOTATION, COMPONENT_GATEWAY, COMPONENT_LABEL, CONSOLE_ANNOTATION, GATEWAY,
    GATEWAY_LEASE_SECONDS,
};
use kube::Client;
use pairing::key::KeyFingerprint;
use prometheus_client::registry::Registry;
use proto::{MAX_DEVICE_MESSAGE_BYTES, node::node_service_server::NodeServiceServer};
use runtime::{lease::OwnLease, shutdown::Tasks};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    api::Requests, live::Live, metrics::Metrics, pace::Pace, registrations::Registrations,
    service::Service, status::Refusal, stream::LEAVE_TIME,
};
use crate::{
    artefact::{Artefacts, sweep},
    clock::now,
    domain::{
        device::{Denied, DeviceKey, admit},
        grants::Known,
        register::MAX_CONCURRENCY,
    },
    heavy::Heavy,
    index::{
        Index, Listener,
        watch::{self, Synced},
    },
    renewal::Renewals,
};

/// Bytes that results of all devices may take while they wait to be written.
const RESULT_MEMORY: usize = 128 * 1024 * 1024;
/// How long a device that the index does not know yet is waited for, and how often: it was paired a moment ago.
const NEW_DEVICE_WAIT: Duration = Duration::from_millis(100);
const NEW_DEVICE_WAITS: usize = 15;
/// How many devices come back to the other gateways in a second when this one stops.
const RECONNECTS_PER_SECOND: f64 = 200.0;

/// How a gateway deals with devices.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this gateway, and of its Lease.
    pub gateway: String,
    /// Namespace of the gateways' Leases.
    pub namespace: String,
    /// `HOST:PORT` where devices reach this gateway.
    pub advertise: String,
    /// `HOST:PORT` where people reach its console, if it has one.
    pub console: Option<String>,
    /// How often a device says that it is there. One that is silent for three times as long is cut.
    pub heartbeat: Duration,
    /// Most streams at once.
    pub max_streams: usize,
    /// Most invocations that one device has at once, whatever it takes. More wait their turn in Kubernetes.
    pub in_flight: usize,
    /// How long Welcome waits for the session's start to be written.
    pub welcome_within: Duration,
    /// How long what a device is sent may lie unread.
    pub unread_within: Duration,
    /// How long a gateway that stops goes on with its streams and with writing their ends.
    pub drain_within: Duration,
    /// Where outputs go that are too large for a resource; `None`: nowhere.
    pub artefacts: Option<Artefacts>,
}

impl Settings {
    /// With bounds that suit a gateway of 20,000 devices.
    pub fn new(
        gateway: impl Into<String>,
        namespace: impl Into<String>,
        advertise: impl Into<String>,
    ) -> Self {
        Self {
            gateway: gateway.into(),
            namespace: namespace.into(),
            advertise: advertise.into(),
            console: None,
            heartbeat: Duration::from_secs(15),
            max_streams: 25_000,
            in_flight: MAX_CONCURRENCY,
            welcome_within: Duration::from_secs(2),
            unread_within: Duration::from_secs(10),
            drain_within: Duration::from_secs(20),
            artefacts: None,
        }
    }
}

/// The gateway's side of NodeService. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
    synced: Synced,
    drained: Arc<OnceCell<()>>,
}

/// What all streams share.
struct Shared {
    settings: Settings,
    index: Arc<Index>,
    live: Arc<Live>,
    registrations: Registrations,
    pace: Pace,
    requests: Requests,
    renewals: Renewals,
    metrics: Metrics,
    result_memory: Arc<Semaphore>,
    synced: Synced,
    tasks: Tasks,
    /// Which surfaces are within others.
    known: Known,
    heavy: Heavy,
    /// Every stream, until its last write is done.
    streams: TaskTracker,
    /// Cancelled when the streams have ended, or have had their time to.
    stop: CancellationToken,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Starts the watches and this gateway's Lease. They go on until the streams were drained, which begins at the
    /// latest when `tasks` are told to stop.
    pub fn start(
        client: Client,
        settings: Settings,
        renewals: Renewals,
        tasks: &Tasks,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::register(registry);
        let (index, live) = (
            Arc::new(Index::default()),
            Arc::new(Live::new(settings.max_streams)),
        );
        let stop = CancellationToken::new();
        let listener: Listener = {
            let live = Arc::clone(&live);
            Arc::new(move |changed| live.changed(changed))
        };
        let (synced, watches) =
            watch::start(&index, &client, &settings.namespace, &listener, &stop);
        for (name, watch) in ["device watch", "invocation watch", "gateway watch"]
            .into_iter()
            .zip(watches)
        {
            spawn(tasks, name, async move {
                watch.await;
                Ok(())
            });
        }
        spawn(
            tasks,
            "lease",
            own_lease(&settings).keep(client.clone(), stop.clone()),
        );
        if let Some(artefacts) = settings.artefacts.clone() {
            let sweeper = sweep::Sweeper {
                artefacts,
                client: client.clone(),
                index: Arc::clone(&index),
                gateway: settings.gateway.clone(),
            };
            tasks.spawn(sweeper.run(synced.clone(), stop.clone()));
        }
        let shared = Arc::new(Shared {
            requests: Requests::new(client, &settings.gateway, metrics.clone()),
            renewals,
            settings,
            index,
            live,
            registrations: Registrations::default(),
            pace: Pace::default(),
            metrics,
            result_memory: Arc::new(Semaphore::new(RESULT_MEMORY)),
            synced: synced.clone(),
            tasks: tasks.clone(),
            known: Known::default(),
            heavy: Heavy::new(tasks.clone()),
            streams: TaskTracker::new(),
            stop,
        });
        tasks.spawn(orphans::end(Arc::clone(&shared), synced.clone()));
        let node = Self {
            shared,
            synced,
            drained: Arc::default(),
        };
        tasks.spawn({
            let (node, token) = (node.clone(), tasks.token());
            async move {
                token.cancelled().await;
                node.drain().await;
            }
        });
        node
    }

    /// The service, with the limit on what a device may send.
    pub fn service(&self) -> NodeServiceServer<Service> {
        NodeServiceServer::new(Service(Arc::clone(&self.shared)))
            .max_decoding_message_size(MAX_DEVICE_MESSAGE_BYTES)
    }

    /// Waits until the watches have filled the index: before, devices are told to come back.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        self.synced.clone().wait()
    }

    /// Where the live gateways are reached, this one first.
    pub fn gateways(&self) -> Vec<String> {
        self.shared.gateways()
    }

    /// Tells every device to go, each at a moment of its own; writes that their sessions ended; then ends the Lease.
    /// Takes [`Settings::drain_within`] at most. Called again, it waits for the first.
    pub async fn drain(&self) {
        self.drained.get_or_init(|| self.shared.drain()).await;
    }
}

impl Shared {
    fn gateways(&self) -> Vec<String> {
        self.index
            .gateways
            .addresses(&self.settings.advertise, now())
    }

    /// Whether the device may come in. One that is not known yet is waited for: its Device was made a moment ago.
    async fn admit(&self, key: &DeviceKey, fingerprint: &KeyFingerprint) -> Result<(), Refusal> {
        if !self.synced.get() {
            return Err(Refusal::NotReady);
        }
        for _ in 0..NEW_DEVICE_WAITS {
            match admit(self.index.devices.get(key).as_deref(), fingerprint) {
                Err(Denied::Unknown) => tokio::time::sleep(NEW_DEVICE_WAIT).await,
                admitted => return Ok(admitted?),
            }
        }
        Err(Denied::Unknown.into())
    }

    async fn drain(&self) {
        let spread = spread(self.live.count(), self.settings.drain_within);
        self.live
            .drain(|| spread.mul_f64(rand::random_range(0.0..1.0)));
        self.streams.close();
        let ended = tokio::time::timeout(self.settings.drain_within, self.streams.wait()).await;
        if ended.is_err() {
            tracing::warn!(
                streams = self.streams.len(),
                "Not every session's end could be written in time"
            );
        }
        self.stop.cancel();
    }
}

/// Over how long so many devices are sent away. A device that was cut before the moment that it was given would wait for
/// it without a gateway.
fn spread(streams: usize, drain_within: Duration) -> Duration {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count of streams is far below 2^52"
    )]
    let wanted = Duration::from_secs_f64(streams as f64 / RECONNECTS_PER_SECOND);
    // Each has a moment to leave, and its session's end one to be written.
    wanted.min(drain_within.saturating_sub(LEAVE_TIME * 2))
}

fn own_lease(settings: &Settings) -> OwnLease {
    let mut annotations = vec![(ADVERTISE_ANNOTATION, settings.advertise.clone())];
    annotations.extend(
        settings
            .console
            .clone()
            .map(|console| (CONSOLE_ANNOTATION, console)),
    );
    OwnLease {
        namespace: settings.namespace.clone(),
        name: settings.gateway.clone(),
        label: (COMPONENT_LABEL, COMPONENT_GATEWAY),
        annotations,
        field_manager: GATEWAY,
        duration_seconds: GATEWAY_LEASE_SECONDS,
    }
}

/// An essential task that may be done, after a drain, before all tasks are told to stop.
fn spawn(
    tasks: &Tasks,
    name: &'static str,
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    let token = tasks.token();
    tasks.spawn_essential(name, async move {
        task.await?;
        token.cancelled().await;
        Ok(())
    });
}
