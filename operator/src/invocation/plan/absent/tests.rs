use crds::v1alpha1::capability_invocation::Cancel;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    super::{
        super::backlog::Standing,
        GatewayLease, Plan, Target, plan,
        tests::{at, end, lamp, minimal, never_there, queue, waits_until, with},
    },
    *,
};

/// It went at second 1010, and had held a stream since second 10.
fn went() -> Absence {
    Absence {
        seen_since: at(0),
        departure: Some(Departure {
            at: at(1010),
            version: Some("100".to_owned()),
            connected_at: Some(at(10)),
        }),
    }
}

fn without_device(now: i64, invocation: &CapabilityInvocation, absence: Absence) -> Plan {
    plan(&Observed {
        now: at(now),
        invocation: invocation.clone(),
        device: Target::Absent,
        lease: GatewayLease::Absent,
        standing: Standing::Within,
        seen_since: at(0),
        absence,
    })
}

#[test]
fn what_was_certainly_never_sent_says_that_there_is_no_device() {
    let not_found = (InvocationPhase::Failed, ErrorCode::DeviceNotFound);
    // However late it is looked at.
    for now in [1000, 1040, 9000] {
        let plan = without_device(now, &minimal(), never_there());
        assert_eq!(end(&plan), not_found, "{now}");
    }
    // It waited for the device before that connected: that would have been marked.
    let waited = with(|invocation| {
        *invocation = queue(3000);
        invocation.metadata.creation_timestamp = Some(Time(at(5)));
    });
    assert_eq!(end(&without_device(1011, &waited, went())), not_found);
    // Made after the device went.
    let later = with(|invocation| {
        invocation.metadata.creation_timestamp = Some(Time(at(1011)));
        invocation.metadata.resource_version = Some("101".to_owned());
    });
    assert_eq!(end(&without_device(1011, &later, went())), not_found);
    let too_large = with(|invocation| invocation.spec.input = Some("x".repeat(40_000).into()));
    assert_eq!(
        end(&without_device(1011, &too_large, never_there())),
        (InvocationPhase::Failed, ErrorCode::InputTooLarge)
    );
}

#[test]
fn what_a_gateway_may_have_sent_before_the_device_was_deleted_is_unknown() {
    let unknown = (InvocationPhase::Unknown, ErrorCode::NoAnswer);
    let cancelled = with(|invocation| invocation.spec.cancel = Some(Cancel::Requested));
    for invocation in [minimal(), cancelled] {
        assert_eq!(
            without_device(1011, &invocation, went()),
            waits_until(1040),
            "it may run"
        );
        assert_eq!(end(&without_device(1040, &invocation, went())), unknown);
    }
    // By our clock it was made after that; by the order of the writes it was not.
    let by_order = with(|invocation| {
        invocation.metadata.creation_timestamp = Some(Time(at(1012)));
        invocation.metadata.resource_version = Some("99".to_owned());
    });
    assert_eq!(without_device(1013, &by_order, went()), waits_until(1052));
    // Nobody saw whether there was a device.
    let not_seen = Absence {
        seen_since: at(1001),
        departure: None,
    };
    assert_eq!(
        without_device(1002, &minimal(), not_seen.clone()),
        waits_until(1040)
    );
    // It need not wait for days: what was sent has run by then.
    assert_eq!(
        without_device(1011, &queue(600_000), went()),
        waits_until(1050)
    );
    let sent = with(|invocation| {
        *invocation = queue(600_000);
        let status = invocation.status.get_or_insert_default();
        status.phase = InvocationPhase::Dispatched;
        status.dispatched_at = Some(Time(at(1005)));
    });
    assert_eq!(
        without_device(1011, &sent, never_there()),
        waits_until(1045)
    );
    assert_eq!(end(&without_device(1045, &sent, never_there())), unknown);
}

#[test]
fn a_device_that_was_made_anew_says_nothing_of_what_was_sent_to_the_one_before() {
    let anew = |second| {
        let mut device = lamp(None);
        device.status = None;
        device.metadata.creation_timestamp = Some(Time(at(second)));
        device
    };
    let decide = |now, device, absence| {
        plan(&Observed {
            now: at(now),
            invocation: minimal(),
            device: Target::known(device),
            lease: GatewayLease::Absent,
            standing: Standing::Within,
            seen_since: at(0),
            absence,
        })
    };
    assert_eq!(decide(1018, anew(1012), went()), waits_until(1040));
    assert_eq!(
        end(&decide(1018, anew(1012), never_there())),
        (InvocationPhase::Failed, ErrorCode::DeviceOffline)
    );
    assert_eq!(
        end(&decide(1018, anew(900), went())),
        (InvocationPhase::Failed, ErrorCode::DeviceOffline),
        "it was there before"
    );
}
