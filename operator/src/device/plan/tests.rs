use crds::v1alpha1::{
    DeviceSpec,
    device::{DeviceCapability, DeviceCertificate, Granted, Session},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::policies::plan::Since;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A device with a certificate for a day, that was never connected.
fn minimal() -> Device {
    let mut device = Device::new("lamp", DeviceSpec::default());
    device.metadata.generation = Some(1);
    device.status = Some(DeviceStatus {
        certificate: Some(DeviceCertificate {
            serial: "01".to_owned(),
            fingerprint: "00".repeat(32),
            generation: 1,
            not_before: Time(at(-300)),
            not_after: Time(at(86_400)),
            authority: None,
        }),
        ..DeviceStatus::default()
    });
    device
}

fn connected(ended: Option<i64>) -> Device {
    let mut device = minimal();
    device.status.as_mut().unwrap().session = Some(Session {
        gateway: "a".to_owned(),
        epoch: 1,
        connected_at: Some(Time(at(0))),
        ended_at: ended.map(|ended| Time(at(ended))),
    });
    device
}

fn decide(now: i64, device: &Device, lease: GatewayLease) -> Plan {
    plan(&Observed {
        now: at(now),
        device: device.clone(),
        lease,
        secret: SecretState::NotRead,
        policies: Standing::InForce(Since::default()),
    })
}

fn after(device: &Device, plan: &Plan) -> Device {
    let mut device = device.clone();
    if !plan.changes.is_empty() {
        device.status = Some(status(plan).clone());
    }
    device
}

fn status(plan: &Plan) -> &DeviceStatus {
    let [Change::WriteStatus(status)] = plan.changes.as_slice() else {
        panic!("{plan:?}")
    };
    status
}

fn condition_of<'a>(status: &'a DeviceStatus, type_: &str) -> (&'a str, &'a str) {
    let condition = conditions::find(&status.conditions, type_).unwrap();
    (&condition.status, &condition.reason)
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.notes.iter().map(|note| note.reason).collect()
}

#[test]
fn a_device_with_a_certificate_is_trusted_and_then_costs_nothing() {
    let device = minimal();
    let first = decide(1, &device, GatewayLease::Absent);
    let written = status(&first);
    assert_eq!(written.trust, Some(Trust::Trusted));
    assert_eq!(written.presence, Some(Presence::Offline));
    assert_eq!(condition_of(written, READY), ("True", "Trusted"));
    assert_eq!(condition_of(written, CERTIFICATE_VALID), ("True", "Issued"));
    assert_eq!(
        condition_of(written, CAPABILITIES_GRANTED),
        ("True", "Decided")
    );
    assert_eq!(reasons(&first), ["DeviceTrusted"]);
    let second = decide(2, &after(&device, &first), GatewayLease::Absent);
    assert_eq!(
        second,
        Plan {
            requeue_at: Some(at(86_400)),
            ..Plan::default()
        }
    );
}

#[test]
fn trust_is_the_decision_and_the_certificate_together() {
    for (decision, now, trust, ready, told) in [
        (
            TrustDecision::Active,
            1,
            Trust::Trusted,
            "Trusted",
            "DeviceTrusted",
        ),
        (
            TrustDecision::Active,
            86_400,
            Trust::Untrusted,
            "Expired",
            "CertificateExpired",
        ),
        (
            TrustDecision::Suspended,
            1,
            Trust::Untrusted,
            "Suspended",
            "DeviceSuspended",
        ),
        (
            TrustDecision::Revoked,
            1,
            Trust::Revoked,
            "Revoked",
            "DeviceRevoked",
        ),
        (
            TrustDecision::Revoked,
            86_400,
            Trust::Revoked,
            "Revoked",
            "DeviceRevoked",
        ),
    ] {
        let mut device = minimal();
        device.spec.trust = decision;
        let plan = decide(now, &device, GatewayLease::Absent);
        assert_eq!(status(&plan).trust, Some(trust), "{decision:?} {now}");
        assert_eq!(condition_of(status(&plan), READY).1, ready);
        assert_eq!(reasons(&plan), [told]);
    }
}

#[test]
fn a_device_without_a_certificate_is_not_trusted_yet_and_nobody_is_alarmed() {
    let mut device = minimal();
    device.status = None;
    let plan = decide(1, &device, GatewayLease::Absent);
    assert_eq!(status(&plan).trust, Some(Trust::Untrusted));
    assert_eq!(condition_of(status(&plan), READY), ("False", "NotIssued"));
    assert_eq!(reasons(&plan), [""; 0]);
    assert_eq!(plan.requeue_at, None);
}

#[test]
fn a_device_fades_away_at_its_thresholds() {
    let device = connected(Some(100));
    let first = decide(101, &device, GatewayLease::Live);
    assert_eq!(status(&first).presence, Some(Presence::Degraded));
    assert_eq!(first.requeue_at, Some(at(400)));
    let device = after(&device, &first);
    let second = decide(400, &device, GatewayLease::Live);
    assert_eq!(status(&second).presence, Some(Presence::Stale));
    assert_eq!(
        (reasons(&second), second.requeue_at),
        (vec!["DeviceStale"], Some(at(1900)))
    );
    let device = after(&device, &second);
    let third = decide(1900, &device, GatewayLease::Live);
    assert_eq!(status(&third).presence, Some(Presence::Offline));
    assert_eq!(
        (reasons(&third), third.requeue_at),
        (vec!["DeviceOffline"], Some(at(86_400)))
    );
}

#[test]
fn what_a_gateway_wrote_at_a_sessions_start_is_not_written_again() {
    let mut device = connected(None);
    device = after(&device, &decide(1, &device, GatewayLease::Live));
    assert_eq!(
        device.status.as_ref().unwrap().presence,
        Some(Presence::Online)
    );
    assert_eq!(
        decide(2, &device, GatewayLease::Live),
        Plan {
            requeue_at: Some(at(86_400)),
            ..Plan::default()
        }
    );
}

#[test]
fn a_gateway_whose_lease_was_not_seen_yet_is_not_taken_for_dead() {
    let device = connected(None);
    let device = after(&device, &decide(1, &device, GatewayLease::Live));
    assert_eq!(
        decide(2, &device, GatewayLease::Absent),
        Plan {
            requeue_at: Some(at(15)),
            ..Plan::default()
        }
    );
    let plan = decide(15, &device, GatewayLease::Absent);
    assert_eq!(status(&plan).presence, Some(Presence::Degraded));
    assert_eq!(
        status(&plan).presence_reason,
        Some(PresenceReason::GatewayGone)
    );
}

#[test]
fn while_nobody_can_tell_whether_the_gateway_lives_nothing_is_said_of_presence() {
    let online = connected(None);
    let online = after(&online, &decide(1, &online, GatewayLease::Live));
    let dead = GatewayLease::Expired {
        renewed_at: at(1000),
    };
    let away = connected(None);
    let away = after(&away, &decide(1400, &away, dead));
    for device in [online, away] {
        let plan = decide(1401, &device, GatewayLease::Unknown);
        assert_eq!(plan.changes, []);
        assert_eq!(plan.requeue_at, Some(at(86_400)));
    }
    // A session that has ended ages whoever held it.
    let ended = connected(Some(100));
    let plan = decide(400, &ended, GatewayLease::Unknown);
    assert_eq!(status(&plan).presence, Some(Presence::Stale));
}

#[test]
fn a_device_of_a_dead_gateway_is_away_since_the_last_renewal() {
    let device = connected(None);
    let lease = GatewayLease::Expired {
        renewed_at: at(1000),
    };
    let plan = decide(1300, &device, lease);
    assert_eq!(status(&plan).presence, Some(Presence::Stale));
    assert_eq!(
        status(&plan).presence_reason,
        Some(PresenceReason::GatewayGone)
    );
}

#[test]
fn a_capability_that_nobody_decided_on_is_pending_until_it_is_granted() {
    let mut device = minimal();
    device.status.as_mut().unwrap().capabilities = vec![DeviceCapability {
        name: "echo".to_owned(),
        granted: Granted::Pending,
        ..DeviceCapability::default()
    }];
    let plan = decide(1, &device, GatewayLease::Absent);
    assert_eq!(
        condition_of(status(&plan), CAPABILITIES_GRANTED),
        ("False", "Pending")
    );
    device.spec.grants.capabilities = vec!["echo".to_owned()];
    let plan = decide(1, &device, GatewayLease::Absent);
    assert_eq!(
        condition_of(status(&plan), CAPABILITIES_GRANTED),
        ("True", "Decided")
    );
}

#[test]
fn conditions_of_the_gateways_are_kept() {
    let mut device = minimal();
    let connected = condition(at(0), Some(1), conditions::CONNECTED, true, "Connected", "");
    device.status.as_mut().unwrap().conditions = vec![connected.clone()];
    let plan = decide(1, &device, GatewayLease::Absent);
    assert!(status(&plan).conditions.contains(&connected));
}

#[test]
fn a_device_that_was_made_a_moment_ago_is_left_to_who_certifies_it() {
    let mut device = minimal();
    device.metadata.creation_timestamp = Some(Time(at(0)));
    device.status = None;
    assert_eq!(
        decide(1, &device, GatewayLease::Absent),
        Plan {
            requeue_at: Some(at(10)),
            ..Plan::default()
        }
    );
    let plan = decide(10, &device, GatewayLease::Absent);
    assert_eq!(status(&plan).trust, Some(Trust::Untrusted));
    device.spec.trust = TrustDecision::Revoked;
    let plan = decide(1, &device, GatewayLease::Absent);
    assert_eq!(
        status(&plan).trust,
        Some(Trust::Revoked),
        "a decision is at once"
    );
}
