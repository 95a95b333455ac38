//! A bearer token. It is handed to the API server and sealed into a cookie; nothing else sees it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Longest token. Those of identity providers have a few kilobytes.
pub const MAX_TOKEN: usize = 12 * 1024;

/// SHA-256 of a token.
pub type Digest = [u8; 32];

/// A token that could stand in a header.
#[derive(Clone, Eq, PartialEq)]
pub struct Token(String);

/// What is no token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    #[error("give one header: Authorization: Bearer TOKEN")]
    Header,
    #[error("a token has letters, digits and the characters -._~+/= (RFC 6750)")]
    Characters,
    #[error("a token is {MAX_TOKEN} bytes long at most")]
    TooLong,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// # Errors
    /// For what is no `b64token` (RFC 6750).
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.len() > MAX_TOKEN {
            return Err(Invalid::TooLong);
        }
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if text.is_empty() || !text.bytes().all(inside) {
            return Err(Invalid::Characters);
        }
        Ok(Self(text))
    }

    /// The token of a request; `None` where it brings none.
    ///
    /// # Errors
    /// Where the header is there and cannot be read, or is there twice.
    pub fn of_headers(headers: &HeaderMap) -> Result<Option<Self>, Invalid> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Invalid::Header);
        }
        let text = value.to_str().map_err(|_| Invalid::Header)?;
        let (scheme, token) = text.split_once(' ').ok_or(Invalid::Header)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Invalid::Header);
        }
        Self::new(token.trim()).map(Some)
    }

    /// For the seal and for the API server.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn digest(&self) -> Digest {
        Sha256::digest(&self.0).into()
    }

    /// `Authorization`, marked so that nobody prints it.
    pub fn header(&self) -> HeaderValue {
        let text = format!("Bearer {}", self.0);
        let mut value =
            HeaderValue::try_from(text).expect("a token has characters that a header takes");
        value.set_sensitive(true);
        value
    }

    /// When it ends, where it is a JWT that says so. Nobody has verified that: it is only ever used to end earlier.
    pub fn expires_at(&self) -> Option<Timestamp> {
        #[derive(Deserialize)]
        struct Claims {
            exp: Option<f64>,
        }
        let mut parts = self.0.split('.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is out of bounds is no time and is dropped"
        )]
        let seconds = claims.exp? as i64;
        Timestamp::from_second(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_bearer_token_is_read_and_nothing_else() {
        let read = |values: &[&str]| Token::of_headers(&headers(values));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(
            read(&["Bearer abc.def"]),
            Ok(Some(Token("abc.def".to_owned())))
        );
        assert_eq!(read(&["bearer abc"]), Ok(Some(Token("abc".to_owned()))));
        assert_eq!(read(&["Basic YTpi"]), Err(Invalid::Header));
        assert_eq!(read(&["Bearer"]), Err(Invalid::Header));
        assert_eq!(read(&["Bearer "]), Err(Invalid::Characters));
        assert_eq!(read(&["Bearer a b"]), Err(Invalid::Characters));
        assert_eq!(read(&["Bearer a", "Bearer b"]), Err(Invalid::Header));
        assert_eq!(Token::new("a".repeat(MAX_TOKEN + 1)), Err(Invalid::TooLong));
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::new("very-secret").unwrap();
        assert!(!format!("{token:?} {:?}", token.header()).contains("secret"));
    }

    #[test]
    fn a_jwt_says_when_it_ends_and_others_do_not() {
        let jwt = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let ends = |text: &str| {
            Token::new(text)
                .unwrap()
                .expires_at()
                .map(Timestamp::as_second)
        };
        assert_eq!(ends(&jwt(r#"{"exp":1700000000}"#)), Some(1_700_000_000));
        assert_eq!(ends(&jwt(r#"{"exp":1700000000.5}"#)), Some(1_700_000_000));
        assert_eq!(ends(&jwt(r#"{"sub":"me"}"#)), None);
        assert_eq!(ends(&jwt(r#"{"exp":1e300}"#)), None);
        assert_eq!(ends("opaque"), None);
        assert_eq!(ends("a.b.c.d"), None);
    }
}
