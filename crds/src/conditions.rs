//! Condition types and reasons, and how a condition is set. Each condition of a kind has one writer.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// The one summary of every kind.
pub const READY: &str = "Ready";
/// Device: it holds a stream. Written by gateways.
pub const CONNECTED: &str = "Connected";
/// Device: its certificate can be used now. Written by the operator.
pub const CERTIFICATE_VALID: &str = "CertificateValid";
/// Device: everything it declares was decided on. Written by the operator.
pub const CAPABILITIES_GRANTED: &str = "CapabilitiesGranted";
/// CapabilityInvocation: it has ended, whatever its end. Absent until then. Its reason is the phase. Written with the end,
/// in the same write, by the program that writes the end; see [`crate::end`].
pub const FINISHED: &str = "Finished";
/// CapabilityInvocation: its device told how it ended after another end was written. Written by gateways, once.
pub const ANSWERED_LATE: &str = "AnsweredLate";

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holds {
    True,
    False,
    Unknown,
}

impl Holds {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition as it is now. `reason` is one word; `message` is cut to 1024 characters.
pub fn condition(
    now: Timestamp,
    generation: Option<i64>,
    type_: &str,
    holds: impl Into<Holds>,
    reason: &str,
    message: impl Into<String>,
) -> Condition {
    let message: String = message.into();
    Condition {
        type_: type_.to_owned(),
        status: holds.into().as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(1024).collect(),
        observed_generation: generation,
        last_transition_time: Time(now),
    }
}

/// Returns `current` with `next` in it. The transition time stays where the status does, so that setting the same
/// condition again changes nothing and costs no write.
#[must_use]
pub fn set(mut current: Vec<Condition>, mut next: Condition) -> Vec<Condition> {
    match current
        .iter_mut()
        .find(|condition| condition.type_ == next.type_)
    {
        Some(existing) => {
            if existing.status == next.status {
                next.last_transition_time = existing.last_transition_time.clone();
            }
            *existing = next;
        }
        None => current.push(next),
    }
    current
}

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests;
