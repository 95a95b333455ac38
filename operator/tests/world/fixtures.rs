//! The cluster in the morning: codes and requests of every kind.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use crds::{
    Device, PairingCode, PairingRequest, digest,
    v1alpha1::{
        DeviceSpec, DeviceStatus, Grants, ObjectReference, PairingCodeSpec, PairingCodeStatus,
        PairingRequestSpec,
        device::{DeviceCertificate, Renewal},
        pairing_code::{AdmittedKey, Approval, CodePhase},
        pairing_request::{Decision, KeyCustody, Method, Source, Verdict},
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use operator::authority::{Authority, csr::DeviceKey, new_key};
use pairing::code::PairingCode as Drawn;
use rcgen::CertificateParams;

use super::{World, at};

/// What is slow to make, made once.
struct Identities {
    authority: Arc<Authority>,
    pod: DeviceKey,
    /// Requests for certificates, and the keys they are for.
    devices: Vec<(String, String)>,
}

fn identities() -> &'static Identities {
    static IDENTITIES: OnceLock<Identities> = OnceLock::new();
    IDENTITIES.get_or_init(|| {
        let (certificate, key) = Authority::generate("test.example", at(0)).unwrap();
        let authority = Authority::from_pem(&certificate, &key, "test.example").unwrap();
        let device = || {
            let key = new_key().unwrap();
            let csr = CertificateParams::default()
                .serialize_request(&key)
                .unwrap()
                .pem()
                .unwrap();
            (csr, DeviceKey::of(&key).unwrap().fingerprint().to_string())
        };
        Identities {
            authority: Arc::new(authority),
            pod: DeviceKey::of(&new_key().unwrap()).unwrap(),
            devices: (0..8).map(|_| device()).collect(),
        }
    })
}

impl World {
    pub fn new(now: Timestamp) -> Self {
        let identities = identities();
        let mut world = Self {
            now,
            codes: BTreeMap::default(),
            code_secrets: BTreeMap::default(),
            requests: BTreeMap::default(),
            devices: BTreeMap::default(),
            device_secrets: BTreeMap::default(),
            mounted: BTreeMap::default(),
            authority: Arc::clone(&identities.authority),
            pod_key: identities.pod.clone(),
            versions: 0,
            attempts: 0,
            effects: 0,
            conflicts: 0,
            signed: 0,
            signed_into_a_status: 0,
        };
        world.add_code("new", |_| {});
        world.add_live_code("active", |_| {});
        world.add_live_code("used", |code| code.status.as_mut().unwrap().uses = 1);
        world.add_live_code("automatic", |code| {
            code.spec.approval = Approval::Automatic;
            code.status.as_mut().unwrap().uses = 1;
        });

        // One device that asked at two gateways, of which one wrote its name into the code.
        let lamp = by_gateway("lamp", 0, "active", "a");
        world.admit("active", &lamp);
        world.add_request("gateway", approved(lamp));
        world.add_request("raced", by_gateway("lamp", 0, "active", "b"));
        let fan = by_gateway("fan", 1, "automatic", "a");
        world.admit("automatic", &fan);
        world.add_request("automatic", fan);
        world.add_request(
            "pod",
            approved(by_hand(PairingRequestSpec {
                requested_name: "pod".to_owned(),
                key_custody: KeyCustody::Operator,
                ..PairingRequestSpec::default()
            })),
        );
        world.add_request(
            "denied",
            decided(by_hand(with_key("door", 2)), Verdict::Denied),
        );
        world.add_request("waiting", by_hand(with_key("window", 3)));
        // One that was paired before, and is given less this time.
        world.add_device("kettle", 5, -60_000, |_| {});
        let mut again = approved(by_hand(with_key("kettle", 5)));
        let approval = again.status.as_mut().unwrap().approval.as_mut().unwrap();
        approval.grants = Some(Grants {
            labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
            capabilities: Some(vec!["echo".to_owned()]),
        });
        world.add_request("again", again);
        // Two that ask for another certificate, one of them much too soon.
        world.add_device("clock", 6, -60_000, asks(6));
        world.add_device("early", 7, 0, asks(7));
        let mut garbage = with_key("roof", 4);
        garbage.csr = Some("garbage".to_owned());
        world.add_request("garbage", by_hand(garbage));
        world
    }

    fn add_code(&mut self, name: &str, change: impl FnOnce(&mut PairingCode)) {
        let spec = PairingCodeSpec {
            ttl_seconds: 3600,
            max_uses: 1,
            max_attempts: 5,
            ..PairingCodeSpec::default()
        };
        let mut code = PairingCode::new(name, spec);
        code.metadata.namespace = Some("kitchen".to_owned());
        code.metadata.creation_timestamp = Some(Time(at(0)));
        code.metadata.resource_version = Some(self.version());
        change(&mut code);
        self.codes.insert(name.to_owned(), code);
    }

    fn add_live_code(&mut self, name: &str, change: impl FnOnce(&mut PairingCode)) {
        let uid = self.version();
        self.code_secrets
            .insert(name.to_owned(), (uid, Drawn::parse("0101-ABCDEF").unwrap()));
        self.add_code(name, |code| {
            code.status = Some(PairingCodeStatus {
                phase: Some(CodePhase::Active),
                code_id: Some("0101".to_owned()),
                password_file: Some("file".to_owned()),
                expires_at: Some(Time(at(3600))),
                ..PairingCodeStatus::default()
            });
            change(code);
        });
    }

    /// With a certificate since that second, for a day.
    fn add_device(
        &mut self,
        name: &str,
        identity: usize,
        since: i64,
        change: impl FnOnce(&mut DeviceStatus),
    ) {
        let mut spec = DeviceSpec {
            public_key_sha256: identities().devices[identity].1.clone(),
            ..DeviceSpec::default()
        };
        spec.grants.capabilities = vec!["echo".to_owned(), "shell".to_owned()];
        let mut device = Device::new(name, spec);
        device.metadata.namespace = Some("kitchen".to_owned());
        device.metadata.uid = Some(self.version());
        device.metadata.resource_version = Some(self.version());
        device.metadata.creation_timestamp = Some(Time(at(since)));
        let mut status = DeviceStatus {
            certificate: Some(DeviceCertificate {
                serial: "01".to_owned(),
                fingerprint: "00".repeat(32),
                generation: 1,
                not_before: Time(at(since)),
                not_after: Time(at(since + 86_400)),
                authority: None,
            }),
            ..DeviceStatus::default()
        };
        change(&mut status);
        device.status = Some(status);
        self.devices.insert(name.to_owned(), device);
    }

    fn admit(&mut self, code: &str, request: &PairingRequest) {
        let status = self.codes.get_mut(code).unwrap().status.as_mut().unwrap();
        status.admitted.push(AdmittedKey {
            public_key_sha256: request.spec.public_key_sha256.clone().unwrap(),
            pairing_request_ref: Some(ObjectReference::new(request.name_any())),
        });
    }

    fn add_request(&mut self, label: &str, mut request: PairingRequest) {
        request.metadata.resource_version = Some(self.version());
        self.requests.insert(label.to_owned(), request);
    }
}

fn asks(identity: usize) -> impl FnOnce(&mut DeviceStatus) {
    move |status| {
        status.renewal = Some(Renewal {
            csr: identities().devices[identity].0.clone(),
            requested_at: Some(Time(at(5))),
            ..Renewal::default()
        });
    }
}

fn with_key(name: &str, identity: usize) -> PairingRequestSpec {
    let (csr, key) = &identities().devices[identity];
    PairingRequestSpec {
        csr: Some(csr.clone()),
        public_key_sha256: Some(key.clone()),
        requested_name: name.to_owned(),
        expires_at: Some(Time(at(900))),
        ..PairingRequestSpec::default()
    }
}

fn by_gateway(name: &str, identity: usize, code: &str, gateway: &str) -> PairingRequest {
    let spec = PairingRequestSpec {
        pairing_code_ref: Some(ObjectReference::new(code)),
        method: Method::Pin,
        source: Some(Source {
            gateway: gateway.to_owned(),
            remote_address: "127.0.0.1".to_owned(),
        }),
        ..with_key(name, identity)
    };
    let name = digest::request_name(&digest::of_spec(&spec).unwrap());
    request(&name, spec)
}

fn by_hand(spec: PairingRequestSpec) -> PairingRequest {
    request(&spec.requested_name.clone(), spec)
}

fn request(name: &str, spec: PairingRequestSpec) -> PairingRequest {
    let mut request = PairingRequest::new(name, spec);
    request.metadata.namespace = Some("kitchen".to_owned());
    request
}

fn approved(request: PairingRequest) -> PairingRequest {
    decided(request, Verdict::Approved)
}

fn decided(mut request: PairingRequest, decision: Verdict) -> PairingRequest {
    let decision = Decision {
        decision,
        decided_by: Some("alice".to_owned()),
        reason: None,
        device_name: None,
        grants: None,
        spec_digest: digest::of_spec(&request.spec).ok(),
    };
    request.status.get_or_insert_default().approval = Some(decision);
    request
}
