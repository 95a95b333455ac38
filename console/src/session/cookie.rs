//! The session's cookie: how it is set, found and taken away.

use console_api::session::SESSION_COOKIE;
use cookie::{Cookie, SameSite};
use http::{HeaderMap, HeaderValue, header};

/// Most bytes of a cookie that every browser keeps, name and attributes included (RFC 6265).
const MAX_COOKIE: usize = 4096;

/// What a session is too large for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the token is too large for a cookie: send it as Authorization: Bearer with every request")]
pub struct TooLarge;

/// `Set-Cookie` for a sealed session. Without `Max-Age`: it goes with the browser, and the seal says when it ends.
///
/// # Errors
/// Where browsers would drop it.
pub fn set(sealed: String) -> Result<HeaderValue, TooLarge> {
    let text = ours(sealed).build().to_string();
    if text.len() > MAX_COOKIE {
        return Err(TooLarge);
    }
    let mut value = HeaderValue::try_from(text).map_err(|_| TooLarge)?;
    value.set_sensitive(true);
    Ok(value)
}

/// `Set-Cookie` that takes it away.
pub fn removal() -> HeaderValue {
    let text = ours(String::new())
        .max_age(cookie::time::Duration::ZERO)
        .build()
        .to_string();
    HeaderValue::try_from(text).expect("a cookie without a value can stand in a header")
}

fn ours(value: String) -> cookie::CookieBuilder<'static> {
    Cookie::build((SESSION_COOKIE, value))
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Strict)
}

/// The sealed session of a request. Where there are two, none is believed: `__Host-` makes browsers send one.
pub fn find(headers: &HeaderMap) -> Option<String> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| Cookie::split_parse(text.to_owned()))
        .filter_map(Result::ok)
        .filter(|cookie| cookie.name() == SESSION_COOKIE)
        .map(|cookie| cookie.value().to_owned());
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_this_host_over_https_and_no_script_sees_it() {
        let value = set("v1.sealed".to_owned()).unwrap();
        assert!(value.is_sensitive());
        let text = value.to_str().unwrap();
        assert!(
            text.starts_with("__Host-fairlead-session=v1.sealed;"),
            "{text}"
        );
        for attribute in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
            assert!(text.contains(attribute), "{text}");
        }
        assert!(!text.contains("Domain"), "{text}");
        assert!(removal().to_str().unwrap().contains("Max-Age=0"));
    }

    #[test]
    fn what_browsers_would_drop_is_not_set() {
        assert_eq!(set("a".repeat(4096)), Err(TooLarge));
        assert!(set("a".repeat(3900)).is_ok());
    }

    #[test]
    fn it_is_found_among_others_and_only_once() {
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::COOKIE, HeaderValue::from_str(value).unwrap());
            }
            headers
        };
        assert_eq!(
            find(&headers(&["a=b; __Host-fairlead-session=x; c=d"])).as_deref(),
            Some("x")
        );
        assert_eq!(
            find(&headers(&["a=b", "__Host-fairlead-session=x"])).as_deref(),
            Some("x")
        );
        assert_eq!(find(&headers(&["a=b"])), None);
        assert_eq!(
            find(&headers(&[
                "__Host-fairlead-session=x; __Host-fairlead-session=y"
            ])),
            None
        );
    }
}
