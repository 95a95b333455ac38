//! What is kept of an answer that came after the end was written: the phase stays, a condition says what was so.

use crds::{
    conditions::{self, ANSWERED_LATE},
    v1alpha1::capability_invocation::{InvocationError, InvocationPhase},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{invocation::OpenInvocation, result::End};

/// All conditions of an invocation that has ended, and whose device says now how it really ended. `None` where that is
/// the end that was written, where it was told before, and where nothing has ended.
pub fn told(invocation: &OpenInvocation, end: &End, now: Timestamp) -> Option<Vec<Condition>> {
    let status = invocation.status()?;
    if !status.phase.is_terminal() || conditions::find(&status.conditions, ANSWERED_LATE).is_some()
    {
        return None;
    }
    let code = |error: &Option<InvocationError>| error.as_ref().map(|error| error.code);
    if status.phase == end.phase && code(&status.error) == code(&end.error) {
        return None;
    }
    let late = conditions::condition(
        now,
        invocation.generation(),
        ANSWERED_LATE,
        true,
        end.phase.as_str(),
        message(status.phase, end),
    );
    Some(conditions::set(status.conditions.clone(), late))
}

fn message(written: InvocationPhase, end: &End) -> String {
    let written = written.as_str();
    let told = end.phase.as_str();
    let detail = match (&end.error, &end.output_sha256) {
        (Some(error), _) => format!(", {:?}: {}", error.code, error.message),
        (None, Some(sha256)) => format!(", its output has the SHA-256 {sha256}"),
        (None, None) => ", without output".to_owned(),
    };
    format!("After {written} was written the device answered {told}{detail}")
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::capability_invocation::{CapabilityInvocationStatus, ErrorCode};

    use super::*;
    use crate::domain::{
        fixtures::{at, minimal_invocation},
        result::ended,
    };

    fn ended_as(end: End) -> OpenInvocation {
        let invocation = minimal_invocation();
        let status = ended(&invocation, end, "gateway-a", at(40));
        invocation.written(status, "2".to_owned())
    }

    fn succeeded() -> End {
        End {
            output_sha256: Some("ab".repeat(32)),
            ..End::succeeded()
        }
    }

    #[test]
    fn a_late_truth_is_told_with_the_outcome_and_the_digest() {
        let conditions = told(&ended_as(End::no_answer()), &succeeded(), at(50)).unwrap();
        assert_eq!(conditions.len(), 3, "Ready and Finished stay");
        let late = conditions::find(&conditions, ANSWERED_LATE).unwrap();
        assert_eq!(
            (late.status.as_str(), late.reason.as_str()),
            ("True", "Succeeded")
        );
        assert!(late.message.contains(&"ab".repeat(32)), "{}", late.message);
    }

    #[test]
    fn a_late_failure_is_told_with_its_code() {
        let failed = End::failed(ErrorCode::CapabilityFailed, "exit status 3");
        let conditions = told(&ended_as(End::no_answer()), &failed, at(50)).unwrap();
        let late = conditions::find(&conditions, ANSWERED_LATE).unwrap();
        assert_eq!(late.reason, "Failed");
        assert!(
            late.message.contains("CapabilityFailed: exit status 3"),
            "{}",
            late.message
        );
    }

    #[test]
    fn it_is_told_once() {
        let invocation = ended_as(End::no_answer());
        let conditions = told(&invocation, &succeeded(), at(50)).unwrap();
        let status = CapabilityInvocationStatus {
            conditions,
            ..invocation.status().cloned().unwrap()
        };
        let invocation = invocation.written(status, "3".to_owned());
        assert_eq!(told(&invocation, &succeeded(), at(60)), None);
    }

    #[test]
    fn what_is_there_already_is_not_told() {
        assert_eq!(told(&ended_as(succeeded()), &succeeded(), at(50)), None);
        let no_answer = End::no_answer();
        assert_eq!(told(&ended_as(no_answer.clone()), &no_answer, at(50)), None);
        assert_eq!(told(&minimal_invocation(), &succeeded(), at(50)), None);
    }

    #[test]
    fn another_reason_for_the_same_phase_is_told() {
        let offline = ended_as(End::failed(ErrorCode::DeviceOffline, "it is not there"));
        let failed = End::failed(ErrorCode::CapabilityFailed, "exit status 3");
        assert!(told(&offline, &failed, at(50)).is_some());
    }
}
