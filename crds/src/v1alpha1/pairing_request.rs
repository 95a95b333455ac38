//! `PairingRequest`: a device that asks to be let in, and the answer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientKind, DeclaredCapability, Grants, ObjectReference, Platform};

/// What a device asks for. Made by a gateway after the device proved a pairing code and its key, or by a person.
/// The name of a gateway's request is a digest of its spec: who approves a name approves what it shows.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "fairlead.dev",
    version = "v1alpha1",
    kind = "PairingRequest",
    plural = "pairingrequests",
    doc = "A device that asks to be paired. Approve: kubectl patch preq NAME --subresource=status --type=merge -p '{\"status\":{\"approval\":{\"decision\":\"Approved\"}}}'. The name of a gateway's request is the digest of what it shows. A request that a person made has no spec.source and any name, so its approval must say what was looked at: {\"decision\":\"Approved\",\"specDigest\":\"DIGEST\"}, the digest being that of status.specDigest.",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    status = "PairingRequestStatus",
    shortname = "preq",
    category = "fairlead",
    selectable = ".spec.publicKeySha256",
    selectable = ".status.phase",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Requested", type_ = "string", json_path = ".spec.requestedName"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.platform.hostname"),
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.method", priority = 1),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.source.remoteAddress", priority = 1),
    printcolumn(name = "Key", type_ = "string", json_path = ".spec.publicKeySha256", priority = 1),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.deviceRef.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.approval) || (has(self.status) && has(self.status.approval) && self.status.approval == oldSelf.status.approval)").message("the decision on a pairing request is final").field_path(".status.approval"),
    validation = Rule::new("!has(oldSelf.status) || !(oldSelf.status.phase in ['Denied', 'Issued', 'Expired', 'Failed']) || (has(self.status) && self.status.phase == oldSelf.status.phase)").message("a pairing request that is Denied, Issued, Expired or Failed stays so: the device must ask again").field_path(".status.phase"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.certificate) || (has(self.status) && has(self.status.certificate) && self.status.certificate == oldSelf.status.certificate)").message("the certificate of a pairing request is issued once").field_path(".status.certificate"),
    validation = Rule::new("!has(oldSelf.status) || oldSelf.status.phase != 'Approved' || (has(self.status) && self.status.phase != 'Pending')").message("a pairing request that was approved is not pending again").field_path(".status.phase")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a pairing request cannot be changed: what was shown is what is decided on"))]
#[x_kube(validation = Rule::new("self.keyCustody == 'Operator' ? !has(self.csr) && !has(self.publicKeySha256) : has(self.csr) && has(self.publicKeySha256)").message("keyCustody Device needs csr and publicKeySha256; keyCustody Operator allows neither").field_path(".keyCustody"))]
#[x_kube(validation = Rule::new("!(self.method in ['Pin', 'Qr']) || has(self.pairingCodeRef)").message("method Pin or Qr needs pairingCodeRef").field_path(".pairingCodeRef"))]
pub struct PairingRequestSpec {
    /// PKCS#10 certificate signing request, PEM. Only its public key is used; its names are wishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub csr: Option<String>,
    /// SHA-256 of the key's SubjectPublicKeyInfo, hexadecimal: the identity of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub public_key_sha256: Option<String>,
    /// Who makes and keeps the private key. `Operator` is for a pod that mounts the Secret `<device>-mtls`.
    #[serde(default)]
    pub key_custody: KeyCustody,
    /// The code that the device proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairing_code_ref: Option<ObjectReference>,
    /// How the device showed that it may ask.
    #[serde(default)]
    pub method: Method,
    /// What kind of program asks.
    #[serde(default)]
    pub client_kind: ClientKind,
    /// The name that the device would like to have.
    #[schemars(length(min = 1, max = 253))]
    pub requested_name: String,
    /// What the device says about itself.
    #[serde(default)]
    pub platform: Platform,
    /// What the device says it can do. What is granted at approval is taken from here.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub capabilities: Vec<DeclaredCapability>,
    /// Where the request came from. Only gateways write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Who made this object: the user name that the API server authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub requested_by: Option<String>,
    /// When the request stops waiting for a decision: a whole second of UTC, for example `2030-01-31T12:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::whole_second")]
    pub expires_at: Option<Time>,
}

/// Who makes and keeps a private key.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum KeyCustody {
    /// The device. The key never leaves it.
    #[default]
    Device,
    /// The operator, in the Secret of the device.
    Operator,
}

/// How a device shows that it may ask.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Method {
    /// A typed code.
    Pin,
    /// A scanned or pasted code, with the authority pinned.
    Qr,
    /// A Kubernetes ServiceAccount token. Not offered yet: no gateway takes one.
    ServiceAccount,
    /// A person wrote the request.
    #[default]
    Manual,
}

/// The gateway that made a request, and for whom.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Name of the gateway.
    #[schemars(length(min = 1, max = 253))]
    pub gateway: String,
    /// Address that the device connected from, as the gateway saw it.
    #[schemars(length(max = 64))]
    pub remote_address: String,
}

/// What was decided on a request, and what came of it.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.phase != 'Issued' || (has(self.certificate) && has(self.deviceRef) && has(self.approval) && self.approval.decision == 'Approved')").message("Issued needs an approval, the certificate and the Device").field_path(".phase"))]
#[x_kube(validation = Rule::new("self.phase != 'Denied' || (has(self.approval) && self.approval.decision == 'Denied')").message("Denied needs a decision that says so").field_path(".phase"))]
#[x_kube(validation = Rule::new("!has(oldSelf.deviceRef) || (has(self.deviceRef) && self.deviceRef == oldSelf.deviceRef)").message("the Device of a pairing request cannot be changed").field_path(".deviceRef"))]
pub struct PairingRequestStatus {
    /// Where the request is in its life.
    #[serde(default)]
    pub phase: RequestPhase,
    /// SHA-256 of the canonical JSON (RFC 8785) of the spec, hexadecimal: what `approval.specDigest` is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub spec_digest: Option<String>,
    /// The decision. Written once, by who holds the verb `approve` on pairingrequests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Decision>,
    /// What was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<IssuedCertificate>,
    /// Certificates that programs which mount the device's Secret trust, PEM. A device itself trusts `signedBundle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub ca_bundle: Option<String>,
    /// The authorities that the device trusts from now on, signed by one of them: the encoding of the trust bundle's
    /// `signed-bundle`, base64. The device verifies the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384), regex(pattern = crate::schema::BASE64))]
    pub signed_bundle: Option<String>,
    /// The Device that came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_ref: Option<ObjectReference>,
    /// The `metadata.generation` that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = crate::schema::MAX_WHOLE))]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether the certificate was issued.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where a request is in its life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum RequestPhase {
    /// Nobody has decided.
    #[default]
    Pending,
    /// Approved; the certificate is on its way.
    Approved,
    /// Denied, for good.
    Denied,
    /// The certificate is in `status.certificate`.
    Issued,
    /// Nobody decided in time.
    Expired,
    /// Approved, but cannot be issued; the condition `Ready` says why.
    Failed,
}

impl RequestPhase {
    /// Whether nothing more will happen.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Approved => false,
            Self::Denied | Self::Issued | Self::Expired | Self::Failed => true,
        }
    }
}

/// A decision on a request.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Yes or no.
    pub decision: Verdict,
    /// The user who decided. Stamped, or must be true where MutatingAdmissionPolicy is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub decided_by: Option<String>,
    /// Why, for the person at the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub reason: Option<String>,
    /// Name for the Device, instead of the requested one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub device_name: Option<String>,
    /// What the device gets, instead of what it declares. Never more than the code's grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    /// The digest of the spec that the approver saw: `status.specDigest`. Where given, another spec is not signed. A
    /// request without `spec.source` needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = crate::schema::SHA256_HEX))]
    pub spec_digest: Option<String>,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[schemars(transform = crate::schema::name_variants)]
pub enum Verdict {
    Approved,
    Denied,
}

/// A certificate that was issued.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedCertificate {
    /// PEM, leaf first, the authority's own certificate last.
    #[schemars(length(max = 32768))]
    pub chain: String,
    /// Serial number, hexadecimal.
    #[schemars(length(max = 64))]
    pub serial: String,
    /// Valid from.
    #[schemars(schema_with = "crate::schema::time")]
    pub not_before: Time,
    /// Valid until.
    #[schemars(schema_with = "crate::schema::time")]
    pub not_after: Time,
}
