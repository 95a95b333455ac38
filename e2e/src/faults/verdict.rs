//! Whether a resource says what happened. Pure.

use crds::v1alpha1::CapabilityInvocationStatus;
use crds::v1alpha1::capability_invocation::{ErrorCode, InvocationPhase};

use super::effects::Effect;

/// What comparing a resource with the world gives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It says what happened.
    True,
    /// It says that nobody can know. Honest, but worth counting.
    Unknown,
    /// The effect was had more than once.
    Twice,
    /// It says what did not happen, or hides what did.
    Untrue(String),
    /// It never ended.
    Stuck,
}

/// Compares.
pub fn judge(status: &CapabilityInvocationStatus, effect: Effect) -> Verdict {
    if effect.began > 1 {
        return Verdict::Twice;
    }
    let code = status.error.as_ref().map(|error| error.code);
    let untrue = |why: &str| {
        Verdict::Untrue(format!(
            "{} {code:?}: {why} ({effect:?})",
            status.phase.as_str()
        ))
    };
    match status.phase {
        InvocationPhase::Queued
        | InvocationPhase::Dispatched
        | InvocationPhase::AwaitingMediation => Verdict::Stuck,
        InvocationPhase::Unknown => Verdict::Unknown,
        InvocationPhase::Succeeded if effect.done != 1 => untrue("it was not done"),
        InvocationPhase::Succeeded => Verdict::True,
        InvocationPhase::Failed | InvocationPhase::Refused => match code {
            Some(ErrorCode::CapabilityFailed | ErrorCode::OutputTooLarge | ErrorCode::Internal)
                if effect.done > 0 =>
            {
                untrue("it was done")
            }
            Some(ErrorCode::CapabilityFailed) if effect.failed != 1 => untrue("it did not fail"),
            Some(ErrorCode::CapabilityFailed | ErrorCode::OutputTooLarge | ErrorCode::Internal) => {
                Verdict::True
            }
            // Every other code says that it was not even begun.
            Some(_) | None if effect.began > 0 => untrue("it was begun"),
            Some(_) | None => Verdict::True,
        },
        InvocationPhase::TimedOut | InvocationPhase::Cancelled => {
            if effect.done > 0 || effect.failed > 0 {
                untrue("it came to its end")
            } else if effect.began > 0 && !stopped_while_it_ran(status, code) {
                untrue("it was begun")
            } else {
                Verdict::True
            }
        }
    }
}

/// Compares an invocation with an idempotency key to what was done for all that have that key.
///
/// One that did not have the effect itself may say anything of itself that is no word about the effect.
pub fn judge_keyed(status: &CapabilityInvocationStatus, all: Effect) -> Verdict {
    if all.began > 1 {
        return Verdict::Twice;
    }
    let code = status.error.as_ref().map(|error| error.code);
    let untrue = |why: &str| {
        let phase = status.phase.as_str();
        Verdict::Untrue(format!("{phase} {code:?} of a key: {why} ({all:?})"))
    };
    match (status.phase, code) {
        (InvocationPhase::Succeeded, _) if all.done != 1 => untrue("it was not done"),
        (InvocationPhase::Failed, Some(ErrorCode::CapabilityFailed)) if all.failed != 1 => {
            untrue("it did not fail")
        }
        (InvocationPhase::Unknown, _) => Verdict::Unknown,
        (phase, _) if !phase.is_terminal() => Verdict::Stuck,
        _ => Verdict::True,
    }
}

/// Whether the status admits that it may have been begun.
fn stopped_while_it_ran(status: &CapabilityInvocationStatus, code: Option<ErrorCode>) -> bool {
    match code {
        Some(ErrorCode::DeadlineExceeded) => true,
        Some(ErrorCode::Cancelled) => !status
            .error
            .as_ref()
            .is_some_and(|error| error.message.contains("before")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::capability_invocation::InvocationError;

    use super::*;

    const NOTHING: Effect = Effect {
        began: 0,
        done: 0,
        failed: 0,
    };
    const BEGAN: Effect = Effect {
        began: 1,
        ..NOTHING
    };
    const DONE: Effect = Effect { done: 1, ..BEGAN };
    const FAILED: Effect = Effect { failed: 1, ..BEGAN };

    fn ended(
        phase: InvocationPhase,
        code: Option<ErrorCode>,
        message: &str,
    ) -> CapabilityInvocationStatus {
        CapabilityInvocationStatus {
            phase,
            error: code.map(|code| InvocationError {
                code,
                message: message.to_owned(),
            }),
            ..CapabilityInvocationStatus::default()
        }
    }

    fn is_untrue(status: &CapabilityInvocationStatus, effect: Effect) -> bool {
        matches!(judge(status, effect), Verdict::Untrue(_))
    }

    #[test]
    fn a_success_was_done_once() {
        let status = ended(InvocationPhase::Succeeded, None, "");
        assert_eq!(judge(&status, DONE), Verdict::True);
        assert!(is_untrue(&status, NOTHING) && is_untrue(&status, BEGAN));
        let twice = Effect { began: 2, ..DONE };
        assert_eq!(judge(&status, twice), Verdict::Twice);
    }

    #[test]
    fn a_failure_of_the_capability_was_begun_and_others_were_not() {
        let failed = |code| ended(InvocationPhase::Failed, Some(code), "");
        let ran = failed(ErrorCode::CapabilityFailed);
        assert_eq!(judge(&ran, FAILED), Verdict::True);
        assert!(is_untrue(&ran, DONE) && is_untrue(&ran, NOTHING));
        let offline = failed(ErrorCode::DeviceOffline);
        assert_eq!(judge(&offline, NOTHING), Verdict::True);
        assert!(is_untrue(&offline, BEGAN) && is_untrue(&offline, DONE));
    }

    #[test]
    fn what_was_stopped_never_came_to_its_end() {
        let late = ended(
            InvocationPhase::TimedOut,
            Some(ErrorCode::DeadlineExceeded),
            "",
        );
        assert_eq!(judge(&late, BEGAN), Verdict::True);
        assert!(is_untrue(&late, DONE));
        let never = ended(
            InvocationPhase::TimedOut,
            Some(ErrorCode::DeadlineBeforeStart),
            "",
        );
        assert_eq!(judge(&never, NOTHING), Verdict::True);
        assert!(is_untrue(&never, BEGAN));
        let cancelled = |message| {
            ended(
                InvocationPhase::Cancelled,
                Some(ErrorCode::Cancelled),
                message,
            )
        };
        assert_eq!(judge(&cancelled("stopped"), BEGAN), Verdict::True);
        assert!(is_untrue(
            &cancelled("cancelled before it was started"),
            BEGAN
        ));
        assert!(is_untrue(&cancelled("stopped"), DONE));
    }

    #[test]
    fn what_stands_for_another_says_what_the_other_did() {
        let succeeded = ended(InvocationPhase::Succeeded, None, "");
        assert_eq!(judge_keyed(&succeeded, DONE), Verdict::True);
        let is_untrue = |effect| matches!(judge_keyed(&succeeded, effect), Verdict::Untrue(_));
        assert!(is_untrue(NOTHING) && is_untrue(BEGAN));
        let twice = Effect { began: 2, ..DONE };
        assert_eq!(judge_keyed(&succeeded, twice), Verdict::Twice);
        let late = ended(
            InvocationPhase::TimedOut,
            Some(ErrorCode::DeadlineExceeded),
            "",
        );
        assert_eq!(judge_keyed(&late, DONE), Verdict::True);
        let open = ended(InvocationPhase::Queued, None, "");
        assert_eq!(judge_keyed(&open, NOTHING), Verdict::Stuck);
    }

    #[test]
    fn unknown_is_honest_and_open_is_stuck() {
        let unknown = ended(InvocationPhase::Unknown, Some(ErrorCode::NoAnswer), "");
        for effect in [NOTHING, BEGAN, DONE] {
            assert_eq!(judge(&unknown, effect), Verdict::Unknown);
        }
        let open = ended(InvocationPhase::Dispatched, None, "");
        assert_eq!(judge(&open, DONE), Verdict::Stuck);
    }
}
