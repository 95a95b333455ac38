//! `Device`: a paired device, what it may do, and whether it is there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientKind, Execution, Platform};

/// A paired device. Made by the operator when a pairing request is approved.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "Device",
    plural = "devices",
    doc = "A paired device: who it is, whether it is trusted, whether it is there, and what it may run.",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    status = "DeviceStatus",
    shortname = "dev",
    category = "fairlead",
    selectable = ".spec.publicKeySha256",
    selectable = ".spec.trust",
    selectable = ".status.presence",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Trust", type_ = "string", json_path = ".status.trust"),
    printcolumn(name = "Presence", type_ = "string", json_path = ".status.presence"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.clientKind", priority = 1),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.platform.hostname", priority = 1),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".status.session.gateway", priority = 1),
    printcolumn(name = "Granted", type_ = "integer", json_path = ".status.capabilityCounts.granted", priority = 1),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.capabilityCounts.pending", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.certificate.notAfter"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.status) || has(self.status)").message("the status of a device cannot be removed: its sessions and certificates would be counted from the beginning").field_path(".status"),
    validation = Rule::new("!has(self.status) || !has(self.status.session) || self.status.session.epoch <= (has(oldSelf.status) && has(oldSelf.status.session) ? oldSelf.status.session.epoch : 0) + 1").message("the epoch of a session grows by one: read the device again").field_path(".status.session.epoch"),
    validation = Rule::new("!has(self.status) || !has(self.status.certificate) || self.status.certificate.generation <= (has(oldSelf.status) && has(oldSelf.status.certificate) ? oldSelf.status.certificate.generation : 0) + 1").message("the generation of a certificate grows by one: read the device again").field_path(".status.certificate.generation"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("a device's name is 63 characters long at most: it is part of its SPIFFE id and names its Secret")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.publicKeySha256 == oldSelf.publicKeySha256").message("the key is the identity of the device and cannot be changed: pair it again").field_path(".publicKeySha256"))]
#[x_kube(validation = Rule::new("oldSelf.trust != 'Revoked' || self.trust == 'Revoked'").message("a revoked device stays revoked: pair it again").field_path(".trust"))]
#[x_kube(validation = Rule::new("self.presence.staleAfterSeconds < self.presence.offlineAfterSeconds").message("staleAfterSeconds must be less than offlineAfterSeconds").field_path(".presence"))]
pub struct DeviceSpec {
    /// SHA-256 of the SubjectPublicKeyInfo of the device's key, hexadecimal: its identity.
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub public_key_sha256: String,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub display_name: Option<String>,
    /// What kind of program runs on it.
    #[serde(default)]
    pub client_kind: ClientKind,
    /// Whether it is trusted. `Suspended` and `Revoked` cut its stream; `Revoked` is final.
    #[serde(default)]
    pub trust: TrustDecision,
    /// What it may run.
    #[serde(default)]
    pub grants: DeviceGrants,
    /// How long its certificates live.
    #[serde(default)]
    pub certificate: CertificatePolicy,
    /// When an absent device counts as stale and as offline.
    #[serde(default)]
    pub presence: PresencePolicy,
    /// How it may come back after its certificate expired. Not acted on yet: a device whose certificate has expired is
    /// paired again, whatever stands here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryPolicy>,
}

/// What somebody decided about a device.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum TrustDecision {
    /// It may connect.
    #[default]
    Active,
    /// It may not connect until it is Active again.
    Suspended,
    /// It may never connect again.
    Revoked,
}

/// What a device may run.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceGrants {
    /// Names of capabilities.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::capability_names")]
    pub capabilities: Vec<String>,
    /// By the name of a capability: `surfaceSha256` of what was granted under that name. A device that declares more
    /// than that (a wider input, or no person asked any more) runs what was granted until its new digest stands here.
    /// A capability that is not named here is granted as the device declared it when its name was granted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::surfaces")]
    pub surfaces: BTreeMap<String, String>,
}

/// How long certificates live.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificatePolicy {
    /// Life of a certificate in seconds: an hour to thirty days. Never longer than that of its authority.
    #[serde(default = "default_certificate_ttl_seconds")]
    #[schemars(range(min = 3600, max = 2_592_000))]
    pub ttl_seconds: i64,
}

impl Default for CertificatePolicy {
    fn default() -> Self {
        Self {
            ttl_seconds: default_certificate_ttl_seconds(),
        }
    }
}

fn default_certificate_ttl_seconds() -> i64 {
    86400
}

/// When an absent device counts as stale and as offline, in seconds since its session ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PresencePolicy {
    /// From here on it is Stale.
    #[serde(default = "default_stale_after_seconds")]
    #[schemars(range(min = 10, max = 604_800))]
    pub stale_after_seconds: i64,
    /// From here on it is Offline.
    #[serde(default = "default_offline_after_seconds")]
    #[schemars(range(min = 20, max = 2_592_000))]
    pub offline_after_seconds: i64,
}

impl Default for PresencePolicy {
    fn default() -> Self {
        Self {
            stale_after_seconds: default_stale_after_seconds(),
            offline_after_seconds: default_offline_after_seconds(),
        }
    }
}

fn default_stale_after_seconds() -> i64 {
    300
}

fn default_offline_after_seconds() -> i64 {
    1800
}

/// How a device may come back after its certificate expired. Not acted on yet.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryPolicy {
    /// For how long after expiry, in seconds.
    #[schemars(range(min = 0, max = 31_536_000))]
    pub window_seconds: i64,
    /// How many more times.
    #[schemars(range(min = 0, max = 100))]
    pub remaining: i64,
}

/// What is known about a device.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(oldSelf.session) || has(self.session)").message("the last session of a device stays known: its epoch counts on from there").field_path(".session"))]
#[x_kube(validation = Rule::new("!has(oldSelf.certificate) || (has(self.certificate) && self.certificate.generation >= oldSelf.certificate.generation)").message("the generation of a certificate never goes back").field_path(".certificate"))]
#[x_kube(validation = Rule::new("!has(self.renewal) || !has(self.renewal.generation) || (has(self.certificate) && self.renewal.generation <= self.certificate.generation)").message("a renewal cannot have a generation that no certificate has: write status.certificate together with it").field_path(".renewal.generation"))]
#[x_kube(validation = Rule::new("!has(self.certificateHistory) || (has(self.certificate) && self.certificateHistory.all(former, former.generation < self.certificate.generation))").message("the history has certificates of generations before that of status.certificate").field_path(".certificateHistory"))]
pub struct DeviceStatus {
    /// Whether it is trusted now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Whether it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// Why `presence` is what it is, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_reason: Option<PresenceReason>,
    /// When a gateway last knew it to be there: the start or the end of its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub last_seen: Option<Time>,
    /// Its stream, or the last one it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Its newest certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<DeviceCertificate>,
    /// The certificates that it had before, the newest first. Written when another one takes the place of `certificate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = crate::names::MAX_CERTIFICATE_HISTORY))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["generation".to_owned()]))]
    pub certificate_history: Vec<DeviceCertificate>,
    /// The renewal of its certificate that it asked for last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
    /// What it says about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What it says it can do, and whether it may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub capabilities: Vec<DeviceCapability>,
    /// How many of `capabilities` there are of each kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability_counts: Option<CapabilityCounts>,
    /// What is granted and was declared once, and is not declared now. When the device declares it again, this is what
    /// may run of it: a capability does not grow by going away and coming back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub undeclared: Vec<UndeclaredCapability>,
    /// The `metadata.generation` that the operator has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = crate::schema::MAX_WHOLE))]
    pub observed_generation: Option<i64>,
    /// `Ready`, `CertificateValid` and `CapabilitiesGranted` by the operator, `Connected` by the gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Whether a device is trusted now.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Trust {
    /// It has a valid certificate and may connect.
    Trusted,
    /// It is suspended, or its certificate has expired.
    Untrusted,
    /// Never again.
    Revoked,
}

/// Whether a device is there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Presence {
    /// It holds a stream to a live gateway.
    Online,
    /// It holds a stream but a capability is unavailable, or it lost its stream a moment ago.
    Degraded,
    /// It has been away for `staleAfterSeconds`.
    Stale,
    /// It has been away for `offlineAfterSeconds`, or was never there.
    Offline,
}

/// Why a device is as present as it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum PresenceReason {
    /// It holds a stream.
    Connected,
    /// It holds a stream, but a capability that it declares is unavailable.
    CapabilityUnavailable,
    /// Its stream ended.
    SessionEnded,
    /// The gateway that held its stream is gone.
    GatewayGone,
    /// It never connected.
    NeverConnected,
}

/// A stream of a device.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.epoch > oldSelf.epoch || (self.epoch == oldSelf.epoch && self.gateway == oldSelf.gateway)").message("a new session needs a higher epoch: read the device again").field_path(".epoch"))]
#[x_kube(validation = Rule::new("self.epoch > oldSelf.epoch || !has(oldSelf.endedAt) || has(self.endedAt)").message("a session that has ended cannot go on: begin one with a higher epoch").field_path(".endedAt"))]
pub struct Session {
    /// Name of the gateway that holds it: also the name of the gateway's Lease.
    #[schemars(length(min = 1, max = 253))]
    pub gateway: String,
    /// Counts the sessions of the device: an end is written only to the session that ended.
    #[schemars(range(min = 0, max = crate::schema::MAX_WHOLE))]
    pub epoch: i64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub connected_at: Option<Time>,
    /// When it ended. Absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub ended_at: Option<Time>,
}

/// A certificate of a device.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCertificate {
    /// Serial number, hexadecimal.
    #[schemars(length(max = 64))]
    pub serial: String,
    /// SHA-256 of the certificate, hexadecimal.
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub fingerprint: String,
    /// Counts the certificates of the device.
    #[schemars(range(min = 1, max = crate::schema::MAX_WHOLE))]
    pub generation: i64,
    /// Valid from.
    #[schemars(schema_with = "crate::schema::time")]
    pub not_before: Time,
    /// Valid until.
    #[schemars(schema_with = "crate::schema::time")]
    pub not_after: Time,
    /// SHA-256 of the public key of the authority that signed it, hexadecimal: by it the operator notices that its own
    /// authority is another one. Absent where an earlier version issued the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub authority: Option<String>,
}

/// A renewal of a device's certificate: a gateway writes what the device asks for, the operator answers beside it.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.chain) || has(self.generation)").message("a chain needs the generation of its certificate").field_path(".generation"))]
#[x_kube(validation = Rule::new("!has(self.secretGeneration) || (has(self.generation) && self.secretGeneration <= self.generation)").message("the Secret cannot hold a newer certificate than the renewal: write generation together with it").field_path(".secretGeneration"))]
pub struct Renewal {
    /// The certificate request, PEM. It must be for the device's own key.
    #[schemars(length(min = 1, max = 4096))]
    pub csr: String,
    /// When a gateway wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub requested_at: Option<Time>,
    /// The certificate that was issued for it, PEM, leaf first. Absent until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub chain: Option<String>,
    /// The authorities that the device trusts from then on, signed by one that it trusted before, base64. The device
    /// verifies the signature. Beside `chain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384), regex(pattern = crate::schema::BASE64))]
    pub signed_bundle: Option<String>,
    /// `certificate.generation` of that chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = crate::schema::MAX_WHOLE))]
    pub generation: Option<i64>,
    /// Why nothing is issued for it, for people. Absent where something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub refused: Option<String>,
    /// `generation` of the certificate that the operator has put into the Secret `<device>-mtls` since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = crate::schema::MAX_WHOLE))]
    pub secret_generation: Option<i64>,
}

/// A capability that a device says it has.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCapability {
    /// Name of the capability.
    #[schemars(length(min = 1, max = 63), regex(pattern = crate::schema::CAPABILITY_NAME))]
    pub name: String,
    /// Whether the device can run it now.
    #[serde(default)]
    pub availability: Availability,
    /// Whether it runs at once or after the person at the device allowed it.
    #[serde(default)]
    pub execution: Execution,
    /// Whether it may be run. `Pending` beside `accepted`: what was granted goes on, what is new waits.
    #[serde(default)]
    pub granted: Granted,
    /// The capability's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub version: Option<String>,
    /// What it does, in the device's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub description: Option<String>,
    /// What it takes: JSON Schema (draft 2020-12), as JSON text. Absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub input_schema: Option<String>,
    /// What it answers: JSON Schema (draft 2020-12), as JSON text. Absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub output_schema: Option<String>,
    /// What the device advises to give as `spec.timeoutSeconds` of an invocation, in seconds. Whoever makes one may follow
    /// it; what the invocation says counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub default_timeout_seconds: Option<i64>,
    /// The longest that it runs, in seconds: the device stops it then, whatever the invocation says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_timeout_seconds: Option<i64>,
    /// Runs of it at once. Absent: as many as the device runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: Option<i64>,
    /// SHA-256 of what a grant is about: `execution` and `inputSchema` as declared. It goes to
    /// `spec.grants.surfaces` to grant just that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub surface_sha256: Option<String>,
    /// What was granted, where the device declares something else now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedSurface>,
}

/// What of a capability was granted.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedSurface {
    /// How it was started then.
    #[serde(default)]
    pub execution: Execution,
    /// What it took then: JSON Schema, as JSON text. Absent: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub input_schema: Option<String>,
}

/// A granted capability that the device declared once and does not declare now.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UndeclaredCapability {
    /// Name of the capability.
    #[schemars(length(min = 1, max = 63), regex(pattern = crate::schema::CAPABILITY_NAME))]
    pub name: String,
    /// What of it was granted.
    #[serde(default)]
    pub accepted: AcceptedSurface,
}

/// How many capabilities of a device are decided how.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CapabilityCounts {
    /// Those that the device declares.
    #[schemars(range(min = 0, max = 128))]
    pub declared: i64,
    /// Those that it may run as it declares them.
    #[schemars(range(min = 0, max = 128))]
    pub granted: i64,
    /// Those that wait for a decision, altogether or with what is new of them.
    #[schemars(range(min = 0, max = 128))]
    pub pending: i64,
}

/// Whether a capability can be run now.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Availability {
    #[default]
    Available,
    Unavailable,
}

/// Whether a capability may be run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Granted {
    /// It may.
    Granted,
    /// It may not: somebody decided so.
    #[default]
    NotGranted,
    /// It may not yet: the device began to declare it, or more of it, after it was approved, and nobody has decided.
    Pending,
}
