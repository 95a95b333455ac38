//! Which of several operators reconciles: the one that holds the Lease. The others stand by.
//!
//! The Lease keeps two operators from doing the same work, not from doing harm: a process that is paused at the wrong
//! moment cannot know that it was replaced. What must happen once is guarded where it is written, by a precondition or
//! by the name of the object.
//!
//! [`plan`] decides when a candidate takes the Lease. Every write is onto the version that was read, so of several
//! candidates one gets it. A leader whose Lease was deleted, or taken by somebody who is not an operator, writes it again:
//! no other operator leads meanwhile.

mod plan;

use std::time::Duration;

use crds::names;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use rand_core::{OsRng, RngCore as _};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::plan::{Fault, Seen, Step};
use crate::{
    context::now,
    leader::Leader,
    report::{Note, Report},
};

/// How long the Lease is valid after a renewal, in seconds.
const DURATION_SECONDS: i32 = 15;
/// How often a leader renews it.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How long after its last renewal a leader leads at most. Shorter than the Lease: another one may lead after that.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often a candidate looks at the Lease of another one.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long an operator waits between tries that failed.
const RETRY: Duration = Duration::from_secs(1);
/// After this, an operator that did not become the leader stands by.
const STANDBY_AFTER: Duration = Duration::from_secs(2);
/// How long an event about the Lease may take: renewals wait for it.
const TELL: Duration = Duration::from_secs(2);

/// A candidate.
pub struct Election {
    /// With timeouts that are shorter than the Lease's life.
    pub client: Client,
    pub namespace: String,
    /// Unique among the replicas; see [`names::operator_identity`].
    pub identity: String,
    /// Writes with the same client.
    pub report: Report,
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
        let mut candidate = Candidate::new(&self);
        loop {
            let elected = candidate.campaign(|| {
                tracing::info!(identity = self.identity, "Standing by");
                leader.stand_by();
            });
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = elected => {}
            }
            tracing::info!(identity = self.identity, "Leading");
            let ended = Box::pin(self.lead(&mut candidate, leader, &stop)).await;
            candidate.release().await;
            match ended? {
                Ended::Stopped => return Ok(()),
                Ended::Lost => {
                    tracing::warn!(identity = self.identity, "Standing by: the lease was lost");
                }
            }
        }
    }

    async fn lead(
        &self,
        candidate: &mut Candidate<'_>,
        leader: &Leader,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let term = stop.child_token();
        let mut leading = std::pin::pin!(leader.lead(term.clone()));
        let ended = tokio::select! {
            led = &mut leading => return led.map(|()| Ended::Stopped),
            () = stop.cancelled() => Ended::Stopped,
            () = candidate.keep() => Ended::Lost,
        };
        leader.stand_by();
        term.cancel();
        leading.await?;
        Ok(ended)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Reports a fault of the Lease: to the log, as an Event about it, and as a count.
    async fn tell(&self, fault: &Fault) {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(names::OPERATOR_LEASE.to_owned()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        let note = Note::warning(fault.reason(), "Electing", fault.message());
        let told = self.report.tell(&lease, std::slice::from_ref(&note));
        // Logged and counted first; an Event that hangs is given up.
        let _ = timeout(TELL, told).await;
    }
}

/// One process in the election, with what it knows of the Lease.
struct Candidate<'a> {
    election: &'a Election,
    seen: Seen,
    /// The Lease as it was read or written last.
    lease: Option<Lease>,
    began: Instant,
    /// When the last write that succeeded was begun.
    renewed: Instant,
}

impl<'a> Candidate<'a> {
    fn new(election: &'a Election) -> Self {
        Self {
            election,
            seen: Seen::default(),
            lease: None,
            began: Instant::now(),
            renewed: Instant::now(),
        }
    }

    /// Returns when this process holds the Lease. Says once that it stands by, when it has seen the Lease and not got it
    /// for a while.
    async fn campaign(&mut self, stands_by: impl Fn()) {
        let began = Instant::now();
        let mut looked = false;
        let mut said = false;
        loop {
            let pause = match self.try_to_win().await {
                Ok(None) => return,
                Ok(Some(pause)) => {
                    looked = true;
                    pause
                }
                Err(error) => {
                    // Of several that write at once, one succeeds.
                    if !is_conflict(&error) {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "Campaigning failed"
                        );
                    }
                    RETRY
                }
            };
            if looked && !said && began.elapsed() >= STANDBY_AFTER {
                said = true;
                stands_by();
            }
            sleep(pause).await;
        }
    }

    /// One look, and a write where the Lease is free. Returns how long to wait until the next look, or nothing where this
    /// process holds it now.
    async fn try_to_win(&mut self) -> kube::Result<Option<Duration>> {
        self.look().await?;
        let now = self.began.elapsed();
        match self.seen.next(&self.election.identity, now) {
            Step::Create | Step::Take => {
                self.write().await?;
                Ok(None)
            }
            Step::Wait { until } => Ok(Some(until.saturating_sub(now).min(LOOK_EVERY))),
        }
    }

    /// Renews until another operator holds the Lease, or may.
    async fn keep(&mut self) {
        let mut pause = RENEW_EVERY;
        loop {
            let until = self.renewed + RENEW_WITHIN;
            if timeout_at(until, sleep(pause)).await.is_err() {
                return;
            }
            pause = match timeout_at(until, self.renew()).await {
                Err(_) | Ok(Ok(Kept::No)) => return,
                Ok(Ok(Kept::Yes)) => RENEW_EVERY,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "Renewing the lease failed"
                    );
                    RETRY
                }
            };
        }
    }

    /// Writes onto the version that was written last; where somebody else wrote meanwhile, looks who.
    async fn renew(&mut self) -> kube::Result<Kept> {
        match self.write().await {
            Ok(()) => return Ok(Kept::Yes),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
        self.look().await?;
        if let Some(holder) = self.seen.other_operator(&self.election.identity) {
            tracing::warn!(holder, "Another operator holds the lease");
            return Ok(Kept::No);
        }
        self.write().await?;
        Ok(Kept::Yes)
    }

    async fn look(&mut self) -> kube::Result<()> {
        let leases = self.election.leases();
        self.lease = leases.get_opt(names::OPERATOR_LEASE).await?;
        let fault = self
            .seen
            .read(self.lease.as_ref(), self.began.elapsed(), now());
        if let Some(fault) = fault {
            self.election.tell(&fault).await;
        }
        Ok(())
    }

    /// Takes or renews the Lease, onto the version that is known.
    async fn write(&mut self) -> kube::Result<()> {
        let begun = Instant::now();
        let wanted = held(
            self.lease.as_ref(),
            &self.election.identity,
            &self.election.namespace,
            now(),
        );
        self.put(wanted).await?;
        self.renewed = begun;
        Ok(())
    }

    async fn put(&mut self, wanted: Lease) -> kube::Result<()> {
        let leases = self.election.leases();
        let params = PostParams {
            field_manager: Some(names::OPERATOR.to_owned()),
            ..PostParams::default()
        };
        let written = if wanted.resource_version().is_none() {
            leases.create(&params, &wanted).await?
        } else {
            leases
                .replace(names::OPERATOR_LEASE, &params, &wanted)
                .await?
        };
        self.seen.read(Some(&written), self.began.elapsed(), now());
        self.lease = Some(written);
        Ok(())
    }

    /// Lets the next one lead without waiting. Does nothing where this process does not hold the Lease.
    async fn release(&mut self) {
        let Some(mut lease) = self.lease.clone() else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.election.identity) {
            return;
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.put(lease).await
            && !is_conflict(&error)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "Releasing the lease failed"
            );
        }
    }
}

/// Whether a leader still leads.
enum Kept {
    Yes,
    No,
}

/// The Lease, held by that operator from now on. `known`: as it was read.
fn held(known: Option<&Lease>, identity: &str, namespace: &str, now: Timestamp) -> Lease {
    let before = known
        .and_then(|lease| lease.spec.clone())
        .unwrap_or_default();
    let goes_on = before.holder_identity.as_deref() == Some(identity);
    let transitions = before.lease_transitions.unwrap_or(0);
    let spec = LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        renew_time: Some(MicroTime(now)),
        acquire_time: before
            .acquire_time
            .filter(|_| goes_on)
            .or(Some(MicroTime(now))),
        lease_transitions: Some(if goes_on {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        // Not ours to use: who sets them asks the API server to elect.
        preferred_holder: None,
        strategy: None,
    };
    Lease {
        // Labels, owners and finalizers of somebody else do not stay: a label may be what lets them write again.
        metadata: ObjectMeta {
            name: Some(names::OPERATOR_LEASE.to_owned()),
            namespace: Some(namespace.to_owned()),
            resource_version: known.and_then(|lease| lease.metadata.resource_version.clone()),
            // An update of a Lease that is absent makes it, unless it names the one that it is about.
            uid: known.and_then(|lease| lease.metadata.uid.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    }
}

/// Whether somebody else wrote, made or deleted the Lease since it was read.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

/// A name for a process that was given none.
pub fn draw_name() -> String {
    let mut bytes = [0; 4];
    OsRng.fill_bytes(&mut bytes);
    names::operator_identity(&hex::encode(bytes))
}

#[cfg(test)]
mod tests;
