//! Tells in an Event how an invocation ended that did not succeed. Pure.
//!
//! The operator tells of the ends that it writes itself. The ends that gateways write are told here, from the watch on what
//! has ended, so that the gateways make no request for it and no invocation waits for it. A success has no Event: the
//! Event would be a second write for each healthy invocation, and says nothing that the status does not say.
//!
//! [`Budget`] bounds the Events: a mistake in a script that makes a thousand invocations must not become a thousand more
//! writes. The status always says how an invocation ended; `kubectl wait --for=condition=Finished` waits for that.

use crds::{
    CapabilityInvocation,
    conditions::{READY, find},
    v1alpha1::capability_invocation::InvocationPhase,
};
use jiff::{SignedDuration, Timestamp};

use crate::report::Note;

/// Events that may be told at once.
const BURST: u32 = 50;
/// After that, one Event in this time.
const EACH: SignedDuration = SignedDuration::from_millis(200);
/// An end that is older was told before, or is not news any more.
const NEWS: SignedDuration = SignedDuration::from_secs(60);

/// The Event about an end; `None` where none is due.
pub fn note(invocation: &CapabilityInvocation, now: Timestamp) -> Option<Note> {
    let status = invocation.status.as_ref()?;
    let finished_at = status.finished_at.as_ref()?.0;
    let is_news = now.duration_since(finished_at) < NEWS;
    if !is_news || !is_of_a_gateway(invocation) {
        return None;
    }
    let message = status.error.as_ref().map_or_else(String::new, |error| {
        format!("{:?}: {}", error.code, error.message)
    });
    let phase = status.phase.as_str();
    match status.phase {
        InvocationPhase::Queued
        | InvocationPhase::Dispatched
        | InvocationPhase::AwaitingMediation
        | InvocationPhase::Succeeded => None,
        // Somebody wanted it so.
        InvocationPhase::Cancelled | InvocationPhase::Refused => {
            Some(Note::normal(phase, "Ending", message))
        }
        InvocationPhase::Failed | InvocationPhase::TimedOut | InvocationPhase::Unknown => {
            Some(Note::warning(phase, "Ending", message))
        }
    }
}

/// Gateways give the phase as the reason of `Ready`, and name themselves. The operator gives the code of the error.
fn is_of_a_gateway(invocation: &CapabilityInvocation) -> bool {
    let Some(status) = &invocation.status else {
        return false;
    };
    let ready = find(&status.conditions, READY);
    status.gateway.is_some() && ready.is_some_and(|ready| ready.reason == status.phase.as_str())
}

/// How many Events may be told now.
#[derive(Debug)]
pub struct Budget {
    left: u32,
    counted_at: Timestamp,
}

impl Budget {
    pub fn new(now: Timestamp) -> Self {
        Self {
            left: BURST,
            counted_at: now,
        }
    }

    /// Leaves nothing in it.
    pub fn empty(&mut self) {
        self.left = 0;
    }

    /// Takes one out of it, where one is left.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let passed = now.duration_since(self.counted_at).as_millis().max(0) / EACH.as_millis();
        if passed > 0 {
            let more = u32::try_from(passed).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(BURST);
            self.counted_at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{
        CapabilityInvocationSpec, CapabilityInvocationStatus,
        capability_invocation::{ErrorCode, InvocationError},
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::report::Severity;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn ended(phase: InvocationPhase, reason: &str) -> CapabilityInvocation {
        let mut invocation = CapabilityInvocation::new("i", CapabilityInvocationSpec::default());
        let error = InvocationError {
            code: ErrorCode::CapabilityFailed,
            message: "exit status 3".to_owned(),
        };
        invocation.status = Some(CapabilityInvocationStatus {
            phase,
            finished_at: Some(Time(at(0))),
            gateway: Some("gateway-0".to_owned()),
            conditions: crds::end::conditions(Vec::new(), at(0), None, phase, reason, Some(&error)),
            error: Some(error),
            ..CapabilityInvocationStatus::default()
        });
        invocation
    }

    #[test]
    fn every_end_but_a_success_is_told_with_its_code() {
        for phase in InvocationPhase::TERMINAL {
            let note = note(&ended(phase, phase.as_str()), at(1));
            assert_eq!(
                note.is_none(),
                phase == InvocationPhase::Succeeded,
                "{phase:?}"
            );
        }
        let phase = InvocationPhase::Failed;
        let failed = note(&ended(phase, phase.as_str()), at(1)).unwrap();
        assert_eq!(
            (failed.severity, failed.reason),
            (Severity::Warning, "Failed")
        );
        assert_eq!(failed.message, "CapabilityFailed: exit status 3");
        let phase = InvocationPhase::Cancelled;
        let cancelled = note(&ended(phase, phase.as_str()), at(1)).unwrap();
        assert_eq!(cancelled.severity, Severity::Normal);
    }

    #[test]
    fn an_end_that_the_operator_wrote_or_that_is_old_is_not_told_again() {
        let phase = InvocationPhase::Unknown;
        assert_eq!(note(&ended(phase, "NoAnswer"), at(1)), None);
        assert_eq!(note(&ended(phase, "Unknown"), at(61)), None);
        let mut without = ended(phase, "Unknown");
        without.status.as_mut().unwrap().gateway = None;
        assert_eq!(note(&without, at(1)), None);
        without.status = None;
        assert_eq!(note(&without, at(1)), None);
    }

    #[test]
    fn a_flood_of_failures_becomes_a_bounded_number_of_events() {
        let mut budget = Budget::new(at(0));
        let told = (0..1000).filter(|_| budget.take(at(0))).count();
        assert_eq!(told, 50);
        let told = (0..1000).filter(|_| budget.take(at(10))).count();
        assert_eq!(told, 50, "it was full again");
        let told = (0..1000).filter(|_| budget.take(at(11))).count();
        assert_eq!(told, 5);
        assert!(!budget.take(at(-5)), "a clock that goes back gives nothing");
    }
}
