//! Where everything is. Parameters are in braces, as in the OpenAPI document; `{id}` is an [`ObjectId`](crate::ObjectId).

pub const LOGIN: &str = "/console/v1/auth/login";
pub const LOGOUT: &str = "/console/v1/auth/logout";
pub const SESSION: &str = "/console/v1/auth/session";

pub const INVENTORY: &str = "/console/v1/inventory";
pub const DEVICE_DETAIL: &str = "/console/v1/inventory/devices/{id}";
pub const INSTANCES: &str = "/console/v1/instances";
pub const EVENTS: &str = "/console/v1/events";

pub const CODES: &str = "/console/v1/pairing/codes";
pub const CODE: &str = "/console/v1/pairing/codes/{id}";
pub const CODE_MATERIAL: &str = "/console/v1/pairing/codes/{id}/material";
pub const REQUESTS: &str = "/console/v1/pairing/requests";
pub const REQUEST: &str = "/console/v1/pairing/requests/{id}";
pub const REQUEST_APPROVE: &str = "/console/v1/pairing/requests/{id}/approve";
pub const REQUEST_DENY: &str = "/console/v1/pairing/requests/{id}/deny";

pub const DEVICE: &str = "/console/v1/devices/{id}";
pub const DEVICE_SUSPEND: &str = "/console/v1/devices/{id}/suspend";
pub const DEVICE_RESUME: &str = "/console/v1/devices/{id}/resume";
pub const DEVICE_REVOKE: &str = "/console/v1/devices/{id}/revoke";
pub const DEVICE_RENAME: &str = "/console/v1/devices/{id}/rename";
pub const DEVICE_GRANT: &str = "/console/v1/devices/{id}/grant";

pub const INVOCATIONS: &str = "/console/v1/invocations";
pub const INVOCATION: &str = "/console/v1/invocations/{id}";
pub const INVOCATION_CANCEL: &str = "/console/v1/invocations/{id}/cancel";
pub const INVOCATION_ARTEFACT: &str = "/console/v1/invocations/{id}/artefact";

pub const ACCESS: &str = "/console/v1/access";
pub const OPENAPI: &str = "/openapi.json";
pub const HEALTHZ: &str = "/healthz";

/// A path with its `{id}` filled in.
pub fn with_id(path: &str, id: &crate::ObjectId) -> String {
    path.replace("{id}", &id.to_string())
}
