//! Running a capability on a device.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ObjectId, inventory::ConditionRecord, open_enum::open_enum};

/// Longest `?wait=`, in seconds.
pub const MAX_WAIT_SECONDS: u32 = 60;

open_enum! {
    /// Where an invocation is in its life.
    pub enum Phase {
        Queued,
        Dispatched,
        AwaitingMediation,
        Succeeded,
        Failed,
        Refused,
        TimedOut,
        Cancelled,
        Unknown,
    }
}

impl Phase {
    /// Whether nothing more will happen. What this version does not know goes on.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded
            | Self::Failed
            | Self::Refused
            | Self::TimedOut
            | Self::Cancelled
            | Self::Unknown => true,
            Self::Queued | Self::Dispatched | Self::AwaitingMediation | Self::Other => false,
        }
    }
}

open_enum! {
    /// What happens when the device is not there.
    pub enum WhenOffline {
        Fail,
        Queue,
    }
}

/// A capability to be run.
///
/// With the header `Idempotency-Key`, a request that is sent again – by the same caller, for the same device – makes no
/// second object, whichever gateway it reaches: it is answered with the first one, for as long as that exists.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewInvocation {
    pub device: ObjectId,
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 63,
            pattern = "^[a-z0-9]([-a-z0-9_]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9_]*[a-z0-9])?)*$"
        )
    )]
    pub capability: String,
    /// Any JSON, 32 KiB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// 1 to 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 3600))]
    pub timeout_seconds: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_offline: Option<WhenOffline>,
    /// With `whenOffline: Queue`: 1 to 604800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 604_800))]
    pub queue_seconds: Option<i64>,
    /// Two invocations of one device with the same key have one effect; the second has the first one's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub idempotency_key: Option<String>,
    /// Most bytes of output in the resource; what is larger becomes an artefact. 0 to 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 262_144))]
    pub max_output_bytes: Option<i64>,
    /// How long the object is kept after the end: 0 to 2592000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 2_592_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// An invocation, as lists show it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InvocationSummary {
    pub id: ObjectId,
    pub device: ObjectId,
    pub capability: String,
    pub phase: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// One of the codes in docs/invocations.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// An invocation, whole.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Invocation {
    #[serde(flatten)]
    pub summary: InvocationSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    pub timeout_seconds: i64,
    pub when_offline: WhenOffline,
    /// Whether somebody asked for it to be stopped.
    pub cancel_requested: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispatched_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// What the capability answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// SHA-256 of the output as the device sent it, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artefact: Option<ArtefactRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<InvocationError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mediation: Option<Mediation>,
    /// The invocation with the same key that ran instead of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<ObjectId>,
    pub conditions: Vec<ConditionRecord>,
}

/// How far an invocation has come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// 0 to 100.
    pub percent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why an invocation did not succeed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InvocationError {
    /// One of the codes in docs/invocations.md.
    pub code: String,
    pub message: String,
    /// What can be done.
    pub remedy: String,
}

/// What the person at the device decided.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mediation {
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An output in the gateways' store.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ArtefactRecord {
    pub size_bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// A page of invocations, the order is that of Kubernetes: by namespace and name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InvocationPage {
    pub invocations: Vec<InvocationSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
