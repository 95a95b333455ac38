//! How an invocation ended, and its status from then on.
//!
//! What a device reports is never believed further than its own invocation: it is bounded, parsed and checked against
//! its digest here, and what does not hold becomes a failure with a reason.

use crds::v1alpha1::capability_invocation::{
    Artefact, CapabilityInvocationStatus, ErrorCode, InvocationError, InvocationPhase, Mediation,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::node::{self, FailureCode, Outcome};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    artefact::Place, invocation::OpenInvocation, names::is_object_name, underway::text,
    words::one_line,
};

/// Most characters of an error's message, of who decided and of why, as the resource's schema has them.
const MAX_MESSAGE: usize = 1024;
const MAX_DECIDER: usize = 253;
const MAX_REASON: usize = 512;
/// Deepest output. It becomes part of an object that must be readable by everybody: many readers stop at 128.
const MAX_DEPTH: usize = 32;

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    pub phase: InvocationPhase,
    pub output: Option<Value>,
    pub output_sha256: Option<String>,
    /// Where the output is that is too large to be here.
    pub artefact: Option<Box<Artefact>>,
    pub error: Option<InvocationError>,
    /// What the person at the device decided.
    pub mediation: Option<Mediation>,
    /// The invocation that ran instead.
    pub duplicate_of: Option<String>,
}

impl End {
    /// It succeeded, without output.
    pub fn succeeded() -> Self {
        Self {
            phase: InvocationPhase::Succeeded,
            output: None,
            output_sha256: None,
            artefact: None,
            error: None,
            mediation: None,
            duplicate_of: None,
        }
    }

    /// It did not succeed.
    pub fn without_success(
        phase: InvocationPhase,
        code: ErrorCode,
        message: impl Into<String>,
    ) -> Self {
        let message: String = message.into();
        // Of the device, in parts, or of an API server that quotes it.
        let message = one_line(&message, MAX_MESSAGE);
        Self {
            phase,
            error: Some(InvocationError { code, message }),
            ..Self::succeeded()
        }
    }

    pub fn failed(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::without_success(InvocationPhase::Failed, code, message)
    }

    /// The device did not answer.
    pub fn no_answer() -> Self {
        Self::without_success(
            InvocationPhase::Unknown,
            ErrorCode::NoAnswer,
            "the device did not answer in time: nobody knows whether it ran",
        )
    }

    /// In place of one that the API server refuses to store.
    pub fn not_storable(why: &str) -> Self {
        Self::failed(
            ErrorCode::Internal,
            format!("the device answered, but the API server refuses the answer: {why}"),
        )
    }

    /// It succeeded, and its output is in the store.
    pub fn stored(result: &node::Result, place: &Place) -> Self {
        let artefact = place.shown();
        Self {
            output_sha256: Some(artefact.sha256.clone()),
            artefact: Some(Box::new(artefact)),
            ..Self::reported(
                &node::Result {
                    output: Vec::new(),
                    ..result.clone()
                },
                0,
            )
        }
    }

    /// It ran, and the artefact that it speaks of is not there.
    pub fn not_stored(result: &node::Result, why: &str) -> Self {
        let plain = Self::reported(
            &node::Result {
                output: Vec::new(),
                ..result.clone()
            },
            0,
        );
        Self {
            mediation: plain.mediation,
            duplicate_of: plain.duplicate_of,
            ..Self::failed(ErrorCode::ArtefactNotStored, format!("it ran, but {why}"))
        }
    }

    /// What a device reported of an invocation that keeps so many bytes of output.
    pub fn reported(result: &node::Result, max_output_bytes: i64) -> Self {
        let duplicate_of = Some(&result.duplicate_of)
            .filter(|name| is_object_name(name))
            .cloned();
        Self {
            mediation: result.mediation.as_ref().and_then(mediation),
            duplicate_of,
            ..Self::outcome(result, max_output_bytes)
        }
    }

    fn outcome(result: &node::Result, max_output_bytes: i64) -> Self {
        // A number that is newer than this gateway is as good as none.
        let outcome = Outcome::try_from(result.outcome).unwrap_or(Outcome::Unspecified);
        let phase = match outcome {
            Outcome::Succeeded => {
                return succeeded(&result.output, &result.output_sha256, max_output_bytes);
            }
            Outcome::Unspecified => {
                return Self::failed(
                    ErrorCode::Internal,
                    format!(
                        "the device reports outcome {}, which this gateway does not know",
                        result.outcome
                    ),
                );
            }
            Outcome::Failed => InvocationPhase::Failed,
            Outcome::Refused => InvocationPhase::Refused,
            Outcome::TimedOut => InvocationPhase::TimedOut,
            Outcome::Cancelled => InvocationPhase::Cancelled,
            Outcome::Unknown => InvocationPhase::Unknown,
        };
        let failure = result.failure.as_ref();
        let code = failure
            .and_then(|failure| FailureCode::try_from(failure.code).ok())
            .and_then(error_code)
            .unwrap_or(match outcome {
                Outcome::Refused => ErrorCode::Refused,
                Outcome::TimedOut => ErrorCode::DeadlineExceeded,
                Outcome::Cancelled => ErrorCode::Cancelled,
                Outcome::Unknown => ErrorCode::AgentRestarted,
                Outcome::Unspecified | Outcome::Succeeded | Outcome::Failed => ErrorCode::Internal,
            });
        let message = failure
            .map(|failure| failure.message.as_str())
            .filter(|message| !message.is_empty());
        Self::without_success(phase, code, message.unwrap_or("the device gives no reason"))
    }
}

/// `None` where the device says nothing.
fn mediation(reported: &node::Mediation) -> Option<Mediation> {
    let (by, reason) = (
        text(&reported.by, MAX_DECIDER),
        text(&reported.reason, MAX_REASON),
    );
    (by.is_some() || reason.is_some()).then(|| Mediation {
        by: by.unwrap_or_default(),
        reason,
    })
}

fn succeeded(output: &[u8], sha256: &[u8], max_output_bytes: i64) -> End {
    if output.is_empty() {
        return End::succeeded();
    }
    if i64::try_from(output.len()).is_ok_and(|bytes| bytes > max_output_bytes) {
        return End::failed(
            ErrorCode::OutputTooLarge,
            format!(
                "the output is {} bytes long, maxOutputBytes is {max_output_bytes}",
                output.len()
            ),
        );
    }
    if Sha256::digest(output).as_slice() != sha256 {
        return End::failed(
            ErrorCode::Internal,
            "the output does not match the digest that the device sent with it",
        );
    }
    if depth(output) > MAX_DEPTH {
        return End::failed(
            ErrorCode::CapabilityFailed,
            format!("the output is nested deeper than {MAX_DEPTH} lists and objects"),
        );
    }
    match serde_json::from_slice(output) {
        Ok(value) => End {
            output: Some(value),
            output_sha256: Some(hex(sha256)),
            ..End::succeeded()
        },
        Err(error) => End::failed(
            ErrorCode::CapabilityFailed,
            format!("the output is not JSON: {error}"),
        ),
    }
}

/// How many lists and objects are open at once. What is no JSON has some depth, too.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn error_code(code: FailureCode) -> Option<ErrorCode> {
    Some(match code {
        FailureCode::Unspecified => return None,
        FailureCode::NotDeclared => ErrorCode::CapabilityNotDeclared,
        FailureCode::Unavailable => ErrorCode::CapabilityUnavailable,
        FailureCode::InvalidInput => ErrorCode::InvalidInput,
        FailureCode::OutputTooLarge => ErrorCode::OutputTooLarge,
        FailureCode::DeadlineBeforeStart => ErrorCode::DeadlineBeforeStart,
        FailureCode::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        FailureCode::Busy => ErrorCode::QueueFull,
        FailureCode::Refused => ErrorCode::Refused,
        FailureCode::Cancelled => ErrorCode::Cancelled,
        FailureCode::CapabilityFailed => ErrorCode::CapabilityFailed,
        FailureCode::AgentRestarted => ErrorCode::AgentRestarted,
        FailureCode::JournalUnavailable => ErrorCode::JournalUnavailable,
        FailureCode::Internal => ErrorCode::Internal,
        FailureCode::NoDecision => ErrorCode::NoDecision,
        FailureCode::ArtefactNotStored => ErrorCode::ArtefactNotStored,
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The whole status of an invocation that ended so.
pub fn ended(
    invocation: &OpenInvocation,
    end: End,
    gateway: &str,
    now: Timestamp,
) -> CapabilityInvocationStatus {
    let before = invocation.status().cloned().unwrap_or_default();
    let succeeded = end.phase == InvocationPhase::Succeeded;
    let conditions = crds::end::conditions(
        before.conditions,
        now,
        invocation.generation(),
        end.phase,
        end.phase.as_str(),
        end.error.as_ref(),
    );
    CapabilityInvocationStatus {
        phase: end.phase,
        dispatched_at: before.dispatched_at,
        finished_at: Some(Time(now)),
        gateway: Some(gateway.to_owned()),
        output: end.output,
        output_sha256: end.output_sha256,
        artefact: end.artefact.map(|artefact| *artefact),
        error: end.error,
        mediation: end.mediation.or(before.mediation),
        // Where it stopped, unless it came through.
        progress: before.progress.filter(|_| !succeeded),
        duplicate_of: end.duplicate_of,
        observed_generation: invocation.generation(),
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::fixtures::{at, dispatched, minimal_invocation, minimal_result};

    fn check(
        change: impl FnOnce(&mut node::Result),
        phase: InvocationPhase,
        code: Option<ErrorCode>,
    ) -> End {
        let mut result = minimal_result("uid-1");
        change(&mut result);
        let end = End::reported(&result, 64);
        assert_eq!(
            (end.phase, end.error.as_ref().map(|error| error.code)),
            (phase, code)
        );
        end
    }

    fn output(result: &mut node::Result, output: &[u8]) {
        result.output_sha256 = Sha256::digest(output).to_vec();
        result.output = output.to_vec();
    }

    fn outcome(result: &mut node::Result, outcome: Outcome, code: FailureCode, message: &str) {
        result.set_outcome(outcome);
        let mut failure = node::Failure {
            code: 0,
            message: message.to_owned(),
        };
        failure.set_code(code);
        result.failure = Some(failure);
    }

    #[test]
    fn an_output_is_kept_as_it_was_sent() {
        let end = check(
            |result| output(result, br#"{"load":null,"up":[1,2.5]}"#),
            InvocationPhase::Succeeded,
            None,
        );
        assert_eq!(end.output, Some(json!({"load": null, "up": [1, 2.5]})));
        assert_eq!(end.output_sha256.unwrap().len(), 64);
    }

    #[test]
    fn an_output_that_is_not_what_it_should_be_is_a_failure_with_a_reason() {
        let failed = InvocationPhase::Failed;
        check(
            |result| output(result, b""),
            InvocationPhase::Succeeded,
            None,
        );
        check(
            |result| output(result, &[b'1'; 64]),
            InvocationPhase::Succeeded,
            None,
        );
        check(
            |result| output(result, &[b'1'; 65]),
            failed,
            Some(ErrorCode::OutputTooLarge),
        );
        check(
            |result| output(result, b"{"),
            failed,
            Some(ErrorCode::CapabilityFailed),
        );
        check(
            |result| output(result, "[".repeat(60).as_bytes()),
            failed,
            Some(ErrorCode::CapabilityFailed),
        );
        check(
            |result| {
                output(result, b"1");
                result.output = b"2".to_vec();
            },
            failed,
            Some(ErrorCode::Internal),
        );
        check(
            |result| {
                output(result, b"1");
                result.output_sha256.clear();
            },
            failed,
            Some(ErrorCode::Internal),
        );
    }

    #[test]
    fn an_output_is_nested_as_deep_as_everybody_can_read() {
        let nested = |depth: usize| {
            let mut result = minimal_result("uid-1");
            let json = format!(r#"{}"\"[["{}"#, "[".repeat(depth), "]".repeat(depth));
            output(&mut result, json.as_bytes());
            End::reported(&result, 262_144)
        };
        assert_eq!(nested(MAX_DEPTH).phase, InvocationPhase::Succeeded);
        let error = nested(MAX_DEPTH + 1).error.unwrap();
        assert_eq!(error.code, ErrorCode::CapabilityFailed);
        assert!(error.message.contains("nested"), "{}", error.message);
    }

    #[test]
    fn who_decided_and_why_is_kept_within_bounds() {
        let mut result = minimal_result("uid-1");
        outcome(&mut result, Outcome::Refused, FailureCode::Refused, "no");
        result.mediation = Some(node::Mediation {
            by: "ä".repeat(5000),
            reason: "ö".repeat(5000),
        });
        let end = End::reported(&result, 64);
        let mediation = end.mediation.clone().unwrap();
        assert_eq!(mediation.by.chars().count(), 253);
        assert_eq!(mediation.reason.as_ref().unwrap().chars().count(), 512);
        let status = ended(&minimal_invocation(), end, "gateway-a", at(9));
        assert_eq!(status.phase, InvocationPhase::Refused);
        assert_eq!(status.mediation, Some(mediation));
        result.mediation = Some(node::Mediation::default());
        assert_eq!(End::reported(&result, 64).mediation, None);
    }

    #[test]
    fn what_ran_instead_is_named_if_it_can_be_a_name() {
        let mut result = minimal_result("uid-1");
        assert_eq!(End::reported(&result, 64).duplicate_of, None);
        "first".clone_into(&mut result.duplicate_of);
        let end = End::reported(&result, 64);
        let status = ended(&minimal_invocation(), end, "gateway-a", at(9));
        assert_eq!(status.duplicate_of.as_deref(), Some("first"));
        "No Name".clone_into(&mut result.duplicate_of);
        assert_eq!(End::reported(&result, 64).duplicate_of, None);
    }

    #[test]
    fn json_that_is_too_deep_is_refused_and_does_no_harm() {
        let mut deep = minimal_result("uid-1");
        output(&mut deep, "[".repeat(100_000).as_bytes());
        let end = End::reported(&deep, 262_144);
        assert_eq!(end.error.unwrap().code, ErrorCode::CapabilityFailed);
    }

    #[test]
    fn outcomes_of_devices_become_phases_with_codes() {
        use {FailureCode as F, InvocationPhase as P, Outcome as O};
        let rows = [
            (
                O::Failed,
                F::CapabilityFailed,
                P::Failed,
                ErrorCode::CapabilityFailed,
            ),
            (O::Failed, F::Busy, P::Failed, ErrorCode::QueueFull),
            (O::Failed, F::Unspecified, P::Failed, ErrorCode::Internal),
            (O::Refused, F::Unspecified, P::Refused, ErrorCode::Refused),
            (
                O::TimedOut,
                F::DeadlineBeforeStart,
                P::TimedOut,
                ErrorCode::DeadlineBeforeStart,
            ),
            (
                O::TimedOut,
                F::Unspecified,
                P::TimedOut,
                ErrorCode::DeadlineExceeded,
            ),
            (
                O::TimedOut,
                F::NoDecision,
                P::TimedOut,
                ErrorCode::NoDecision,
            ),
            (
                O::Cancelled,
                F::Cancelled,
                P::Cancelled,
                ErrorCode::Cancelled,
            ),
            (
                O::Unknown,
                F::AgentRestarted,
                P::Unknown,
                ErrorCode::AgentRestarted,
            ),
        ];
        for (reported, failure, phase, code) in rows {
            check(
                |result| outcome(result, reported, failure, "why"),
                phase,
                Some(code),
            );
        }
    }

    #[test]
    fn an_outcome_from_the_future_is_a_failure_and_not_a_success() {
        check(
            |result| result.outcome = 99,
            InvocationPhase::Failed,
            Some(ErrorCode::Internal),
        );
        check(
            |result| result.outcome = 0,
            InvocationPhase::Failed,
            Some(ErrorCode::Internal),
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let end = check(
            |result| {
                outcome(
                    result,
                    Outcome::Failed,
                    FailureCode::Internal,
                    &"ä".repeat(5000),
                );
            },
            InvocationPhase::Failed,
            Some(ErrorCode::Internal),
        );
        assert_eq!(end.error.unwrap().message.chars().count(), 1024);
    }

    #[test]
    fn an_end_keeps_when_it_was_dispatched() {
        let invocation = minimal_invocation();
        let invocation =
            invocation.written(dispatched(&invocation, "gateway-a", at(5)), "6".to_owned());
        let status = ended(
            &invocation,
            End::failed(ErrorCode::Internal, "why"),
            "gateway-b",
            at(9),
        );
        assert_eq!(status.phase, InvocationPhase::Failed);
        assert_eq!(status.dispatched_at, Some(Time(at(5))));
        assert_eq!(status.finished_at, Some(Time(at(9))));
        assert_eq!(status.gateway.as_deref(), Some("gateway-b"));
        assert_eq!(status.conditions[0].status, "False");
        assert_eq!(status.conditions[0].reason, "Failed");
    }
}
