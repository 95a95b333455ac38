use crds::conditions::condition;
use crds::v1alpha1::CapabilityInvocationSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;

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
const TWICE: Effect = Effect { began: 2, ..DONE };
const TIMEOUT: i64 = 30;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000 + second).unwrap()
}

/// Made at second 0, with its end written at second 60.
fn ended(phase: InvocationPhase, code: Option<ErrorCode>, effect: Effect) -> Case {
    let metadata = ObjectMeta {
        name: Some("first".to_owned()),
        creation_timestamp: Some(Time(at(0))),
        ..ObjectMeta::default()
    };
    let mut invocation = CapabilityInvocation::new(
        "first",
        CapabilityInvocationSpec {
            timeout_seconds: TIMEOUT,
            ..CapabilityInvocationSpec::default()
        },
    );
    invocation.metadata = metadata;
    invocation.status = Some(CapabilityInvocationStatus {
        phase,
        error: code.map(|code| InvocationError {
            code,
            message: "in words".to_owned(),
        }),
        conditions: crds::end::conditions(Vec::new(), at(60), Some(1), phase, "Reason", None),
        ..CapabilityInvocationStatus::default()
    });
    Case {
        invocation,
        effect,
        own: None,
        written: Some(at(60)),
        clocks: SignedDuration::from_secs(1),
        restarted: false,
        calm: false,
    }
}

fn status(case: &mut Case) -> &mut CapabilityInvocationStatus {
    case.invocation.status.get_or_insert_default()
}

fn answered_late(mut case: Case, reason: &str) -> Case {
    let late = condition(at(70), Some(1), ANSWERED_LATE, true, reason, "late");
    status(&mut case).conditions.push(late);
    case
}

fn is_untrue(case: &Case) -> bool {
    matches!(judge(case), Verdict::Untrue(_))
}

#[test]
fn a_success_was_done_once() {
    let said = |effect| ended(InvocationPhase::Succeeded, None, effect);
    assert_eq!(judge(&said(DONE)), Verdict::True);
    assert!(is_untrue(&said(NOTHING)) && is_untrue(&said(BEGAN)) && is_untrue(&said(FAILED)));
    assert_eq!(judge(&said(TWICE)), Verdict::Twice);
}

#[test]
fn a_failure_of_the_capability_was_begun_and_failed() {
    let said = |effect| {
        let code = Some(ErrorCode::CapabilityFailed);
        ended(InvocationPhase::Failed, code, effect)
    };
    assert_eq!(judge(&said(FAILED)), Verdict::True);
    assert!(is_untrue(&said(DONE)) && is_untrue(&said(NOTHING)));
}

#[test]
fn what_ended_otherwise_was_never_done_and_begun_only_where_its_code_allows_that() {
    use InvocationPhase::{Cancelled, Failed, Refused, TimedOut};
    for phase in [Failed, Refused, TimedOut, Cancelled] {
        for code in ErrorCode::ALL {
            let said = |effect| ended(phase, Some(code), effect);
            assert!(is_untrue(&said(DONE)), "{phase:?} {code:?}");
            if code.explained().ran == Ran::No {
                assert_eq!(judge(&said(NOTHING)), Verdict::True, "{phase:?} {code:?}");
                assert!(is_untrue(&said(BEGAN)), "{phase:?} {code:?}");
            }
        }
        assert!(is_untrue(&ended(phase, None, NOTHING)), "it says no reason");
    }
    let never_started = |effect| ended(Failed, Some(ErrorCode::AgentRestarted), effect);
    assert_eq!(judge(&never_started(NOTHING)), Verdict::True);
    assert!(is_untrue(&never_started(BEGAN)));
    let late = |effect| ended(TimedOut, Some(ErrorCode::DeadlineExceeded), effect);
    assert_eq!(judge(&late(BEGAN)), Verdict::True);
    assert_eq!(judge(&late(FAILED)), Verdict::True, "at the same moment");
    let offline = |effect| ended(Failed, Some(ErrorCode::DeviceOffline), effect);
    assert!(is_untrue(&offline(FAILED)));
}

#[test]
fn what_was_cancelled_had_begun_only_where_it_says_so() {
    let said = |message: &str, effect| {
        let code = Some(ErrorCode::Cancelled);
        let mut case = ended(InvocationPhase::Cancelled, code, effect);
        status(&mut case).error = Some(InvocationError {
            code: ErrorCode::Cancelled,
            message: message.to_owned(),
        });
        case
    };
    assert_eq!(judge(&said(STOPPED_WHILE_IT_RAN, BEGAN)), Verdict::True);
    assert_eq!(judge(&said(STOPPED_WHILE_IT_RAN, FAILED)), Verdict::True);
    assert!(is_untrue(&said(STOPPED_WHILE_IT_RAN, DONE)));
    for never in ["cancelled before it started", "called off", ""] {
        assert_eq!(judge(&said(never, NOTHING)), Verdict::True);
        assert!(is_untrue(&said(never, BEGAN)), "{never}");
    }
}

#[test]
fn nobody_is_said_to_be_silent_before_the_time_for_an_answer_is_over() {
    let said = |second: Option<i64>| Case {
        written: second.map(at),
        ..ended(InvocationPhase::Unknown, Some(ErrorCode::NoAnswer), NOTHING)
    };
    // The timeout and five seconds, less a second for the clocks.
    assert_eq!(judge(&said(Some(34))), Verdict::Unknown);
    assert!(is_untrue(&said(Some(33))) && is_untrue(&said(Some(0))));
    assert!(is_untrue(&said(None)), "nobody knows when");
}

#[test]
fn what_a_silent_device_has_done_is_told_later_and_as_it_was() {
    let said = |effect| ended(InvocationPhase::Unknown, Some(ErrorCode::NoAnswer), effect);
    assert_eq!(judge(&said(NOTHING)), Verdict::Unknown);
    for effect in [BEGAN, DONE, FAILED] {
        assert_eq!(judge(&said(effect)), Verdict::Untold);
    }
    for (reason, effect) in [
        ("Succeeded", DONE),
        ("Unknown", DONE),
        ("Failed", FAILED),
        ("TimedOut", BEGAN),
        ("Cancelled", NOTHING),
    ] {
        let told = answered_late(said(effect), reason);
        assert_eq!(judge(&told), Verdict::Unknown, "{reason} {effect:?}");
    }
    for (reason, effect) in [("Succeeded", BEGAN), ("Failed", DONE), ("TimedOut", DONE)] {
        assert!(is_untrue(&answered_late(said(effect), reason)), "{reason}");
    }
}

#[test]
fn an_agent_that_cannot_know_was_restarted() {
    let said = |restarted| Case {
        restarted,
        ..ended(
            InvocationPhase::Unknown,
            Some(ErrorCode::AgentRestarted),
            DONE,
        )
    };
    assert_eq!(judge(&said(true)), Verdict::Unknown);
    assert!(is_untrue(&said(false)));
}

#[test]
fn where_nothing_goes_wrong_everything_is_known_and_some_reasons_are_none() {
    let calm = Case {
        calm: true,
        ..ended(InvocationPhase::Unknown, Some(ErrorCode::NoAnswer), NOTHING)
    };
    assert!(is_untrue(&calm));
    for code in [None, Some(ErrorCode::Internal), Some(ErrorCode::Cancelled)] {
        assert!(is_untrue(&ended(InvocationPhase::Unknown, code, NOTHING)));
    }
}

#[test]
fn what_is_open_is_stuck() {
    let open = ended(InvocationPhase::Dispatched, None, DONE);
    assert_eq!(judge(&open), Verdict::Stuck);
}

fn holder(name: &str, phase: InvocationPhase, code: Option<ErrorCode>, all: Effect) -> Case {
    let mut case = ended(phase, code, all);
    case.invocation.metadata.name = Some(name.to_owned());
    case.invocation.spec.idempotency_key = Some("key".to_owned());
    case
}

fn standing_for(mut case: Case, first: &str) -> Case {
    status(&mut case).duplicate_of = Some(first.to_owned());
    case
}

fn verdicts(cases: &[Case]) -> Vec<Verdict> {
    let judged = judge_all(cases);
    assert_eq!(judged.len(), cases.len());
    judged.into_iter().map(|(_, verdict)| verdict).collect()
}

fn are_honest(cases: &[Case]) -> bool {
    let honest = |verdict: &Verdict| matches!(verdict, Verdict::True | Verdict::Unknown);
    verdicts(cases).iter().all(honest)
}

#[test]
fn what_stands_for_another_says_what_the_other_did() {
    let said = |effect| {
        [
            holder("first", InvocationPhase::Succeeded, None, effect),
            standing_for(
                holder("second", InvocationPhase::Succeeded, None, effect),
                "first",
            ),
        ]
    };
    assert!(are_honest(&said(DONE)));
    for effect in [NOTHING, BEGAN] {
        assert!(!are_honest(&said(effect)));
    }
    assert_eq!(verdicts(&said(TWICE)), [Verdict::Twice, Verdict::Twice]);
    let [first, second] = said(DONE);
    let astray = standing_for(second, "third");
    assert!(!are_honest(&[first, astray]), "there is no third");
}

#[test]
fn one_of_those_with_a_key_admits_what_was_done() {
    let late = || {
        let code = Some(ErrorCode::DeadlineExceeded);
        holder("second", InvocationPhase::TimedOut, code, DONE)
    };
    let offline = || {
        let code = Some(ErrorCode::DeviceOffline);
        holder("third", InvocationPhase::Failed, code, DONE)
    };
    let succeeded = holder("first", InvocationPhase::Succeeded, None, DONE);
    assert!(are_honest(&[succeeded, late(), offline()]));
    assert!(!are_honest(&[late(), offline()]));
    assert!(!are_honest(&[offline()]));

    let silent = || {
        let code = Some(ErrorCode::NoAnswer);
        holder("first", InvocationPhase::Unknown, code, DONE)
    };
    assert_eq!(
        verdicts(&[silent(), offline()]),
        [Verdict::Untold, Verdict::True]
    );
    assert!(are_honest(&[
        answered_late(silent(), "Succeeded"),
        offline()
    ]));
    let other_device = |mut case: Case| {
        "other".clone_into(&mut case.invocation.spec.device_ref.name);
        case
    };
    let elsewhere = other_device(holder("first", InvocationPhase::Succeeded, None, DONE));
    assert!(!are_honest(&[elsewhere, offline()]), "a key is a device's");
}

#[test]
fn whose_own_effect_is_known_is_judged_by_that() {
    let ran = Case {
        own: Some(DONE),
        ..holder("first", InvocationPhase::Succeeded, None, DONE)
    };
    let follows = |own| Case {
        own: Some(own),
        ..standing_for(
            holder("second", InvocationPhase::Succeeded, None, DONE),
            "first",
        )
    };
    assert!(are_honest(&[ran.clone(), follows(NOTHING)]));
    assert!(!are_honest(&[ran.clone(), follows(DONE)]), "it ran itself");
    let alone = Case {
        own: Some(NOTHING),
        ..holder("second", InvocationPhase::Succeeded, None, DONE)
    };
    assert!(!are_honest(&[ran.clone(), alone]), "it stands for itself");
    let silent = |own| {
        let code = Some(ErrorCode::NoAnswer);
        Case {
            own: Some(own),
            ..holder("second", InvocationPhase::Unknown, code, DONE)
        }
    };
    assert!(are_honest(&[ran.clone(), silent(NOTHING)]), "it never came");
    let told = answered_late(silent(NOTHING), "Succeeded");
    assert!(
        are_honest(&[ran.clone(), told]),
        "late, it stands for the first"
    );
    let gave_up = answered_late(silent(NOTHING), "TimedOut");
    assert!(are_honest(&[ran, gave_up]), "it waited for the first");
    assert_eq!(verdicts(&[silent(DONE)]), [Verdict::Untold]);
}

#[test]
fn every_end_is_finished_and_nothing_else_is() {
    let verdict = |case: Case| judge_all(&[case]).remove(0).1;
    let done = ended(InvocationPhase::Succeeded, None, DONE);
    assert_eq!(verdict(done.clone()), Verdict::True);
    let mut silent = done.clone();
    status(&mut silent).conditions.clear();
    assert!(matches!(verdict(silent), Verdict::Untrue(_)));
    let mut other = done.clone();
    status(&mut other).phase = InvocationPhase::Failed;
    assert!(matches!(verdict(other), Verdict::Untrue(_)));
    let mut open = done;
    status(&mut open).phase = InvocationPhase::Dispatched;
    assert!(matches!(verdict(open.clone()), Verdict::Untrue(_)));
    status(&mut open).conditions.clear();
    assert_eq!(verdict(open), Verdict::Stuck);
}
