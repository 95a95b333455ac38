//! `PairingCode`: a code that a person types or scans to let a device in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Grants, ObjectReference};

/// What an administrator wants of a pairing code. The code itself is never here: the operator draws it and writes it
/// to the Secret `<name>-code`, under the keys `pin`, `uri`, `qr.svg` and `qr.txt`.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "PairingCode",
    plural = "pairingcodes",
    doc = "A code that a person types or scans to pair devices. The code is in the Secret <name>-code while it can be used.",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    status = "PairingCodeStatus",
    shortname = "pcode",
    category = "fairlead",
    selectable = ".status.phase",
    selectable = ".status.codeId",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Uses", type_ = "integer", json_path = ".status.uses"),
    printcolumn(name = "Of", type_ = "integer", json_path = ".spec.maxUses"),
    printcolumn(name = "Attempts", type_ = "integer", json_path = ".status.attempts", priority = 1),
    printcolumn(name = "Approval", type_ = "string", json_path = ".spec.approval", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 200").message("the name is 200 characters long at most: the Secret of the code is named after it"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase == 'Active' || (has(self.status) && has(self.status.phase) && self.status.phase == oldSelf.status.phase)").message("a code that is Used, Expired or Locked stays so: make a new one").field_path(".status.phase"),
    validation = Rule::new("!has(oldSelf.status) || has(self.status)").message("the status of a pairing code cannot be removed: its uses and attempts would be forgotten").field_path(".status"),
    validation = Rule::new("!has(self.status) || self.status.uses <= self.spec.maxUses").message("uses cannot exceed spec.maxUses").field_path(".status.uses"),
    validation = Rule::new("!has(self.status) || self.status.attempts <= self.spec.maxAttempts").message("attempts cannot exceed spec.maxAttempts").field_path(".status.attempts")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a pairing code cannot be changed: make a new one"))]
pub struct PairingCodeSpec {
    /// Characters of the code: `Alphanumeric` (4 + 6 of Crockford's Base32) or `Numeric` (4 + 6 digits).
    #[serde(default)]
    pub format: CodeFormat,
    /// What the administrator wants to show: a PIN that is typed, or a QR code that is scanned. The Secret holds both.
    #[serde(default)]
    pub delivery: Delivery,
    /// How long the code can be used, in seconds from the creation of this object.
    #[serde(default = "default_ttl_seconds")]
    #[schemars(range(min = 30, max = 86400))]
    pub ttl_seconds: i64,
    /// How many devices may be paired with it.
    #[serde(default = "default_max_uses")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_uses: i64,
    /// How many wrong tries lock it.
    #[serde(default = "default_max_attempts")]
    #[schemars(range(min = 1, max = 20))]
    pub max_attempts: i64,
    /// The most that a device paired by this code may get. Absent: what the approver grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    /// Whether a person decides on each request, or the operator approves at once. `Automatic` takes a creator who may
    /// approve pairing requests.
    #[serde(default)]
    pub approval: Approval,
}

/// Characters of a code.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum CodeFormat {
    /// Crockford's Base32: digits and upper-case letters without I, L, O and U.
    #[default]
    Alphanumeric,
    /// Digits.
    Numeric,
}

/// How a code reaches the device.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Delivery {
    /// Typed by a person.
    #[default]
    Pin,
    /// Scanned, or pasted as a URI, which also pins the gateway's authority.
    Qr,
}

/// Who approves the requests of a code.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Approval {
    /// A person.
    #[default]
    Manual,
    /// The operator, at once.
    Automatic,
}

fn default_ttl_seconds() -> i64 {
    600
}

fn default_max_uses() -> i64 {
    1
}

fn default_max_attempts() -> i64 {
    5
}

/// What became of a pairing code.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.uses >= oldSelf.uses").message("uses are never taken back").field_path(".uses"))]
#[x_kube(validation = Rule::new("!has(oldSelf.codeId) || (has(self.codeId) && self.codeId == oldSelf.codeId)").message("a code is drawn once").field_path(".codeId"))]
#[x_kube(validation = Rule::new("!has(self.passwordFile) || (has(self.phase) && self.phase == 'Active')").message("a code that cannot be used keeps no password file: remove it together with the change of phase").field_path(".passwordFile"))]
#[x_kube(validation = Rule::new("!has(oldSelf.admitted) || (has(self.admitted) && size(self.admitted + oldSelf.admitted) == size(self.admitted))").message("a key that was admitted stays admitted").field_path(".admitted"))]
#[x_kube(validation = Rule::new("!has(self.admitted) || size(self.admitted) <= self.uses").message("each admitted key spends a use").field_path(".admitted"))]
pub struct PairingCodeStatus {
    /// Absent until the operator has drawn the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<CodePhase>,
    /// The public half of the code, unique in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub code_id: Option<String>,
    /// OPAQUE password file (RFC 9807), Base64: proves who knows the code, and does not reveal it. Wiped when the code
    /// can no longer be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub password_file: Option<String>,
    /// When the code stops working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub expires_at: Option<Time>,
    /// Devices that proved the code.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub uses: i64,
    /// Tries that were not, or not yet, followed by a proof.
    #[serde(default)]
    #[schemars(range(min = 0, max = 20))]
    pub attempts: i64,
    /// When the last try was counted. A try that is older than half a minute is a wrong one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub last_attempt_at: Option<Time>,
    /// Keys that proved the code. The same key may come back without it when the connection broke after the proof.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["publicKeySha256".to_owned()]))]
    pub admitted: Vec<AdmittedKey>,
    /// The `metadata.generation` that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = crate::schema::MAX_WHOLE))]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether a device can be paired with the code now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A key that proved a code.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(oldSelf.pairingRequestRef) || (has(self.pairingRequestRef) && self.pairingRequestRef == oldSelf.pairingRequestRef)").message("the request of a key that counts is named once").field_path(".pairingRequestRef"))]
pub struct AdmittedKey {
    /// SHA-256 of the key's SubjectPublicKeyInfo, hexadecimal.
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub public_key_sha256: String,
    /// The request of that key that counts. Where two gateways raced, the other one is superseded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairing_request_ref: Option<ObjectReference>,
}

/// Where a code is in its life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum CodePhase {
    /// It can be used.
    Active,
    /// As many devices as it allowed were paired.
    Used,
    /// Its time is over.
    Expired,
    /// Too many wrong tries.
    Locked,
}
