//! What the leader does: it sees to its authority, then runs the loops, until its term ends.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, Client, Config, api::PostParams};
use pairing::{bundle::SignedBundle, opaque::Setup};
use runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    authority::{
        Authority,
        gateway_certificate::Wanted,
        keeper::{self, Complaints, Keeper},
        plan::Refusal,
        store::Store,
    },
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
/// How long the leader waits before it looks again whether the authority's Secret was restored.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long it waits before it tries again to keep the keys of the console.
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
    /// As it was published.
    pub signed_bundle: SignedBundle,
    pub setup: Arc<Setup>,
    pub user: Option<String>,
}

impl Leader {
    /// Another one leads: there is nothing to do, and all is well.
    pub fn stand_by(&self) {
        self.metrics.lead(false);
        self.readiness.set(true);
    }

    /// Leads until the term ends. Fails where it takes a person: a pairing setup that is damaged, for example. While the
    /// authority is missing or another one, the leader signs nothing, is not ready, and looks again.
    pub async fn lead(&self, term: CancellationToken) -> anyhow::Result<()> {
        self.readiness.set(false);
        self.metrics.lead(true);
        let begun = tokio::select! {
            () = term.cancelled() => return Ok(()),
            begun = self.begin() => begun?,
        };
        let keeper = Keeper::of(self, &begun);
        futures::join!(
            loops::run(self, begun, term.clone()),
            term.run_until_cancelled(keeper.run()),
            term.run_until_cancelled(self.keep_console_keys()),
        );
        Ok(())
    }

    /// Sees to all that the loops need. Tries again while the API server does not answer or refuses.
    async fn begin(&self) -> anyhow::Result<Begun> {
        let mut complaints = Complaints::of(self);
        loop {
            match in_time(self.try_begin()).await {
                Ok(Ok(begun)) => {
                    complaints.end();
                    return Ok(begun);
                }
                Ok(Err(refusal)) => {
                    complaints.tell(&refusal).await;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
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

    async fn try_begin(&self) -> anyhow::Result<Result<Begun, Refusal>> {
        let (store, app) = (self.store(), &self.app);
        let found = store
            .find_authority(&app.trust_domain, app.replaced, now())
            .await?;
        let authority = match found {
            Ok(authority) => Arc::new(authority),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let signed_bundle = store.publish(&authority, None, now()).await?;
        let (setup, is_new) = store.setup().await?;
        if is_new && store.has_live_codes().await? {
            keeper::say_setup_replaced(&self.report(), &store).await;
        }
        self.gateway_certificate(&authority).await?;
        let user = Api::<SelfSubjectReview>::all(self.client.clone())
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await
            .context("ask the API server who this process is")?;
        let user = user
            .status
            .and_then(|status| status.user_info)
            .and_then(|user| user.username);
        Ok(Ok(Begun {
            authority,
            signed_bundle,
            setup: Arc::new(setup),
            user,
        }))
    }

    /// Makes the console's keys, and rotates them whenever their time has come. What devices need does not wait for them.
    async fn keep_console_keys(&self) {
        let (store, report) = (self.store(), self.report());
        loop {
            let left = match in_time(console_keys::keep(&store, &report, now())).await {
                Ok(next) => next
                    .duration_since(now())
                    .max(SignedDuration::from_secs(1))
                    .unsigned_abs()
                    // Somebody may delete them meanwhile, and a gateway that starts without them has no console.
                    .min(keeper::LOOK),
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

    /// Sees to the gateways' certificate; returns when to come back.
    pub(crate) async fn gateway_certificate(
        &self,
        authority: &Authority,
    ) -> anyhow::Result<Timestamp> {
        let wanted = Wanted {
            authority,
            dns_names: &self.app.gateway_dns_names,
            ttl: self.app.gateway_certificate_ttl,
        };
        let (renew_at, issued) = self.store().gateway_certificate(wanted, now()).await?;
        if issued {
            self.metrics.certificate("gateway");
            tracing::info!(%renew_at, "Issued the gateways' certificate");
        }
        Ok(renew_at)
    }

    pub(crate) fn report(&self) -> Report {
        Report::new(self.client.clone(), &self.app.name, self.metrics.clone())
    }

    pub(crate) fn store(&self) -> Store {
        Store {
            client: self.client.clone(),
            namespace: self.app.namespace.clone(),
        }
    }
}

/// One try, given up when its time is over.
pub(crate) async fn in_time<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
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

    fn leader(server: &Server) -> Leader {
        Leader {
            app: App {
                namespace: "system".to_owned(),
                trust_domain: "test.example".to_owned(),
                gateway_address: "gateway.example:7443".to_owned(),
                gateway_dns_names: Vec::new(),
                gateway_certificate_ttl: SignedDuration::from_hours(7 * 24),
                replaced: None,
                name: "operator-0".to_owned(),
            },
            client: server.client(),
            config: Config::new(http::Uri::from_static("http://localhost")),
            metrics: Metrics::register(&mut Registry::default()),
            readiness: Readiness::default(),
        }
    }

    /// What the programs mount and read is there once a leader has begun.
    #[tokio::test]
    async fn a_leader_begins_with_all_that_others_need_of_it() {
        let server = Server::default();
        let leader = leader(&server);
        let begun = leader.try_begin().await.unwrap().unwrap();
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
    async fn a_leader_whose_authority_was_deleted_changes_nothing_says_so_and_begins_once_it_is_back()
     {
        let server = Server::default();
        leader(&server).begin().await.unwrap();
        let secret = format!("secrets/{}", names::CA_SECRET);
        let kept = server.get(&secret).unwrap();
        server.remove(&secret);
        let others = [
            format!("configmaps/{}", names::TRUST_BUNDLE),
            format!("secrets/{}", names::GATEWAY_TLS_SECRET),
        ];
        let before = others.clone().map(|other| server.get(&other));

        let mut registry = Registry::default();
        let leader = Leader {
            metrics: Metrics::register(&mut registry),
            ..leader(&server)
        };
        let refused = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text.contains("\nauthority_refused 1\n")
        };
        let restored = async {
            while server.events().is_empty() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            assert_eq!(server.events(), ["AuthorityMissing"]);
            assert!(refused(&registry));
            assert!(server.get(&secret).is_none());
            assert_eq!(others.clone().map(|other| server.get(&other)), before);
            server.put(&secret, kept);
        };
        let both = async { tokio::join!(leader.begin(), restored) };
        let (begun, ()) = tokio::time::timeout(TRY * 4, both).await.unwrap();
        begun.unwrap();
        assert!(!refused(&registry));
        assert_eq!(others.clone().map(|other| server.get(&other)), before);
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
