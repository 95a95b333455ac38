//! What the caller may do.

use serde::{Deserialize, Serialize};

use crate::problem::PolicyRule;

/// Every route and every permission, and whether the caller has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Access {
    pub user: String,
    /// What the answers are about. Absent: all namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub permissions: Vec<PermissionAccess>,
    pub routes: Vec<RouteAccess>,
}

/// A permission.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PermissionAccess {
    /// For example `observability.read`.
    pub permission: String,
    /// Whether the caller has it for every object. Who has it for some by name only is told `false` here.
    pub allowed: bool,
    /// The Kubernetes rules that it is made of.
    pub rules: Vec<PolicyRule>,
}

/// A route.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RouteAccess {
    pub method: String,
    /// With its parameters in braces, as in the OpenAPI document.
    pub path: String,
    /// Absent where the route asks for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    pub allowed: bool,
}
