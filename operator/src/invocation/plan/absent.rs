//! Of a Device that is not there: what was certainly never sent to it, and what may have been before it went. Pure.

use crds::{
    CapabilityInvocation,
    v1alpha1::capability_invocation::{ErrorCode, InvocationPhase},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    super::departed::{Absence, Departure},
    LATE, Next, Observed, failed, later, too_large, unknown,
};

/// Of a Device that is not there. What was sent to it before it went has run by now, or has not, and nobody will say.
pub(super) fn absent(
    observed: &Observed,
    phase: InvocationPhase,
    created: Timestamp,
    deadline: Timestamp,
) -> (Next, Timestamp) {
    let invocation = &observed.invocation;
    let may_have_been_sent =
        phase != InvocationPhase::Queued || may_have_been_sent_before(observed, created);
    if !may_have_been_sent {
        let end = too_large(observed).unwrap_or_else(|| {
            let name = &invocation.spec.device_ref.name;
            failed(
                ErrorCode::DeviceNotFound,
                "DeviceNotFound",
                format!("there is no Device {name} here"),
            )
        });
        return (Next::End(end), deadline);
    }
    let dispatched = invocation
        .status
        .as_ref()
        .and_then(|status| status.dispatched_at.as_ref())
        .map_or(created, |time| time.0);
    let gone = match &observed.absence.departure {
        Some(departure) => departure.at.max(observed.absence.seen_since),
        None => observed.absence.seen_since,
    };
    let timeout = SignedDuration::from_secs(invocation.spec.timeout_seconds);
    let stopped = later(created.max(dispatched).max(gone), timeout);
    let over_at = later(stopped.min(deadline), LATE);
    let next = if observed.now >= over_at {
        Next::End(unknown())
    } else {
        Next::Wait(over_at)
    };
    (next, over_at)
}

/// Whether a gateway may have sent it to a Device of that name that was deleted since, and not said so. A Device that had
/// been there since the invocation was made, and was deleted, was seen to go; what a gateway sent to one that showed no
/// open session, or that was made before the session, it marked first. Clocks differ, so the order of the writes counts,
/// too.
pub(super) fn may_have_been_sent_before(observed: &Observed, created: Timestamp) -> bool {
    let Absence {
        seen_since,
        departure,
    } = &observed.absence;
    created < *seen_since
        || departure.as_ref().is_some_and(|departure| {
            let was_there =
                created <= departure.at || was_written_before(&observed.invocation, departure);
            let began_before = departure.connected_at.is_none_or(|at| at <= created);
            was_there && began_before
        })
}

/// Whether this version of it is older than the deletion. One counter of the API server numbers all writes (KEP-5504).
fn was_written_before(invocation: &CapabilityInvocation, departure: &Departure) -> bool {
    let number = |version: Option<&String>| version.and_then(|it| it.parse::<u128>().ok());
    let written = number(invocation.metadata.resource_version.as_ref());
    let deleted = number(departure.version.as_ref());
    written
        .zip(deleted)
        .is_some_and(|(written, deleted)| written < deleted)
}

#[cfg(test)]
mod tests;
