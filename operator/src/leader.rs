//! What the leader does: it sees to its authority, then runs the loops, until its term ends.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, Client, Config, api::PostParams};
use pairing::opaque::Setup;
use runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    authority::{Authority, store::Store},
    console_keys,
    context::now,
    loops,
    metrics::Metrics,
    report::Report,
};

/// How long one try may take, to begin or to renew. An API server that hangs must not keep a leader from leading.
const TRY: Duration = Duration::from_secs(30);
/// How long the leader waits before it tries to begin again.
const RETRY: Duration = Duration::from_secs(2);
/// How long it waits before it tries again to renew the gateways' certificate, of which ten days are left, or the keys of
/// the console.
const RENEWAL_RETRY: Duration = Duration::from_mins(1);

/// What it takes to lead.
pub struct Leader {
    pub app: App,
    pub client: Client,
    /// How the API server is reached, for a client that speaks as another account.
    pub config: Config,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

/// What the loops need and only the leader has.
pub struct Begun {
    pub authority: Arc<Authority>,
    pub setup: Setup,
    pub user: Option<String>,
}

impl Leader {
    /// Another one leads: there is nothing to do, and all is well.
    pub fn stand_by(&self) {
        self.metrics.lead(false);
        self.readiness.set(true);
    }

    /// Leads until the term ends. Fails where it takes a person: an authority that is damaged, for example.
    pub async fn lead(&self, term: CancellationToken) -> anyhow::Result<()> {
        self.readiness.set(false);
        self.metrics.lead(true);
        let begun = tokio::select! {
            () = term.cancelled() => return Ok(()),
            begun = self.begin() => begun?,
        };
        let (begun, renew_at) = begun;
        let authority = Arc::clone(&begun.authority);
        futures::join!(
            loops::run(self, begun, term.clone()),
            term.run_until_cancelled(self.renew(&authority, renew_at)),
            term.run_until_cancelled(self.keep_console_keys()),
        );
        Ok(())
    }

    /// Sees to all that the loops need. Tries again while the API server does not answer or refuses.
    async fn begin(&self) -> anyhow::Result<(Begun, Timestamp)> {
        loop {
            match in_time(self.try_begin()).await {
                Ok(begun) => return Ok(begun),
                Err(error) if is_of_the_api_server(&error) => {
                    tracing::warn!(
                        error = error.as_ref() as &dyn std::error::Error,
                        "Beginning to lead failed"
                    );
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_begin(&self) -> anyhow::Result<(Begun, Timestamp)> {
        let store = self.store();
        let authority = store.authority(&self.app.trust_domain, now()).await?;
        store.publish(&authority).await?;
        let setup = store.setup().await?;
        let renew_at = self.gateway_certificate(&authority).await?;
        let user = Api::<SelfSubjectReview>::all(self.client.clone())
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await
            .context("ask the API server who this process is")?;
        let user = user
            .status
            .and_then(|status| status.user_info)
            .and_then(|user| user.username);
        Ok((
            Begun {
                authority: Arc::new(authority),
                setup,
                user,
            },
            renew_at,
        ))
    }

    /// Renews the gateways' certificate whenever its time has come.
    async fn renew(&self, authority: &Authority, mut renew_at: Timestamp) {
        loop {
            let left = renew_at.duration_since(now());
            if left.is_positive() {
                tokio::time::sleep(left.unsigned_abs()).await;
            }
            match in_time(self.gateway_certificate(authority)).await {
                Ok(next) => renew_at = next,
                Err(error) => {
                    tracing::error!(
                        error = error.as_ref() as &dyn std::error::Error,
                        "Renewing the gateways' certificate failed"
                    );
                    tokio::time::sleep(RENEWAL_RETRY).await;
                }
            }
        }
    }

    /// Makes the console's keys, and rotates them whenever their time has come. What devices need does not wait for them.
    async fn keep_console_keys(&self) {
        let (store, report) = (self.store(), self.report());
        loop {
            let left = match in_time(console_keys::keep(&store, &report, now())).await {
                Ok(next) => next
                    .duration_since(now())
                    .max(SignedDuration::from_secs(1))
                    .unsigned_abs(),
                Err(error) => {
                    tracing::error!(
                        error = error.as_ref() as &dyn std::error::Error,
                        "Keeping the console's keys failed"
                    );
                    RENEWAL_RETRY
                }
            };
            tokio::time::sleep(left).await;
        }
    }

    async fn gateway_certificate(&self, authority: &Authority) -> anyhow::Result<Timestamp> {
        let (renew_at, issued) = self
            .store()
            .gateway_certificate(authority, &self.app.gateway_dns_names, now())
            .await?;
        if issued {
            self.metrics.certificate("gateway");
            tracing::info!(%renew_at, "Issued the gateways' certificate");
        }
        Ok(renew_at)
    }

    pub(crate) fn report(&self) -> Report {
        Report::new(self.client.clone(), &self.app.name, self.metrics.clone())
    }

    fn store(&self) -> Store {
        Store {
            client: self.client.clone(),
            namespace: self.app.namespace.clone(),
        }
    }
}

/// One try, given up when its time is over.
async fn in_time<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(TRY, work)
        .await
        .context("wait for the API server")?
}

/// Whether it may pass, or somebody may make it pass while we wait.
fn is_of_the_api_server(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.is::<kube::Error>() || cause.is::<tokio::time::error::Elapsed>())
}

#[cfg(test)]
mod tests {
    use crds::names;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::pretended::Server;

    /// What the programs mount and read is there once a leader has begun.
    #[tokio::test]
    async fn a_leader_begins_with_all_that_others_need_of_it() {
        let server = Server::default();
        let leader = Leader {
            app: App {
                namespace: "system".to_owned(),
                trust_domain: "test.example".to_owned(),
                gateway_address: "gateway.example:7443".to_owned(),
                gateway_dns_names: Vec::new(),
                name: "operator-0".to_owned(),
            },
            client: server.client(),
            config: Config::new(http::Uri::from_static("http://localhost")),
            metrics: Metrics::register(&mut Registry::default()),
            readiness: Readiness::default(),
        };
        let (begun, _) = leader.try_begin().await.unwrap();
        assert_eq!(begun.user.as_deref(), Some("operator"));
        for secret in [
            names::CA_SECRET,
            names::PAIRING_SETUP_SECRET,
            names::GATEWAY_TLS_SECRET,
        ] {
            assert!(
                server.get(&format!("secrets/{secret}")).is_some(),
                "{secret}"
            );
        }
        let bundle = server.get(&format!("configmaps/{}", names::TRUST_BUNDLE));
        let bundle = bundle.expect("the bundle is published");
        assert_eq!(bundle["data"]["ca.crt"], begun.authority.certificate());

        let keys = format!("secrets/{}", names::CONSOLE_KEYS_SECRET);
        let kept = async {
            while server.get(&keys).is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = leader.keep_console_keys() => unreachable!("it never ends"),
            made = tokio::time::timeout(TRY, kept) => made.unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_hangs_is_given_up_and_made_again() {
        let hangs = std::future::pending::<anyhow::Result<()>>();
        let tried = tokio::time::timeout(TRY * 2, in_time(hangs)).await.unwrap();
        assert!(is_of_the_api_server(&tried.unwrap_err()));
        let damaged = in_time(std::future::ready(Err::<(), _>(anyhow::anyhow!("damaged"))));
        assert!(!is_of_the_api_server(&damaged.await.unwrap_err()));
    }
}
