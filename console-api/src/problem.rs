//! The one form of every error: problem details (RFC 9457), `application/problem+json`, with a `code` for programs.

use serde::{Deserialize, Serialize};

use crate::open_enum::open_enum;

/// Media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A text that names no value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no such value")]
pub struct UnknownValue;

open_enum! {
    /// What went wrong, in one word for programs. A code keeps its meaning; new ones may come.
    pub enum ProblemCode {
        /// The request cannot be read: a parameter, the body, a header. `errors` says where.
        InvalidRequest,
        /// The body is not of the media type that the route takes.
        UnsupportedMediaType,
        /// The body, the headers or the query are larger than they may be.
        TooLarge,
        /// No credentials, or such as the cluster does not take.
        Unauthenticated,
        /// The session is over: log in again.
        SessionExpired,
        /// The CSRF token is missing or is not that of the session.
        InvalidCsrf,
        /// The request comes from another web site.
        CrossSite,
        /// The caller lacks a right; `permission` and `rule` say which.
        Forbidden,
        /// A policy of the cluster refuses it; `detail` has its words.
        Refused,
        /// There is no such object, or no such route.
        NotFound,
        /// The route does not have that method.
        MethodNotAllowed,
        /// The object has changed meanwhile, exists already, or has ended.
        Conflict,
        /// What was to be changed is not as the caller saw it.
        PreconditionFailed,
        /// The range is not one of the artefact.
        RangeNotSatisfiable,
        /// The API server does not take the object; `detail` has its words.
        Invalid,
        /// Too many requests; `retryAfterSeconds` says when to come back.
        TooManyRequests,
        /// The gateway cannot do it: it is not configured for that.
        NotConfigured,
        /// The cluster does not answer, or is not known well enough yet. Try again.
        Unavailable,
        /// It took too long. Whether it was done is not known.
        Timeout,
        /// A fault of the console.
        Internal,
    }
}

/// What went wrong (RFC 9457).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[error("{code}: {detail}")]
pub struct Problem {
    /// `about:blank`: `code` says what a type would.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name of the HTTP status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong in one word, for programs.
    pub code: ProblemCode,
    /// What went wrong and what to do, for people.
    pub detail: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When to try again, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
    /// What is wrong with which field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The permission that the caller lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    /// The Kubernetes rule that would give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<PolicyRule>,
}

/// What is wrong with a field.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// Path of the field: `query.limit`, `body.input.url`.
    pub field: String,
    /// What is wrong with it, for people.
    pub message: String,
}

/// A rule of a Kubernetes Role that would allow what was refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    /// Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    pub verbs: Vec<String>,
    /// Where the Role must be bound. Absent: in the whole cluster, by a ClusterRoleBinding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_newer_server_is_read_as_another() {
        let code: ProblemCode = serde_json::from_str("\"FromTheFuture\"").unwrap();
        assert_eq!(code, ProblemCode::Other);
        let code: ProblemCode = serde_json::from_str("\"Forbidden\"").unwrap();
        assert_eq!(code, ProblemCode::Forbidden);
    }
}
