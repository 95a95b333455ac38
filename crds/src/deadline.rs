//! Until when an invocation may run. The same rule in gateway and operator; devices are told the time that remains,
//! for their clocks are not trusted.

use jiff::{SignedDuration, Timestamp};

use crate::v1alpha1::{CapabilityInvocation, capability_invocation::WhenOffline};

/// How long an invocation waits for its device where `queueSeconds` is absent.
const DEFAULT_QUEUE_SECONDS: i64 = 3600;

/// How long after the deadline a result may still arrive before nobody waits for it: the device stops at the deadline,
/// and its answer needs a moment.
pub const ANSWER_SECONDS: i64 = 5;

/// The moment past which nothing is started, and what runs is stopped: the timeout after the wait for the device, and
/// after the dispatch where it was dispatched sooner. `None` where the object was not created by an API server.
pub fn of(invocation: &CapabilityInvocation) -> Option<Timestamp> {
    let created = invocation.metadata.creation_timestamp.as_ref()?.0;
    let spec = &invocation.spec;
    let wait = match spec.when_offline {
        WhenOffline::Fail => 0,
        WhenOffline::Queue => spec.queue_seconds.unwrap_or(DEFAULT_QUEUE_SECONDS),
    };
    let waited = created.checked_add(SignedDuration::from_secs(wait)).ok()?;
    let status = invocation.status.as_ref();
    let dispatched = status.and_then(|status| status.dispatched_at.as_ref());
    // Nothing is dispatched before it is created, whatever the gateway's clock says.
    let begins = dispatched.map_or(waited, |dispatched| dispatched.0.max(created).min(waited));
    begins
        .checked_add(SignedDuration::from_secs(spec.timeout_seconds))
        .ok()
}

/// What remains of an invocation that is sent now: its timeout, cut at the deadline. One that is sent again has what is
/// left since it was dispatched. `None` past it.
pub fn remaining(invocation: &CapabilityInvocation, now: Timestamp) -> Option<SignedDuration> {
    let left = of(invocation)?.duration_since(now);
    let timeout = SignedDuration::from_secs(invocation.spec.timeout_seconds);
    (left > SignedDuration::ZERO).then(|| left.min(timeout))
}

#[cfg(test)]
mod tests;
