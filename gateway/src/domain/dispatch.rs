//! What to do with an invocation whose device holds a stream here.
//!
//! No claim and no fence: the device's journal makes an effect happen at most once, so whoever sees an invocation and
//! holds the stream pushes it.

use crds::{
    deadline::ANSWER_SECONDS,
    names::MAX_INPUT_BYTES,
    v1alpha1::{
        capability_invocation::{ErrorCode, InvocationPhase},
        device::{Availability, TrustDecision},
    },
};
use jiff::Timestamp;

use super::{
    device::KnownDevice,
    invocation::{OpenInvocation, after},
    register::Declared,
    result::End,
};

/// The stream that would carry it.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    pub declared: &'a Declared,
    /// When it began. A device repeats first what nobody acked: what ended while it was away is known soon after.
    pub since: Timestamp,
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

fn decide_queued(
    invocation: &OpenInvocation,
    device: &KnownDevice,
    stream: Stream<'_>,
    now: Timestamp,
) -> Decision {
    if invocation.is_cancelled() {
        return Decision::End(End::without_success(
            InvocationPhase::Cancelled,
            ErrorCode::Cancelled,
            "cancelled before it was sent to the device",
        ));
    }
    if let Some(refusal) = CHECKS
        .iter()
        .find_map(|check| check(invocation, device, stream))
    {
        return Decision::End(refusal);
    }
    let input = match input(invocation) {
        Ok(input) => input,
        Err(refusal) => return Decision::End(refusal),
    };
    if invocation.remaining(now).is_some() {
        return push(invocation, input, now);
    }
    // The gateway before this one may have sent it and died before it said so; then the device tells, and first of all.
    let heard_out = after(stream.since, ANSWER_SECONDS);
    if now < heard_out {
        return Decision::Wait(heard_out);
    }
    Decision::End(End::failed(
        ErrorCode::DeadlineBeforeStart,
        "the deadline passed before it could be sent to the device",
    ))
}

/// Sent by an earlier stream, here or elsewhere. Whether it ran is in the device's journal alone, so nothing but the
/// device's answer ends it in time.
fn decide_dispatched(
    invocation: &OpenInvocation,
    device: &KnownDevice,
    stream: Stream<'_>,
    now: Timestamp,
) -> Decision {
    let sent = invocation
        .status()
        .and_then(|status| status.dispatched_at.as_ref());
    let answer_by = invocation.answer_by(sent.map_or(invocation.created, |sent| sent.0));
    let until = answer_by.max(after(stream.since, ANSWER_SECONDS));
    if now >= until {
        return Decision::End(End::no_answer());
    }
    let allowed = CHECKS
        .iter()
        .all(|check| check(invocation, device, stream).is_none());
    match (input(invocation), invocation.remaining(now)) {
        (Ok(input), Some(_)) if allowed && !invocation.is_cancelled() => {
            push(invocation, input, now)
        }
        // If the device does not know it, it must not start it now.
        (Ok(_) | Err(_), Some(_)) => Decision::Cancel(until),
        (Ok(_) | Err(_), None) => Decision::Wait(until),
    }
}

fn push(invocation: &OpenInvocation, input: Vec<u8>, now: Timestamp) -> Decision {
    let remaining = invocation.remaining(now).unwrap_or_default();
    Decision::Push(Push {
        input,
        remaining_ms: u32::try_from(remaining.as_millis())
            .unwrap_or(u32::MAX)
            .max(1),
        answer_by: invocation.answer_by(now),
    })
}

/// The first finding counts.
const CHECKS: [Check; 5] = [
    is_trusted,
    is_granted,
    is_declared,
    is_available,
    is_for_this_device,
];

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

fn is_granted(invocation: &OpenInvocation, device: &KnownDevice, _: Stream<'_>) -> Option<End> {
    let capability = &invocation.spec().capability;
    (!device.spec.grants.capabilities.contains(capability)).then(|| {
        End::failed(
            ErrorCode::CapabilityNotGranted,
            format!("{capability} is not granted to the device: add it to spec.grants.capabilities of the Device"),
        )
    })
}

fn is_declared(invocation: &OpenInvocation, _: &KnownDevice, stream: Stream<'_>) -> Option<End> {
    let capability = &invocation.spec().capability;
    stream.declared.availability(capability).is_none().then(|| {
        End::failed(
            ErrorCode::CapabilityNotDeclared,
            format!("the device does not declare {capability}"),
        )
    })
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

fn input(invocation: &OpenInvocation) -> Result<Vec<u8>, End> {
    let Some(input) = &invocation.spec().input else {
        return Ok(Vec::new());
    };
    let input = serde_json::to_vec(input).map_err(|error| {
        End::failed(
            ErrorCode::InvalidInput,
            format!("the input cannot be written as JSON: {error}"),
        )
    })?;
    if input.len() > MAX_INPUT_BYTES {
        return Err(End::failed(
            ErrorCode::InputTooLarge,
            format!(
                "the input is {} bytes long, {MAX_INPUT_BYTES} at most",
                input.len()
            ),
        ));
    }
    Ok(input)
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
    use crds::v1alpha1::capability_invocation::{Cancel, WhenOffline};
    use serde_json::json;

    use super::*;
    use crate::domain::{
        fixtures::{at, declared, invocation_with, minimal_device, minimal_invocation},
        result::dispatched,
    };

    /// Created at 0, with 30 seconds, on a stream that began at 0.
    fn decide_at(seconds: i64, invocation: &OpenInvocation) -> Decision {
        let declared = declared(&["echo"]);
        decide(
            invocation,
            &minimal_device(),
            Stream {
                declared: &declared,
                since: at(0),
            },
            at(seconds),
        )
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
        };
        assert_eq!(decide_at(100, &invocation), Decision::Push(expected));
    }

    #[test]
    fn what_is_wrong_is_refused_at_once_with_its_own_code() {
        let refused = |change: &dyn Fn(&mut KnownDevice, &mut Declared), expected| {
            let (mut device, mut declared) = (minimal_device(), declared(&["echo"]));
            change(&mut device, &mut declared);
            let stream = Stream {
                declared: &declared,
                since: at(0),
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
        let stream = Stream {
            declared: &declared,
            since: at(100),
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
