//! What the process starts. The only file that spawns.

use std::time::Duration;

use anyhow::Context as _;
use crds::names;
use jiff::SignedDuration;
use kube::Client;
use prometheus_client::registry::Registry;
use runtime::{
    admin::{AdminArgs, Readiness},
    shutdown::Supervisor,
};

use crate::{
    authority::plan::Replaced, leader::Leader, lease::Election, metrics::Metrics, report::Report,
};

/// How long running reconciles may take to end when the process stops.
const GRACE: Duration = Duration::from_secs(20);
/// How long one request for the Lease may take. Shorter than the Lease's life: who cannot renew it must notice.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(4);

/// An operator, configured.
#[derive(Debug)]
pub struct App {
    pub namespace: String,
    pub trust_domain: String,
    /// `HOST:PORT`.
    pub gateway_address: String,
    pub gateway_dns_names: Vec<String>,
    /// Life of the gateways' certificate.
    pub gateway_certificate_ttl: SignedDuration,
    /// The authority that an administrator gives up.
    pub replaced: Option<Replaced>,
    /// Unique among the replicas.
    pub name: String,
}

impl App {
    /// Runs until told to stop.
    pub async fn run(self, admin: &AdminArgs) -> anyhow::Result<()> {
        // 1. Metrics.
        let mut registry = Registry::with_prefix("fairlead_operator");
        let metrics = Metrics::register(&mut registry);

        // 2. Clients. The election has its own: watches need patience, a Lease needs none.
        let config = runtime::kubeconfig::infer()?;
        let client = Client::try_from(config.clone()).context("connect to the Kubernetes API")?;
        let mut impatient = config.clone();
        impatient.connect_timeout = Some(ELECTION_TIMEOUT);
        impatient.read_timeout = Some(ELECTION_TIMEOUT);
        impatient.write_timeout = Some(ELECTION_TIMEOUT);
        let impatient = Client::try_from(impatient)
            .context("connect to the Kubernetes API for the election")?;
        let election = Election {
            client: impatient.clone(),
            namespace: self.namespace.clone(),
            identity: names::operator_identity(&self.name),
            report: Report::new(impatient, &self.name, metrics.clone()),
        };

        // 3. Tasks.
        let supervisor = Supervisor::new();
        let tasks = supervisor.tasks();
        let readiness = Readiness::default();
        let serve = admin
            .bind(registry, readiness.clone(), tasks.token())
            .await?;
        tasks.spawn_essential("the admin port", serve);
        let leader = Leader {
            app: self,
            client,
            config,
            metrics,
            readiness: readiness.clone(),
        };
        let stop = tasks.token();
        tasks.spawn_essential("the operator", async move {
            Box::pin(election.run(&leader, stop)).await
        });

        // 4. Until the end.
        let ended = supervisor.wait(GRACE).await;
        readiness.set(false);
        ended
    }
}
