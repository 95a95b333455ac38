//! The smallest valid objects, for tests: then one deviation.

use crds::v1alpha1::{
    CapabilityInvocation, CapabilityInvocationSpec, DeclaredCapability, Device, DeviceSpec,
    capability_invocation::CapabilityInvocationStatus,
    device::{Availability, DeviceGrants},
};
use jiff::Timestamp;
use pairing::key::KeyFingerprint;
use proto::node;
use serde_json::json;

use super::{
    device::KnownDevice,
    invocation::OpenInvocation,
    register::Declared,
    underway::{self, Underway},
};

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(crate) fn key() -> KeyFingerprint {
    KeyFingerprint::of_spki(b"the key of lamp-1")
}

pub(crate) fn other_key() -> KeyFingerprint {
    KeyFingerprint::of_spki(b"the key of somebody else")
}

/// kitchen/lamp-1, which may run `echo`.
pub(crate) fn device_object() -> Device {
    let mut device = Device::new(
        "lamp-1",
        DeviceSpec {
            public_key_sha256: key().to_string(),
            grants: DeviceGrants {
                capabilities: vec!["echo".to_owned()],
                ..DeviceGrants::default()
            },
            ..DeviceSpec::default()
        },
    );
    device.metadata.namespace = Some("kitchen".to_owned());
    device.metadata.uid = Some("uid-of-lamp-1".to_owned());
    device.metadata.resource_version = Some("1".to_owned());
    device.metadata.generation = Some(1);
    device
}

pub(crate) fn minimal_device() -> KnownDevice {
    KnownDevice::read(device_object()).unwrap()
}

/// kitchen/say-hi, uid-1, created at that second: `echo` on lamp-1, within 30 seconds.
pub(crate) fn invocation_object(created: Timestamp) -> CapabilityInvocation {
    serde_json::from_value(json!({
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "CapabilityInvocation",
        "metadata": {
            "namespace": "kitchen",
            "name": "say-hi",
            "uid": "uid-1",
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": created,
        },
        "spec": { "deviceRef": { "name": "lamp-1" }, "capability": "echo" },
    }))
    .unwrap()
}

pub(crate) fn minimal_invocation() -> OpenInvocation {
    OpenInvocation::read(invocation_object(at(0))).unwrap()
}

pub(crate) fn invocation_with(
    change: impl FnOnce(&mut CapabilityInvocationSpec),
) -> OpenInvocation {
    let mut object = invocation_object(at(0));
    change(&mut object.spec);
    OpenInvocation::read(object).unwrap()
}

/// The status of one that was sent then.
pub(crate) fn dispatched(
    invocation: &OpenInvocation,
    gateway: &str,
    sent: Timestamp,
) -> CapabilityInvocationStatus {
    let underway = Underway {
        sent,
        asks: false,
        progress: None,
    };
    underway::status(invocation, gateway, underway).unwrap()
}

pub(crate) fn declared(capabilities: &[&str]) -> Declared {
    Declared {
        capabilities: capabilities
            .iter()
            .map(|name| {
                let declared = DeclaredCapability {
                    name: (*name).to_owned(),
                    ..DeclaredCapability::default()
                };
                (declared, Availability::Available)
            })
            .collect(),
        concurrency: 8,
        ..Declared::default()
    }
}

/// It succeeded, without output.
pub(crate) fn minimal_result(uid: &str) -> node::Result {
    let mut result = node::Result {
        uid: uid.to_owned(),
        name: "say-hi".to_owned(),
        ..node::Result::default()
    };
    result.set_outcome(node::Outcome::Succeeded);
    result
}
