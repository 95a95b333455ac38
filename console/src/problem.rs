//! How the console says no: one form for every error, with a code for programs and what to do for people.
//!
//! What the API server says to the caller is passed on, since it is the caller's own request: its reasons become codes,
//! the causes of an invalid object become field errors.

use axum::response::{IntoResponse, Response};
use console_api::problem::{FieldError, PROBLEM_JSON, PolicyRule, Problem, ProblemCode};
use http::{HeaderValue, StatusCode, header};
use kube::core::Status;

use crate::registry::{Permission, Review};

/// Longest text of another program that is passed on.
const MAX_FOREIGN: usize = 2048;
/// Most field errors that are passed on.
const MAX_ERRORS: usize = 32;

/// A refusal. Boxed: it is large, and rare.
#[derive(Debug)]
pub struct Fault(pub Box<Problem>);

/// What a handler gives.
pub type Answer<T = Response> = Result<T, Fault>;

impl Fault {
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let status = status_of(code);
        Self(Box::new(Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            retryable: is_retryable(code),
            retry_after_seconds: None,
            errors: Vec::new(),
            permission: None,
            rule: None,
        }))
    }

    /// A parameter, header or field that cannot be read.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        let detail = format!("{field}: {message}");
        Self::new(ProblemCode::InvalidRequest, detail).with_error(field, message)
    }

    pub fn with_error(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.errors.push(FieldError {
            field: field.into(),
            message: message.into(),
        });
        self
    }

    /// The caller lacks a right.
    pub fn denied(permission: Permission, review: &Review) -> Self {
        let rule = review.rule();
        let detail = format!(
            "this takes the permission {}: ask for a {} with {}",
            permission.as_str(),
            match &rule.namespace {
                Some(namespace) => format!("RoleBinding in the namespace {namespace} to a role"),
                None => "ClusterRoleBinding to a role".to_owned(),
            },
            in_words(&rule),
        );
        let mut fault = Self::new(ProblemCode::Forbidden, detail);
        fault.0.permission = Some(permission.as_str().to_owned());
        fault.0.rule = Some(rule);
        fault
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_seconds = Some(seconds.max(1));
        self
    }

    pub fn not_found() -> Self {
        Self::new(ProblemCode::NotFound, "there is no such object")
    }

    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Unavailable, detail).retry_after(1)
    }

    /// A fault of ours. What it was is logged, and not told.
    pub fn internal() -> Self {
        Self::new(
            ProblemCode::Internal,
            "the console failed; its log says why",
        )
    }

    /// What the API server, or the way to it, said to a request of the caller.
    pub fn of_kube(error: kube::Error) -> Self {
        if let kube::Error::Api(status) = error {
            return Self::of_status(&status);
        }
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "The API server cannot be asked"
        );
        Self::unavailable("the cluster does not answer: try again")
    }

    fn of_status(status: &Status) -> Self {
        let code = code_of(status);
        let detail = if status.message.is_empty() {
            "the API server refuses it and does not say why".to_owned()
        } else {
            bounded(&status.message)
        };
        let mut fault = Self::new(code, detail);
        if let Some(details) = &status.details {
            for cause in details.causes.iter().take(MAX_ERRORS) {
                if !cause.field.is_empty() {
                    fault = fault.with_error(bounded(&cause.field), bounded(&cause.message));
                }
            }
            if details.retry_after_seconds > 0 {
                fault = fault.retry_after(details.retry_after_seconds);
            }
        }
        if fault.0.retry_after_seconds.is_none() && fault.0.retryable {
            fault = fault.retry_after(1);
        }
        fault
    }
}

/// A rule in a line.
fn in_words(rule: &PolicyRule) -> String {
    let names = match rule.resource_names.as_slice() {
        [] => String::new(),
        names => format!(", resourceNames: [{}]", names.join(", ")),
    };
    let groups: Vec<_> = rule
        .api_groups
        .iter()
        .map(|group| format!("{group:?}"))
        .collect();
    format!(
        "{{apiGroups: [{}], resources: [{}]{names}, verbs: [{}]}}",
        groups.join(", "),
        rule.resources.join(", "),
        rule.verbs.join(", "),
    )
}

fn code_of(status: &Status) -> ProblemCode {
    match status.code {
        400 | 422 => ProblemCode::Invalid,
        401 => ProblemCode::Unauthenticated,
        403 if is_of_policy(&status.message) => ProblemCode::Refused,
        403 => ProblemCode::Forbidden,
        404 => ProblemCode::NotFound,
        409 => ProblemCode::Conflict,
        // What a list began with is not known any more.
        410 => ProblemCode::InvalidRequest,
        413 => ProblemCode::TooLarge,
        429 => ProblemCode::TooManyRequests,
        504 => ProblemCode::Timeout,
        _ => ProblemCode::Unavailable,
    }
}

/// The API server has one status for who lacks a right and for what a policy refuses; the words differ.
fn is_of_policy(message: &str) -> bool {
    message.contains("ValidatingAdmissionPolicy") || message.contains("denied the request")
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_FOREIGN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn status_of(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::InvalidRequest => StatusCode::BAD_REQUEST,
        ProblemCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ProblemCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::Unauthenticated | ProblemCode::SessionExpired => StatusCode::UNAUTHORIZED,
        ProblemCode::InvalidCsrf
        | ProblemCode::CrossSite
        | ProblemCode::Forbidden
        | ProblemCode::Refused => StatusCode::FORBIDDEN,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ProblemCode::Conflict => StatusCode::CONFLICT,
        ProblemCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ProblemCode::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        ProblemCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        ProblemCode::NotConfigured | ProblemCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ProblemCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ProblemCode::Internal | ProblemCode::Other => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn is_retryable(code: ProblemCode) -> bool {
    match code {
        ProblemCode::TooManyRequests | ProblemCode::Unavailable | ProblemCode::Timeout => true,
        ProblemCode::InvalidRequest
        | ProblemCode::UnsupportedMediaType
        | ProblemCode::TooLarge
        | ProblemCode::Unauthenticated
        | ProblemCode::SessionExpired
        | ProblemCode::InvalidCsrf
        | ProblemCode::CrossSite
        | ProblemCode::Forbidden
        | ProblemCode::Refused
        | ProblemCode::NotFound
        | ProblemCode::MethodNotAllowed
        | ProblemCode::Conflict
        | ProblemCode::PreconditionFailed
        | ProblemCode::RangeNotSatisfiable
        | ProblemCode::Invalid
        | ProblemCode::NotConfigured
        | ProblemCode::Internal
        | ProblemCode::Other => false,
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let problem = *self.0;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A problem is made of texts and numbers: it can be written.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = problem.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;
    use crate::registry::Target;

    fn status(code: u16, message: &str) -> Status {
        Status::failure(message, "").with_code(code)
    }

    #[test]
    fn what_a_policy_refuses_is_not_a_right_that_is_missing() {
        let policy = "devices.fairlead.dev \"a\" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'x' denied request: no";
        let right =
            "devices.fairlead.dev \"a\" is forbidden: User \"u\" cannot patch resource \"devices\"";
        assert_eq!(
            Fault::of_status(&status(403, policy)).0.code,
            ProblemCode::Refused
        );
        assert_eq!(
            Fault::of_status(&status(403, right)).0.code,
            ProblemCode::Forbidden
        );
    }

    #[test]
    fn causes_of_an_invalid_object_are_told_by_field() {
        let mut invalid = status(422, "spec.ttlSeconds is too small");
        invalid.details = Some(StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![StatusCause {
                reason: String::new(),
                message: "must be 30 at least".to_owned(),
                field: "spec.ttlSeconds".to_owned(),
            }],
            retry_after_seconds: 0,
        });
        let problem = Fault::of_status(&invalid).0;
        assert_eq!((problem.code, problem.status), (ProblemCode::Invalid, 422));
        assert_eq!(problem.errors[0].field, "spec.ttlSeconds");
    }

    #[test]
    fn every_code_has_a_status_and_what_may_succeed_later_says_so() {
        for code in ProblemCode::ALL {
            let problem = Fault::new(*code, "why").0;
            assert!((400..600).contains(&problem.status), "{code}");
            assert!(!problem.retryable || problem.status >= 429, "{code}");
        }
    }

    #[test]
    fn who_lacks_a_right_is_told_the_rule_that_would_give_it() {
        let target = Target {
            namespace: Some("kitchen".to_owned()),
            name: Some("lamp".to_owned()),
            capability: None,
        };
        let review = Permission::TrustOperate.reviews(&target).remove(0);
        let problem = Fault::denied(Permission::TrustOperate, &review).0;
        assert_eq!(problem.permission.as_deref(), Some("trust.operate"));
        assert!(
            problem
                .detail
                .contains("RoleBinding in the namespace kitchen"),
            "{}",
            problem.detail
        );
        assert!(
            problem.detail.contains("{apiGroups: [\"fairlead.dev\"], resources: [devices], resourceNames: [lamp], verbs: [patch]}"),
            "{}",
            problem.detail
        );
    }

    #[test]
    fn what_others_say_is_passed_on_within_bounds() {
        let long = "é".repeat(10_000);
        assert!(Fault::of_status(&status(500, &long)).0.detail.len() < 3 * MAX_FOREIGN);
    }
}
