//! The console on a port of its own: what it gets of the gateway, and nothing more.
//!
//! It watches and reviews tokens with the gateway's account; all else that it asks the API server for goes out with the
//! token of who asked.

use std::path::PathBuf;

use anyhow::Context as _;
use console::{
    Console, Parts,
    args::ConsoleArgs,
    caller::own::without_credentials,
    http::router,
    metrics::Metrics,
    serve::Server,
    session::keys::{self, Keys},
};
use pairing::crypto;
use prometheus_client::registry::Registry;
use runtime::shutdown::Tasks;
use rustls::{
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use crate::{
    artefact::Artefacts,
    mounted::{Current, Mounted},
    pem::certificates,
};

const TLS_FILES: &[&str] = &["tls.crt", "tls.key"];

/// What the gateway has anyway.
pub struct Gateway<'a> {
    pub config: &'a kube::Config,
    pub client: kube::Client,
    pub namespace: String,
    /// Where the certificate is, unless the console has one of its own.
    pub tls_dir: PathBuf,
    pub artefacts: Option<&'a Artefacts>,
}

/// Starts it, where there is to be one. A port that is in use fails the start.
///
/// # Errors
/// When it cannot be started.
pub async fn start(
    args: &ConsoleArgs,
    gateway: Gateway<'_>,
    tasks: &Tasks,
    registry: &mut Registry,
) -> anyhow::Result<()> {
    let Some(address) = args.console_address else {
        return Ok(());
    };
    let tls_dir = args.console_tls_dir.clone().unwrap_or(gateway.tls_dir);
    let certificate = Mounted::new(tls_dir, TLS_FILES, certified);
    let presented = certificate.current();
    let metrics = Metrics::register(registry);
    let parts = Parts {
        client: gateway.client,
        without_credentials: without_credentials(gateway.config)
            .context("make a client without credentials")?,
        namespace: gateway.namespace,
        keys: keys(args, tasks),
        artefacts: gateway.artefacts.map(Artefacts::objects),
        limits: args.limits(),
        metrics: metrics.clone(),
    };
    let console = Console::start(parts, tasks);
    let limits = args.connection_limits();
    let server = Server::bind(address, presented, router(console), limits, metrics).await?;
    tasks.spawn_essential("console certificate", certificate.follow(tasks.token()));
    tasks.spawn_essential("console", server.run(tasks.clone()));
    tracing::info!(%address, "Serving the console");
    Ok(())
}

/// The keys of sessions. Without a folder there are none, and never will be.
fn keys(args: &ConsoleArgs, tasks: &Tasks) -> Current<Keys> {
    let Some(folder) = args.console_keys_dir.clone() else {
        return watch::channel(None).1;
    };
    let mounted =
        Mounted::new(folder, keys::FILES, Keys::parse).with_optional(keys::OPTIONAL_FILES);
    let current = mounted.current();
    tasks.spawn_essential("console keys", mounted.follow(tasks.token()));
    current
}

fn certified(files: &[Vec<u8>]) -> anyhow::Result<CertifiedKey> {
    let [chain, key] = files else {
        anyhow::bail!("expected {TLS_FILES:?}");
    };
    let chain = certificates(chain).context("read tls.crt")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("read tls.key")?;
    // Checks that the key is that of the certificate.
    CertifiedKey::from_der(chain, key, &crypto()).context("use tls.crt with tls.key")
}
