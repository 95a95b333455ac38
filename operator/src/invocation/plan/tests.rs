use crds::v1alpha1::{
    CapabilityInvocationSpec, DeviceSpec, DeviceStatus, ObjectReference,
    capability_invocation::Cancel, device::Session,
};

use super::*;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// Made at second 1000, thirty seconds long.
pub(super) fn minimal() -> CapabilityInvocation {
    let spec = CapabilityInvocationSpec {
        device_ref: ObjectReference::new("lamp"),
        capability: "echo".to_owned(),
        timeout_seconds: 30,
        ..CapabilityInvocationSpec::default()
    };
    let mut invocation = CapabilityInvocation::new("i", spec);
    invocation.metadata.creation_timestamp = Some(Time(at(1000)));
    invocation
}

pub(super) fn with(change: impl FnOnce(&mut CapabilityInvocation)) -> CapabilityInvocation {
    let mut invocation = minimal();
    change(&mut invocation);
    invocation
}

pub(super) fn queue(seconds: i64) -> CapabilityInvocation {
    with(|invocation| {
        invocation.spec.when_offline = WhenOffline::Queue;
        invocation.spec.queue_seconds = Some(seconds);
    })
}

/// Made at second 0, with a session since second 10.
pub(super) fn lamp(ended: Option<i64>) -> Device {
    let mut device = Device::new("lamp", DeviceSpec::default());
    device.metadata.creation_timestamp = Some(Time(at(0)));
    device.status = Some(DeviceStatus {
        session: Some(Session {
            gateway: "a".to_owned(),
            epoch: 1,
            connected_at: Some(Time(at(10))),
            ended_at: ended.map(|ended| Time(at(ended))),
        }),
        ..DeviceStatus::default()
    });
    device
}

/// Devices have been seen for long, and none of that name went.
pub(super) fn never_there() -> Absence {
    Absence {
        seen_since: at(0),
        departure: None,
    }
}

fn decide(
    now: i64,
    invocation: &CapabilityInvocation,
    device: &Device,
    lease: GatewayLease,
) -> Plan {
    let device = Target::known(device.clone());
    plan(&Observed {
        now: at(now),
        invocation: invocation.clone(),
        device,
        lease,
        standing: Standing::Within,
        seen_since: at(0),
        absence: never_there(),
    })
}

pub(super) fn waits_until(second: i64) -> Plan {
    Plan {
        requeue_at: Some(at(second)),
        ..Plan::default()
    }
}

pub(super) fn end(plan: &Plan) -> (InvocationPhase, ErrorCode) {
    let [Change::End(status)] = plan.changes.as_slice() else {
        panic!("{plan:?}")
    };
    assert!(status.finished_at.is_some());
    assert_eq!(plan.requeue_at, None);
    assert_eq!(plan.notes.len(), 1);
    (status.phase, status.error.as_ref().unwrap().code)
}

#[test]
fn an_invocation_of_a_connected_device_is_left_to_its_gateway() {
    for phase in [
        InvocationPhase::Queued,
        InvocationPhase::Dispatched,
        InvocationPhase::AwaitingMediation,
    ] {
        let invocation = with(|invocation| invocation.status.get_or_insert_default().phase = phase);
        assert_eq!(
            decide(1001, &invocation, &lamp(None), GatewayLease::Live),
            waits_until(1040),
            "{phase:?}"
        );
    }
}

#[test]
fn what_nobody_answered_becomes_unknown_at_last() {
    for phase in [
        InvocationPhase::Queued,
        InvocationPhase::Dispatched,
        InvocationPhase::AwaitingMediation,
    ] {
        let invocation = with(|invocation| invocation.status.get_or_insert_default().phase = phase);
        let plan = decide(1040, &invocation, &lamp(None), GatewayLease::Live);
        assert_eq!(
            end(&plan),
            (InvocationPhase::Unknown, ErrorCode::NoAnswer),
            "{phase:?}"
        );
    }
}

#[test]
fn what_was_sent_is_not_ended_because_the_device_went_away() {
    let sent = with(|invocation| {
        invocation.status.get_or_insert_default().phase = InvocationPhase::Dispatched;
    });
    assert_eq!(
        decide(1020, &sent, &lamp(Some(1001)), GatewayLease::Live),
        waits_until(1040)
    );
}

#[test]
fn an_end_is_an_end() {
    for phase in InvocationPhase::TERMINAL {
        let ended = with(|invocation| invocation.status.get_or_insert_default().phase = phase);
        assert_eq!(
            decide(9999, &ended, &lamp(None), GatewayLease::Live),
            Plan::default(),
            "{phase:?}"
        );
    }
}

#[test]
fn an_invocation_of_a_device_that_is_away_fails_at_once() {
    let offline = (InvocationPhase::Failed, ErrorCode::DeviceOffline);
    let gone = GatewayLease::Expired {
        renewed_at: at(500),
    };
    assert_eq!(
        decide(1000, &minimal(), &lamp(Some(900)), GatewayLease::Live),
        waits_until(1001)
    );
    assert_eq!(
        end(&decide(
            1001,
            &minimal(),
            &lamp(Some(900)),
            GatewayLease::Live
        )),
        offline
    );
    assert_eq!(end(&decide(1001, &minimal(), &lamp(None), gone)), offline);
    assert_eq!(
        end(&decide(1001, &minimal(), &lamp(None), GatewayLease::Absent)),
        offline
    );
    let mut never = lamp(None);
    never.status = None;
    assert_eq!(
        end(&decide(1001, &minimal(), &never, GatewayLease::Absent)),
        offline
    );
}

#[test]
fn a_device_that_may_be_moving_is_waited_for() {
    assert_eq!(
        decide(1001, &minimal(), &lamp(Some(999)), GatewayLease::Live),
        waits_until(1004)
    );
    let gone = GatewayLease::Expired {
        renewed_at: at(990),
    };
    // Made after the Lease ran out: that gateway sent nothing.
    let made_later = with(|invocation| {
        invocation.metadata.creation_timestamp = Some(Time(at(1006)));
    });
    assert_eq!(
        decide(1007, &made_later, &lamp(None), gone),
        waits_until(1010)
    );
    let mut new = lamp(None);
    new.status = None;
    new.metadata.creation_timestamp = Some(Time(at(998)));
    assert_eq!(
        decide(1001, &minimal(), &new, GatewayLease::Absent),
        waits_until(1003)
    );
}

#[test]
fn what_a_gateway_that_died_may_have_sent_is_the_devices_to_end() {
    let gone = GatewayLease::Expired {
        renewed_at: at(990),
    };
    let cancelled = with(|invocation| invocation.spec.cancel = Some(Cancel::Requested));
    for invocation in [minimal(), cancelled] {
        assert_eq!(
            decide(1015, &invocation, &lamp(None), gone),
            waits_until(1040)
        );
        assert_eq!(
            end(&decide(1040, &invocation, &lamp(None), gone)),
            (InvocationPhase::Unknown, ErrorCode::NoAnswer)
        );
    }
    // What waited before the session is marked before it is sent: it was not.
    let waited = with(|invocation| {
        invocation.metadata.creation_timestamp = Some(Time(at(5)));
        invocation.spec.when_offline = WhenOffline::Queue;
        invocation.spec.queue_seconds = Some(1000);
    });
    assert_eq!(
        end(&decide(1006, &waited, &lamp(None), gone)),
        (InvocationPhase::Failed, ErrorCode::DeviceOffline)
    );
}

#[test]
fn a_queued_invocation_waits_as_long_as_it_says() {
    assert_eq!(
        decide(1001, &queue(600), &lamp(Some(900)), GatewayLease::Live),
        waits_until(1600)
    );
    let plan = decide(1600, &queue(600), &lamp(Some(900)), GatewayLease::Live);
    assert_eq!(
        end(&plan),
        (InvocationPhase::Failed, ErrorCode::DeviceOffline)
    );
    assert_eq!(
        decide(1600, &queue(600), &lamp(None), GatewayLease::Live),
        waits_until(1640),
        "it came in time"
    );
}

#[test]
fn an_invocation_of_no_device_or_one_that_is_not_trusted_fails() {
    let nobody = Observed {
        now: at(1000),
        invocation: minimal(),
        device: Target::Absent,
        lease: GatewayLease::Absent,
        standing: Standing::Within,
        seen_since: at(0),
        absence: never_there(),
    };
    assert_eq!(
        end(&plan(&nobody)),
        (InvocationPhase::Failed, ErrorCode::DeviceNotFound)
    );
    for trust in [TrustDecision::Suspended, TrustDecision::Revoked] {
        let mut device = lamp(Some(900));
        device.spec.trust = trust;
        let plan = decide(1001, &queue(600), &device, GatewayLease::Live);
        assert_eq!(
            end(&plan),
            (InvocationPhase::Failed, ErrorCode::DeviceNotTrusted),
            "{trust:?}"
        );
        // Until its gateway has cut the stream, and marked what it had sent.
        let mut held = lamp(None);
        held.spec.trust = trust;
        assert_eq!(
            decide(1001, &queue(600), &held, GatewayLease::Live),
            waits_until(1640),
            "{trust:?}"
        );
    }
    let mut expired = lamp(Some(900));
    expired.status.as_mut().unwrap().trust = Some(Trust::Untrusted);
    let plan = decide(1001, &minimal(), &expired, GatewayLease::Live);
    assert_eq!(
        end(&plan),
        (InvocationPhase::Failed, ErrorCode::DeviceNotTrusted)
    );
}

#[test]
fn a_cancelled_invocation_is_ended_by_who_holds_the_stream() {
    let cancelled = with(|invocation| invocation.spec.cancel = Some(Cancel::Requested));
    assert_eq!(
        decide(1001, &cancelled, &lamp(None), GatewayLease::Live),
        waits_until(1040)
    );
    // Its session may not be seen yet.
    assert_eq!(
        decide(1000, &cancelled, &lamp(Some(999)), GatewayLease::Live),
        waits_until(1001)
    );
    let plan = decide(1001, &cancelled, &lamp(Some(999)), GatewayLease::Live);
    assert_eq!(
        end(&plan),
        (InvocationPhase::Cancelled, ErrorCode::Cancelled)
    );
    let sent = with(|invocation| {
        invocation.spec.cancel = Some(Cancel::Requested);
        invocation.status.get_or_insert_default().phase = InvocationPhase::Dispatched;
    });
    assert_eq!(
        decide(1001, &sent, &lamp(Some(999)), GatewayLease::Live),
        waits_until(1040)
    );
}

#[test]
fn a_device_that_cannot_be_read_is_no_reason_to_fail_but_time_is() {
    let unreadable = |now| {
        plan(&Observed {
            now: at(now),
            invocation: minimal(),
            device: Target::Unreadable,
            lease: GatewayLease::Absent,
            standing: Standing::Within,
            seen_since: at(0),
            absence: never_there(),
        })
    };
    assert_eq!(unreadable(1001), waits_until(1040));
    assert_eq!(
        end(&unreadable(1040)),
        (InvocationPhase::Unknown, ErrorCode::NoAnswer)
    );
}

#[test]
fn a_gateway_that_holds_the_device_may_write_what_it_holds_after_an_outage() {
    let sent = with(|invocation| {
        invocation.status.get_or_insert_default().phase = InvocationPhase::Dispatched;
    });
    // Its time was over at second 1040; nothing was seen before second 1100.
    let decide = |now, invocation: &CapabilityInvocation, device: Target, lease| {
        plan(&Observed {
            now: at(now),
            invocation: invocation.clone(),
            device,
            lease,
            standing: Standing::Within,
            seen_since: at(1100),
            absence: never_there(),
        })
    };
    let unknown = (InvocationPhase::Unknown, ErrorCode::NoAnswer);
    let connected = || Target::known(lamp(None));
    for invocation in [&sent, &minimal()] {
        for lease in [GatewayLease::Live, GatewayLease::Unknown] {
            assert_eq!(
                decide(1100, invocation, connected(), lease),
                waits_until(1115)
            );
            let plan = decide(1115, invocation, connected(), lease);
            assert_eq!(end(&plan), unknown);
        }
    }
    let unreadable = decide(1101, &sent, Target::Unreadable, GatewayLease::Absent);
    assert_eq!(unreadable, waits_until(1115));
    // Nobody holds it: there is nothing to wait for.
    let gone = GatewayLease::Expired {
        renewed_at: at(1000),
    };
    for (device, lease) in [
        (Target::known(lamp(Some(1001))), GatewayLease::Live),
        (connected(), gone),
        (connected(), GatewayLease::Absent),
        (Target::Absent, GatewayLease::Absent),
    ] {
        assert_eq!(end(&decide(1100, &sent, device, lease)), unknown);
    }
}

#[test]
fn nobody_is_given_up_by_a_lease_that_was_not_watched_for_long() {
    assert_eq!(
        decide(1010, &minimal(), &lamp(None), GatewayLease::Unknown),
        waits_until(1040)
    );
}

#[test]
fn an_input_that_is_too_large_ends_the_invocation_whoever_holds_the_device() {
    let sized = |bytes: usize| {
        with(|invocation| {
            // Two bytes are the quotes.
            invocation.spec.input = Some("x".repeat(bytes - 2).into());
        })
    };
    assert_eq!(
        decide(1001, &sized(32_768), &lamp(None), GatewayLease::Live),
        waits_until(1040)
    );
    let too_large = (InvocationPhase::Failed, ErrorCode::InputTooLarge);
    for device in [lamp(None), lamp(Some(999))] {
        let plan = decide(1001, &sized(32_769), &device, GatewayLease::Live);
        assert_eq!(end(&plan), too_large);
    }
    let sent = with(|invocation| {
        *invocation = sized(32_769);
        invocation.status.get_or_insert_default().phase = InvocationPhase::Dispatched;
    });
    assert_eq!(
        decide(1001, &sent, &lamp(None), GatewayLease::Live),
        waits_until(1040),
        "it may run"
    );
}

#[test]
fn one_of_too_many_ends_unless_a_gateway_may_have_sent_it() {
    let decide = |now, standing, invocation: &CapabilityInvocation, device, lease| {
        plan(&Observed {
            now: at(now),
            invocation: invocation.clone(),
            device: Target::known(device),
            lease,
            standing,
            seen_since: at(0),
            absence: never_there(),
        })
    };
    let full = (InvocationPhase::Failed, ErrorCode::QueueFull);
    let dead = GatewayLease::Expired {
        renewed_at: at(990),
    };
    let too_many = queue(600);
    for standing in [Standing::BeyondDevice, Standing::BeyondNamespace] {
        let of = |now, device, lease| decide(now, standing, &too_many, device, lease);
        let away = lamp(Some(900));
        assert_eq!(
            of(1000, away.clone(), GatewayLease::Live),
            waits_until(1001),
            "its session may not be seen yet"
        );
        assert_eq!(end(&of(1001, away.clone(), GatewayLease::Live)), full);
        // The gateway hears of it first, and has an order of its own within a second.
        assert_eq!(
            of(1001, lamp(None), GatewayLease::Live),
            waits_until(1640),
            "a gateway holds the device"
        );
        assert_eq!(
            of(1006, lamp(None), dead),
            waits_until(1640),
            "one that died may have sent it"
        );
        let sent = with(|invocation| {
            invocation.status.get_or_insert_default().phase = InvocationPhase::Dispatched;
        });
        assert_eq!(
            decide(1001, standing, &sent, away.clone(), GatewayLease::Live),
            waits_until(1040),
            "it may run"
        );
        let cancelled = with(|invocation| invocation.spec.cancel = Some(Cancel::Requested));
        assert_eq!(
            end(&decide(
                1001,
                standing,
                &cancelled,
                away,
                GatewayLease::Live
            )),
            (InvocationPhase::Cancelled, ErrorCode::Cancelled)
        );
    }
}
