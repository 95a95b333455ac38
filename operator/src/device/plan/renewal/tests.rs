use crds::{Device, presence::GatewayLease, v1alpha1::DeviceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{super::*, *};
use crate::{
    authority::{csr::tests::request as csr_of, new_key},
    policies::plan::{Policy, Since, Why},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn identity() -> &'static (String, DeviceKey) {
    static IDENTITY: std::sync::OnceLock<(String, DeviceKey)> = std::sync::OnceLock::new();
    IDENTITY.get_or_init(|| csr_of(&new_key().unwrap()))
}

/// A trusted device with its third certificate, from second 0 to second 9000, that asks for the next.
fn asking() -> Observed {
    let (csr, key) = identity();
    let spec = DeviceSpec {
        public_key_sha256: key.fingerprint().to_string(),
        ..DeviceSpec::default()
    };
    let mut device = Device::new("lamp", spec);
    device.metadata.generation = Some(1);
    device.status = Some(DeviceStatus {
        certificate: Some(DeviceCertificate {
            serial: "03".to_owned(),
            fingerprint: "00".repeat(32),
            generation: 3,
            not_before: Time(at(0)),
            not_after: Time(at(9000)),
            authority: None,
        }),
        renewal: Some(Renewal {
            csr: csr.clone(),
            requested_at: Some(Time(at(6000))),
            ..Renewal::default()
        }),
        ..DeviceStatus::default()
    });
    Observed {
        now: at(6000),
        device,
        lease: GatewayLease::Live,
        secret: SecretState::NotRead,
        policies: Standing::InForce(Since::default()),
    }
}

fn with(change: impl FnOnce(&mut Observed)) -> Observed {
    let mut observed = asking();
    change(&mut observed);
    observed
}

fn renewal(observed: &mut Observed) -> &mut Renewal {
    let status = observed.device.status.as_mut().unwrap();
    status.renewal.as_mut().unwrap()
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.notes.iter().map(|note| note.reason).collect()
}

#[test]
fn a_device_that_asks_in_time_is_signed_for() {
    let plan = plan(&asking());
    let key = identity().1.clone();
    assert_eq!(plan.changes, [Change::Renew { key }]);
    assert_eq!(reasons(&plan), ["CertificateRenewed"]);
}

#[test]
fn who_may_not_have_another_certificate_is_told_why_once() {
    let another = csr_of(&new_key().unwrap()).0;
    for (observed, why) in [
        (
            with(|it| it.device.spec.trust = TrustDecision::Suspended),
            "suspended",
        ),
        (
            with(|it| it.device.spec.trust = TrustDecision::Revoked),
            "revoked",
        ),
        (
            with(|it| it.device.status.as_mut().unwrap().certificate = None),
            "no certificate",
        ),
        (with(|it| it.now = at(9000)), "ran out"),
        (with(|it| it.now = at(2999)), "too early"),
        (
            with(|it| renewal(it).csr = "garbage".to_owned()),
            "no PEM-encoded",
        ),
        (with(|it| renewal(it).csr = another), "for another key"),
    ] {
        let first = plan(&observed);
        let [Change::WriteStatus(status)] = first.changes.as_slice() else {
            panic!("{why}: {first:?}")
        };
        let refused = status.renewal.as_ref().unwrap().refused.as_ref().unwrap();
        assert!(refused.contains(why), "{refused}");
        assert!(reasons(&first).contains(&"RenewalRefused"), "{why}");
        assert_eq!(
            status.certificate,
            observed.device.status.as_ref().unwrap().certificate
        );
        let mut observed = observed;
        observed.device.status = Some((**status).clone());
        assert_eq!(plan(&observed).changes, [], "{why}");
    }
    let at_the_first_third = plan(&with(|it| it.now = at(3000)));
    assert!(matches!(
        at_the_first_third.changes.as_slice(),
        [Change::Renew { .. }]
    ));
}

#[test]
fn what_was_issued_is_put_into_the_secret_and_then_said_so() {
    let mut observed = with(|it| {
        let status = it.device.status.as_mut().unwrap();
        status.certificate.as_mut().unwrap().generation = 4;
        let renewal = status.renewal.as_mut().unwrap();
        renewal.chain = Some("chain".to_owned());
        renewal.generation = Some(4);
        it.secret = SecretState::Absent;
    });
    let first = plan(&observed);
    let [Change::WriteSecret { chain }, Change::WriteStatus(status)] = first.changes.as_slice()
    else {
        panic!("{first:?}")
    };
    assert_eq!(chain, "chain");
    assert_eq!(status.renewal.as_ref().unwrap().secret_generation, Some(4));
    let written = status.clone();
    // The operator died between the two: the Secret is written again.
    observed.secret = SecretState::Ours { key: None };
    assert_eq!(plan(&observed).changes.len(), 2);
    observed.device.status = Some(*written);
    observed.secret = SecretState::NotRead;
    assert_eq!(plan(&observed).changes, []);
}

#[test]
fn a_secret_of_somebody_else_is_left_alone() {
    let observed = with(|it| {
        let renewal = renewal(it);
        renewal.chain = Some("chain".to_owned());
        renewal.generation = Some(3);
        it.secret = SecretState::Foreign;
    });
    let first = plan(&observed);
    assert!(
        matches!(first.changes.as_slice(), [Change::WriteStatus(_)]),
        "{first:?}"
    );
    assert!(reasons(&first).contains(&"SecretConflict"));
}

#[test]
fn a_certificate_that_came_by_pairing_is_not_overwritten_in_the_secret() {
    let observed = with(|it| {
        let renewal = renewal(it);
        renewal.chain = Some("chain".to_owned());
        renewal.generation = Some(2);
        it.secret = SecretState::Absent;
    });
    let status = observed.device.status.as_ref().unwrap();
    assert_eq!(not_handed_out(status), None);
    assert!(
        !plan(&observed)
            .changes
            .iter()
            .any(|change| matches!(change, Change::WriteSecret { .. }))
    );
}

#[test]
fn nothing_is_renewed_while_a_policy_is_not_in_force_and_the_certificate_stays_good() {
    let lack = Lack {
        policy: Policy::DeviceStatus,
        why: Why::NotRefused,
    };
    let mut observed = with(|it| it.policies = Standing::Lacking(lack));
    let first = plan(&observed);
    let [Change::WriteStatus(status)] = first.changes.as_slice() else {
        panic!("{first:?}")
    };
    let valid = conditions::find(&status.conditions, CERTIFICATE_VALID).unwrap();
    assert_eq!(
        (&*valid.status, &*valid.reason),
        ("True", "RenewalWithheld")
    );
    assert!(valid.message.contains(Policy::DeviceStatus.name()));
    assert_eq!(status.trust, Some(crds::v1alpha1::device::Trust::Trusted));
    assert_eq!(status.renewal.as_ref().unwrap().refused, None);
    assert!(reasons(&first).contains(&"RenewalWithheld"));
    assert_eq!(first.requeue_at, Some(at(6005)));
    observed.device.status = Some((**status).clone());
    let again = plan(&observed);
    assert_eq!((again.changes.len(), again.notes.len()), (0, 0));
    // Restored: signed without another question of the device.
    observed.policies = Standing::InForce(Since::default());
    assert!(matches!(
        plan(&observed).changes[..],
        [Change::Renew { .. }]
    ));
    let not_checked = with(|it| it.policies = Standing::NotChecked);
    assert!(!reasons(&plan(&not_checked)).contains(&"CertificateRenewed"));
}
