//! Which of several operators reconciles: the one that holds the Lease. The others stand by.
//!
//! The Lease keeps two operators from doing the same work, not from doing harm: a process that is paused at the wrong
//! moment cannot know that it was replaced. What must happen once is guarded where it is written, by a precondition or
//! by the name of the object.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context as _;
use crds::names;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use rand_core::{OsRng, RngCore as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::leader::Leader;

/// How long the Lease is valid after a renewal, in seconds.
const DURATION_SECONDS: u64 = 15;
/// How long before its end it is renewed, in seconds; for so long a leader tries before it gives up.
const MARGIN_SECONDS: u64 = 5;
/// How long an operator waits between tries that failed.
const RETRY: Duration = Duration::from_secs(1);
/// After this, an operator that did not become the leader stands by.
const STANDBY_AFTER: Duration = Duration::from_secs(2);
/// Two that wait for a dead leader's Lease may overwrite each other for this long; who is the leader is settled then.
const SETTLE: Duration = Duration::from_millis(1500);

/// A candidate.
#[derive(Clone)]
pub struct Election {
    /// With timeouts that are shorter than the Lease's life.
    pub client: Client,
    pub namespace: String,
    /// Unique among the replicas.
    pub identity: String,
}

/// Why a term ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    /// The process stops.
    Stopped,
    /// Another one leads, or may.
    Lost,
}

impl Election {
    /// Leads whenever elected, until told to stop. A term that ends in another way is the end of the process.
    pub async fn run(self, leader: &Leader, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let elected = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                elected = self.elected(leader) => elected,
            };
            tracing::info!(identity = self.identity, "Leading");
            let ended = Box::pin(self.lead(&elected, leader, &stop)).await;
            if let Err(error) = elected.release().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "Releasing the lease failed"
                );
            }
            match ended? {
                Ended::Stopped => return Ok(()),
                Ended::Lost => {
                    tracing::warn!(identity = self.identity, "Standing by: the lease was lost");
                }
            }
        }
    }

    /// Waits until this process holds the Lease.
    async fn elected(&self, leader: &Leader) -> LeaseManager {
        let mut standby = std::pin::pin!(tokio::time::sleep(STANDBY_AFTER));
        let campaigns = AtomicBool::new(false);
        let mut manager = None;
        loop {
            let tried = {
                let mut trying = std::pin::pin!(async {
                    let manager = match &manager {
                        Some(manager) => manager,
                        None => manager.insert(self.candidate().await?),
                    };
                    campaigns.store(true, Ordering::Relaxed);
                    let holds = manager.changed().await.context("wait for the lease")?;
                    anyhow::Ok(holds && self.holds_it_alone().await?)
                });
                loop {
                    tokio::select! {
                        tried = &mut trying => break tried,
                        // Whoever leads, this one is as ready as a standby can be. What is being tried goes on: it may
                        // know already that it holds the Lease, and is told so once.
                        () = &mut standby, if !standby.is_elapsed() => {
                            if campaigns.load(Ordering::Relaxed) {
                                tracing::info!(identity = self.identity, "Standing by");
                                leader.stand_by();
                            }
                        }
                    }
                }
            };
            match tried {
                Ok(true) => {
                    if let Some(manager) = manager {
                        return manager;
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        error = error.as_ref() as &dyn std::error::Error,
                        "Campaigning failed"
                    );
                    // What it believes may be wrong now: begin anew.
                    manager = None;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn candidate(&self) -> anyhow::Result<LeaseManager> {
        LeaseManagerBuilder::new(self.client.clone(), names::OPERATOR_LEASE)
            .with_namespace(&self.namespace)
            .with_identity(&self.identity)
            // Server-side apply tells candidates apart by it: two with one name would share the Lease.
            .with_field_manager(format!("{}-{}", names::OPERATOR, self.identity))
            .with_duration(DURATION_SECONDS)
            .with_grace(MARGIN_SECONDS)
            .build()
            .await
            .context("get or create the lease")
    }

    /// A free Lease is taken with a conflict check; that of a dead leader is freed by force, by every candidate that
    /// finds it. Looks again once that is over.
    async fn holds_it_alone(&self) -> anyhow::Result<bool> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = leases
            .get(names::OPERATOR_LEASE)
            .await
            .context("get the lease")?
            .spec
            .unwrap_or_default();
        if spec.lease_transitions.unwrap_or(0) <= 1 {
            return Ok(spec.holder_identity.as_ref() == Some(&self.identity));
        }
        tokio::time::sleep(SETTLE).await;
        let spec = leases
            .get(names::OPERATOR_LEASE)
            .await
            .context("get the lease")?
            .spec
            .unwrap_or_default();
        Ok(spec.holder_identity.as_ref() == Some(&self.identity))
    }

    async fn lead(
        &self,
        elected: &LeaseManager,
        leader: &Leader,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let term = stop.child_token();
        let mut leading = std::pin::pin!(leader.lead(term.clone()));
        let mut failures = Failures::default();
        let ended = loop {
            tokio::select! {
                led = &mut leading => return led.map(|()| Ended::Stopped),
                () = stop.cancelled() => break Ended::Stopped,
                changed = elected.changed() => match changed {
                    Ok(true) => {}
                    Ok(false) => break Ended::Lost,
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "Renewing the lease failed");
                        if failures.are_too_many(Instant::now()) {
                            break Ended::Lost;
                        }
                        tokio::select! {
                            led = &mut leading => return led.map(|()| Ended::Stopped),
                            () = tokio::time::sleep(RETRY) => {}
                        }
                    }
                },
            }
        };
        leader.stand_by();
        term.cancel();
        leading.await?;
        Ok(ended)
    }
}

/// Failed renewals in a row.
#[derive(Debug, Default)]
struct Failures {
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Failures {
    /// Whether renewals have failed for as long as the margin allows. Successes are not seen, so a long silence is one.
    fn are_too_many(&mut self, now: Instant) -> bool {
        let silence = Duration::from_secs(DURATION_SECONDS - MARGIN_SECONDS);
        if self
            .last
            .is_none_or(|last| now.duration_since(last) >= silence)
        {
            self.first = Some(now);
        }
        self.last = Some(now);
        self.first
            .is_some_and(|first| now.duration_since(first) >= Duration::from_secs(MARGIN_SECONDS))
    }
}

/// A name for a process that was given none.
pub fn draw_name() -> String {
    let mut bytes = [0; 4];
    OsRng.fill_bytes(&mut bytes);
    format!("{}-{}", names::OPERATOR, hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_leader_gives_up_when_renewals_fail_for_as_long_as_the_margin() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut failures = Failures::default();
        assert!(!failures.are_too_many(at(0)));
        assert!(!failures.are_too_many(at(4)));
        assert!(failures.are_too_many(at(5)));
    }

    #[tokio::test]
    async fn failures_that_lie_apart_do_not_add_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut failures = Failures::default();
        assert!(!failures.are_too_many(at(0)));
        assert!(!failures.are_too_many(at(10)));
        assert!(!failures.are_too_many(at(3600)));
    }
}
