//! What the trials make: small valid objects, and where they are in the API.

use serde_json::{Value, json};

use super::ground::WITHOUT_STAMPS;
use super::step::Who;

const API: &str = "fairlead.dev/v1alpha1";
pub const KEY: &str = "abababababababababababababababababababababababababababababababab";
pub const OTHER_KEY: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
/// A moment: no rule here depends on the clock.
pub const MOMENT: &str = "2030-01-01T00:00:00Z";
pub const LATER: &str = "2030-01-02T00:00:00Z";

const PLURALS: &[(&str, &str)] = &[
    ("CapabilityInvocation", "capabilityinvocations"),
    ("Device", "devices"),
    ("Lease", "leases"),
    ("PairingCode", "pairingcodes"),
    ("PairingRequest", "pairingrequests"),
];

/// The collection that an object is created in.
pub fn path_of(namespace: &str, object: &Value) -> String {
    let (_, plural) = PLURALS
        .iter()
        .find(|(kind, _)| object["kind"] == *kind)
        .expect("a kind of these trials");
    path(namespace, plural)
}

/// `devices/kiosk` and the like, in a namespace. Leases are those of the system.
pub fn path(namespace: &str, object: &str) -> String {
    if object.starts_with("leases") {
        format!("/apis/coordination.k8s.io/v1/namespaces/fairlead-system/{object}")
    } else {
        format!("/apis/{API}/namespaces/{namespace}/{object}")
    }
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
        "spec": { "holderIdentity": name },
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
    let leases =
        json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"] });
    vec![
        role("trial-writer", json!([ours(json!(["*"]), writing), leases])),
        role(
            "trial-everything",
            json!([ours(json!(["*"]), json!(["*"])), leases]),
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
