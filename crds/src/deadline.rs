//! Until when an invocation may run. The same rule in gateway and operator; devices are told the time that remains,
//! for their clocks are not trusted.

use jiff::{SignedDuration, Timestamp};

use crate::v1alpha1::{CapabilityInvocation, capability_invocation::WhenOffline};

/// How long an invocation waits for its device where `queueSeconds` is absent.
const DEFAULT_QUEUE_SECONDS: i64 = 3600;

/// How long after the deadline a result may still arrive before nobody waits for it: the device stops at the deadline,
/// and its answer needs a moment.
pub const ANSWER_SECONDS: i64 = 5;

/// The moment past which nothing is started. `None` where the object was not created by an API server.
pub fn of(invocation: &CapabilityInvocation) -> Option<Timestamp> {
    let created = invocation.metadata.creation_timestamp.as_ref()?.0;
    let spec = &invocation.spec;
    let wait = match spec.when_offline {
        WhenOffline::Fail => 0,
        WhenOffline::Queue => spec.queue_seconds.unwrap_or(DEFAULT_QUEUE_SECONDS),
    };
    created
        .checked_add(SignedDuration::from_secs(wait + spec.timeout_seconds))
        .ok()
}

/// What remains of an invocation that is sent now: its timeout, cut at the deadline. `None` past it.
pub fn remaining(invocation: &CapabilityInvocation, now: Timestamp) -> Option<SignedDuration> {
    let left = of(invocation)?.duration_since(now);
    let timeout = SignedDuration::from_secs(invocation.spec.timeout_seconds);
    (left > SignedDuration::ZERO).then(|| left.min(timeout))
}

#[cfg(test)]
mod tests;
