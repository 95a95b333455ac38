//! Devices in the order in which they need attention, what waits for a decision, and what runs Fairlead.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ObjectId, invocation::InvocationSummary, open_enum::open_enum, pairing::RequestSummary,
};

/// Most devices on a page.
pub const MAX_PAGE: u32 = 200;
/// Devices on a page where nobody says.
pub const DEFAULT_PAGE: u32 = 50;

open_enum! {
    /// Whether a device is there.
    pub enum Presence {
        /// It holds a stream but a capability is unavailable, or it lost its stream a moment ago.
        Degraded,
        /// It has been away for some minutes.
        Stale,
        /// It has been away for long, or was never there.
        Offline,
        /// It holds a stream to a live gateway.
        Online,
    }
}

open_enum! {
    /// Whether a device is trusted.
    pub enum Trust {
        /// It has a valid certificate and may connect.
        Trusted,
        /// It is suspended, or its certificate has expired.
        Untrusted,
        /// Never again.
        Revoked,
    }
}

open_enum! {
    /// What somebody decided about a device.
    pub enum TrustDecision {
        Active,
        Suspended,
        Revoked,
    }
}

open_enum! {
    /// What kind of program runs on a device.
    pub enum ClientKind {
        Node,
        Desktop,
        Cli,
    }
}

open_enum! {
    /// How a capability is started.
    pub enum Execution {
        /// At once.
        Automatic,
        /// After the person at the device allowed it.
        Mediated,
    }
}

open_enum! {
    /// Whether a capability may be run.
    pub enum Granted {
        Granted,
        NotGranted,
        /// Not yet: the device began to declare it, or more of it, and nobody has decided.
        Pending,
    }
}

open_enum! {
    /// Whether the device can run a capability now.
    pub enum Availability {
        Available,
        Unavailable,
    }
}

/// A page of the inventory.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Counts over everything that the filters leave, whatever page this is.
    pub summary: Summary,
    /// Those that need attention first: degraded, stale, offline, online; among them by namespace and name.
    pub devices: Vec<DeviceRecord>,
    /// For the next page. Absent on the last one.
    ///
    /// A device that is there from the first page to the last is on one of them at least. One whose presence changes
    /// meanwhile may be on two; the later one is the newer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Where the stream of events goes on from what this shows: its first `Last-Event-ID`. On the first page alone; who
    /// reads all pages and then follows from here has missed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Requests that wait for a decision, the oldest first; on the first page alone, a hundred at most.
    #[serde(default)]
    pub pending_pairings: Vec<RequestSummary>,
    /// What runs Fairlead; on the first page alone.
    #[serde(default)]
    pub instances: Vec<Instance>,
    /// What is left out because the caller may not see it.
    #[serde(default)]
    pub withheld: Vec<Withheld>,
}

/// Something that the caller may not see.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Withheld {
    /// The field that is left empty.
    pub field: String,
    /// The permission that would show it.
    pub permission: String,
}

/// How many devices there are of each kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub devices: u64,
    pub online: u64,
    pub degraded: u64,
    pub stale: u64,
    pub offline: u64,
    pub trusted: u64,
    pub untrusted: u64,
    pub revoked: u64,
    /// Devices of which a capability waits for a grant.
    pub awaiting_grant: u64,
    /// Requests that wait for a decision, where the caller may see them.
    pub pending_pairings: u64,
}

/// A device, as lists show it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeviceRecord {
    pub id: ObjectId,
    pub namespace: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    pub client_kind: ClientKind,
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of the device's key, hexadecimal: its identity.
    pub public_key_sha256: String,
    pub trust_decision: TrustDecision,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// Why, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The gateway that holds its stream, or held the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<Timestamp>,
    pub capabilities: CapabilityCounts,
    pub created_at: Option<Timestamp>,
    /// The version of the object that this shows: an `If-Match` for what changes it.
    pub resource_version: String,
}

/// How many capabilities of a device are decided how.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CapabilityCounts {
    pub declared: u32,
    pub granted: u32,
    pub pending: u32,
}

/// What a device says about itself. Nobody has verified it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    pub os: String,
    pub arch: String,
    pub agent_version: String,
    pub hostname: String,
}

/// All that is known of a device.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeviceDetail {
    pub device: DeviceRecord,
    /// SHA-256 of the device's key in words, to be compared by voice.
    pub key_words: Vec<String>,
    /// The newest certificate first, then those before it, as far back as the Device tells.
    pub certificates: Vec<CertificateRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionRecord>,
    pub capabilities: Vec<CapabilityRecord>,
    pub conditions: Vec<ConditionRecord>,
    /// What somebody should look at, in words: each with what to do.
    pub warnings: Vec<Warning>,
    /// What the caller may do with it.
    pub actions: Vec<Action>,
    /// Requests of this device's key.
    pub pairings: Vec<RequestSummary>,
    /// The newest first.
    pub recent_invocations: Vec<InvocationSummary>,
    /// The newest first.
    pub events: Vec<EventRecord>,
    /// What is left out because the caller may not see it.
    pub withheld: Vec<Withheld>,
}

/// A certificate of a device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CertificateRecord {
    pub serial: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    /// Counts the certificates of the device.
    pub generation: i64,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// A stream of a device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SessionRecord {
    pub gateway: String,
    pub epoch: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<Timestamp>,
    /// Absent while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// A capability that a device declares.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CapabilityRecord {
    pub name: String,
    pub availability: Availability,
    pub execution: Execution,
    pub granted: Granted,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema as JSON text. Absent: anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_timeout_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_timeout_seconds: Option<i64>,
    /// What to name to grant just what the device declares now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surface_sha256: Option<String>,
}

/// A condition of an object.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConditionRecord {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_time: Timestamp,
}

open_enum! {
    /// What somebody should look at.
    pub enum WarningCode {
        /// Less than a quarter of the certificate's life is left, and it was not renewed: devices renew before.
        CertificateExpiring,
        /// The certificate has ended.
        CertificateExpired,
        /// Somebody suspended it.
        Suspended,
        /// A capability is declared and waits for a grant.
        GrantPending,
        /// A granted capability cannot be run now.
        CapabilityUnavailable,
        /// It lost its stream, or its gateway is gone.
        Disconnected,
        /// It was never there.
        NeverConnected,
    }
}

/// What somebody should look at.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Warning {
    pub code: WarningCode,
    /// What is so, and what to do.
    pub message: String,
}

/// Something that can be done with an object.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// `suspend`, `resume`, `revoke`, `rename`, `grant`, `delete`, `invoke`.
    pub action: String,
    /// Whether the caller has the right and the object is such that it can be done.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A Kubernetes event about an object.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    pub reason: String,
    pub note: String,
    /// Who says so.
    pub reporter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    pub count: u32,
}

open_enum! {
    /// What an instance is.
    pub enum Component {
        Operator,
        Gateway,
    }
}

/// A program of Fairlead, as its Lease shows it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub component: Component,
    pub name: String,
    /// Whether its Lease was renewed in time, as the console sees it.
    pub live: bool,
    /// `HOST:PORT` for devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<Timestamp>,
}
