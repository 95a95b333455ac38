//! What is on the way to the gateways: a proxy, or nothing.

use std::{fmt, str::FromStr};

use runtime::proxy::{self, Exceptions, Proxies, ProxyUrl};

use crate::upstream::dial::is_supported;

/// The word for "without a proxy, whatever the environment says".
const DIRECT: &str = "direct";

/// What somebody chose.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Proxy {
    Direct,
    Through(ProxyUrl),
}

/// A choice as it was typed, which may hold a password: `Debug` does not show it, and reading it later keeps it out of the
/// errors of the command line.
#[derive(Clone, Eq, PartialEq)]
pub struct Typed(String);

impl Typed {
    /// # Errors
    /// Where it cannot be used.
    pub fn read(&self) -> Result<Proxy, Invalid> {
        self.0.parse()
    }
}

impl From<String> for Typed {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed(..)")
    }
}

/// Why a text is not a choice. Does not show it, for it may hold a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    #[error(transparent)]
    Url(#[from] proxy::Invalid),
    #[error("the agent speaks to proxies by CONNECT over plain TCP; give http://HOST:PORT")]
    Unsupported,
}

impl FromStr for Proxy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.trim().eq_ignore_ascii_case(DIRECT) {
            return Ok(Self::Direct);
        }
        let url: ProxyUrl = text.parse()?;
        if is_supported(&url) {
            Ok(Self::Through(url))
        } else {
            Err(Invalid::Unsupported)
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str(DIRECT),
            Self::Through(url) => url.fmt(f),
        }
    }
}

/// What a choice and the environment come to. The environment says nothing where somebody chose; where what it says
/// cannot be used, the second value says why, and everything is connected to directly.
pub fn settle(
    chosen: Option<&Proxy>,
    no_proxy: Option<&str>,
    variables: impl Fn(&str) -> Option<String>,
) -> (Proxies, Option<String>) {
    let exceptions = match no_proxy {
        Some(text) => Exceptions::parse(text),
        None => Exceptions::of(&variables),
    };
    let (url, problem) = match chosen {
        Some(Proxy::Direct) => (None, None),
        Some(Proxy::Through(url)) => (Some(url.clone()), None),
        None => match proxy::tls_variable(&variables) {
            Ok(Some(url)) if !is_supported(&url) => (
                None,
                Some(format!("use HTTPS_PROXY: {}", Invalid::Unsupported)),
            ),
            Ok(url) => (url, None),
            Err(invalid) => (None, Some(invalid.to_string())),
        },
    };
    (Proxies::new(url, exceptions), problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_counts_more_than_the_environment() {
        let chosen = |text: &str| Some(text.parse::<Proxy>().unwrap());
        let own = "http://own.test:1";
        for (chosen, no_proxy, https_proxy, expected, is_fine) in [
            (None, None, "", None, true),
            (
                None,
                None,
                "http://env.test:2",
                Some("http://env.test:2"),
                true,
            ),
            (None, None, "socks5://env.test", None, false),
            (None, None, "http://a b", None, false),
            (None, Some("gateway.test"), "http://env.test:2", None, true),
            (chosen(own), None, "http://env.test:2", Some(own), true),
            (chosen(own), None, "socks5://env.test", Some(own), true),
            (chosen(own), Some(".test"), "", None, true),
            (chosen("direct"), None, "http://env.test:2", None, true),
        ] {
            let variables = |name: &str| {
                let value = if name == "HTTPS_PROXY" {
                    https_proxy
                } else {
                    ""
                };
                Some(value.to_owned()).filter(|value| !value.is_empty())
            };
            let (proxies, problem) = settle(chosen.as_ref(), no_proxy, variables);
            let proxy = proxies.towards("gateway.test", 7443);
            let proxy = proxy.map(ToString::to_string);
            assert_eq!(proxy.as_deref(), expected, "{chosen:?} {https_proxy}");
            assert_eq!(problem.is_none(), is_fine, "{problem:?}");
        }
    }

    #[test]
    fn no_text_shows_a_password() {
        for text in [
            "https://u:s3cret@p.test",
            "socks5://u:s3cret@p.test",
            "http://u:s3cret@",
        ] {
            let error = text.parse::<Proxy>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
        let proxy: Proxy = "http://u:s3cret@p.test".parse().unwrap();
        assert!(!format!("{proxy} {proxy:?}").contains("s3cret"));
    }
}
