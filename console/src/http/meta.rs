//! What anybody may ask.

use axum::response::IntoResponse as _;
use http::header;

use super::call::Call;
use crate::problem::Answer;

pub fn healthz() -> Answer {
    Ok(([(header::CONTENT_TYPE, "text/plain")], "ok\n").into_response())
}

pub fn openapi(call: &Call) -> Answer {
    let document = call.console.document.clone();
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}
