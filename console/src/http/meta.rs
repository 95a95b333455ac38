//! What anybody may ask.

use axum::response::{IntoResponse as _, Response};
use http::header;

use super::call::Call;

pub fn healthz() -> Response {
    ([(header::CONTENT_TYPE, "text/plain")], "ok\n").into_response()
}

pub fn openapi(call: &Call) -> Response {
    let document = call.console.document.clone();
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
