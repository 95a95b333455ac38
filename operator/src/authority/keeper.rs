//! Looks after the authority while the operator leads: its Secret, the published bundle, the gateways' certificate.
//!
//! Each is looked at twice a minute, since each can be deleted or changed by anybody who may. The operator goes on signing
//! with the authority that it began with: gateways and devices know that one, and only that one.

use std::{sync::Arc, time::Duration};

use crds::names;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use pairing::{bundle::SignedBundle, opaque::Setup};
use tokio::time::Instant;

use super::{Authority, Kept, plan::Refusal, store::Store};
use crate::{
    context::now,
    leader::{Begun, Leader, in_time},
    report::{Note, Report},
};

/// How often it is looked whether all still stands.
pub const LOOK: Duration = Duration::from_secs(30);
/// How often a refusal that lasts is told again.
const TELL_AGAIN: Duration = Duration::from_mins(10);

/// Looks after the authority.
pub struct Keeper<'a> {
    leader: &'a Leader,
    authority: Arc<Authority>,
    signed_bundle: SignedBundle,
    setup: Arc<Setup>,
}

impl<'a> Keeper<'a> {
    pub fn of(leader: &'a Leader, begun: &Begun) -> Self {
        Self {
            leader,
            authority: Arc::clone(&begun.authority),
            signed_bundle: begun.signed_bundle.clone(),
            setup: Arc::clone(&begun.setup),
        }
    }

    /// Never ends by itself.
    pub async fn run(self) {
        let mut complaints = Complaints::of(self.leader);
        let mut left = LOOK;
        loop {
            tokio::time::sleep(left).await;
            left = LOOK.min(self.look(&mut complaints).await);
        }
    }

    /// Looks at each by itself: what fails with one keeps none of the others waiting. Returns when the gateways'
    /// certificate is due.
    async fn look(&self, complaints: &mut Complaints<'_>) -> Duration {
        let (store, authority) = (self.leader.store(), &*self.authority);
        match log(in_time(store.keep_authority(authority)).await) {
            Some(Ok(Kept::Stands)) => complaints.end(),
            Some(Ok(Kept::WrittenBack)) => complaints.written_back().await,
            Some(Err(refusal)) => complaints.tell(&refusal).await,
            None => {}
        }
        log(in_time(store.publish(authority, Some(&self.signed_bundle), now())).await);
        if log(in_time(store.keep_setup(&self.setup)).await) == Some(true) {
            tracing::warn!("The pairing setup was deleted, and was written back");
        }
        let due = log(in_time(self.leader.gateway_certificate(authority)).await);
        due.map_or(LOOK, |due| {
            let left = due.duration_since(now());
            left.max(SignedDuration::from_secs(1)).unsigned_abs()
        })
    }
}

/// What is there, where it is; what failed is logged.
fn log<T>(looked: anyhow::Result<T>) -> Option<T> {
    looked
        .inspect_err(|error| {
            tracing::error!(
                error = error.as_ref() as &dyn std::error::Error,
                "Looking after the authority failed"
            );
        })
        .ok()
}

/// Tells that codes which were drawn before cannot be proved any more.
pub async fn say_setup_replaced(report: &Report, store: &Store) {
    let secret = store.secret(names::PAIRING_SETUP_SECRET, [].into());
    let message = "the Secret was missing, and another one was made: pairing codes that were drawn before cannot be proved; \
                   delete them and make new ones";
    let note = Note::warning("PairingSetupReplaced", "MakingSetup", message);
    report.tell(&secret, &[note]).await;
}

/// Tells a refusal: in the log, as an Event on the Secret, in the metric; again when it is another one, and now and then
/// while it lasts.
pub struct Complaints<'a> {
    leader: &'a Leader,
    report: Report,
    last: Option<(Refusal, Instant)>,
}

impl<'a> Complaints<'a> {
    pub fn of(leader: &'a Leader) -> Self {
        Self {
            leader,
            report: leader.report(),
            last: None,
        }
    }

    pub async fn tell(&mut self, refusal: &Refusal) {
        self.leader.metrics.refuse_authority(true);
        let is_told = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| last == refusal && at.elapsed() < TELL_AGAIN);
        if is_told {
            return;
        }
        tracing::error!(
            namespace = self.leader.app.namespace,
            reason = refusal.reason(),
            error = refusal as &dyn std::error::Error,
            "The authority cannot be used"
        );
        self.last = Some((refusal.clone(), Instant::now()));
        self.event(refusal.reason(), refusal.to_string()).await;
    }

    /// All is well.
    pub fn end(&mut self) {
        self.leader.metrics.refuse_authority(false);
        if self.last.take().is_some() {
            tracing::info!("The authority can be used again");
        }
    }

    async fn written_back(&mut self) {
        let message = format!(
            "the Secret {} was deleted while the operator used it, and was written back from memory: back it up; to give \
             the authority up, stop the operator first (docs/authority.md)",
            names::CA_SECRET
        );
        tracing::error!(
            namespace = self.leader.app.namespace,
            error = message,
            "The authority was deleted"
        );
        self.event("AuthorityWrittenBack", message).await;
        self.end();
    }

    /// On the Secret, which may be missing.
    async fn event(&self, reason: &'static str, message: String) {
        let secret: Secret = self.leader.store().secret(names::CA_SECRET, [].into());
        let note = Note::warning(reason, "KeepingAuthority", message);
        self.report.tell(&secret, &[note]).await;
    }
}
