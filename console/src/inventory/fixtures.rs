//! Devices for tests.

use console_api::inventory::Presence;
use crds::Device;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Interner, Known};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "tests hand in what `json!` makes"
)]
/// The smallest Device, with these in its spec and status.
pub fn device(namespace: &str, name: &str, version: u64, spec: Value, status: Value) -> Device {
    let mut whole = json!({ "publicKeySha256": "ab".repeat(32) });
    let Value::Object(spec) = spec else {
        panic!("a spec is an object")
    };
    whole.as_object_mut().unwrap().extend(spec);
    serde_json::from_value(json!({
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "Device",
        "metadata": { "namespace": namespace, "name": name, "resourceVersion": version.to_string() },
        "spec": whole,
        "status": status,
    }))
    .unwrap()
}

pub fn known(namespace: &str, name: &str, version: u64, spec: Value, status: Value) -> Known {
    let device = device(namespace, name, version, spec, status);
    Known::read(&device, &mut Interner::default()).unwrap()
}

pub fn present(namespace: &str, name: &str, version: u64, presence: Presence) -> Known {
    known(
        namespace,
        name,
        version,
        json!({}),
        json!({ "presence": presence }),
    )
}
