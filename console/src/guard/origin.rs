//! Whether a page of another web site sent a request that changes something.
//!
//! Browsers say where a request comes from (`Origin`, `Sec-Fetch-Site`); other programs say nothing and are let through:
//! a cookie they can only have from their own user. This stands beside `SameSite=Strict` and the CSRF token.

use console_api::problem::ProblemCode;
use http::{HeaderMap, Uri, header};

use crate::problem::{Answer, Fault};

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// # Errors
/// For what comes from elsewhere.
pub fn check(uri: &Uri, headers: &HeaderMap) -> Answer<()> {
    if is_ours(uri, headers) {
        Ok(())
    } else {
        Err(Fault::new(
            ProblemCode::CrossSite,
            "another web site may not do this: use the console's own address",
        ))
    }
}

fn is_ours(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if !sites.all(|site| site == "same-origin" || site == "none") {
        return false;
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return true;
    };
    // HTTP/2 has the host in the URI, HTTP/1.1 in a header.
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok()),
    };
    let given = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("https://"));
    origins.next().is_none() && given.is_some() && given.map(without_port) == host.map(without_port)
}

/// 443 is what is meant where no port is given.
fn without_port(host: &str) -> &str {
    host.strip_suffix(":443").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ours(uri: &str, given: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_static(value));
        }
        is_ours(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn only_a_page_of_ours_is_let_through() {
        for (uri, headers, expected) in [
            ("/x", &[("host", "console:8443")][..], true),
            (
                "/x",
                &[("host", "console:8443"), ("origin", "https://console:8443")],
                true,
            ),
            (
                "https://console:8443/x",
                &[("origin", "https://console:8443")],
                true,
            ),
            (
                "/x",
                &[("host", "console"), ("origin", "https://console:443")],
                true,
            ),
            (
                "/x",
                &[("host", "console:8443"), ("origin", "https://evil")],
                false,
            ),
            (
                "/x",
                &[("host", "console:8443"), ("origin", "http://console:8443")],
                false,
            ),
            (
                "/x",
                &[("host", "console:8443"), ("origin", "https://console:9443")],
                false,
            ),
            ("/x", &[("host", "console:8443"), ("origin", "null")], false),
            ("/x", &[("origin", "https://console:8443")], false),
            (
                "/x",
                &[
                    ("host", "c"),
                    ("origin", "https://c"),
                    ("origin", "https://evil"),
                ],
                false,
            ),
            (
                "/x",
                &[("host", "c"), ("sec-fetch-site", "same-origin")],
                true,
            ),
            ("/x", &[("host", "c"), ("sec-fetch-site", "none")], true),
            (
                "/x",
                &[("host", "c"), ("sec-fetch-site", "same-site")],
                false,
            ),
            (
                "/x",
                &[("host", "c"), ("sec-fetch-site", "cross-site")],
                false,
            ),
        ] {
            assert_eq!(ours(uri, headers), expected, "{uri} {headers:?}");
        }
    }
}
