use super::*;
use crate::v1alpha1::{CapabilityInvocationSpec, CapabilityInvocationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn invocation(when_offline: WhenOffline, queue_seconds: Option<i64>) -> CapabilityInvocation {
    let spec = CapabilityInvocationSpec {
        timeout_seconds: 30,
        when_offline,
        queue_seconds,
        ..CapabilityInvocationSpec::default()
    };
    let mut invocation = CapabilityInvocation::new("run", spec);
    invocation.metadata.creation_timestamp = Some(Time(at(0)));
    invocation
}

#[test]
fn the_deadline_is_the_wait_and_the_timeout_after_the_creation() {
    for (sentence, when_offline, queue_seconds, expected) in [
        ("nothing waits that may not", WhenOffline::Fail, None, 30),
        (
            "it waits as long as it may",
            WhenOffline::Queue,
            Some(60),
            90,
        ),
        (
            "it waits an hour where nothing is said",
            WhenOffline::Queue,
            None,
            3630,
        ),
    ] {
        assert_eq!(
            of(&invocation(when_offline, queue_seconds)),
            Some(at(expected)),
            "{sentence}"
        );
    }
}

#[test]
fn a_device_gets_the_timeout_but_not_past_the_deadline() {
    let queued = invocation(WhenOffline::Queue, Some(60));
    for (sentence, now, expected) in [
        ("all of it while there is time", 0, Some(30)),
        ("all of it at the end of the wait", 60, Some(30)),
        ("what is left after the wait", 85, Some(5)),
        ("nothing at the deadline", 90, None),
        ("nothing past it", 1000, None),
    ] {
        assert_eq!(
            remaining(&queued, at(now)),
            expected.map(SignedDuration::from_secs),
            "{sentence}"
        );
    }
}

fn dispatched(mut invocation: CapabilityInvocation, seconds: i64) -> CapabilityInvocation {
    invocation.status = Some(CapabilityInvocationStatus {
        dispatched_at: Some(Time(at(seconds))),
        ..CapabilityInvocationStatus::default()
    });
    invocation
}

#[test]
fn once_dispatched_the_timeout_counts_and_the_wait_does_not() {
    for (sentence, sent, expected) in [
        ("at once", 0, 30),
        ("after a while", 20, 50),
        ("at the end of the wait", 60, 90),
        ("later than it may", 85, 90),
        ("by a clock that is behind", -10, 30),
    ] {
        let queued = dispatched(invocation(WhenOffline::Queue, Some(60)), sent);
        assert_eq!(of(&queued), Some(at(expected)), "{sentence}");
        let expected = SignedDuration::from_secs(expected - 29);
        assert_eq!(
            remaining(&queued, at(29)),
            Some(expected.min(SignedDuration::from_secs(30))),
            "{sentence}, sent again"
        );
    }
    for sent in [-10, 0, 20] {
        let at_once = dispatched(invocation(WhenOffline::Fail, None), sent);
        assert_eq!(
            of(&at_once),
            Some(at(30)),
            "created at 0, dispatched at {sent}"
        );
    }
}

#[test]
fn what_no_api_server_created_has_no_deadline() {
    let mut invocation = invocation(WhenOffline::Fail, None);
    invocation.metadata.creation_timestamp = None;
    assert_eq!(of(&invocation), None);
    assert_eq!(remaining(&invocation, at(0)), None);
}

#[test]
fn a_deadline_past_the_end_of_time_is_none() {
    let mut invocation = invocation(WhenOffline::Fail, None);
    invocation.metadata.creation_timestamp = Some(Time(Timestamp::MAX));
    assert_eq!(of(&invocation), None);
}
