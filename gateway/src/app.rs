//! Starts everything in order, and stops it in order. The only file that starts long tasks.

use std::{io, pin::pin, time::Duration};

use anyhow::Context as _;
use crds::names::{
    ADVERTISE_ANNOTATION, COMPONENT_GATEWAY, COMPONENT_LABEL, GATEWAY, GATEWAY_LEASE_SECONDS,
    PAIRING_SETUP_KEY,
};
use pairing::opaque::Setup;
use prometheus_client::registry::Registry;
use runtime::{
    admin::Readiness,
    lease::OwnLease,
    shutdown::{Supervisor, Tasks},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    args::Args,
    enrollment::{self, Enroller},
    listener::{Listener, PeerStream},
    metrics::Metrics,
    mounted::{self, Mounted},
    server, tls,
};

/// How long connections may take to close once every stream has ended. Who never reads is not waited for longer.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Runs until a signal comes or an essential task fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // 1. Logs, tasks, metrics.
    args.log.init()?;
    let supervisor = Supervisor::new();
    let tasks = supervisor.tasks();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();

    // 2. The API server.
    let client = kube::Client::try_default()
        .await
        .context("find the API server")?;

    // 3. Mounted files. They may come later.
    let material = Mounted::new(args.tls_dir.clone(), tls::FILES, tls::Material::parse);
    let setup = Mounted::new(
        args.pairing_setup_dir.clone(),
        &[PAIRING_SETUP_KEY],
        read_setup,
    );
    let (mut tls_loaded, mut setup_loaded) = (material.current(), setup.current());

    // 4. Ports: one that is in use fails the start.
    let tls = tls::server(&tls_loaded, &args.trust_domain).context("prepare TLS")?;
    let listener = Listener::bind(args.device_address, tls, args.limits(), metrics.clone())
        .await
        .with_context(|| format!("bind --device-address {}", args.device_address))?;
    // Told when the last stream has ended: until then we are alive, and say that we are not ready.
    let ended = CancellationToken::new();
    let admin = args
        .admin
        .bind(registry, readiness.clone(), ended.clone())
        .await?;

    // 5. Services.
    let enroller = Enroller::new(
        &client,
        enrollment_settings(&args),
        setup.current(),
        metrics,
        tasks.token(),
    );

    // 6. Tasks.
    tasks.spawn_essential("admin port", admin);
    tasks.spawn_essential("tls files", material.follow(tasks.token()));
    tasks.spawn_essential("pairing setup file", setup.follow(tasks.token()));
    tasks.spawn_essential("lease", own_lease(&args).keep(client, ended.clone()));
    let (accepted, incoming) = mpsc::channel(1);
    tasks.spawn_essential(
        "accept",
        accept(listener, tls_loaded.clone(), tasks.clone(), accepted),
    );
    tasks.spawn_essential(
        "serve",
        serve(incoming, enroller, tasks.token(), readiness.clone(), ended),
    );
    let stop = tasks.token();
    tasks.spawn(async move {
        let ready = async {
            mounted::loaded(&mut tls_loaded).await?;
            mounted::loaded(&mut setup_loaded).await
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

    // 7. Until the end.
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

fn enrollment_settings(args: &Args) -> enrollment::Settings {
    let advertise = args.advertise.clone();
    enrollment::Settings {
        gateway: args.name.clone(),
        request_time: Duration::from_secs(args.request_seconds.into()),
        gateways: Box::new(move || vec![advertise.clone()]),
        tries_per_minute: args.tries_per_minute,
        tries_per_minute_per_address: args.tries_per_minute_per_address,
    }
}

fn own_lease(args: &Args) -> OwnLease {
    OwnLease {
        namespace: args.namespace.clone(),
        name: args.name.clone(),
        label: (COMPONENT_LABEL, COMPONENT_GATEWAY),
        annotation: (ADVERTISE_ANNOTATION, args.advertise.clone()),
        field_manager: GATEWAY,
        duration_seconds: GATEWAY_LEASE_SECONDS,
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

/// Serves until told to stop; then no new streams, then the end of those that are there, then of their connections.
async fn serve(
    incoming: mpsc::Receiver<io::Result<PeerStream>>,
    enroller: Enroller,
    stop: CancellationToken,
    readiness: Readiness,
    ended: CancellationToken,
) -> anyhow::Result<()> {
    let _ended = ended.drop_guard();
    let drained = CancellationToken::new();
    let stopping = async {
        stop.cancelled().await;
        readiness.set(false);
        drained.cancel();
    };
    let serving = pin!(
        server::new()
            .add_service(enroller.service())
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stopping)
    );
    tokio::select! {
        served = serving => served.context("serve the device port"),
        () = async {
            drained.cancelled().await;
            sleep(CLOSE_TIME).await;
        } => Ok(()),
    }
}
