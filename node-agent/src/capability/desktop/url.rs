//! `desktop.open_url`: opens an address of the web.
//!
//! The opener gets the address as the parser understood it, never as it was written: two programs that read one text
//! differently are how a harmless address becomes another.

use std::sync::LazyLock;

use ::url::Url;
use proto::node::Execution;
use serde::Deserialize;

use super::{Opener, invalid, opened};
use crate::capability::{Call, Capability, Failure, Running, terms::Terms};

/// Longest address, in bytes, as written and as opened.
const MAX_BYTES: usize = 2048;
/// What the part of an address that browsers act on themselves begins with.
const DIRECTIVE: &str = ":~:";

static TERMS: LazyLock<Terms> = LazyLock::new(|| {
    let input = r#"{"type":"object","properties":{"url":{"type":"string","minLength":1,"maxLength":2048}},"required":["url"],"additionalProperties":false}"#;
    let output = r#"{"type":"object","properties":{"opened":{"type":"string"}}}"#;
    Terms::built_in(Some(input), Some(output))
});

#[derive(Debug)]
pub(super) struct OpenUrl {
    opener: Opener,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    url: String,
}

impl OpenUrl {
    pub(super) fn new(opener: Opener) -> Self {
        Self { opener }
    }
}

impl Capability for OpenUrl {
    fn name(&self) -> &'static str {
        "desktop.open_url"
    }

    fn description(&self) -> &'static str {
        "opens an address in the browser of this screen"
    }

    fn terms(&self) -> &Terms {
        &TERMS
    }

    fn takes(&self, input: &[u8]) -> Result<(), Failure> {
        self.terms().takes(input)?;
        read(input).map(drop)
    }

    /// The address that the opener gets: one with a Cyrillic letter in its host, say, begins with `xn--` there, and a person
    /// must not take it for the one that it looks like.
    fn understood(&self, input: &[u8]) -> Option<String> {
        let url = read(input).ok()?;
        Some(serde_json::json!({ "url": url.as_str() }).to_string())
    }

    fn execution(&self) -> Execution {
        Execution::Mediated
    }

    fn run(&self, call: Call) -> Running {
        let opener = self.opener.clone();
        Box::pin(async move {
            let url = read(&call.input)?;
            opener.open(url.as_str().as_ref()).await?;
            Ok(opened(url.as_str()))
        })
    }
}

fn read(input: &[u8]) -> Result<Url, Failure> {
    let Input { url } = serde_json::from_slice(input)
        .map_err(|error| invalid(format!("give {{\"url\": \"https://...\"}}: {error}")))?;
    judge(&url).map_err(|why| invalid(format!("/url: {why}")))
}

/// The address as it may be opened: host names in ASCII (`xn--...`), everything else encoded. Fails with why it may not.
pub fn judge(text: &str) -> Result<Url, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("url is longer than {MAX_BYTES} bytes"));
    }
    // The parser would drop or turn some of these without a word.
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("url contains a control character, a space or a backslash".to_owned());
    }
    let rest =
        strip_scheme(text).ok_or_else(|| "url must begin with http:// or https://".to_owned())?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("url contains a user name or a password: leave them out".to_owned());
    }
    if authority.is_empty() {
        return Err("url names no host".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("url is none: {error}"))?;
    let is_web = matches!(url.scheme(), "http" | "https");
    if !is_web || url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err("url is none that is opened here".to_owned());
    }
    if url
        .fragment()
        .is_some_and(|fragment| fragment.contains(DIRECTIVE))
    {
        return Err(format!(
            "url contains {DIRECTIVE} after #, an instruction to the browser: leave it out"
        ));
    }
    if url.as_str().len() > MAX_BYTES {
        return Err(format!("url is longer than {MAX_BYTES} bytes when encoded"));
    }
    Ok(url)
}

/// What comes after the scheme, which the parser would find in odder places, too.
fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proto::node::FailureCode;

    use super::*;

    #[test]
    fn addresses_are_opened_as_they_were_understood() {
        for (text, expected) in [
            ("https://example.com", "https://example.com/"),
            (
                "HTTP://EXAMPLE.com:80/a/../b?c=d#e",
                "http://example.com/b?c=d#e",
            ),
            (
                "https://bücher.example/ä?ö",
                "https://xn--bcher-kva.example/%C3%A4?%C3%B6",
            ),
            // A Cyrillic letter is seen as what it is.
            ("https://\u{0430}pple.com/", "https://xn--pple-43d.com/"),
            (
                "https://example.com/$(id)`'\";x",
                "https://example.com/$(id)%60'%22;x",
            ),
            ("https://[::1]:8443/", "https://[::1]:8443/"),
            ("https://example.com/@x", "https://example.com/@x"),
        ] {
            assert_eq!(judge(text).unwrap().as_str(), expected, "{text}");
        }
    }

    fn capability() -> OpenUrl {
        OpenUrl::new(Opener {
            launcher: std::path::Path::new("/nowhere").into(),
            words: Vec::new(),
        })
    }

    #[test]
    fn a_person_sees_the_address_that_is_opened_and_not_one_that_looks_like_it() {
        let understood = |url: &str| {
            let input = serde_json::json!({ "url": url }).to_string();
            capability().understood(input.as_bytes())
        };
        for (url, expected) in [
            ("https://\u{0430}pple.com/", "https://xn--pple-43d.com/"),
            (
                "https://example.com/\u{2044}\u{202e}x",
                "https://example.com/%E2%81%84%E2%80%AEx",
            ),
            ("HTTPS://EXAMPLE.com", "https://example.com/"),
        ] {
            let expected = format!("{{\"url\":\"{expected}\"}}");
            assert_eq!(understood(url), Some(expected), "{url}");
        }
        assert_eq!(understood("file:///etc/passwd"), None);
    }

    #[test]
    fn an_address_is_judged_before_anybody_is_asked() {
        let capability = capability();
        let takes = |url: &str| capability.takes(format!("{{\"url\": \"{url}\"}}").as_bytes());
        assert_eq!(takes("https://example.com"), Ok(()));
        for wrong in ["", "file:///etc/passwd", "https://jane:secret@example.com"] {
            let failure = takes(wrong).unwrap_err();
            assert_eq!(failure.code, FailureCode::InvalidInput);
            assert!(failure.message.contains("/url: "), "{failure}");
        }
    }

    #[test]
    fn what_is_no_plain_address_of_the_web_is_refused() {
        let long = format!("https://example.com/{}", "x".repeat(2048));
        let grows = format!("https://example.com/{}", "ä".repeat(700));
        for text in [
            "",
            "example.com",
            "--help",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://example.com",
            "https:example.com",
            "https:/example.com",
            "https:///example.com",
            "https://",
            "https://jane@example.com",
            "https://jane:secret@example.com",
            "https://@example.com",
            "https://example.com\\@evil.example",
            "https://example.com\n",
            " https://example.com",
            "https://exa\tmple.com",
            "https://exa mple.com",
            "https://example.com/#:~:text=x",
            "https://example.com:99999/",
            "https://exa%00mple.com/",
            &long,
            &grows,
        ] {
            assert!(judge(text).is_err(), "{text:?}: {:?}", judge(text));
        }
    }
}
