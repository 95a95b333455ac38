//! Pages of lists that are Kubernetes' own: its `limit` and `continue`, asked with the caller's token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use console_api::inventory::DEFAULT_PAGE;
use kube::{api::ListParams, core::ListMeta};

use super::query::Query;
use crate::problem::{Answer, Fault};

/// How many are asked for, from where, and what of them.
///
/// # Errors
/// For a cursor that is none.
pub fn params(query: &Query, fields: &[(&str, Option<&str>)]) -> Answer<ListParams> {
    let mut params = ListParams::default().limit(query.number("limit").unwrap_or(DEFAULT_PAGE));
    let fields: Vec<_> = fields
        .iter()
        .filter_map(|(field, value)| value.map(|value| format!("{field}={value}")))
        .collect();
    if !fields.is_empty() {
        params = params.fields(&fields.join(","));
    }
    if let Some(cursor) = query.text("cursor") {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let token = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let token = token.ok_or_else(|| {
            Fault::field("query.cursor", "give the nextCursor of the page before")
        })?;
        params = params.continue_token(&token);
    }
    Ok(params)
}

/// For the next page.
pub fn cursor(metadata: &ListMeta) -> Option<String> {
    let token = metadata
        .continue_
        .as_deref()
        .filter(|token| !token.is_empty())?;
    Some(URL_SAFE_NO_PAD.encode(token))
}
