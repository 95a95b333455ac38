//! What clients write into the query of a URL. All of it is optional. The console reads it by a table of its own, from
//! which the OpenAPI document is made, and refuses what is not in there.

use serde::{Deserialize, Serialize};

use crate::{
    inventory::{ClientKind, Presence, Trust},
    invocation::Phase,
    pairing::{CodePhase, RequestPhase},
};

/// Of [`INVENTORY`](crate::routes::INVENTORY).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InventoryQuery {
    /// One namespace. Absent: all of them, which takes the right to list the devices of the whole cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    #[serde(rename = "kind", skip_serializing_if = "Option::is_none")]
    pub client_kind: Option<ClientKind>,
    /// A label selector as Kubernetes writes it: `site=harbour,tier!=test,zone in (a, b)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// A part of the id, the display name or the host name, in any case; 100 characters at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Devices on a page: 1 to 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Of [`CODES`](crate::routes::CODES).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CodesQuery {
    /// One namespace. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<CodePhase>,
    /// Codes on a page: 1 to 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Of [`REQUESTS`](crate::routes::REQUESTS).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestsQuery {
    /// One namespace. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<RequestPhase>,
    /// Requests on a page: 1 to 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Of [`INVOCATIONS`](crate::routes::INVOCATIONS).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InvocationsQuery {
    /// One namespace. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of a device: only its own, or those of devices that are called so where no namespace is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Invocations on a page: 1 to 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Of [`INVOCATION`](crate::routes::INVOCATION).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    /// How long to wait for the end before answering, in seconds: 0 to 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<u32>,
}

/// Of [`EVENTS`](crate::routes::EVENTS), [`INSTANCES`](crate::routes::INSTANCES) and [`ACCESS`](crate::routes::ACCESS).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeQuery {
    /// One namespace. Absent: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
