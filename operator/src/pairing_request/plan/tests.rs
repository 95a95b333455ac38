//! Fixtures first; then a table for each stage.

use std::collections::BTreeMap;

use crds::v1alpha1::{
    DeclaredCapability, DeviceSpec, Grants, ObjectReference, PairingCodeSpec, PairingCodeStatus,
    PairingRequestSpec,
    device::TrustDecision,
    pairing_request::{IssuedCertificate, Method, Source},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::{
    authority::{chain, csr::tests::request as csr_of, new_key},
    policies::plan::{Lack, Policy, Since, Why},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A key and its request, made once: keys are slow.
fn identity() -> &'static (String, DeviceKey) {
    static IDENTITY: std::sync::OnceLock<(String, DeviceKey)> = std::sync::OnceLock::new();
    IDENTITY.get_or_init(|| csr_of(&new_key().unwrap()))
}

fn another() -> &'static (String, DeviceKey) {
    static IDENTITY: std::sync::OnceLock<(String, DeviceKey)> = std::sync::OnceLock::new();
    IDENTITY.get_or_init(|| csr_of(&new_key().unwrap()))
}

fn digest_of(key: &DeviceKey) -> String {
    key.fingerprint().to_string()
}

/// What a gateway makes for a device that proved the code `door`, waiting until second 900.
fn spec() -> PairingRequestSpec {
    let (csr, key) = identity();
    PairingRequestSpec {
        csr: Some(csr.clone()),
        public_key_sha256: Some(digest_of(key)),
        pairing_code_ref: Some(ObjectReference::new("door")),
        method: Method::Pin,
        requested_name: "Lamp".to_owned(),
        capabilities: ["system.health", "echo"].map(declared).to_vec(),
        source: Some(Source {
            gateway: "a".to_owned(),
            remote_address: "127.0.0.1".to_owned(),
        }),
        expires_at: Some(Time(at(900))),
        ..PairingRequestSpec::default()
    }
}

fn declared(name: &str) -> DeclaredCapability {
    DeclaredCapability {
        name: name.to_owned(),
        ..DeclaredCapability::default()
    }
}

fn of(spec: PairingRequestSpec) -> PairingRequest {
    let name = digest::request_name(&digest::of_spec(&spec).unwrap());
    let mut request = PairingRequest::new(&name, spec);
    request.metadata.namespace = Some("kitchen".to_owned());
    request.metadata.uid = Some("request-uid".to_owned());
    request.metadata.generation = Some(1);
    request
}

/// What a person made, under a name of his choice.
fn by_hand() -> PairingRequest {
    let mut request = of(PairingRequestSpec {
        source: None,
        pairing_code_ref: None,
        method: Method::Manual,
        ..spec()
    });
    request.metadata.name = Some("lamp".to_owned());
    request
}

fn approved(mut request: PairingRequest, change: impl FnOnce(&mut Decision)) -> PairingRequest {
    let mut decision = Decision {
        decision: Verdict::Approved,
        decided_by: Some("alice".to_owned()),
        reason: None,
        device_name: None,
        grants: None,
        spec_digest: None,
    };
    change(&mut decision);
    request.status.get_or_insert_default().approval = Some(decision);
    request
}

fn denied(request: PairingRequest) -> PairingRequest {
    approved(request, |decision| {
        decision.decision = Verdict::Denied;
        decision.reason = Some("unknown".to_owned());
    })
}

/// The code `door`, which admitted the key, and counts `request`.
fn door(request: &PairingRequest) -> PairingCode {
    let mut code = PairingCode::new("door", PairingCodeSpec::default());
    code.status = Some(PairingCodeStatus {
        admitted: vec![AdmittedKey {
            public_key_sha256: digest_of(&identity().1),
            pairing_request_ref: Some(ObjectReference::new(request.name_any())),
        }],
        ..PairingCodeStatus::default()
    });
    code
}

fn minimal(request: PairingRequest) -> Observed {
    Observed {
        now: at(10),
        code: Code::known(door(&request)),
        request,
        devices: Devices::Known(Vec::new()),
        secret: SecretState::NotRead,
        operator: Some("operator".to_owned()),
        policies: Standing::InForce(Since::default()),
        signed: Signed::Here,
    }
}

fn device_named(name: &str, key: &DeviceKey) -> Device {
    let mut device = Device::new(
        name,
        DeviceSpec {
            public_key_sha256: digest_of(key),
            ..DeviceSpec::default()
        },
    );
    device.metadata.namespace = Some("kitchen".to_owned());
    device.metadata.uid = Some(format!("{name}-uid"));
    device
}

fn written(plan: &Plan) -> &PairingRequestStatus {
    match plan.changes.last() {
        Some(Change::WriteStatus(status) | Change::Issue { status, .. }) => status,
        other => panic!("{other:?}"),
    }
}

/// The phase that is written, and why.
fn outcome(plan: &Plan) -> (RequestPhase, &str) {
    let status = written(plan);
    (
        status.phase,
        &conditions::find(&status.conditions, READY).unwrap().reason,
    )
}

fn reasons(plan: &Plan) -> Vec<&'static str> {
    plan.notes.iter().map(|note| note.reason).collect()
}

fn created(plan: &Plan) -> &Device {
    match plan.changes.first() {
        Some(Change::CreateDevice(device)) => device,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_request_is_announced_once_and_waits() {
    let mut observed = minimal(of(spec()));
    let first = plan(&observed);
    assert_eq!(outcome(&first), (RequestPhase::Pending, "AwaitingApproval"));
    assert_eq!(written(&first).spec_digest, digest::of_spec(&spec()).ok());
    assert_eq!(
        (reasons(&first), first.requeue_at),
        (vec!["PairingRequested"], Some(at(900)))
    );
    observed.request.status = Some(written(&first).clone());
    assert_eq!(
        plan(&observed),
        Plan {
            requeue_at: Some(at(900)),
            ..Plan::default()
        }
    );
}

#[test]
fn the_command_that_is_suggested_approves_whoever_made_the_request() {
    for request in [of(spec()), by_hand()] {
        let by_a_gateway = request.spec.source.is_some();
        let mut observed = minimal(request);
        if !by_a_gateway {
            observed.code = Code::NotRead;
        }
        let waits = plan(&observed);
        let status = written(&waits);
        let message = &conditions::find(&status.conditions, READY).unwrap().message;
        let (_, patch) = message.split_once(" -p '").unwrap();
        let patch: serde_json::Value =
            serde_json::from_str(patch.strip_suffix('\'').unwrap()).unwrap();
        let approval = &patch["status"]["approval"];
        assert_eq!(approval["specDigest"].is_null(), by_a_gateway, "{message}");
        observed.request.status = Some(PairingRequestStatus {
            approval: Some(serde_json::from_value(approval.clone()).unwrap()),
            ..status.clone()
        });
        assert_eq!(outcome(&plan(&observed)), (RequestPhase::Issued, "Issued"));
    }
}

#[test]
fn a_request_that_nobody_decided_on_expires() {
    let plan = plan(&Observed {
        now: at(900),
        ..minimal(of(spec()))
    });
    assert_eq!(outcome(&plan), (RequestPhase::Expired, "Expired"));
    assert_eq!(reasons(&plan), ["PairingExpired"]);
}

#[test]
fn a_denial_is_carried_out_with_its_reason() {
    let plan = plan(&minimal(denied(of(spec()))));
    assert_eq!(outcome(&plan), (RequestPhase::Denied, "Denied"));
    assert_eq!(plan.notes[0].message, "denied by alice: unknown");
    let late = Observed {
        now: at(2000),
        ..minimal(denied(of(spec())))
    };
    assert_eq!(
        super::plan(&late).notes[0].reason,
        "PairingDenied",
        "a decision beats the clock"
    );
}

#[test]
fn an_approval_makes_the_device_and_then_issues() {
    let plan = plan(&minimal(approved(of(spec()), |_| {})));
    let device = created(&plan);
    assert_eq!(device.name_any(), "lamp");
    assert_eq!(device.namespace().as_deref(), Some("kitchen"));
    assert_eq!(device.spec.public_key_sha256, digest_of(&identity().1));
    assert_eq!(device.spec.grants.capabilities, ["echo", "system.health"]);
    assert_eq!(device.spec.display_name.as_deref(), Some("Lamp"));
    let [
        _,
        Change::Issue {
            key,
            device,
            ttl_seconds,
            status,
        },
    ] = plan.changes.as_slice()
    else {
        panic!("{plan:?}")
    };
    assert_eq!(
        (key, device.as_str(), *ttl_seconds),
        (&identity().1, "lamp", 86_400)
    );
    assert_eq!(status.phase, RequestPhase::Issued);
    assert_eq!(status.device_ref, Some(ObjectReference::new("lamp")));
    assert_eq!(reasons(&plan), ["CertificateIssued"]);
}

#[test]
fn what_is_wrong_with_a_request_fails_it_before_anybody_decides() {
    let renamed = |mut request: PairingRequest| {
        request.metadata.name = Some("preq-something-else".to_owned());
        request
    };
    for (request, reason) in [
        (renamed(of(spec())), "NameIsNotDigest"),
        (
            of(PairingRequestSpec {
                csr: Some("garbage".to_owned()),
                ..spec()
            }),
            "InvalidCsr",
        ),
        (
            of(PairingRequestSpec {
                csr: None,
                ..spec()
            }),
            "InvalidCsr",
        ),
        (
            of(PairingRequestSpec {
                csr: Some(another().0.clone()),
                ..spec()
            }),
            "InvalidCsr",
        ),
        (
            of(PairingRequestSpec {
                public_key_sha256: Some(digest_of(&another().1)),
                ..spec()
            }),
            "InvalidCsr",
        ),
    ] {
        for decided in [request.clone(), approved(request, |_| {})] {
            let plan = plan(&minimal(decided));
            assert_eq!(outcome(&plan), (RequestPhase::Failed, reason));
            assert_eq!(plan.changes.len(), 1, "nothing but the status");
            assert_eq!(reasons(&plan), [reason]);
            assert_eq!(plan.requeue_at, None);
        }
    }
}

#[test]
fn the_request_that_the_code_does_not_name_is_superseded() {
    for request in [of(spec()), approved(of(spec()), |_| {})] {
        let mut observed = minimal(request);
        observed.code = Code::known(door(&of(PairingRequestSpec {
            expires_at: None,
            ..spec()
        })));
        assert_eq!(
            outcome(&plan(&observed)),
            (RequestPhase::Failed, "Superseded")
        );
    }
}

#[test]
fn an_approval_must_be_of_what_was_shown() {
    let right = |request: &PairingRequest| digest::of_spec(&request.spec).ok();
    let wrong = || Some("0".repeat(64));
    for (request, digest, expected) in [
        (of(spec()), None, (RequestPhase::Issued, "Issued")),
        (
            of(spec()),
            right(&of(spec())),
            (RequestPhase::Issued, "Issued"),
        ),
        (of(spec()), wrong(), (RequestPhase::Failed, "SpecChanged")),
        (
            by_hand(),
            None,
            (RequestPhase::Failed, "SpecDigestRequired"),
        ),
        (
            by_hand(),
            right(&by_hand()),
            (RequestPhase::Issued, "Issued"),
        ),
        (by_hand(), wrong(), (RequestPhase::Failed, "SpecChanged")),
    ] {
        let mut observed = minimal(approved(request, |decision| decision.spec_digest = digest));
        if observed.request.spec.pairing_code_ref.is_none() {
            observed.code = Code::NotRead;
        }
        assert_eq!(outcome(&plan(&observed)), expected);
    }
}

#[test]
fn nothing_is_issued_when_the_code_is_gone_or_does_not_know_the_key() {
    let gone = Observed {
        code: Code::Absent,
        ..minimal(approved(of(spec()), |_| {}))
    };
    assert_eq!(outcome(&plan(&gone)), (RequestPhase::Failed, "CodeGone"));
    let mut unknown = door(&of(spec()));
    unknown.status = None;
    let unknown = Observed {
        code: Code::known(unknown),
        ..minimal(approved(of(spec()), |_| {}))
    };
    assert_eq!(
        outcome(&plan(&unknown)),
        (RequestPhase::Failed, "KeyNotAdmitted")
    );
    // Until somebody decides, the request waits: the store may be behind.
    let waiting = Observed {
        code: Code::Absent,
        ..minimal(of(spec()))
    };
    assert_eq!(
        outcome(&plan(&waiting)),
        (RequestPhase::Pending, "AwaitingApproval")
    );
}

#[test]
fn only_the_request_that_an_automatic_code_names_approves_itself() {
    let automatic = |mut code: PairingCode| {
        code.spec.approval = Approval::Automatic;
        Code::known(code)
    };
    let request = of(spec());
    let plan_of = |request: &PairingRequest, code| {
        plan(&Observed {
            code,
            ..minimal(request.clone())
        })
    };
    let plan = plan_of(&request, automatic(door(&request)));
    let approval = written(&plan).approval.clone().unwrap();
    assert_eq!(approval.decision, Verdict::Approved);
    assert_eq!(approval.decided_by.as_deref(), Some("operator"));
    assert_eq!(approval.spec_digest, digest::of_spec(&spec()).ok());
    assert_eq!(reasons(&plan), ["PairingApproved"]);

    let mut not_named_yet = door(&request);
    not_named_yet.status.as_mut().unwrap().admitted[0].pairing_request_ref = None;
    let mut not_admitted = door(&request);
    not_admitted.status = None;
    let by_hand = of(PairingRequestSpec {
        source: None,
        ..spec()
    });
    for (request, code) in [
        (&request, automatic(not_named_yet)),
        (&request, automatic(not_admitted)),
        (&by_hand, automatic(door(&by_hand))),
        (&request, Code::known(door(&request))),
    ] {
        assert_eq!(
            outcome(&plan_of(request, code)),
            (RequestPhase::Pending, "AwaitingApproval")
        );
    }
}

#[test]
fn a_name_that_is_taken_gets_a_suffix_unless_the_approver_chose_it() {
    let observed = |name: Option<&str>, taken: &[&str]| {
        let request = approved(of(spec()), |decision| {
            decision.device_name = name.map(str::to_owned);
        });
        let taken = taken
            .iter()
            .map(|name| device_named(name, &another().1))
            .collect();
        Observed {
            devices: Devices::Known(taken),
            ..minimal(request)
        }
    };
    let suffixed = format!("lamp-{}", &digest_of(&identity().1)[..8]);
    assert_eq!(created(&plan(&observed(None, &[]))).name_any(), "lamp");
    assert_eq!(
        created(&plan(&observed(None, &["lamp"]))).name_any(),
        suffixed
    );
    assert_eq!(
        created(&plan(&observed(Some("desk"), &["lamp"]))).name_any(),
        "desk"
    );
    assert_eq!(
        outcome(&plan(&observed(Some("desk"), &["desk"]))),
        (RequestPhase::Failed, "NameTaken")
    );
    assert_eq!(
        outcome(&plan(&observed(None, &["lamp", &suffixed]))),
        (RequestPhase::Failed, "NameTaken")
    );
}

#[test]
fn a_name_of_which_nothing_can_be_used_becomes_device() {
    let request = approved(
        of(PairingRequestSpec {
            requested_name: "\u{1f4a1}".to_owned(),
            ..spec()
        }),
        |_| {},
    );
    assert_eq!(created(&plan(&minimal(request))).name_any(), "device");
}

#[test]
fn a_key_that_has_a_device_gets_that_one_unless_it_is_revoked() {
    let mut old = device_named("old", &identity().1);
    old.spec.certificate.ttl_seconds = 7200;
    let named = |device: &Device, name: Option<&str>| {
        plan(&Observed {
            devices: Devices::Known(vec![device.clone(), device_named("lamp", &another().1)]),
            ..minimal(approved(of(spec()), |decision| {
                decision.device_name = name.map(str::to_owned);
            }))
        })
    };
    let again = named(&old, None);
    assert_eq!(named(&old, Some("old")).changes.len(), 1);
    // An approver who chose a name is told that it cannot be, and not given another one.
    for name in ["lamp", "free"] {
        let renamed = named(&old, Some(name));
        assert_eq!(outcome(&renamed), (RequestPhase::Failed, "KeyHasDevice"));
        let message = &renamed.notes[0].message;
        assert!(
            message.contains("Device old") && message.contains(name),
            "{message}"
        );
    }
    let [
        Change::Issue {
            device,
            ttl_seconds,
            ..
        },
    ] = again.changes.as_slice()
    else {
        panic!("{again:?}")
    };
    assert_eq!((device.as_str(), *ttl_seconds), ("old", 7200));
    old.spec.trust = TrustDecision::Revoked;
    assert_eq!(
        outcome(&named(&old, None)),
        (RequestPhase::Failed, "Revoked")
    );
}

#[test]
fn a_device_that_is_paired_again_gets_what_is_decided_now() {
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let grants = |names: Option<&[&str]>| Grants {
        labels: BTreeMap::new(),
        capabilities: names.map(set),
    };
    let had = ["system.health", "echo", "shell"];
    for (given, ceiling, expected) in [
        // Nobody says anything: it keeps what it has, and nothing is written.
        (None, None, None),
        (None, Some(None), None),
        // Nothing beyond the code, whatever it had.
        (None, Some(Some(&["echo", "root"][..])), Some(vec!["echo"])),
        (Some(None), Some(Some(&["echo"][..])), Some(vec!["echo"])),
        // What the approver gives replaces what it had.
        (
            Some(Some(&["root", "echo"][..])),
            None,
            Some(vec!["echo", "root"]),
        ),
        (
            Some(Some(&["root", "echo"][..])),
            Some(Some(&["root"][..])),
            Some(vec!["root"]),
        ),
        (Some(Some(&[][..])), None, Some(vec![])),
        // The same in another order is the same.
        (
            Some(Some(&["echo", "shell", "system.health"][..])),
            None,
            None,
        ),
    ] {
        let mut old = device_named("old", &identity().1);
        old.spec.grants.capabilities = set(&had);
        // As they were declared then, and are still.
        old.spec.grants.surfaces = ["echo", "system.health"]
            .map(|name| (name.to_owned(), surface::digest("Automatic", None)))
            .into();
        let request = approved(of(spec()), |decision| decision.grants = given.map(grants));
        let mut code = door(&request);
        code.spec.grants = ceiling.map(grants);
        let mut observed = Observed {
            code: Code::known(code),
            devices: Devices::Known(vec![old.clone()]),
            ..minimal(request)
        };
        let first = plan(&observed);
        let granted = match first.changes.as_slice() {
            [Change::Issue { .. }] => None,
            [
                Change::Grant {
                    capabilities,
                    surfaces,
                    ..
                },
                Change::Issue { .. },
            ] => {
                old.spec.grants.surfaces = surfaces.clone();
                Some(capabilities.clone())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(
            granted,
            expected.map(|names| set(&names)),
            "{given:?} {ceiling:?}"
        );
        // The operator died after the grant: what is left is to issue.
        if let Some(granted) = granted {
            assert_eq!(reasons(&first), ["DeviceGranted", "CertificateIssued"]);
            old.spec.grants.capabilities = granted;
            observed.devices = Devices::Known(vec![old]);
            assert_eq!(plan(&observed).changes, first.changes[1..]);
        }
    }
}

#[test]
fn a_device_that_is_paired_again_gets_the_labels_of_the_decision_and_keeps_the_others() {
    let labels = |labels: &[(&str, &str)]| -> BTreeMap<String, String> {
        labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let mut old = device_named("old", &identity().1);
    old.metadata.labels = Some(labels(&[("site", "south"), ("own", "x")]));
    let request = approved(of(spec()), |_| {});
    let mut code = door(&request);
    code.spec.grants = Some(Grants {
        labels: labels(&[("site", "north")]),
        capabilities: None,
    });
    let again = plan(&Observed {
        code: Code::known(code),
        devices: Devices::Known(vec![old]),
        ..minimal(request)
    });
    let [Change::Grant { labels: given, .. }, Change::Issue { .. }] = again.changes.as_slice()
    else {
        panic!("{again:?}")
    };
    assert_eq!(*given, labels(&[("site", "north"), ("own", "x")]));
}

#[test]
fn a_device_gets_what_was_approved_and_the_code_allows() {
    let grants = |label: &str, capabilities: &[&str]| Grants {
        labels: BTreeMap::from([("site".to_owned(), label.to_owned())]),
        capabilities: Some(capabilities.iter().map(|name| (*name).to_owned()).collect()),
    };
    let request = approved(of(spec()), |decision| {
        decision.grants = Some(grants("north", &["echo", "root"]));
    });
    let mut code = door(&request);
    code.spec.grants = Some(grants("north", &["echo", "system.health"]));
    let observed = Observed {
        code: Code::known(code),
        ..minimal(request)
    };
    let plan = plan(&observed);
    assert_eq!(created(&plan).spec.grants.capabilities, ["echo"]);
    let pinned = BTreeMap::from([("echo".to_owned(), surface::digest("Automatic", None))]);
    assert_eq!(
        created(&plan).spec.grants.surfaces,
        pinned,
        "as the request shows it"
    );
    assert_eq!(
        created(&plan).labels().get("site").map(String::as_str),
        Some("north")
    );
    let wrong = approved(of(spec()), |decision| {
        decision.grants = Some(grants("no good", &[]));
    });
    assert_eq!(
        outcome(&super::plan(&minimal(wrong))),
        (RequestPhase::Failed, "InvalidLabels")
    );
}

#[test]
fn a_key_that_the_operator_keeps_is_made_once() {
    let custody = PairingRequestSpec {
        csr: None,
        public_key_sha256: None,
        pairing_code_ref: None,
        method: Method::Manual,
        source: None,
        key_custody: KeyCustody::Operator,
        ..spec()
    };
    let mut request = of(custody);
    let digest = digest::of_spec(&request.spec).ok();
    request = approved(request, |decision| decision.spec_digest = digest);
    let with = |secret, devices| {
        plan(&Observed {
            code: Code::NotRead,
            secret,
            devices: Devices::Known(devices),
            ..minimal(request.clone())
        })
    };
    let first = with(SecretState::Absent, vec![]);
    assert_eq!(
        first.changes,
        [Change::MakeKey {
            device: "lamp".to_owned()
        }]
    );
    assert_eq!(
        first.requeue_at,
        Some(at(10)),
        "nothing else brings the next pass"
    );
    let kept = || SecretState::Ours {
        key: Some(identity().1.clone()),
    };
    let second = with(kept(), vec![]);
    assert_eq!(
        created(&second).spec.public_key_sha256,
        digest_of(&identity().1)
    );
    let third = with(kept(), vec![device_named("lamp", &identity().1)]);
    assert_eq!(
        third.changes.len(),
        1,
        "the Device is there already: {third:?}"
    );
    assert_eq!(outcome(&third), (RequestPhase::Issued, "Issued"));
    assert_eq!(
        outcome(&with(kept(), vec![device_named("lamp", &another().1)])).1,
        "NameTaken"
    );
    assert_eq!(
        outcome(&with(SecretState::Foreign, vec![])),
        (RequestPhase::Failed, "SecretConflict")
    );
}

/// A request whose certificate was issued at a second.
fn issued(second: i64) -> PairingRequest {
    use crate::authority::Authority;

    static AUTHORITY: std::sync::OnceLock<Authority> = std::sync::OnceLock::new();
    let authority = AUTHORITY.get_or_init(|| {
        let (certificate, key) = Authority::generate("test.example", at(0)).unwrap();
        Authority::from_pem(&certificate, &key, "test.example").unwrap()
    });
    let ttl = jiff::SignedDuration::from_hours(24);
    let issued = authority
        .sign_device(&identity().1, "kitchen", "lamp", ttl, at(second))
        .unwrap();
    let mut request = approved(of(spec()), |_| {});
    let status = request.status.as_mut().unwrap();
    status.phase = RequestPhase::Issued;
    status.device_ref = Some(ObjectReference::new("lamp"));
    status.certificate = Some(IssuedCertificate {
        chain: issued.chain,
        serial: issued.serial,
        not_before: Time(issued.not_before),
        not_after: Time(issued.not_after),
    });
    request
}

fn after_issue(request: PairingRequest, device: Option<Device>, secret: SecretState) -> Plan {
    let devices = Devices::Known(device.into_iter().collect());
    plan(&Observed {
        devices,
        secret,
        ..minimal(request)
    })
}

#[test]
fn an_issued_certificate_is_handed_out_and_recorded_once() {
    let request = issued(10);
    let device = device_named("lamp", &identity().1);
    let plan = after_issue(request.clone(), Some(device.clone()), SecretState::Absent);
    let [
        Change::WriteSecret { .. },
        Change::Record { certificate, .. },
    ] = plan.changes.as_slice()
    else {
        panic!("{plan:?}")
    };
    assert_eq!(certificate.generation, 1);
    let issued = request
        .status
        .as_ref()
        .unwrap()
        .certificate
        .as_ref()
        .unwrap();
    assert_eq!(certificate.serial, issued.serial);
    assert_eq!(
        certificate.fingerprint,
        chain::leaf(&issued.chain).unwrap().fingerprint
    );
    let mut recorded = device;
    recorded.status.get_or_insert_default().certificate = Some(certificate.clone());
    assert_eq!(
        after_issue(request, Some(recorded), SecretState::NotRead),
        Plan::default()
    );
}

#[test]
fn a_device_that_is_paired_again_counts_its_certificates() {
    let (first, second) = (issued(10), issued(20));
    let mut device = device_named("lamp", &identity().1);
    let record = |plan: &Plan| match plan.changes.last() {
        Some(Change::Record { certificate, .. }) => certificate.clone(),
        other => panic!("{other:?}"),
    };
    let one = record(&after_issue(
        first.clone(),
        Some(device.clone()),
        SecretState::Absent,
    ));
    device.status.get_or_insert_default().certificate = Some(one);
    let two = record(&after_issue(
        second,
        Some(device.clone()),
        SecretState::Ours { key: None },
    ));
    assert_eq!(two.generation, 2);
    device.status.get_or_insert_default().certificate = Some(two);
    assert_eq!(
        after_issue(first, Some(device), SecretState::NotRead),
        Plan::default(),
        "an older one changes nothing"
    );
}

#[test]
fn a_device_that_was_deleted_or_replaced_gets_nothing() {
    assert_eq!(
        after_issue(issued(10), None, SecretState::NotRead),
        Plan::default()
    );
    let replaced = device_named("lamp", &another().1);
    assert_eq!(
        after_issue(issued(10), Some(replaced), SecretState::Absent),
        Plan::default()
    );
}

#[test]
fn a_foreign_secret_is_left_alone_and_the_certificate_is_recorded_nevertheless() {
    let device = device_named("lamp", &identity().1);
    let plan = after_issue(issued(10), Some(device), SecretState::Foreign);
    assert!(
        matches!(plan.changes.as_slice(), [Change::Record { .. }]),
        "{plan:?}"
    );
    assert_eq!(reasons(&plan), ["SecretConflict"]);
}

#[test]
fn an_end_is_an_end() {
    for phase in [
        RequestPhase::Denied,
        RequestPhase::Expired,
        RequestPhase::Failed,
    ] {
        let mut request = approved(of(spec()), |_| {});
        request.status.as_mut().unwrap().phase = phase;
        assert_eq!(
            plan(&Observed {
                now: at(9999),
                ..minimal(request)
            }),
            Plan::default(),
            "{phase:?}"
        );
    }
}

/// With a decision that was written at that time.
fn decided_at(mut request: PairingRequest, second: i64) -> PairingRequest {
    let entry = json!([{
        "manager": "kubectl", "operation": "Update", "subresource": "status", "time": at(second),
        "fieldsType": "FieldsV1", "fieldsV1": { "f:status": { "f:approval": { "f:decision": {} } } },
    }]);
    request.metadata.managed_fields = serde_json::from_value(entry).unwrap();
    request
}

fn lacking(policy: Policy, why: Why) -> Standing {
    Standing::Lacking(Lack { policy, why })
}

fn since(policy: Policy, second: i64) -> Standing {
    Standing::InForce(Since([(policy, at(second))].into()))
}

#[test]
fn nothing_is_signed_while_a_policy_is_not_in_force_and_it_is_said_once() {
    let approved = decided_at(approved(of(spec()), |_| {}), 5);
    for (policies, reason) in [
        (
            lacking(Policy::DeviceOrigin, Why::NotRefused),
            "PoliciesNotInForce",
        ),
        (
            lacking(Policy::RequestOrigin, Why::NotEnforced("gone".to_owned())),
            "PoliciesNotInForce",
        ),
        (
            lacking(Policy::Decision, Why::CannotTell("no".to_owned())),
            "PoliciesUnverified",
        ),
        (Standing::NotChecked, "PoliciesUnverified"),
    ] {
        let mut observed = Observed {
            policies,
            ..minimal(approved.clone())
        };
        let first = plan(&observed);
        assert_eq!(outcome(&first), (RequestPhase::Pending, reason));
        assert_eq!(reasons(&first), [reason]);
        assert_eq!(first.requeue_at, Some(at(15)));
        assert!(matches!(first.changes[..], [Change::WriteStatus(_)]));
        observed.request.status = Some(written(&first).clone());
        observed.now = at(15);
        let again = plan(&observed);
        assert_eq!((again.changes.len(), again.notes.len()), (0, 0));
        assert_eq!(again.requeue_at, Some(at(20)));
        // Once it is in force, the same request is signed.
        observed.policies = since(Policy::Decision, 0);
        assert_eq!(outcome(&plan(&observed)), (RequestPhase::Issued, "Issued"));
    }
}

#[test]
fn a_decision_that_may_have_been_made_without_its_policy_is_never_signed() {
    let request = |second| decided_at(approved(of(spec()), |_| {}), second);
    for why in [Why::NotRefused, Why::NotEnforced("gone".to_owned())] {
        let plan = plan(&Observed {
            policies: lacking(Policy::Decision, why),
            ..minimal(request(5))
        });
        let expected = (RequestPhase::Failed, "DecidedWithoutPolicies");
        assert_eq!(outcome(&plan), expected);
        assert_eq!(reasons(&plan), ["DecidedWithoutPolicies"]);
    }
    // Restored before this operator looked.
    for (decided, restored, expected) in [
        (5, 6, RequestPhase::Failed),
        (8, 6, RequestPhase::Failed),
        (9, 6, RequestPhase::Issued),
    ] {
        let plan = plan(&Observed {
            policies: since(Policy::Decision, restored),
            ..minimal(request(decided))
        });
        assert_eq!(outcome(&plan).0, expected, "{decided} {restored}");
    }
    // Under the operator's name, whose later writes would make it look younger.
    let by_the_operator = |approval| {
        let mut request = request(9);
        let entries = request.metadata.managed_fields.as_mut().unwrap();
        entries[0].manager = Some(names::OPERATOR.to_owned());
        let mut code = door(&request);
        code.spec.approval = approval;
        plan(&Observed {
            code: Code::known(code),
            policies: since(Policy::Decision, 6),
            ..minimal(request)
        })
    };
    let automatic = by_the_operator(Approval::Automatic);
    assert_eq!(outcome(&automatic).0, RequestPhase::Issued);
    let forged = by_the_operator(Approval::Manual);
    assert_eq!(outcome(&forged).1, "DecidedWithoutPolicies");
    let plan = plan(&Observed {
        policies: since(Policy::Decision, 0),
        ..minimal(approved(of(spec()), |_| {}))
    });
    assert_eq!(
        outcome(&plan),
        (RequestPhase::Failed, "DecidedWithoutPolicies"),
        "nobody can say when it was decided"
    );
}

#[test]
fn a_code_approves_by_itself_only_under_the_policies_that_it_was_made_under() {
    let made = |second| Some(Time(at(second)));
    let of_code = |policies, created: i64| {
        let mut request = of(spec());
        request.metadata.creation_timestamp = made(created);
        let mut code = door(&request);
        code.spec.approval = Approval::Automatic;
        code.metadata.creation_timestamp = made(created);
        Observed {
            now: at(100),
            code: Code::known(code),
            policies,
            ..minimal(request)
        }
    };
    let plan_of = |policies, created| plan(&of_code(policies, created));
    let approves = |plan: &Plan| written(plan).approval.is_some();
    assert!(approves(&plan_of(since(Policy::CodeApproval, 10), 13)));
    for policy in [
        Policy::CodeApproval,
        Policy::CodeStatus,
        Policy::RequestOrigin,
    ] {
        let by_a_person = plan_of(since(policy, 10), 12);
        assert!(!approves(&by_a_person));
        let expected = (RequestPhase::Pending, "AwaitingApproval");
        assert_eq!(outcome(&by_a_person), expected);
        let held = plan_of(lacking(policy, Why::NotRefused), 50);
        assert!(!approves(&held));
        assert_eq!(outcome(&held).1, "PoliciesNotInForce");
    }
    // What is approved while a policy settles could not be signed.
    let waits = plan_of(since(Policy::Decision, 98), 50);
    assert_eq!((waits.changes.len(), waits.requeue_at), (0, Some(at(101))));
    assert!(!approves(&plan_of(Standing::NotChecked, 50)));
}

#[test]
fn a_certificate_that_somebody_wrote_past_the_policies_is_not_handed_out() {
    let ours = after_issue(
        issued(10),
        Some(device_named("lamp", &identity().1)),
        SecretState::Absent,
    );
    assert!(
        matches!(
            ours.changes[..],
            [Change::WriteSecret { .. }, Change::Record { .. }]
        ),
        "{ours:?}"
    );
    let observed = Observed {
        devices: Devices::Known(vec![device_named("lamp", &identity().1)]),
        secret: SecretState::Absent,
        signed: Signed::Elsewhere,
        ..minimal(issued(10))
    };
    let plan = plan(&observed);
    assert_eq!(
        (plan.changes.len(), reasons(&plan)),
        (0, vec!["ForeignCertificate"])
    );
}
