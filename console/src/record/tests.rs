use console_api::{
    inventory::{Granted, Presence},
    invocation::Phase,
    pairing::RequestPhase,
};
use crds::v1alpha1::{
    CapabilityInvocation, Device, PairingCode, PairingRequest, capability_invocation::ErrorCode,
    device,
};
use serde_json::{Value, json};

use super::*;

fn read<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

/// As the resource spells it, for every value that a reader can name.
fn spelt<T: serde::Serialize>(value: T) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn words_are_those_of_the_resources() {
    for code in ErrorCode::ALL {
        assert_eq!(spelt(code), error_code(code));
    }
    for reason in [
        device::PresenceReason::Connected,
        device::PresenceReason::CapabilityUnavailable,
        device::PresenceReason::SessionEnded,
        device::PresenceReason::GatewayGone,
        device::PresenceReason::NeverConnected,
    ] {
        assert_eq!(spelt(reason), presence_reason(reason));
    }
    for of in [
        device::Granted::Granted,
        device::Granted::NotGranted,
        device::Granted::Pending,
    ] {
        assert_eq!(spelt(of), spelt(granted(of)));
    }
    for of in [
        device::Presence::Online,
        device::Presence::Degraded,
        device::Presence::Stale,
        device::Presence::Offline,
    ] {
        assert_eq!(spelt(of), spelt(presence(of)));
    }
}

#[test]
fn a_device_is_shown_as_it_says() {
    let device: Device = read(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
        "metadata": { "namespace": "workshop", "name": "lamp", "resourceVersion": "7", "labels": { "room": "a" },
            "creationTimestamp": "2030-01-01T00:00:00Z" },
        "spec": { "publicKeySha256": "ab".repeat(32), "displayName": "The lamp", "trust": "Suspended" },
        "status": {
            "trust": "Untrusted", "presence": "Stale", "presenceReason": "GatewayGone",
            "lastSeen": "2030-01-01T01:00:00Z",
            "session": { "gateway": "gw-0", "epoch": 3 },
            "platform": { "os": "linux", "arch": "x86_64", "agentVersion": "1", "hostname": "Lamp.local" },
            "capabilities": [
                { "name": "echo", "granted": "Granted" }, { "name": "light.on", "granted": "Pending" },
            ],
        },
    }));
    let record = super::device(&device).unwrap();
    assert_eq!(record.id.to_string(), "workshop.lamp");
    assert_eq!(record.presence, Some(Presence::Stale));
    assert_eq!(record.presence_reason.as_deref(), Some("GatewayGone"));
    assert_eq!(record.gateway.as_deref(), Some("gw-0"));
    assert_eq!(record.labels["room"], "a");
    assert_eq!(record.platform.unwrap().hostname, "Lamp.local");
    assert_eq!(record.resource_version, "7");
    let counts = record.capabilities;
    assert_eq!((counts.declared, counts.granted, counts.pending), (2, 1, 1));
    assert_eq!(
        spelt(granted(device::Granted::Pending)),
        spelt(Granted::Pending)
    );
}

#[test]
fn a_device_without_a_status_is_shown() {
    let device: Device = read(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
        "metadata": { "namespace": "workshop", "name": "lamp", "resourceVersion": "7" },
        "spec": { "publicKeySha256": "ab".repeat(32) },
    }));
    let record = super::device(&device).unwrap();
    assert_eq!((record.trust, record.presence), (None, None));
    assert_eq!(record.platform, None);
}

#[test]
fn an_approver_is_shown_the_digest_of_what_he_is_shown() {
    let request: PairingRequest = read(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
        "metadata": { "namespace": "workshop", "name": "preq-1" },
        "spec": {
            "csr": "-", "publicKeySha256": "ab".repeat(32), "method": "Pin", "pairingCodeRef": { "name": "door" },
            "requestedName": "lamp", "capabilities": [{ "name": "echo", "execution": "Mediated" }],
            "source": { "gateway": "gw-0", "remoteAddress": "192.0.2.7" },
        },
        // A status that lies.
        "status": { "specDigest": "cd".repeat(32) },
    }));
    let ceiling = crds::v1alpha1::Grants {
        capabilities: Some(vec!["echo".to_owned()]),
        ..Default::default()
    };
    let detail = request_detail(&request, Some(&ceiling)).unwrap();
    assert_eq!(
        detail.spec_digest,
        crds::digest::of_spec(&request.spec).unwrap()
    );
    assert_eq!(detail.code.unwrap().to_string(), "workshop.door");
    assert_eq!(detail.request.remote_address.as_deref(), Some("192.0.2.7"));
    assert_eq!(detail.request.phase, RequestPhase::Pending);
    assert_eq!(detail.ceiling.unwrap().capabilities.unwrap(), ["echo"]);
}

#[test]
fn no_secret_of_a_code_is_shown() {
    let code: PairingCode = read(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingCode",
        "metadata": { "namespace": "workshop", "name": "door" },
        "spec": {},
        "status": { "phase": "Active", "codeId": "7Q2M", "passwordFile": "aGlkZGVu", "uses": 1 },
    }));
    let shown = serde_json::to_string(&super::code(&code).unwrap()).unwrap();
    assert!(
        !shown.contains("aGlkZGVu") && !shown.contains("7Q2M"),
        "{shown}"
    );
}

#[test]
fn an_invocation_says_what_can_be_done() {
    let invocation: CapabilityInvocation = read(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "CapabilityInvocation",
        "metadata": { "namespace": "workshop", "name": "i-1" },
        "spec": { "deviceRef": { "name": "lamp" }, "capability": "echo", "cancel": "Requested" },
        "status": { "phase": "Failed", "error": { "code": "DeviceOffline", "message": "it is not there" },
            "duplicateOf": "i-0" },
    }));
    let shown = super::invocation(&invocation).unwrap();
    assert_eq!(shown.summary.phase, Phase::Failed);
    assert_eq!(shown.summary.device.to_string(), "workshop.lamp");
    assert_eq!(shown.summary.error_code.as_deref(), Some("DeviceOffline"));
    assert_eq!(
        shown.error.unwrap().remedy,
        ErrorCode::DeviceOffline.remedy()
    );
    assert_eq!(shown.duplicate_of.unwrap().to_string(), "workshop.i-0");
    assert!(shown.cancel_requested);
}
