//! What the trials make: small valid objects, and where they are in the API.

use e2e::install::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use super::ground::WITHOUT_STAMPS;
use super::step::Who;

const API: &str = "fairlead.dev/v1alpha1";
pub const KEY: &str = "abababababababababababababababababababababababababababababababab";
pub const OTHER_KEY: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
/// A moment that is over.
pub const MOMENT: &str = "2026-01-01T00:00:00Z";
pub const LATER: &str = "2026-01-02T00:00:00Z";
/// A moment that none of these trials sees.
pub const FUTURE: &str = "2900-01-01T00:00:00Z";

const PLURALS: &[(&str, &str)] = &[
    ("CapabilityInvocation", "capabilityinvocations"),
    ("ConfigMap", "configmaps"),
    ("Device", "devices"),
    ("Event", "events"),
    ("Lease", "leases"),
    ("PairingCode", "pairingcodes"),
    ("PairingRequest", "pairingrequests"),
    ("Secret", "secrets"),
];

/// The collection that an object is created in.
pub fn path_of(namespace: &str, object: &Value) -> String {
    let (_, plural) = PLURALS
        .iter()
        .find(|(kind, _)| object["kind"] == *kind)
        .expect("a kind of these trials");
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(namespace);
    format!(
        "{}/{plural}",
        base(namespace, object["apiVersion"].as_str().unwrap_or(API))
    )
}

/// `devices/kiosk` and the like, in a namespace. Leases and ConfigMaps are those of the system.
pub fn path(namespace: &str, object: &str) -> String {
    let plural = object.split('/').next().unwrap_or_default();
    let base = match plural {
        "leases" => base(SYSTEM_NAMESPACE, "coordination.k8s.io/v1"),
        "configmaps" => base(SYSTEM_NAMESPACE, "v1"),
        "secrets" => base(namespace, "v1"),
        "events" => base(namespace, "events.k8s.io/v1"),
        _ => base(namespace, API),
    };
    format!("{base}/{object}")
}

fn base(namespace: &str, api: &str) -> String {
    let root = if api.contains('/') { "apis" } else { "api" };
    format!("/{root}/{api}/namespaces/{namespace}")
}

/// `object` with some of it changed, as a merge patch does.
pub fn with(mut object: Value, change: &Value) -> Value {
    merge(&mut object, change);
    object
}

fn merge(object: &mut Value, change: &Value) {
    let Value::Object(fields) = change else {
        *object = change.clone();
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            if let Value::Object(object) = object {
                object.remove(name);
            }
        } else {
            merge(&mut object[name], value);
        }
    }
}

/// A person's request.
pub fn request(name: &str) -> Value {
    json!({
        "apiVersion": API, "kind": "PairingRequest", "metadata": { "name": name },
        "spec": { "requestedName": "kiosk", "keyCustody": "Operator" },
    })
}

pub const FROM_GATEWAY: &str = "preq-0123456789abcdef0123456789abcdef";

/// A gateway's request.
pub fn gateway_request() -> Value {
    json!({
        "apiVersion": API, "kind": "PairingRequest", "metadata": { "name": FROM_GATEWAY },
        "spec": {
            "csr": "-----BEGIN CERTIFICATE REQUEST-----", "publicKeySha256": KEY, "method": "Pin",
            "pairingCodeRef": { "name": "lobby" }, "requestedName": "kiosk", "expiresAt": MOMENT,
            "source": { "gateway": "gateway-0", "remoteAddress": "192.0.2.7" },
        },
    })
}

pub fn code(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": API, "kind": "PairingCode", "metadata": { "name": name }, "spec": spec })
}

/// The status of a code that can be used.
pub fn drawn() -> Value {
    json!({ "phase": "Active", "codeId": "7KQ2", "passwordFile": "AAAA", "expiresAt": MOMENT, "uses": 0, "attempts": 0 })
}

pub fn device(name: &str, spec: &Value) -> Value {
    let device = json!({
        "apiVersion": API, "kind": "Device", "metadata": { "name": name },
        "spec": { "publicKeySha256": KEY, "grants": { "capabilities": ["echo"] } },
    });
    with(device, &json!({ "spec": spec }))
}

pub fn invocation(name: &str, device: &str, capability: &str) -> Value {
    json!({
        "apiVersion": API, "kind": "CapabilityInvocation", "metadata": { "name": name },
        "spec": { "deviceRef": { "name": device }, "capability": capability, "input": { "say": ["hello", 1] } },
    })
}

pub fn condition(kind: &str, status: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "Trial", "message": "a trial says so",
        "lastTransitionTime": MOMENT,
    })
}

pub fn lease(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": name, "namespace": "fairlead-system", "labels": labels },
        "spec": { "holderIdentity": name, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z" },
    })
}

pub fn config_map(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": namespace },
        "data": { "a": "b" },
    })
}

pub fn secret(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": namespace } })
}

/// An event of the namespace [`HOME`](super::ground::HOME), about an object of that kind.
pub fn event(name: &str, program: &str, api: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": { "name": name, "namespace": super::ground::HOME },
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Warning", "reason": "Trial", "action": "Try",
        "reportingController": program, "reportingInstance": "gateway-0",
        "regarding": { "apiVersion": api, "kind": kind, "name": "x", "namespace": super::ground::HOME },
    })
}

pub fn namespace(name: &str, stamps: bool) -> Value {
    let labels = if stamps {
        json!({})
    } else {
        json!({ WITHOUT_STAMPS: "yes" })
    };
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

/// Roles that are not for real life.
pub fn roles() -> Vec<Value> {
    let ours = |resources: Value, verbs: Value| json!({ "apiGroups": ["fairlead.dev"], "resources": resources, "verbs": verbs });
    let named = |resource: &str, name: &str, verb: &str| json!({ "apiGroups": ["fairlead.dev"], "resources": [resource], "resourceNames": [name], "verbs": [verb] });
    let role = |name: &str, rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name },
            "rules": rules,
        })
    };
    let writing = json!([
        "get", "list", "watch", "create", "update", "patch", "delete"
    ]);
    let of_kubernetes = |group: &str, resource: &str| json!({ "apiGroups": [group], "resources": [resource], "verbs": ["*"] });
    let leases = of_kubernetes("coordination.k8s.io", "leases");
    vec![
        role("trial-writer", json!([ours(json!(["*"]), writing), leases])),
        role(
            "trial-everything",
            json!([
                ours(json!(["*"]), json!(["*"])),
                leases,
                of_kubernetes("", "configmaps"),
                of_kubernetes("", "events"),
                of_kubernetes("events.k8s.io", "events"),
            ]),
        ),
        role(
            "trial-changer",
            json!([ours(
                json!(["*"]),
                json!(["get", "list", "create", "update", "patch"])
            )]),
        ),
        role(
            "trial-approver-of-one",
            json!([named("pairingrequests", "one", "approve")]),
        ),
        role(
            "trial-kiosk-invoker",
            json!([
                named("devices", "kiosk", "invoke"),
                ours(json!(["capabilities"]), json!(["invoke"]))
            ]),
        ),
    ]
}

/// Binds a ClusterRole to a user.
pub fn binding(kind: &str, who: Who, role: &str) -> Value {
    let name = format!("{}-{role}", who.0);
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": who.0 }],
    })
}
