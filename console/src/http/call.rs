//! What a handler gets: a request that has passed everything that comes before it.

use std::sync::Arc;

use axum::{
    Json,
    extract::rejection::JsonRejection,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use console_api::{ObjectId, problem::ProblemCode};
use http::{HeaderMap, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::query::Query;
use crate::{
    Console,
    caller::Caller,
    guard::rates::Address,
    problem::{Answer, Fault},
    registry::{Permission, RouteId, Target},
    session::Sealed,
};

/// A request.
pub struct Call {
    pub console: Arc<Console>,
    pub id: RouteId,
    /// What it is about, as far as the table says where that stands.
    pub target: Target,
    /// Who asks; absent where the route asks nobody.
    pub caller: Option<Caller>,
    /// The session that the request came with, where it came with one.
    pub session: Option<Sealed>,
    /// Where it comes from.
    pub address: Option<Address>,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Is cancelled when the connection is about to close: what lasts long ends then.
    pub leaving: CancellationToken,
}

impl Call {
    /// # Errors
    /// Never for a route that takes an identity.
    pub fn caller(&self) -> Answer<&Caller> {
        self.caller.as_ref().ok_or_else(Fault::internal)
    }

    /// The object in the path.
    ///
    /// # Errors
    /// Never for a route with an id.
    pub fn object(&self) -> Answer<ObjectId> {
        let Target {
            namespace: Some(namespace),
            name: Some(name),
            ..
        } = &self.target
        else {
            return Err(Fault::internal());
        };
        ObjectId::new(namespace, name).map_err(|_| Fault::internal())
    }

    /// Whether the caller has another permission, for what the request is about.
    ///
    /// # Errors
    /// Where the API server cannot be asked.
    pub async fn has(&self, permission: Permission, target: &Target) -> Answer<bool> {
        self.console
            .access
            .has(self.caller()?, permission, target)
            .await
    }

    /// What stands in a header, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// # Errors
    /// Where the body is not what the route takes.
    pub fn read<T: DeserializeOwned>(&self) -> Answer<T> {
        read_json(&self.body)
    }
}

/// Bytes of JSON. What is wrong is told with the field where it is.
///
/// # Errors
/// Where they are not what is expected.
pub fn read_json<T: DeserializeOwned>(body: &Bytes) -> Answer<T> {
    match Json::<T>::from_bytes(body) {
        Ok(Json(value)) => Ok(value),
        Err(JsonRejection::JsonDataError(error)) => {
            let text = error.body_text();
            let text = text
                .split_once("target type: ")
                .map_or(text.as_str(), |(_, why)| why);
            Err(match text.split_once(": ") {
                Some((path, why)) if !path.contains(' ') => {
                    Fault::field(format!("body.{path}"), why)
                }
                _ => Fault::field("body", text),
            })
        }
        Err(JsonRejection::JsonSyntaxError(error)) => {
            let text = error.body_text();
            let text = text
                .split_once("as JSON: ")
                .map_or(text.as_str(), |(_, why)| why);
            Err(Fault::field("body", format!("it is no JSON: {text}")))
        }
        Err(_) => Err(Fault::field("body", "it cannot be read as JSON")),
    }
}

/// # Errors
/// Where the body is said to be something else than JSON.
pub fn expect_json(headers: &HeaderMap) -> Answer<()> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = given
        .and_then(|given| given.split(';').next())
        .map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        Ok(())
    } else {
        Err(Fault::new(
            ProblemCode::UnsupportedMediaType,
            "send JSON, with Content-Type: application/json",
        ))
    }
}

/// An answer of JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|_| Fault::internal())?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// An answer of JSON, as it should be.
pub fn ok(value: &impl Serialize) -> Answer {
    json(StatusCode::OK, value)
}

/// What was made, and where it is.
pub fn created(path: &str, id: &ObjectId, value: &impl Serialize) -> Answer {
    let mut response = json(StatusCode::CREATED, value)?;
    let location = console_api::routes::with_id(path, id);
    if let Ok(location) = location.try_into() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Nothing to say.
pub fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

#[cfg(test)]
mod tests {
    use console_api::{device::Grant, session::Login};

    use super::*;

    #[test]
    fn what_is_wrong_with_a_body_is_told_by_field() {
        let fault = |text: &'static str| {
            read_json::<Grant>(&Bytes::from_static(text.as_bytes()))
                .unwrap_err()
                .0
        };
        let wrong = fault(r#"{"capabilities":[1]}"#);
        assert_eq!(
            wrong.errors[0].field, "body.capabilities[0]",
            "{}",
            wrong.detail
        );
        assert_eq!(fault("{").errors[0].field, "body");
        assert_eq!(fault(r#"{"capabilities":[],"x":1}"#).status, 400);
    }

    #[test]
    fn a_token_in_a_body_that_cannot_be_read_is_not_repeated() {
        let body = Bytes::from_static(br#"{"token":["very-secret"]}"#);
        let fault = read_json::<Login>(&body).unwrap_err();
        assert!(!format!("{fault:?}").contains("very-secret"));
        let body = Bytes::from_static(br#"{"token":"very-secret","token":"very-secret"}"#);
        let fault = read_json::<Login>(&body).unwrap_err();
        assert!(!format!("{fault:?}").contains("very-secret"));
    }

    #[test]
    fn only_json_is_taken() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            expect_json(&headers).is_ok()
        };
        assert!(with("application/json") && with("application/json; charset=utf-8"));
        assert!(!with("text/plain") && !with("application/x-www-form-urlencoded"));
        assert!(expect_json(&HeaderMap::new()).is_err());
    }
}
