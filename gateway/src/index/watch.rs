//! Feeds the stores from watches, for as long as the process lives.
//!
//! A watch that breaks is taken up where it broke, or begins anew with a list; meanwhile the stores keep what they had,
//! so that devices are served from what was known last while the API server is away.

use std::{fmt::Debug, pin::pin, sync::Arc, time::Duration};

use backon::ExponentialBuilder;
use crds::{
    CapabilityInvocation, Device, Guarded,
    names::{COMPONENT_GATEWAY, COMPONENT_LABEL},
    v1alpha1::capability_invocation::InvocationPhase,
};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, ExponentialBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Changed, Index, Listener, invocations::Listed};
use crate::{
    clock,
    domain::{
        device::{DeviceKey, KnownDevice},
        invocation::OpenInvocation,
    },
};

/// How long one object may take that is fetched, and when it is tried again.
const FETCH_TIME: Duration = Duration::from_secs(10);
const FETCH_AGAIN: Duration = Duration::from_secs(1);

/// When a watch that broke is tried again. Not as late as kube's own half a minute: there are few gateways, and what devices
/// wait for after an outage waits for the watch.
const FIRST_AGAIN: Duration = Duration::from_millis(800);
const LAST_AGAIN: Duration = Duration::from_secs(5);

/// Something that a watch feeds.
trait Sink: Send {
    type Object: Clone + Debug + DeserializeOwned + Resource<DynamicType = ()> + Send + 'static;

    const KIND: &'static str;

    /// The watch begins anew: what follows, until `end_list`, is all there is.
    fn begin_list(&mut self);
    fn listed(&mut self, object: Self::Object);
    fn end_list(&mut self);
    fn applied(&mut self, object: Self::Object);
    /// It is gone, cannot be read, or does not match the selector any more.
    fn gone(&mut self, object: &Self::Object);
}

/// Watches that were started.
#[derive(Clone, Debug)]
pub struct Synced([watch::Receiver<bool>; 3]);

impl Synced {
    /// Waits until every store has been filled once.
    pub async fn wait(mut self) {
        for synced in &mut self.0 {
            // Without a sender the watch has ended, and so has the process.
            let _ = synced.wait_for(|synced| *synced).await;
        }
    }

    /// Where the stores are filled by hand.
    #[cfg(feature = "played")]
    pub fn already() -> Self {
        Self(std::array::from_fn(|_| watch::channel(true).1))
    }

    /// Whether every store has been filled once.
    pub fn get(&self) -> bool {
        self.0.iter().all(|synced| *synced.borrow())
    }
}

/// Starts the three watches. The futures run until `stop`.
pub fn start(
    index: &Arc<Index>,
    client: &Client,
    namespace: &str,
    listener: &Listener,
    stop: &CancellationToken,
) -> (Synced, [futures::future::BoxFuture<'static, ()>; 3]) {
    let (devices, invocations, gateways) = (
        watch::channel(false),
        watch::channel(false),
        watch::channel(false),
    );
    let synced = Synced([devices.1, invocations.1, gateways.1]);
    let to_devices = DeviceSink {
        index: Arc::clone(index),
        listener: Arc::clone(listener),
        listed: Vec::new(),
    };
    let to_invocations = InvocationSink {
        index: Arc::clone(index),
        listener: Arc::clone(listener),
        listed: Listed::default(),
    };
    let to_gateways = GatewaySink {
        index: Arc::clone(index),
        listed: Vec::new(),
    };
    let open = follow(
        Api::all(client.clone()),
        watcher::Config::default().fields(&open_invocations()),
        to_invocations,
        invocations.0,
        stop.clone(),
    );
    let others = fetch_others(
        Arc::clone(index),
        client.clone(),
        Arc::clone(listener),
        stop.clone(),
    );
    let leases = Api::namespaced(client.clone(), namespace);
    let futures = [
        Box::pin(follow(
            Api::all(client.clone()),
            watcher::Config::default(),
            to_devices,
            devices.0,
            stop.clone(),
        )) as futures::future::BoxFuture<'static, ()>,
        Box::pin(async move {
            futures::join!(open, others);
        }),
        Box::pin(follow(
            leases,
            watcher::Config::default().labels(&format!("{COMPONENT_LABEL}={COMPONENT_GATEWAY}")),
            to_gateways,
            gateways.0,
            stop.clone(),
        )),
    ];
    (synced, futures)
}

/// Selects what has not ended.
fn open_invocations() -> String {
    InvocationPhase::TERMINAL
        .map(|phase| format!("status.phase!={}", phase.as_str()))
        .join(",")
}

async fn follow<S: Sink>(
    api: Api<S::Object>,
    config: watcher::Config,
    mut sink: S,
    synced: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let again = ExponentialBuilder::default()
        .with_min_delay(FIRST_AGAIN)
        .with_max_delay(LAST_AGAIN)
        .without_max_times()
        .with_jitter();
    let mut events = pin!(watcher(api, config).backoff(ExponentialBackoff::from(again)));
    let mut broken = false;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            // With a backoff that does not end, neither does the stream.
            None => return,
            Some(Err(error)) => {
                // One line for each time that it breaks, not for each try.
                if !std::mem::replace(&mut broken, true) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        kind = S::KIND,
                        "Watching failed"
                    );
                }
            }
            Some(Ok(event)) => {
                broken = false;
                match event {
                    watcher::Event::Init => sink.begin_list(),
                    watcher::Event::InitApply(object) => sink.listed(object),
                    watcher::Event::InitDone => {
                        sink.end_list();
                        synced.send_replace(true);
                    }
                    watcher::Event::Apply(object) => sink.applied(object),
                    watcher::Event::Delete(object) => sink.gone(&object),
                }
            }
        }
    }
}

struct DeviceSink {
    index: Arc<Index>,
    listener: Listener,
    listed: Vec<KnownDevice>,
}

impl Sink for DeviceSink {
    type Object = Guarded<Device>;

    const KIND: &'static str = "Device";

    fn begin_list(&mut self) {
        self.listed = Vec::new();
    }

    fn listed(&mut self, object: Self::Object) {
        self.listed
            .extend(valid(object).and_then(KnownDevice::read));
    }

    fn end_list(&mut self) {
        self.index.devices.replace(std::mem::take(&mut self.listed));
        (self.listener)(Changed::Everything);
    }

    fn applied(&mut self, object: Self::Object) {
        let key = device_key(&object);
        match valid(object).and_then(KnownDevice::read) {
            Some(device) => self.index.devices.insert(device),
            // What cannot be read is not trusted.
            None => self.index.devices.remove(&key),
        }
        (self.listener)(Changed::Device(&key));
    }

    fn gone(&mut self, object: &Self::Object) {
        let key = device_key(object);
        self.index.devices.remove(&key);
        (self.listener)(Changed::Device(&key));
    }
}

fn device_key(object: &Guarded<Device>) -> DeviceKey {
    DeviceKey {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

struct InvocationSink {
    index: Arc<Index>,
    listener: Listener,
    listed: Listed,
}

impl Sink for InvocationSink {
    type Object = Guarded<CapabilityInvocation>;

    const KIND: &'static str = "CapabilityInvocation";

    fn begin_list(&mut self) {
        self.listed = Listed::default();
    }

    fn listed(&mut self, object: Self::Object) {
        if let Some(invocation) = open(object) {
            self.index.invocations.list(&mut self.listed, invocation);
        }
    }

    fn end_list(&mut self) {
        self.index
            .invocations
            .replace(std::mem::take(&mut self.listed));
        (self.listener)(Changed::Everything);
    }

    fn applied(&mut self, object: Self::Object) {
        if let Some(invocation) = valid(object).and_then(OpenInvocation::read) {
            let device = invocation.device.clone();
            if invocation.phase().is_terminal() {
                self.index.invocations.remove(&device, &invocation.name);
            } else {
                self.index.invocations.insert(invocation);
            }
            (self.listener)(Changed::Device(&device));
        }
    }

    fn gone(&mut self, object: &Self::Object) {
        let Ok(invocation) = &object.0 else { return };
        let name = invocation.name_any();
        let device = DeviceKey {
            namespace: invocation.namespace().unwrap_or_default(),
            name: invocation.spec.device_ref.name.clone(),
        };
        self.index.invocations.remove(&device, &name);
        (self.listener)(Changed::Device(&device));
    }
}

struct GatewaySink {
    index: Arc<Index>,
    listed: Vec<Lease>,
}

impl Sink for GatewaySink {
    // Any gateway writes its own: one that cannot be read must not hide the others.
    type Object = Guarded<Lease>;

    const KIND: &'static str = "Lease";

    fn begin_list(&mut self) {
        self.listed = Vec::new();
    }

    fn listed(&mut self, object: Guarded<Lease>) {
        self.listed.extend(valid(object));
    }

    fn end_list(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        self.index.gateways.replace(listed, clock::now());
    }

    fn applied(&mut self, object: Guarded<Lease>) {
        if let Some(lease) = valid(object) {
            self.index.gateways.insert(lease, clock::now());
        }
    }

    fn gone(&mut self, object: &Guarded<Lease>) {
        self.index.gateways.remove(&object.name_any());
    }
}

/// What is read, and has not ended.
fn open(object: Guarded<CapabilityInvocation>) -> Option<OpenInvocation> {
    valid(object)
        .and_then(OpenInvocation::read)
        .filter(|invocation| !invocation.phase().is_terminal())
}

/// Fetches what the store knows by name alone, for devices that are served here and have room for it.
async fn fetch_others(
    index: Arc<Index>,
    client: Client,
    listener: Listener,
    stop: CancellationToken,
) {
    let invocations = &index.invocations;
    let fetch = async {
        loop {
            for device in invocations.wanted().await {
                let api: Api<Guarded<CapabilityInvocation>> =
                    Api::namespaced(client.clone(), &device.namespace);
                while let Some(name) = invocations.next_other(&device) {
                    let Ok(Ok(found)) = timeout(FETCH_TIME, api.get_opt(&name)).await else {
                        // It is wanted again when the device is next looked at.
                        sleep(FETCH_AGAIN).await;
                        break;
                    };
                    match found.and_then(open) {
                        Some(invocation) => invocations.insert(invocation),
                        None => invocations.remove(&device, &name),
                    }
                }
                listener(Changed::Device(&device));
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = fetch => {}
    }
}

/// Says once, each time that it is heard of, why an object is left aside.
fn valid<K>(object: Guarded<K>) -> Option<K> {
    object
        .0
        .inspect_err(|invalid| {
            tracing::warn!(
                error = invalid.error,
                namespace = invalid.metadata.namespace,
                name = invalid.metadata.name,
                "Object cannot be read and is left aside"
            );
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_watched() {
        assert_eq!(
            open_invocations(),
            "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Refused,\
             status.phase!=TimedOut,status.phase!=Cancelled,status.phase!=Unknown"
        );
    }
}
