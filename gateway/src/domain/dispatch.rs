//! What to do with an invocation whose device holds a stream here.
//!
//! No claim and no fence: the device's journal makes an effect happen at most once, so whoever sees an invocation and
//! holds the stream pushes it.

use crds::{
    deadline::ANSWER_SECONDS,
    excess::Excess,
    names::MAX_INPUT_BYTES,
    nearest,
    v1alpha1::{
        capability_invocation::{ErrorCode, InvocationPhase},
        device::{Availability, TrustDecision},
    },
};
use jiff::Timestamp;

use super::{
    device::KnownDevice,
    fit::Fit,
    grants::Standing,
    invocation::{Input, Moment, OpenInvocation, after},
    register::Declared,
    result::End,
};

/// The stream that would carry it.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    pub declared: &'a Declared,
    /// Of the invocation's capability.
    pub standing: &'a Standing,
    /// Of the invocation's input.
    pub fit: &'a Fit,
    /// When it began. A device repeats first what nobody acked: what ended while it was away is known soon after.
    pub since: Timestamp,
    /// Since when the Device shows it, once it does.
    pub shown: Option<&'a Moment>,
}

impl Stream<'_> {
    /// Whether a stream before this one may have sent it. By the order of writes, too: by a clock that is behind, what is
    /// older than this stream was made after it began.
    fn may_be_known(&self, invocation: &OpenInvocation) -> bool {
        invocation.created < self.since
            || self
                .shown
                .is_some_and(|shown| invocation.may_be_older_than(shown))
    }
}

/// What to do with an invocation that this stream has not carried yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Send it to the device.
    Push(Push),
    /// Tell the device to stop it, or not to start it; its answer, which is awaited until then, decides.
    Cancel(Timestamp),
    /// Write this end.
    End(End),
    /// Nothing, and look again then.
    Wait(Timestamp),
    /// Nothing.
    Nothing,
}

/// What is sent with an invocation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Push {
    /// JSON; empty where there is none.
    pub input: Vec<u8>,
    /// Until the device stops it. At least one.
    pub remaining_ms: u32,
    /// Until when an answer is waited for.
    pub answer_by: Timestamp,
    /// The person at the device is asked, whatever the device declares.
    pub mediate: bool,
}

/// Decides about an invocation that this stream has not carried yet.
pub fn decide(
    invocation: &OpenInvocation,
    device: &KnownDevice,
    stream: Stream<'_>,
    now: Timestamp,
) -> Decision {
    match invocation.phase() {
        InvocationPhase::Queued => decide_queued(invocation, device, stream, now),
        InvocationPhase::Dispatched | InvocationPhase::AwaitingMediation => {
            decide_dispatched(invocation, device, stream, now)
        }
        InvocationPhase::Succeeded
        | InvocationPhase::Failed
        | InvocationPhase::Refused
        | InvocationPhase::TimedOut
        | InvocationPhase::Cancelled
        | InvocationPhase::Unknown => Decision::Nothing,
    }
}

/// Decides about an invocation that cannot be sent yet, for others are before it. Its cancellation and its deadline count
/// all the same. `may_be_known`: a stream before this one, which began `since` then, may have sent it.
pub fn hold(
    invocation: &OpenInvocation,
    may_be_known: bool,
    since: Timestamp,
    now: Timestamp,
) -> Decision {
    match invocation.phase() {
        InvocationPhase::Queued => foregone(invocation, may_be_known, since, now)
            .or_else(|| overdue(invocation, may_be_known, since, now))
            .unwrap_or_else(|| Decision::Wait(invocation.deadline())),
        InvocationPhase::Dispatched | InvocationPhase::AwaitingMediation => {
            let until = awaited_until(invocation, since);
            if now >= until {
                Decision::End(End::no_answer())
            } else if invocation.is_cancelled() && invocation.remaining(now).is_some() {
                Decision::Cancel(until)
            } else {
                Decision::Wait(until)
            }
        }
        InvocationPhase::Succeeded
        | InvocationPhase::Failed
        | InvocationPhase::Refused
        | InvocationPhase::TimedOut
        | InvocationPhase::Cancelled
        | InvocationPhase::Unknown => Decision::Nothing,
    }
}

/// Decides about an invocation that is one too many. It ends, unless a stream before this one, which began `since` then, may
/// have sent it: that one waits, and is sent when there are fewer.
pub fn turn_away(
    invocation: &OpenInvocation,
    excess: Excess,
    may_be_known: bool,
    since: Timestamp,
    now: Timestamp,
) -> Decision {
    let decision = hold(invocation, may_be_known, since, now);
    let is_unsent = !may_be_known && invocation.phase() == InvocationPhase::Queued;
    if is_unsent && matches!(decision, Decision::Wait(_)) {
        let message = excess.message(&invocation.device.name);
        Decision::End(End::failed(ErrorCode::QueueFull, message))
    } else {
        decision
    }
}

/// A stream before this one may have sent it and ended before that was said. Then the device knows, and tells first of
/// all what has ended.
fn decide_queued(
    invocation: &OpenInvocation,
    device: &KnownDevice,
    stream: Stream<'_>,
    now: Timestamp,
) -> Decision {
    let may_be_known = stream.may_be_known(invocation);
    if let Some(decision) = foregone(invocation, may_be_known, stream.since, now) {
        return decision;
    }
    let find = |checks: &[Check]| {
        checks
            .iter()
            .find_map(|check| check(invocation, device, stream))
    };
    let objection = find(&MAY_RUN).or_else(|| {
        // One that knows it answers; one that does not says itself that it is not able to.
        if may_be_known { None } else { find(&CAN_RUN) }
    });
    let heard_out = after(stream.since, ANSWER_SECONDS);
    match objection {
        Some(_) if may_be_known && now < heard_out => Decision::Wait(heard_out),
        Some(end) => Decision::End(end),
        None => overdue(invocation, may_be_known, stream.since, now)
            .unwrap_or_else(|| Decision::Push(push(invocation, stream.standing.asks(), now))),
    }
}

/// What becomes of one that is queued and never sent, whatever its device is like.
fn foregone(
    invocation: &OpenInvocation,
    may_be_known: bool,
    since: Timestamp,
    now: Timestamp,
) -> Option<Decision> {
    if let Input::TooLarge(bytes) = invocation.input() {
        // Nobody can have sent it.
        return Some(Decision::End(End::failed(
            ErrorCode::InputTooLarge,
            format!("the input is {bytes} bytes long, {MAX_INPUT_BYTES} at most"),
        )));
    }
    if !invocation.is_cancelled() {
        return None;
    }
    Some(if may_be_known {
        // It may run: only the device can say that it does not.
        let heard_out = after(since, ANSWER_SECONDS);
        Decision::Cancel(invocation.answer_by(now).max(heard_out))
    } else {
        Decision::End(End::without_success(
            InvocationPhase::Cancelled,
            ErrorCode::Cancelled,
            "cancelled before it was sent to the device",
        ))
    })
}

/// What becomes of one that is queued and whose time is over. A device that may have it has a moment to say so.
fn overdue(
    invocation: &OpenInvocation,
    may_be_known: bool,
    since: Timestamp,
    now: Timestamp,
) -> Option<Decision> {
    if invocation.remaining(now).is_some() {
        return None;
    }
    let heard_out = after(since.max(invocation.deadline()), ANSWER_SECONDS);
    Some(if may_be_known && now < heard_out {
        Decision::Wait(heard_out)
    } else {
        Decision::End(too_late())
    })
}

fn too_late() -> End {
    End::failed(
        ErrorCode::DeadlineBeforeStart,
        "the deadline passed before it could be sent to the device",
    )
}

/// Sent by an earlier stream, here or elsewhere. Whether it ran is in the device's journal alone, so nothing but the
/// device's answer ends it in time.
fn decide_dispatched(
    invocation: &OpenInvocation,
    device: &KnownDevice,
    stream: Stream<'_>,
    now: Timestamp,
) -> Decision {
    let until = awaited_until(invocation, stream.since);
    if now >= until {
        return Decision::End(End::no_answer());
    }
    // What the device lacks now it may have had: it knows what became of it. What it may not run any more it must not
    // start, if it does not know it.
    let may_run = MAY_RUN
        .iter()
        .all(|check| check(invocation, device, stream).is_none());
    match (invocation.input(), invocation.remaining(now)) {
        (Input::Json(_), Some(_)) if may_run && !invocation.is_cancelled() => {
            Decision::Push(push(invocation, stream.standing.asks(), now))
        }
        (Input::Json(_) | Input::TooLarge(_), Some(_)) => Decision::Cancel(until),
        (Input::Json(_) | Input::TooLarge(_), None) => Decision::Wait(until),
    }
}

/// Until when the answer to one that was sent is awaited.
fn awaited_until(invocation: &OpenInvocation, since: Timestamp) -> Timestamp {
    let sent = invocation
        .status()
        .and_then(|status| status.dispatched_at.as_ref());
    let answer_by = invocation.answer_by(sent.map_or(invocation.created, |sent| sent.0));
    answer_by.max(after(since, ANSWER_SECONDS))
}

fn push(invocation: &OpenInvocation, mediate: bool, now: Timestamp) -> Push {
    let remaining = invocation.remaining(now).unwrap_or_default();
    Push {
        input: match invocation.input() {
            Input::Json(input) => input.to_vec(),
            Input::TooLarge(_) => Vec::new(),
        },
        remaining_ms: u32::try_from(remaining.as_millis())
            .unwrap_or(u32::MAX)
            .max(1),
        answer_by: invocation.answer_by(now),
        mediate,
    }
}

/// Sends once more what the device has answered, so that it answers again. `None` where it cannot have been sent.
/// `mediate`: the person at the device is to be asked, whatever the device declares.
pub fn again(invocation: &OpenInvocation, mediate: bool, now: Timestamp) -> Option<Push> {
    match invocation.input() {
        Input::Json(_) => Some(push(invocation, mediate, now)),
        Input::TooLarge(_) => None,
    }
}

/// Sends for the first time what was marked before. `None` where its time was over before the mark was written.
pub fn at_last(invocation: &OpenInvocation, mediate: bool, now: Timestamp) -> Option<Push> {
    invocation.remaining(now)?;
    again(invocation, mediate, now)
}

/// Whether the device may run it. The first finding counts.
const MAY_RUN: [Check; 4] = [is_for_this_device, is_trusted, is_granted, is_within_grant];
/// Whether the device is able to, as it says.
const CAN_RUN: [Check; 3] = [is_declared, is_available, is_taken];

type Check = fn(&OpenInvocation, &KnownDevice, Stream<'_>) -> Option<End>;

fn is_trusted(_: &OpenInvocation, device: &KnownDevice, _: Stream<'_>) -> Option<End> {
    let state = match device.spec.trust {
        TrustDecision::Active => return None,
        TrustDecision::Suspended => "suspended",
        TrustDecision::Revoked => "revoked",
    };
    Some(End::failed(
        ErrorCode::DeviceNotTrusted,
        format!("the device is {state}"),
    ))
}

fn is_granted(invocation: &OpenInvocation, _: &KnownDevice, stream: Stream<'_>) -> Option<End> {
    let capability = &invocation.spec().capability;
    let message = match stream.standing {
        Standing::Permitted(_) => return None,
        // A mistyped name must not send anybody to the grants.
        Standing::NotGranted if stream.declared.availability(capability).is_none() => {
            return Some(not_declared(capability, stream));
        }
        Standing::NotGranted => format!(
            "{capability} is not granted to the device: add it to spec.grants.capabilities of the Device"
        ),
        Standing::Pending => format!(
            "{capability} is granted, but the device declares it otherwise than it was granted: look at it in \
             status.capabilities of the Device, and put its surfaceSha256 into spec.grants.surfaces to grant it so"
        ),
    };
    Some(End::failed(ErrorCode::CapabilityNotGranted, message))
}

/// What was granted holds, whatever the device declares by now.
fn is_within_grant(
    invocation: &OpenInvocation,
    _: &KnownDevice,
    stream: Stream<'_>,
) -> Option<End> {
    let mismatch = stream.fit.beyond_grant.as_ref()?;
    let capability = &invocation.spec().capability;
    Some(End::failed(
        ErrorCode::InvalidInput,
        format!("the input is more than was granted of {capability}: {mismatch}"),
    ))
}

fn is_taken(invocation: &OpenInvocation, _: &KnownDevice, stream: Stream<'_>) -> Option<End> {
    let mismatch = stream.fit.not_taken.as_ref()?;
    let capability = &invocation.spec().capability;
    Some(End::failed(
        ErrorCode::InvalidInput,
        format!("{capability} does not take the input: {mismatch}"),
    ))
}

fn is_declared(invocation: &OpenInvocation, _: &KnownDevice, stream: Stream<'_>) -> Option<End> {
    let capability = &invocation.spec().capability;
    let is_missing = stream.declared.availability(capability).is_none();
    is_missing.then(|| not_declared(capability, stream))
}

fn not_declared(capability: &str, stream: Stream<'_>) -> End {
    let declared = stream.declared.capabilities.iter();
    let names = declared.map(|(declared, _)| declared.name.as_str());
    let meant = nearest::did_you_mean(capability, names);
    End::failed(
        ErrorCode::CapabilityNotDeclared,
        format!("the device does not declare {capability}{meant}"),
    )
}

fn is_available(invocation: &OpenInvocation, _: &KnownDevice, stream: Stream<'_>) -> Option<End> {
    let capability = &invocation.spec().capability;
    match stream.declared.availability(capability)? {
        Availability::Available => None,
        Availability::Unavailable => Some(End::failed(
            ErrorCode::CapabilityUnavailable,
            format!("the device cannot run {capability} now"),
        )),
    }
}

/// The index hands out a device's own; this holds even if it ever should not.
fn is_for_this_device(
    invocation: &OpenInvocation,
    device: &KnownDevice,
    _: Stream<'_>,
) -> Option<End> {
    (invocation.device != device.key).then(|| {
        End::failed(
            ErrorCode::Internal,
            "the invocation reached the stream of another device",
        )
    })
}

/// What to do with an invocation that this stream carried and whose answer is awaited.
#[derive(Clone, Debug, PartialEq)]
pub enum FollowUp {
    /// Tell the device to stop it.
    Cancel,
    /// Nobody waits for the answer any longer: write this end.
    End(End),
    /// Look again then.
    Wait(Timestamp),
}

/// Follows an invocation that this stream carried. `cancel_sent`: the device was told to stop it.
pub fn follow(
    invocation: &OpenInvocation,
    answer_by: Timestamp,
    cancel_sent: bool,
    now: Timestamp,
) -> FollowUp {
    if now >= answer_by {
        FollowUp::End(End::no_answer())
    } else if invocation.is_cancelled() && !cancel_sent {
        FollowUp::Cancel
    } else {
        FollowUp::Wait(answer_by)
    }
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{
        Execution,
        capability_invocation::{Cancel, WhenOffline},
        device::{DeviceCapability, Granted},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::fixtures::{
        at, declared, dispatched, invocation_with, minimal_device, minimal_invocation,
    };
    use crate::domain::grants::standing;

    /// Created at 0, with 30 seconds, on a stream that began at 0.
    fn decide_at(seconds: i64, invocation: &OpenInvocation) -> Decision {
        let declared = declared(&["echo"]);
        decide(
            invocation,
            &minimal_device(),
            Stream {
                declared: &declared,
                standing: &standing(
                    &invocation.spec().capability,
                    &declared,
                    &minimal_device().spec,
                    &minimal_device().status,
                ),
                fit: &Fit::default(),
                since: at(0),
                shown: None,
            },
            at(seconds),
        )
    }

    fn standing_of(device: &KnownDevice, declared: &Declared) -> Standing {
        standing("echo", declared, &device.spec, &device.status)
    }

    fn code(decision: Decision) -> (InvocationPhase, ErrorCode) {
        match decision {
            Decision::End(end) => (end.phase, end.error.unwrap().code),
            Decision::Push(_) | Decision::Cancel(_) | Decision::Wait(_) | Decision::Nothing => {
                panic!("that is no end")
            }
        }
    }

    fn sent(invocation: &OpenInvocation, seconds: i64) -> OpenInvocation {
        invocation.written(
            dispatched(invocation, "gateway-b", at(seconds)),
            "2".to_owned(),
        )
    }

    #[test]
    fn what_is_in_order_is_pushed_with_the_time_that_remains() {
        let invocation = invocation_with(|spec| spec.input = Some(json!({"say": "hi"})));
        let expected = Push {
            input: br#"{"say":"hi"}"#.to_vec(),
            remaining_ms: 20_000,
            answer_by: at(35),
            mediate: false,
        };
        assert_eq!(decide_at(10, &invocation), Decision::Push(expected));
    }

    #[test]
    fn one_that_was_queued_has_its_whole_timeout_when_its_device_comes() {
        let invocation = invocation_with(|spec| {
            spec.when_offline = WhenOffline::Queue;
            spec.queue_seconds = Some(600);
        });
        let expected = Push {
            input: Vec::new(),
            remaining_ms: 30_000,
            answer_by: at(135),
            mediate: false,
        };
        assert_eq!(decide_at(100, &invocation), Decision::Push(expected));
    }

    #[test]
    fn what_is_wrong_is_refused_at_once_with_its_own_code() {
        let refused = |change: &dyn Fn(&mut KnownDevice, &mut Declared), expected| {
            let (mut device, mut declared) = (minimal_device(), declared(&["echo"]));
            change(&mut device, &mut declared);
            let standing = standing_of(&device, &declared);
            let stream = Stream {
                declared: &declared,
                standing: &standing,
                fit: &Fit::default(),
                since: at(0),
                shown: None,
            };
            assert_eq!(
                code(decide(&minimal_invocation(), &device, stream, at(1))),
                (InvocationPhase::Failed, expected)
            );
        };
        refused(
            &|device, _| device.spec.trust = TrustDecision::Suspended,
            ErrorCode::DeviceNotTrusted,
        );
        refused(
            &|device, _| device.spec.grants.capabilities.clear(),
            ErrorCode::CapabilityNotGranted,
        );
        refused(
            &|_, declared| declared.capabilities.clear(),
            ErrorCode::CapabilityNotDeclared,
        );
        refused(
            &|_, declared| declared.capabilities[0].1 = Availability::Unavailable,
            ErrorCode::CapabilityUnavailable,
        );
        refused(
            &|device, _| "other".clone_into(&mut device.key.name),
            ErrorCode::Internal,
        );
    }

    #[test]
    fn a_mistyped_capability_is_not_declared_rather_than_not_granted() {
        let device = minimal_device();
        let declared = declared(&["echo", "system.health"]);
        let end = |typed: &str| {
            let invocation = invocation_with(|spec| typed.clone_into(&mut spec.capability));
            let standing = standing(typed, &declared, &device.spec, &device.status);
            let stream = Stream {
                declared: &declared,
                standing: &standing,
                since: at(0),
                shown: None,
            };
            let Decision::End(end) = decide(&invocation, &device, stream, at(1)) else {
                unreachable!("it must not be sent")
            };
            end.error.unwrap()
        };
        let mistyped = end("sytem.health");
        assert_eq!(mistyped.code, ErrorCode::CapabilityNotDeclared);
        assert!(
            mistyped.message.ends_with("did you mean system.health?"),
            "{}",
            mistyped.message
        );
        assert_eq!(end("system.health").code, ErrorCode::CapabilityNotGranted);
        assert!(!end("door.open").message.contains("did you mean"));
    }

    /// What the device declares of `echo`, and what was granted of it.
    fn decide_on(takes: &str, granted: Option<&str>, input: Value) -> Decision {
        let (mut device, mut declared) = (minimal_device(), declared(&["echo"]));
        declared.capabilities[0].0.input_schema = Some(takes.to_owned());
        if let Some(granted) = granted {
            device.status.capabilities = vec![DeviceCapability {
                name: "echo".to_owned(),
                granted: Granted::Granted,
                execution: Execution::Mediated,
                input_schema: Some(granted.to_owned()),
                ..DeviceCapability::default()
            }];
        }
        let standing = standing_of(&device, &declared);
        let invocation = invocation_with(|spec| spec.input = Some(input));
        let fit = Fit::of(invocation.input(), &standing, &mut u32::MAX.clone()).unwrap();
        let stream = Stream {
            declared: &declared,
            standing: &standing,
            fit: &fit,
            since: at(0),
            shown: None,
        };
        decide(&invocation, &device, stream, at(1))
    }

    #[test]
    fn what_the_device_does_not_take_is_not_sent_and_the_message_says_where() {
        let schema = r#"{"properties":{"minutes":{"maximum":60}}}"#;
        assert!(matches!(
            decide_on(schema, None, json!({"minutes": 60})),
            Decision::Push(Push { mediate: false, .. })
        ));
        let Decision::End(end) = decide_on(schema, None, json!({"minutes": 61})) else {
            unreachable!("it must not be sent")
        };
        let error = end.error.unwrap();
        assert_eq!(error.code, ErrorCode::InvalidInput);
        assert!(
            error.message.contains("/minutes: must be at most 60"),
            "{}",
            error.message
        );
    }

    #[test]
    fn what_was_granted_bounds_what_is_sent_and_a_person_goes_on_being_asked() {
        let (wide, narrow) = (r#"{"maximum":9}"#, r#"{"maximum":5}"#);
        assert!(matches!(
            decide_on(wide, Some(narrow), json!(5)),
            Decision::Push(Push { mediate: true, .. })
        ));
        let Decision::End(end) = decide_on(wide, Some(narrow), json!(9)) else {
            unreachable!("it must not be sent")
        };
        let error = end.error.unwrap();
        assert_eq!(error.code, ErrorCode::InvalidInput);
        assert!(
            error.message.contains("more than was granted"),
            "{}",
            error.message
        );
    }

    #[test]
    fn the_input_is_bounded_as_json_without_white_space() {
        // Two quotes and the text.
        let of =
            |bytes: usize| invocation_with(|spec| spec.input = Some(json!("x".repeat(bytes - 2))));
        assert!(matches!(
            decide_at(1, &of(MAX_INPUT_BYTES)),
            Decision::Push(_)
        ));
        assert_eq!(
            code(decide_at(1, &of(MAX_INPUT_BYTES + 1))),
            (InvocationPhase::Failed, ErrorCode::InputTooLarge)
        );
    }

    #[test]
    fn one_that_is_cancelled_before_it_was_sent_is_over() {
        let invocation = invocation_with(|spec| spec.cancel = Some(Cancel::Requested));
        assert_eq!(
            code(decide_at(1, &invocation)),
            (InvocationPhase::Cancelled, ErrorCode::Cancelled)
        );
    }

    #[test]
    fn what_was_written_before_the_session_may_be_known_though_the_clock_is_behind() {
        let cancelled = invocation_with(|spec| spec.cancel = Some(Cancel::Requested));
        let declared = declared(&["echo"]);
        let standing = standing_of(&minimal_device(), &declared);
        let decide = |version: &str| {
            // By this clock the session began before the invocation was made.
            let shown = Moment {
                at: at(-3),
                version: version.to_owned(),
            };
            let stream = Stream {
                declared: &declared,
                standing: &standing,
                fit: &Fit::default(),
                since: at(-3),
                shown: Some(&shown),
            };
            decide(&cancelled, &minimal_device(), stream, at(1))
        };
        assert!(
            matches!(decide("2"), Decision::Cancel(_)),
            "it may run: a stream before may have sent it"
        );
        assert_eq!(
            code(decide("1")),
            (InvocationPhase::Cancelled, ErrorCode::Cancelled)
        );
    }

    #[test]
    fn past_the_deadline_nothing_is_sent() {
        let invocation = minimal_invocation();
        assert!(matches!(decide_at(29, &invocation), Decision::Push(_)));
        assert_eq!(
            code(decide_at(30, &invocation)),
            (InvocationPhase::Failed, ErrorCode::DeadlineBeforeStart)
        );
    }

    #[test]
    fn a_device_that_just_came_back_is_heard_out_before_its_invocations_are_given_up() {
        let declared = declared(&["echo"]);
        let standing = standing_of(&minimal_device(), &declared);
        let stream = Stream {
            declared: &declared,
            standing: &standing,
            fit: &Fit::default(),
            since: at(100),
            shown: None,
        };
        let decide_at =
            |seconds, invocation: &_| decide(invocation, &minimal_device(), stream, at(seconds));
        let queued = minimal_invocation();
        assert_eq!(decide_at(101, &queued), Decision::Wait(at(105)));
        assert_eq!(
            code(decide_at(105, &queued)),
            (InvocationPhase::Failed, ErrorCode::DeadlineBeforeStart)
        );
        let dispatched = sent(&queued, 1);
        assert_eq!(decide_at(101, &dispatched), Decision::Wait(at(105)));
        assert_eq!(
            code(decide_at(105, &dispatched)),
            (InvocationPhase::Unknown, ErrorCode::NoAnswer)
        );
    }

    #[test]
    fn nothing_that_may_have_been_sent_before_is_ended_before_the_device_is_heard_out() {
        let decide = |invocation: &OpenInvocation, capabilities: &Declared, since, now| {
            let device = minimal_device();
            let name = &invocation.spec().capability;
            let standing = standing(name, capabilities, &device.spec, &device.status);
            let stream = Stream {
                declared: capabilities,
                standing: &standing,
                fit: &Fit::default(),
                since: at(since),
                shown: None,
            };
            decide(invocation, &device, stream, at(now))
        };
        let fine = declared(&["echo"]);
        let not_granted = invocation_with(|spec| "door.open".clone_into(&mut spec.capability));
        assert_eq!(
            decide(&not_granted, &fine, 10, 11),
            Decision::Wait(at(15)),
            "its result may come"
        );
        assert_eq!(
            code(decide(&not_granted, &fine, 10, 15)).1,
            ErrorCode::CapabilityNotDeclared
        );

        let cancelled = invocation_with(|spec| spec.cancel = Some(Cancel::Requested));
        assert_eq!(
            decide(&cancelled, &fine, 10, 11),
            Decision::Cancel(at(35)),
            "it may run"
        );

        let mut unavailable = declared(&["echo"]);
        unavailable.capabilities[0].1 = Availability::Unavailable;
        for declared in [declared(&[]), unavailable] {
            let decision = decide(&minimal_invocation(), &declared, 10, 11);
            assert!(
                matches!(decision, Decision::Push(_)),
                "the device knows best: {decision:?}"
            );
        }

        let too_large =
            invocation_with(|spec| spec.input = Some(json!("x".repeat(MAX_INPUT_BYTES))));
        assert_eq!(
            code(decide(&too_large, &fine, 10, 11)).1,
            ErrorCode::InputTooLarge,
            "nobody can have sent it"
        );
    }

    #[test]
    fn what_was_sent_is_not_stopped_because_the_device_says_that_it_cannot() {
        let invocation = sent(&minimal_invocation(), 1);
        let mut unavailable = declared(&["echo"]);
        unavailable.capabilities[0].1 = Availability::Unavailable;
        for declared in [declared(&[]), unavailable] {
            let standing = standing_of(&minimal_device(), &declared);
            let stream = Stream {
                declared: &declared,
                standing: &standing,
                fit: &Fit::default(),
                since: at(5),
                shown: None,
            };
            let decision = decide(&invocation, &minimal_device(), stream, at(10));
            assert!(matches!(decision, Decision::Push(_)), "{decision:?}");
        }
        let declared = declared(&["echo"]);
        let standing = standing_of(&minimal_device(), &declared);
        let stream = Stream {
            declared: &declared,
            standing: &standing,
            fit: &Fit::default(),
            since: at(5),
            shown: None,
        };
        let mut suspended = minimal_device();
        suspended.spec.trust = TrustDecision::Suspended;
        assert_eq!(
            decide(&invocation, &suspended, stream, at(10)),
            Decision::Cancel(at(35))
        );
    }

    #[test]
    fn one_that_another_stream_sent_is_sent_again_for_the_journal_knows_it() {
        assert!(matches!(
            decide_at(10, &sent(&minimal_invocation(), 1)),
            Decision::Push(_)
        ));
    }

    #[test]
    fn one_that_was_sent_is_not_sent_again_once_it_may_not_run() {
        let cancelled = invocation_with(|spec| spec.cancel = Some(Cancel::Requested));
        assert_eq!(
            decide_at(10, &sent(&cancelled, 1)),
            Decision::Cancel(at(35))
        );
        let not_granted = invocation_with(|spec| "door.open".clone_into(&mut spec.capability));
        assert_eq!(
            decide_at(10, &sent(&not_granted, 1)),
            Decision::Cancel(at(35))
        );
    }

    #[test]
    fn one_that_is_sent_again_has_what_is_left_since_it_was_sent_first() {
        let queued = invocation_with(|spec| {
            spec.when_offline = WhenOffline::Queue;
            spec.queue_seconds = Some(600);
        });
        let again = sent(&queued, 100);
        let expected = Push {
            input: Vec::new(),
            remaining_ms: 10_000,
            answer_by: at(135),
            mediate: false,
        };
        assert_eq!(decide_at(120, &again), Decision::Push(expected));
        assert_eq!(decide_at(130, &again), Decision::Wait(at(135)));
        assert_eq!(
            code(decide_at(135, &again)),
            (InvocationPhase::Unknown, ErrorCode::NoAnswer)
        );
    }

    #[test]
    fn what_was_marked_too_late_is_not_sent() {
        let marked = sent(&minimal_invocation(), 1);
        assert_eq!(at_last(&marked, false, at(29)).unwrap().remaining_ms, 1000);
        assert_eq!(at_last(&marked, false, at(30)), None);
        assert!(again(&marked, false, at(30)).is_some(), "it is asked for");
    }

    #[test]
    fn one_that_has_ended_is_left_alone() {
        let invocation = minimal_invocation();
        for phase in InvocationPhase::TERMINAL {
            let mut status = dispatched(&invocation, "gateway-b", at(1));
            status.phase = phase;
            let ended = invocation.written(status, "2".to_owned());
            assert_eq!(decide_at(10, &ended), Decision::Nothing, "{phase:?}");
        }
    }

    #[test]
    fn one_that_waits_for_others_is_cancelled_and_ends_in_time_all_the_same() {
        let queued = minimal_invocation();
        let cancelled = invocation_with(|spec| spec.cancel = Some(Cancel::Requested));
        let unsent = |invocation: &_, now| hold(invocation, false, at(0), at(now));
        assert_eq!(unsent(&queued, 1), Decision::Wait(at(30)));
        assert_eq!(
            code(unsent(&queued, 30)),
            (InvocationPhase::Failed, ErrorCode::DeadlineBeforeStart)
        );
        assert_eq!(
            code(unsent(&cancelled, 1)),
            (InvocationPhase::Cancelled, ErrorCode::Cancelled)
        );
        let maybe = |invocation: &_, now| hold(invocation, true, at(0), at(now));
        assert_eq!(maybe(&queued, 1), Decision::Wait(at(30)));
        assert_eq!(
            maybe(&queued, 30),
            Decision::Wait(at(35)),
            "a device that has it stops it then, and says so"
        );
        assert_eq!(
            code(maybe(&queued, 35)),
            (InvocationPhase::Failed, ErrorCode::DeadlineBeforeStart)
        );
        assert_eq!(maybe(&cancelled, 1), Decision::Cancel(at(35)));
        let dispatched = sent(&queued, 1);
        assert_eq!(unsent(&dispatched, 2), Decision::Wait(at(35)));
        assert_eq!(
            code(unsent(&dispatched, 35)),
            (InvocationPhase::Unknown, ErrorCode::NoAnswer)
        );
        assert_eq!(
            unsent(&sent(&cancelled, 1), 2),
            Decision::Cancel(at(35)),
            "it may run"
        );
    }

    #[test]
    fn one_too_many_ends_unless_the_device_may_have_it() {
        let turn_away = |invocation: &_, excess, may_be_known| {
            super::turn_away(invocation, excess, may_be_known, at(0), at(1))
        };
        let queued = minimal_invocation();
        for (excess, told) in [
            (Excess::OfDevice, "has 256 older open invocations"),
            (Excess::OfNamespace, "the namespace has 4096 older"),
        ] {
            let Decision::End(end) = turn_away(&queued, excess, false) else {
                unreachable!("it is one too many")
            };
            let error = end.error.unwrap();
            assert_eq!(error.code, ErrorCode::QueueFull);
            assert!(error.message.contains(told), "{}", error.message);
        }
        let excess = Excess::OfDevice;
        assert_eq!(turn_away(&queued, excess, true), Decision::Wait(at(30)));
        let cancelled = invocation_with(|spec| spec.cancel = Some(Cancel::Requested));
        assert_eq!(
            code(turn_away(&cancelled, excess, false)),
            (InvocationPhase::Cancelled, ErrorCode::Cancelled)
        );
        let dispatched = sent(&queued, 1);
        assert_eq!(
            turn_away(&dispatched, excess, false),
            Decision::Wait(at(35)),
            "somebody sent it"
        );
    }

    #[test]
    fn the_answer_to_one_that_was_sent_is_awaited_until_nobody_can_have_it() {
        let invocation = minimal_invocation();
        assert_eq!(
            follow(&invocation, at(35), false, at(34)),
            FollowUp::Wait(at(35))
        );
        assert_eq!(
            follow(&invocation, at(35), false, at(35)),
            FollowUp::End(End::no_answer())
        );
        let cancelled = invocation_with(|spec| spec.cancel = Some(Cancel::Requested));
        assert_eq!(follow(&cancelled, at(35), false, at(34)), FollowUp::Cancel);
        assert_eq!(
            follow(&cancelled, at(35), true, at(34)),
            FollowUp::Wait(at(35)),
            "told once"
        );
    }
}
