//! Starts everything in order, and stops it in order. The only file that starts long tasks.

use std::{io, pin::pin, time::Duration};

use anyhow::Context as _;
use crds::names::PAIRING_SETUP_KEY;
use pairing::opaque::Setup;
use prometheus_client::registry::Registry;
use runtime::{
    admin::Readiness,
    shutdown::{Supervisor, Tasks},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    args::Args,
    artefact::Artefacts,
    console, descriptors,
    enrollment::{self, Enroller},
    listener::{Limits, Listener, PeerStream},
    metrics::Metrics,
    mounted::{self, Mounted},
    node::{self, Node},
    renewal::Renewals,
    server, tls,
};

/// How long connections may take to close once every stream has ended. Who never reads is not waited for longer.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Runs until a signal comes or an essential task fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // 1. Logs, tasks, metrics, and what is configured.
    args.log.init()?;
    let supervisor = Supervisor::new();
    let tasks = supervisor.tasks();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();

    let artefacts = args.artefacts().context("open --artefact-store")?;
    let files = descriptors::raise().context("raise the limit of open files")?;
    let limits = args.limits().within(files);
    if limits.silent < args.max_silent {
        tracing::warn!(
            files,
            silent = limits.silent,
            "The limit of open files is low: fewer silent connections are kept than --max-silent allows"
        );
    }

    // 2. The API server.
    let config = runtime::kubeconfig::infer()?;
    let client = kube::Client::try_from(config.clone()).context("use the API server")?;

    // 3. Mounted files. They may come later.
    let material = Mounted::new(args.tls_dir.clone(), tls::FILES, tls::Material::parse);
    let setup = Mounted::new(
        args.pairing_setup_dir.clone(),
        &[PAIRING_SETUP_KEY],
        read_setup,
    );
    let (mut tls_loaded, mut setup_loaded) = (material.current(), setup.current());

    // 4. The device port: one that is in use fails the start.
    let tls = tls::server(&tls_loaded, &args.trust_domain).context("prepare TLS")?;
    let listener = Listener::bind(args.device_address, tls, limits, metrics.clone())
        .with_context(|| format!("bind --device-address {}", args.device_address))?;

    // 5. Services, with what they watch.
    let renewals = Renewals::new(client.clone());
    let node = Node::start(
        client.clone(),
        node_settings(&args, artefacts.clone()),
        renewals,
        &tasks,
        &mut registry,
    );
    let settings = enrollment_settings(&args, node.clone());
    let enroller = Enroller::new(&client, settings, setup.current(), metrics, tasks.token());

    let gateway = console::Gateway {
        config: &config,
        client: client.clone(),
        namespace: args.namespace.clone(),
        tls_dir: args.tls_dir.clone(),
        artefacts: artefacts.as_ref(),
    };
    console::start(&args.console, gateway, &tasks, &mut registry).await?;

    // 6. The admin port, until the last stream has ended: until then we are alive, and say that we are not ready.
    let ended = CancellationToken::new();
    let admin = args
        .admin
        .bind(registry, readiness.clone(), ended.clone())
        .await?;
    tasks.spawn_essential("admin port", admin);

    // 7. Tasks.
    tasks.spawn_essential("tls files", material.follow(tasks.token()));
    tasks.spawn_essential("pairing setup file", setup.follow(tasks.token()));
    let (accepted, incoming) = mpsc::channel(1);
    tasks.spawn_essential(
        "accept",
        accept(listener, tls_loaded.clone(), tasks.clone(), accepted),
    );
    let serving = Serving {
        enroller,
        node: node.clone(),
        limits,
        readiness: readiness.clone(),
        ended,
    };
    tasks.spawn_essential("serve", serving.run(incoming, tasks.token()));
    let stop = tasks.token();
    tasks.spawn(async move {
        let ready = async {
            mounted::loaded(&mut tls_loaded).await?;
            mounted::loaded(&mut setup_loaded).await?;
            node.ready().await;
            anyhow::Ok(())
        };
        tokio::select! {
            // An error means that the files' task ended, which ends the process.
            ready = ready => if ready.is_ok() {
                readiness.set(true);
                tracing::info!("Ready");
            },
            () = stop.cancelled() => {}
        }
    });

    // 8. Until the end.
    supervisor
        .wait(Duration::from_secs(args.stop_seconds))
        .await
}

fn read_setup(files: &[Vec<u8>]) -> anyhow::Result<Setup> {
    let [setup] = files else {
        anyhow::bail!("expected {PAIRING_SETUP_KEY} alone");
    };
    Setup::from_bytes(setup).with_context(|| format!("read {PAIRING_SETUP_KEY}"))
}

fn node_settings(args: &Args, artefacts: Option<Artefacts>) -> node::Settings {
    node::Settings {
        heartbeat: args.heartbeat(),
        max_streams: args.max_devices,
        artefacts,
        console: args.console.console_advertise.clone(),
        ..node::Settings::new(&args.name, &args.namespace, &args.advertise)
    }
}

fn enrollment_settings(args: &Args, node: Node) -> enrollment::Settings {
    enrollment::Settings {
        gateway: args.name.clone(),
        request_time: Duration::from_secs(args.request_seconds.into()),
        gateways: Box::new(move || node.gateways()),
        tries_per_minute: args.tries_per_minute,
        tries_per_minute_per_address: args.tries_per_minute_per_address,
    }
}

/// Accepts once there is something to shake hands with.
async fn accept(
    listener: Listener,
    mut tls_loaded: mounted::Current<tls::Material>,
    tasks: Tasks,
    accepted: mpsc::Sender<io::Result<PeerStream>>,
) -> anyhow::Result<()> {
    let stop = tasks.token();
    tokio::select! {
        loaded = mounted::loaded(&mut tls_loaded) => loaded?,
        () = stop.cancelled() => return Ok(()),
    }
    listener.accept(tasks, accepted).await
}

/// What is served, and who is told how that goes.
struct Serving {
    enroller: Enroller,
    node: Node,
    limits: Limits,
    readiness: Readiness,
    ended: CancellationToken,
}

impl Serving {
    /// Serves until told to stop; then no new connections, then the end of the streams that are there, then of their
    /// connections.
    async fn run(
        self,
        incoming: mpsc::Receiver<io::Result<PeerStream>>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let Self {
            enroller,
            node,
            limits,
            readiness,
            ended,
        } = self;
        let _ended = ended.drop_guard();
        let drained = CancellationToken::new();
        let router = server::new(limits)
            .add_service(enroller.service())
            .add_service(node.service());
        let stopping = async {
            stop.cancelled().await;
            readiness.set(false);
            node.drain().await;
            drained.cancel();
        };
        let serving =
            pin!(router.serve_with_incoming_shutdown(ReceiverStream::new(incoming), stopping));
        tokio::select! {
            served = serving => served.context("serve the device port"),
            () = async {
                drained.cancelled().await;
                sleep(CLOSE_TIME).await;
            } => Ok(()),
        }
    }
}
