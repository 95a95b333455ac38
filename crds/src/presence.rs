//! Whether a device is there: one pure function, used by everybody who shows or decides by it.
//!
//! A device costs a write when its session begins or ends, never for a heartbeat. What follows from the passing of time
//! or from the death of a gateway is derived here. Clocks of devices are never trusted: every moment is a gateway's or
//! the operator's.

use jiff::{SignedDuration, Timestamp};

use crate::{
    names::CLOCKS_DIFFER_SECONDS,
    v1alpha1::device::{Availability, DeviceStatus, Presence, PresencePolicy, PresenceReason},
};

/// What is known of the Lease of the gateway that a session names.
///
/// Whether it was renewed in time is told by when its `renewTime` was seen to change, never by what it says: clocks of
/// two machines differ. See the operator's `gateways`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GatewayLease {
    /// It was renewed in time.
    Live,
    /// It is there, but has not been watched for long enough to tell. Nobody is declared dead, or alive again, by it.
    Unknown,
    /// It was last renewed then, too long ago.
    Expired { renewed_at: Timestamp },
    /// There is none: the gateway stopped in good order, or was never seen.
    Absent,
}

/// Moments are read from objects, and may be at the end of time.
fn after(moment: Timestamp, seconds: i64) -> Timestamp {
    moment
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

/// The moment, unless it is so late that no clock that goes right has seen it. Such a moment would keep a device from
/// ever counting as gone.
fn credible(moment: Timestamp, now: Timestamp) -> Option<Timestamp> {
    (moment <= after(now, CLOCKS_DIFFER_SECONDS)).then_some(moment)
}

/// What [`presence`] finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict {
    pub presence: Presence,
    pub reason: PresenceReason,
    /// When time alone will change the verdict.
    pub changes_at: Option<Timestamp>,
}

/// Whether the device is there. `lease` is that of `status.session.gateway`; where it is unknown, who has nothing better
/// to believe gets what the session says.
pub fn presence(
    status: &DeviceStatus,
    lease: GatewayLease,
    policy: PresencePolicy,
    now: Timestamp,
) -> Verdict {
    let Some(session) = &status.session else {
        return Verdict {
            presence: Presence::Offline,
            reason: PresenceReason::NeverConnected,
            changes_at: None,
        };
    };
    let connected_at = session
        .connected_at
        .as_ref()
        .and_then(|time| credible(time.0, now));
    let (since, reason) = match (session.ended_at.as_ref(), lease) {
        (Some(ended_at), _) => (credible(ended_at.0, now), PresenceReason::SessionEnded),
        (None, GatewayLease::Live | GatewayLease::Unknown) => return connected(status),
        // A Lease that ran out before the session began says nothing about it but that it began.
        (None, GatewayLease::Expired { renewed_at }) => (
            credible(renewed_at, now).max(connected_at),
            PresenceReason::GatewayGone,
        ),
        (None, GatewayLease::Absent) => (connected_at, PresenceReason::GatewayGone),
    };
    let Some(since) = since else {
        return Verdict {
            presence: Presence::Offline,
            reason,
            changes_at: None,
        };
    };
    let stale_at = after(since, policy.stale_after_seconds);
    let offline_at = after(since, policy.offline_after_seconds);
    let (presence, changes_at) = if now < stale_at {
        (Presence::Degraded, Some(stale_at))
    } else if now < offline_at {
        (Presence::Stale, Some(offline_at))
    } else {
        (Presence::Offline, None)
    };
    Verdict {
        presence,
        reason,
        changes_at,
    }
}

fn connected(status: &DeviceStatus) -> Verdict {
    let lacks = status
        .capabilities
        .iter()
        .any(|capability| capability.availability == Availability::Unavailable);
    let (presence, reason) = if lacks {
        (Presence::Degraded, PresenceReason::CapabilityUnavailable)
    } else {
        (Presence::Online, PresenceReason::Connected)
    };
    Verdict {
        presence,
        reason,
        changes_at: None,
    }
}

#[cfg(test)]
mod tests;
