//! What an invocation put out, where it was too large for the resource: out of the gateways' store, whole or in part.
//!
//! Only what the invocation's own status names, after the caller read that invocation with his own token.

use std::ops::Range;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use console_api::problem::ProblemCode;
use crds::{CapabilityInvocation, v1alpha1::capability_invocation::Artefact};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use object_store::{GetOptions, GetRange, ObjectStore as _, path::Path};

use super::call::Call;
use crate::problem::{Answer, Fault};

pub async fn download(call: Call) -> Answer {
    let id = call.object()?;
    let Some(store) = call.console.artefacts.clone() else {
        return Err(Fault::new(
            ProblemCode::NotConfigured,
            "this gateway has no store for artefacts: see --artefact-store",
        ));
    };
    let found: CapabilityInvocation = call.caller()?.api.get(id.namespace(), id.name()).await?;
    let artefact = found.status.and_then(|status| status.artefact);
    let Some(artefact) = artefact else {
        return Err(Fault::new(
            ProblemCode::NotFound,
            "this invocation has no artefact",
        ));
    };
    let etag = format!("\"{}\"", artefact.sha256);
    if is_known(&call.headers, &etag) {
        return Ok(with_etag(StatusCode::NOT_MODIFIED.into_response(), &etag));
    }
    let size = u64::try_from(artefact.size_bytes).unwrap_or(0);
    let part = match asked(&call.headers, &etag, size) {
        Asked::Whole => None,
        Asked::Part(part) => Some(part),
        Asked::Nothing => return Ok(not_satisfiable(size)),
    };
    let path = Path::parse(&artefact.key).map_err(|_| Fault::internal())?;
    let options = GetOptions {
        range: part.clone().map(GetRange::Bounded),
        ..GetOptions::default()
    };
    let got = match store.get_opts(&path, options).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => {
            return Err(Fault::new(
                ProblemCode::NotFound,
                "the artefact is not in the store any more",
            ));
        }
        Err(error) => {
            tracing::warn!(kind = kind_of(&error), "Reading an artefact failed");
            return Err(Fault::unavailable(
                "the store of the gateways does not answer as it should: try again",
            ));
        }
    };
    let chunks = got
        .into_stream()
        .map(|chunk| chunk.map_err(|error| std::io::Error::other(kind_of(&error))));
    Ok(answer(
        &artefact,
        &etag,
        size,
        part.as_ref(),
        Body::from_stream(chunks),
    ))
}

/// The insides of the store are for nobody: paths and addresses stay out of logs and answers.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of an enum that grows, and whose own words have paths in them"
)]
fn kind_of(error: &object_store::Error) -> &'static str {
    match error {
        object_store::Error::NotFound { .. } => "it is not there",
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => "the store does not let the gateway in",
        _ => "the store failed",
    }
}

fn answer(
    artefact: &Artefact,
    etag: &str,
    size: u64,
    part: Option<&Range<u64>>,
    body: Body,
) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let mut put = |name: header::HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    let media_type = artefact
        .media_type
        .as_deref()
        .filter(|text| is_media_type(text));
    put(
        header::CONTENT_TYPE,
        media_type.unwrap_or("application/octet-stream").to_owned(),
    );
    // Whatever a device calls it, no browser shows it.
    put(header::CONTENT_DISPOSITION, "attachment".to_owned());
    put(header::ACCEPT_RANGES, "bytes".to_owned());
    if let Ok(digest) = hex::decode(&artefact.sha256) {
        // Of the whole, also where a part is sent (RFC 9530).
        put(
            header::HeaderName::from_static("repr-digest"),
            format!("sha-256=:{}:", STANDARD.encode(digest)),
        );
    }
    let length = part.map_or(size, |part| part.end - part.start);
    put(header::CONTENT_LENGTH, length.to_string());
    if let Some(part) = part {
        put(
            header::CONTENT_RANGE,
            format!("bytes {}-{}/{size}", part.start, part.end - 1),
        );
    }
    if part.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    with_etag(response, etag)
}

fn with_etag(mut response: Response, etag: &str) -> Response {
    if let Ok(value) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

fn not_satisfiable(size: u64) -> Response {
    let mut response = Fault::new(
        ProblemCode::RangeNotSatisfiable,
        format!("the artefact has {size} bytes"),
    )
    .into_response();
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

/// `type/subtype`, and parameters of plain characters.
fn is_media_type(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/+-._;= ".contains(&byte);
    text.len() <= 128 && text.contains('/') && text.bytes().all(plain)
}

/// `If-None-Match`.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    known.is_some_and(|known| {
        known
            .split(',')
            .any(|known| known.trim().trim_start_matches("W/") == etag)
    })
}

/// What of the artefact is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    /// Nothing that it has.
    Nothing,
}

/// One range, in bytes. What is no such range is ignored, as RFC 9110 has it, and so is one of another artefact.
fn asked(headers: &HeaderMap, etag: &str, size: u64) -> Asked {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    if text(header::IF_RANGE).is_some_and(|given| given != etag) {
        return Asked::Whole;
    }
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return Asked::Whole;
    };
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let part = match (first, last) {
        ("", last) => match number(last) {
            Some(0) => return Asked::Nothing,
            Some(count) => size.saturating_sub(count)..size,
            None => return Asked::Whole,
        },
        (first, "") => match number(first) {
            Some(first) => first..size,
            None => return Asked::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..size.min(last.saturating_add(1)),
            _ => return Asked::Whole,
        },
    };
    if part.start < part.end {
        Asked::Part(part)
    } else {
        Asked::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &'static str) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static(text));
        asked(&headers, "\"e\"", 100)
    }

    #[test]
    fn one_range_is_understood() {
        for (text, expected) in [
            ("bytes=0-9", Asked::Part(0..10)),
            ("bytes=90-", Asked::Part(90..100)),
            ("bytes=-5", Asked::Part(95..100)),
            ("bytes=-500", Asked::Part(0..100)),
            ("bytes=99-1000", Asked::Part(99..100)),
            ("bytes=100-", Asked::Nothing),
            ("bytes=100-200", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=99999999999999999999-", Asked::Nothing),
            ("bytes=9-0", Asked::Whole),
            ("bytes=0-1,5-6", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("items=0-1", Asked::Whole),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }

    #[test]
    fn a_part_of_another_artefact_is_not_sent() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"other\""));
        assert_eq!(asked(&headers, "\"e\"", 100), Asked::Whole);
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"e\""));
        assert_eq!(asked(&headers, "\"e\"", 100), Asked::Part(0..2));
    }

    #[test]
    fn what_a_device_calls_it_breaks_no_header() {
        assert!(is_media_type("application/json; charset=utf-8"));
        for bad in ["json", "text/html\r\nx: y", "a/\"b\""] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }
}
