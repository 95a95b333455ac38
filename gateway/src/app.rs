//! Starts everything in order, and stops it in order. The only file that starts long tasks.

use std::time::Duration;

use anyhow::Context as _;
use crds::names::{
    ADVERTISE_ANNOTATION, COMPONENT_GATEWAY, COMPONENT_LABEL, GATEWAY, GATEWAY_LEASE_SECONDS,
    PAIRING_SETUP_KEY,
};
use pairing::opaque::Setup;
use prometheus_client::registry::Registry;
use runtime::{admin::Readiness, lease::OwnLease, shutdown::Supervisor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    args::Args,
    listener::Listener,
    metrics::Metrics,
    mounted::{self, Mounted},
    server, tls,
};

/// How long connections may take to close once every stream has ended.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// Runs until a signal comes or an essential task fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // 1. Logs.
    args.log.init()?;

    // 2. Tasks and metrics.
    let supervisor = Supervisor::new();
    let tasks = supervisor.tasks();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();

    // 3. The API server.
    let client = kube::Client::try_default()
        .await
        .context("find the API server")?;

    // 4. Mounted files.
    let material = Mounted::new(args.tls_dir.clone(), tls::FILES, tls::Material::parse);
    let setup = Mounted::new(
        args.pairing_setup_dir.clone(),
        &[PAIRING_SETUP_KEY],
        |files| Ok(Setup::from_bytes(&files[0])?),
    );
    let (mut tls_loaded, mut setup_loaded) = (material.current(), setup.current());
    let tls = tls::server(&tls_loaded, &args.trust_domain).context("prepare TLS")?;

    // 5. Ports: one that is in use fails the start.
    let listener = Listener::bind(args.device_address, tls, args.limits(), metrics)
        .await
        .with_context(|| format!("bind --device-address {}", args.device_address))?;
    // Told when the last stream has ended: until then we are alive, and say that we are not ready.
    let ended = CancellationToken::new();
    let admin = args
        .admin
        .bind(registry, readiness.clone(), ended.clone())
        .await?;

    // 6. Tasks.
    tasks.spawn_essential("admin port", admin);
    tasks.spawn_essential("tls files", material.follow(tasks.token()));
    tasks.spawn_essential("pairing setup file", setup.follow(tasks.token()));
    let lease = OwnLease {
        namespace: args.namespace.clone(),
        name: args.name.clone(),
        label: (COMPONENT_LABEL, COMPONENT_GATEWAY),
        annotation: (ADVERTISE_ANNOTATION, args.advertise.clone()),
        field_manager: GATEWAY,
        duration_seconds: GATEWAY_LEASE_SECONDS,
    };
    tasks.spawn_essential("lease", lease.keep(client, ended.clone()));

    let (accepted, incoming) = mpsc::channel(1);
    let stop = tasks.token();
    let stopping = {
        let (stop, readiness) = (stop.clone(), readiness.clone());
        async move {
            stop.cancelled().await;
            readiness.set(false);
        }
    };
    tasks.spawn_essential("accept", {
        let tasks = tasks.clone();
        async move {
            let stop = tasks.token();
            tokio::select! {
                loaded = mounted::loaded(&mut tls_loaded) => loaded?,
                () = stop.cancelled() => return Ok(()),
            }
            listener.accept(tasks, accepted).await
        }
    });
    drop((
        incoming,
        stopping,
        server::new(),
        CLOSE_TIME,
        &mut setup_loaded,
        ReceiverStream::<()>::new,
    ));

    // 7. Until the end.
    supervisor
        .wait(Duration::from_secs(args.stop_seconds))
        .await
}
