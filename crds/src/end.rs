//! The conditions of an invocation that has ended. Pure.
//!
//! Gateways and the operator write ends. Both take the conditions from here, so `kubectl wait --for=condition=Finished`
//! returns after every end. The conditions go into the status write that writes the end: they cost no write of their own.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{
    conditions::{FINISHED, READY, condition, set},
    v1alpha1::capability_invocation::{InvocationError, InvocationPhase},
};

/// Returns `before` with `Ready` and `Finished` of an invocation that ends now in `phase`.
///
/// `reason` is the reason of `Ready`. The reason of `Finished` is the phase, and its message is the code of the error: the
/// words of the error are in `Ready` and in `status.error` already.
#[must_use]
pub fn conditions(
    before: Vec<Condition>,
    now: Timestamp,
    generation: Option<i64>,
    phase: InvocationPhase,
    reason: &str,
    error: Option<&InvocationError>,
) -> Vec<Condition> {
    let message = error.map_or("", |error| error.message.as_str());
    let succeeded = phase == InvocationPhase::Succeeded;
    let ready = condition(now, generation, READY, succeeded, reason, message);
    let code = error.map_or_else(String::new, |error| format!("{:?}", error.code));
    let finished = condition(now, generation, FINISHED, true, phase.as_str(), code);
    set(set(before, ready), finished)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{conditions::find, v1alpha1::capability_invocation::ErrorCode};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn every_end_is_finished_and_only_a_success_is_ready() {
        for phase in InvocationPhase::TERMINAL {
            let conditions = conditions(Vec::new(), at(9), Some(2), phase, "Reason", None);
            let finished = find(&conditions, FINISHED).unwrap();
            assert_eq!(
                (finished.status.as_str(), finished.reason.as_str()),
                ("True", phase.as_str())
            );
            let ready = find(&conditions, READY).unwrap();
            let expected = if phase == InvocationPhase::Succeeded {
                "True"
            } else {
                "False"
            };
            assert_eq!(ready.status, expected, "{phase:?}");
            assert_eq!(conditions.len(), 2);
        }
    }

    #[test]
    fn the_words_of_an_error_are_stored_once_more_only_as_a_code() {
        let error = InvocationError {
            code: ErrorCode::DeviceOffline,
            message: "long".repeat(200),
        };
        let phase = InvocationPhase::Failed;
        let conditions = conditions(Vec::new(), at(9), None, phase, "Failed", Some(&error));
        assert_eq!(
            find(&conditions, FINISHED).unwrap().message,
            "DeviceOffline"
        );
        assert_eq!(find(&conditions, READY).unwrap().message, error.message);
    }

    #[test]
    fn conditions_of_others_stay() {
        let other = condition(at(1), None, "Other", true, "Reason", "");
        let phase = InvocationPhase::Unknown;
        let conditions = conditions(vec![other.clone()], at(9), None, phase, "NoAnswer", None);
        assert_eq!(conditions[0], other);
        assert_eq!(conditions.len(), 3);
    }
}
