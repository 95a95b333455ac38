//! Pairing codes, and the requests of devices that proved one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ObjectId,
    inventory::{ClientKind, ConditionRecord, Execution, Platform},
    open_enum::open_enum,
};

open_enum! {
    /// Characters of a code.
    pub enum CodeFormat {
        /// Crockford's Base32: digits and upper-case letters without I, L, O and U.
        Alphanumeric,
        Numeric,
    }
}

open_enum! {
    /// How a code reaches the device.
    pub enum Delivery {
        Pin,
        Qr,
    }
}

open_enum! {
    /// Who approves the requests of a code.
    pub enum Approval {
        Manual,
        /// The operator, at once. Takes a caller who may approve.
        Automatic,
    }
}

open_enum! {
    /// Where a code is in its life.
    pub enum CodePhase {
        Active,
        Used,
        Expired,
        Locked,
    }
}

open_enum! {
    /// Where a request is in its life.
    pub enum RequestPhase {
        Pending,
        Approved,
        Denied,
        Issued,
        Expired,
        Failed,
    }
}

open_enum! {
    /// How a device shows that it may ask.
    pub enum Method {
        Pin,
        Qr,
        ServiceAccount,
        Manual,
    }
}

/// What a device may be given.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// Labels that the Device gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Capabilities that it may run. Absent: those it declares. An empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
}

/// A code to be made.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewCode {
    /// Where the devices will be. Up to 63 characters.
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 63,
            pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
        )
    )]
    pub namespace: String,
    /// Name of the object. Absent: one is made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 200,
            pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
        )
    )]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<CodeFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// How long it can be used: 30 to 86400 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 30, maximum = 86400))]
    pub ttl_seconds: Option<i64>,
    /// How many devices: 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub max_uses: Option<i64>,
    /// How many wrong tries: 1 to 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 20))]
    pub max_attempts: Option<i64>,
    /// The most that a device paired by it may get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// A code, without its secret.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CodeRecord {
    pub id: ObjectId,
    /// Absent until the operator has drawn the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<CodePhase>,
    pub format: CodeFormat,
    pub delivery: Delivery,
    pub approval: Approval,
    pub uses: i64,
    pub max_uses: i64,
    pub attempts: i64,
    pub max_attempts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    pub conditions: Vec<ConditionRecord>,
}

/// A page of codes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CodePage {
    pub codes: Vec<CodeRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What is shown to the person at the device. Read with the caller's own right to the code's Secret.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CodeMaterial {
    /// What is typed.
    pub pin: String,
    /// What the QR code says.
    pub uri: String,
    /// The QR code, for a page.
    pub qr_svg: String,
    /// The QR code, for a terminal.
    pub qr_text: String,
}

impl std::fmt::Debug for CodeMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeMaterial").finish_non_exhaustive()
    }
}

/// A request, as lists show it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RequestSummary {
    pub id: ObjectId,
    pub phase: RequestPhase,
    pub method: Method,
    pub client_kind: ClientKind,
    /// The name that the device would like to have.
    pub requested_name: String,
    pub platform: Platform,
    /// SHA-256 of the device's key, hexadecimal. Absent where the operator makes the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_sha256: Option<String>,
    /// Where the device connected from, as the gateway saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_address: Option<String>,
    /// The Device that came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<ObjectId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it stops waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Everything that an approver compares.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RequestDetail {
    pub request: RequestSummary,
    /// SHA-256 of the key in words, as the device shows them: to be compared by voice.
    pub key_words: Vec<String>,
    /// The digest of all that is shown here. An approval that names it approves this and nothing else.
    pub spec_digest: String,
    /// The gateway that the device asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The code that it proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<ObjectId>,
    /// Who made the request, where a person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// The most that it may get, where the code says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Grants>,
    pub capabilities: Vec<DeclaredCapability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,
    pub conditions: Vec<ConditionRecord>,
}

/// A capability that a device says it has.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeclaredCapability {
    pub name: String,
    pub execution: Execution,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<String>,
}

open_enum! {
    /// Yes or no.
    pub enum Verdict {
        Approved,
        Denied,
    }
}

/// What was decided.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    pub decision: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
}

/// A page of requests.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RequestPage {
    pub requests: Vec<RequestSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Yes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approve {
    /// `specDigest` of what the approver saw. Another spec is not signed.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 64, max_length = 64, pattern = "^[0-9a-f]{64}$")
    )]
    pub spec_digest: String,
    /// Name for the Device, instead of the requested one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 63,
            pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
        )
    )]
    pub device_name: Option<String>,
    /// What it gets, instead of what it declares. Never more than the code's ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    /// Why, for the person at the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 512))]
    pub reason: Option<String>,
}

/// No.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// Why, for the person at the device.
    #[cfg_attr(feature = "openapi", schema(max_length = 512))]
    pub reason: String,
}
