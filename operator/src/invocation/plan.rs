//! Whether an invocation must be ended by the operator, and when to look again. Pure.
//!
//! While a live gateway holds the device's stream, the gateway decides; the operator comes in last, when even the
//! answer's time is over. What is too large or unreadable is ended whoever holds the device: nobody sends that. Every other
//! end that says that it did not run is given only where no gateway can have sent it.

mod absent;

use crds::{
    CapabilityInvocation, Device, Invalid, deadline, end,
    excess::Excess,
    names,
    presence::{GatewayLease, presence},
    v1alpha1::{
        CapabilityInvocationStatus,
        capability_invocation::{ErrorCode, InvocationError, InvocationPhase, WhenOffline},
        device::{PresenceReason, Trust, TrustDecision},
    },
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use self::absent::{absent, may_have_been_sent_before};
use super::{backlog::Standing, departed::Absence};
use crate::report::Note;

/// How long after a session's end the device may be on its way to another gateway.
const MOVING: SignedDuration = SignedDuration::from_secs(5);
/// How long after the making of an invocation the news of a session may be on their way.
const SETTLING: SignedDuration = SignedDuration::from_secs(1);
/// How long after the last moment for an answer a gateway may take to write it.
const LATE: SignedDuration = SignedDuration::from_secs(deadline::ANSWER_SECONDS + 5);
/// How long a gateway may take to write what it holds, after nobody could write.
const CATCHING_UP: SignedDuration = SignedDuration::from_secs(15);

/// Everything that the plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    pub now: Timestamp,
    pub invocation: CapabilityInvocation,
    pub device: Target,
    /// Of the gateway that the device's session names.
    pub lease: GatewayLease,
    /// Whether it may be open, beside the others.
    pub standing: Standing,
    /// Since when invocations have been seen without a break.
    pub seen_since: Timestamp,
    /// Of the device, if it is not there or was not when the invocation was made.
    pub absence: Absence,
}

/// The device that is meant.
#[derive(Clone, Debug)]
pub enum Target {
    Absent,
    /// It is there, but cannot be read as a Device.
    Unreadable,
    Known(Box<Device>),
}

impl Target {
    pub fn known(device: Device) -> Self {
        Self::Known(Box::new(device))
    }
}

/// What must happen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub notes: Vec<Note>,
    pub requeue_at: Option<Timestamp>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Write an end, unless somebody else wrote first.
    End(Box<CapabilityInvocationStatus>),
}

/// How it ends.
struct End {
    phase: InvocationPhase,
    code: ErrorCode,
    reason: &'static str,
    message: String,
}

/// What is to be done now, or when to look again.
enum Next {
    End(End),
    Wait(Timestamp),
}

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let invocation = &observed.invocation;
    let phase = invocation
        .status
        .as_ref()
        .map(|status| status.phase)
        .unwrap_or_default();
    let (Some(created), Some(deadline)) = (
        invocation
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0),
        deadline::of(invocation),
    ) else {
        // Only an API server makes objects.
        return Plan::default();
    };
    if phase.is_terminal() {
        return Plan::default();
    }
    let (next, over_at) = match &observed.device {
        Target::Absent => absent(observed, phase, created, deadline),
        Target::Unreadable => present(observed, None, phase, created, deadline),
        Target::Known(device) => present(observed, Some(device), phase, created, deadline),
    };
    match next {
        Next::Wait(until) => Plan {
            requeue_at: Some(until.min(over_at)),
            ..Plan::default()
        },
        Next::End(end) => ended(observed, end),
    }
}

/// Of a Device that is there; `None` where it cannot be read.
fn present(
    observed: &Observed,
    device: Option<&Device>,
    phase: InvocationPhase,
    created: Timestamp,
    deadline: Timestamp,
) -> (Next, Timestamp) {
    let over_at = over_at(observed, device, deadline);
    let next = if observed.now >= over_at {
        Next::End(unknown())
    } else if phase == InvocationPhase::Queued {
        match (too_large(observed), device) {
            (Some(end), _) => Next::End(end),
            (None, None) => Next::Wait(over_at),
            (None, Some(device)) => queued(observed, device, created, over_at),
        }
    } else {
        // Sent: the device's answer, or its silence, decides.
        Next::Wait(over_at)
    };
    (next, over_at)
}

fn unknown() -> End {
    End {
        phase: InvocationPhase::Unknown,
        code: ErrorCode::NoAnswer,
        reason: "NoAnswer",
        message: "nobody answered in time: it may have run, or not".to_owned(),
    }
}

/// When even the answer's time is over. A gateway that holds the device may hold its result, too, and have been kept
/// from writing it by what kept this process from seeing it.
fn over_at(observed: &Observed, device: Option<&Device>, deadline: Timestamp) -> Timestamp {
    let over_at = later(deadline, LATE);
    if device.is_none_or(|device| holder(device, observed) == Holder::Gateway) {
        over_at.max(later(observed.seen_since, CATCHING_UP))
    } else {
        over_at
    }
}

/// What nobody sends.
fn too_large(observed: &Observed) -> Option<End> {
    let bytes = observed.invocation.spec.input_bytes();
    let most = names::MAX_INPUT_BYTES;
    (bytes > most).then(|| {
        failed(
            ErrorCode::InputTooLarge,
            "InputTooLarge",
            format!("spec.input has {bytes} bytes, {most} is the most"),
        )
    })
}

/// What nobody should have to hold.
fn excess(observed: &Observed) -> Option<End> {
    let excess = match observed.standing {
        Standing::Within => return None,
        Standing::BeyondDevice => Excess::OfDevice,
        Standing::BeyondNamespace => Excess::OfNamespace,
    };
    let message = excess.message(&observed.invocation.spec.device_ref.name);
    Some(failed(ErrorCode::QueueFull, "QueueFull", message))
}

fn queued(observed: &Observed, device: &Device, created: Timestamp, over_at: Timestamp) -> Next {
    let spec = &observed.invocation.spec;
    let name = &spec.device_ref.name;
    let away_since = match holder(device, observed) {
        // It sends, refuses and orders as it hears of them.
        Holder::Gateway => return Next::Wait(over_at),
        Holder::NobodySince(since) => since,
    };
    let made_later = device
        .metadata
        .creation_timestamp
        .as_ref()
        .is_some_and(|made| made.0 >= created);
    if may_have_been_sent(device, away_since, created)
        || (made_later && may_have_been_sent_before(observed, created))
    {
        return Next::Wait(over_at);
    }
    // The news of a session, whose gateway may have sent it, may be on their way.
    let settled = later(created, SETTLING);
    if observed.now < settled {
        return Next::Wait(settled);
    }
    if spec.cancel.is_some() {
        return Next::End(End {
            phase: InvocationPhase::Cancelled,
            code: ErrorCode::Cancelled,
            reason: "Cancelled",
            message: "cancelled before it was sent to the device".to_owned(),
        });
    }
    if device.spec.trust != TrustDecision::Active {
        let message = format!(
            "Device {name} is {}",
            match device.spec.trust {
                TrustDecision::Suspended => "suspended",
                TrustDecision::Active | TrustDecision::Revoked => "revoked",
            }
        );
        return Next::End(failed(
            ErrorCode::DeviceNotTrusted,
            "DeviceNotTrusted",
            message,
        ));
    }
    if let Some(end) = excess(observed) {
        return Next::End(end);
    }
    let gives_up_at = match spec.when_offline {
        // The device may be moving from one gateway to another.
        WhenOffline::Fail => away_since
            .map_or(created, |since| later(since, MOVING))
            .max(settled),
        WhenOffline::Queue => {
            let timeout = SignedDuration::from_secs(spec.timeout_seconds);
            deadline::of(&observed.invocation).map_or(over_at, |deadline| later(deadline, -timeout))
        }
    };
    if observed.now < gives_up_at {
        return Next::Wait(gives_up_at);
    }
    let lapsed = device.status.as_ref().and_then(|status| status.trust) == Some(Trust::Untrusted);
    Next::End(match spec.when_offline {
        WhenOffline::Fail if lapsed => failed(
            ErrorCode::DeviceNotTrusted,
            "DeviceNotTrusted",
            format!("the certificate of Device {name} has expired: pair it again"),
        ),
        WhenOffline::Fail => failed(
            ErrorCode::DeviceOffline,
            "DeviceOffline",
            format!("Device {name} is not connected: try later, or use whenOffline: Queue"),
        ),
        WhenOffline::Queue => failed(
            ErrorCode::DeviceOffline,
            "DeviceOffline",
            format!("Device {name} did not connect while the invocation waited"),
        ),
    })
}

/// Whether a gateway that died may have sent it, and not said so yet. Only the device can know then. What was there
/// before the session, a gateway marks before it sends it.
fn may_have_been_sent(device: &Device, away_since: Option<Timestamp>, created: Timestamp) -> bool {
    let session = device
        .status
        .as_ref()
        .and_then(|status| status.session.as_ref());
    let Some(session) = session.filter(|session| session.ended_at.is_none()) else {
        return false;
    };
    let connected = session.connected_at.as_ref().map(|time| time.0);
    let began_before = connected.is_none_or(|connected| connected <= created);
    // Past the end of its Lease it sends nothing that is not marked: its writes come through no more than the Lease's.
    began_before && away_since.is_none_or(|since| created <= since)
}

/// Who holds the device's stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Holder {
    Gateway,
    /// Since then, where it is known.
    NobodySince(Option<Timestamp>),
}

fn holder(device: &Device, observed: &Observed) -> Holder {
    let status = device.status.clone().unwrap_or_default();
    let verdict = presence(&status, observed.lease, device.spec.presence, observed.now);
    let session = status.session.as_ref();
    let ended_at = session
        .and_then(|session| session.ended_at.as_ref())
        .map(|time| time.0);
    match verdict.reason {
        PresenceReason::Connected | PresenceReason::CapabilityUnavailable => Holder::Gateway,
        PresenceReason::SessionEnded => Holder::NobodySince(ended_at),
        PresenceReason::GatewayGone => Holder::NobodySince(match observed.lease {
            GatewayLease::Expired { renewed_at } => Some(later(
                renewed_at,
                SignedDuration::from_secs(i64::from(names::GATEWAY_LEASE_SECONDS)),
            )),
            GatewayLease::Live | GatewayLease::Unknown | GatewayLease::Absent => session
                .and_then(|session| session.connected_at.as_ref())
                .map(|time| time.0),
        }),
        // It was paired a moment ago, perhaps, and is on its way.
        PresenceReason::NeverConnected => Holder::NobodySince(
            device
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
        ),
    }
}

fn failed(code: ErrorCode, reason: &'static str, message: String) -> End {
    End {
        phase: InvocationPhase::Failed,
        code,
        reason,
        message,
    }
}

fn ended(observed: &Observed, end: End) -> Plan {
    let End {
        phase,
        code,
        reason,
        message,
    } = end;
    let invocation = &observed.invocation;
    let before = invocation.status.clone().unwrap_or_default();
    let generation = invocation.metadata.generation;
    let error = InvocationError {
        code,
        message: message.clone(),
    };
    let (now, conditions) = (observed.now, before.conditions.clone());
    let status = CapabilityInvocationStatus {
        phase,
        finished_at: Some(Time(now)),
        observed_generation: generation,
        conditions: end::conditions(conditions, now, generation, phase, reason, Some(&error)),
        error: Some(error),
        ..before
    };
    Plan {
        changes: vec![Change::End(Box::new(status))],
        notes: vec![Note::warning(reason, "Ending", message)],
        requeue_at: None,
    }
}

/// The end of an open invocation that cannot be read: no gateway can run it.
pub fn unreadable(now: Timestamp, invalid: &Invalid) -> CapabilityInvocationStatus {
    let generation = invalid.metadata.generation;
    let message = format!(
        "the invocation is nested too deeply or not readable: {}",
        invalid.error
    );
    let (phase, error) = (
        InvocationPhase::Failed,
        InvocationError {
            code: ErrorCode::InvalidInput,
            message,
        },
    );
    let reason = "InvalidInput";
    CapabilityInvocationStatus {
        phase,
        finished_at: Some(Time(now)),
        observed_generation: generation,
        conditions: end::conditions(Vec::new(), now, generation, phase, reason, Some(&error)),
        error: Some(error),
        ..CapabilityInvocationStatus::default()
    }
}

/// Time does not end in our lifetime, but what users write must not make it.
fn later(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.checked_add(by).unwrap_or(moment)
}

#[cfg(test)]
mod tests;
