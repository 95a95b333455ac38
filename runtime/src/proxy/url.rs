//! The URL of one proxy.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use url::{Host, Url};
use zeroize::Zeroizing;

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// `CONNECT` over plain TCP.
    Http,
    /// `CONNECT` over TLS.
    Https,
    /// SOCKS 5, which looks names up itself.
    Socks5,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            // Go, too, has the proxy look up names for both.
            "socks5" | "socks5h" => Some(Self::Socks5),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 => 1080,
        }
    }
}

/// Why a text is not the URL of a proxy. Does not show it, for it may hold a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    #[error(
        "not a valid proxy URL; give http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT with %-escapes"
    )]
    Syntax,
    #[error("this scheme of a proxy is not supported; give http://, https:// or socks5://")]
    Scheme,
}

/// A proxy. `Debug` and `Display` show neither user nor password.
#[derive(Clone, Eq, PartialEq)]
pub struct ProxyUrl {
    pub scheme: Scheme,
    host: Host<String>,
    pub port: u16,
    /// `USER:PASSWORD` or `USER`, with %-escapes.
    credentials: Option<Zeroizing<String>>,
}

impl FromStr for ProxyUrl {
    type Err = Invalid;

    /// As Go: without a scheme, `http` is meant.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let complete;
        let text = if text.contains("://") {
            text
        } else {
            complete = Zeroizing::new(format!("http://{text}"));
            complete.as_str()
        };
        let url = Url::parse(text).map_err(|_| Invalid::Syntax)?;
        let scheme = Scheme::parse(url.scheme()).ok_or(Invalid::Scheme)?;
        let host = match url.host().ok_or(Invalid::Syntax)? {
            // `Url` checks names of http and https only.
            Host::Domain(name) => Host::parse(name).map_err(|_| Invalid::Syntax)?,
            Host::Ipv4(address) => Host::Ipv4(address),
            Host::Ipv6(address) => Host::Ipv6(address),
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, None) => Some(user.to_owned()),
            (user, Some(password)) => Some(format!("{user}:{password}")),
        };
        Ok(Self {
            port: url.port().unwrap_or(scheme.default_port()),
            scheme,
            host,
            credentials: credentials.map(Zeroizing::new),
        })
    }
}

impl ProxyUrl {
    /// `HOST:PORT`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL with its credentials: a secret, where there are some.
    pub fn expose(&self) -> Zeroizing<String> {
        let credentials = self.credentials.as_ref();
        let credentials = credentials.map(|credentials| format!("{}@", credentials.as_str()));
        Zeroizing::new(format!(
            "{}://{}{}",
            self.scheme.text(),
            Zeroizing::new(credentials.unwrap_or_default()).as_str(),
            self.address()
        ))
    }

    /// The value of `Proxy-Authorization` (RFC 7617); `None` where the URL has no credentials.
    pub fn authorization(&self) -> Option<Zeroizing<String>> {
        let credentials = self.credentials.as_ref()?;
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let mut plain: Zeroizing<Vec<u8>> = Zeroizing::default();
        plain.extend(percent_decode_str(user));
        plain.push(b':');
        plain.extend(percent_decode_str(password));
        let encoded = Zeroizing::new(STANDARD.encode(&*plain));
        Some(Zeroizing::new(format!("Basic {}", encoded.as_str())))
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.text(), self.address())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_as_go_reads_it() {
        for (text, expected) in [
            ("http://proxy.example:3128", Ok("http://proxy.example:3128")),
            ("http://proxy.example", Ok("http://proxy.example:80")),
            ("http://proxy.example/path?x", Ok("http://proxy.example:80")),
            ("proxy.example:3128", Ok("http://proxy.example:3128")),
            ("PROXY.example", Ok("http://proxy.example:80")),
            ("10.0.0.1:3128", Ok("http://10.0.0.1:3128")),
            ("http://[fd00::1]:3128", Ok("http://[fd00::1]:3128")),
            ("https://proxy.example", Ok("https://proxy.example:443")),
            ("socks5://proxy.example", Ok("socks5://proxy.example:1080")),
            ("socks5h://10.0.0.1", Ok("socks5://10.0.0.1:1080")),
            ("ftp://proxy.example", Err(Invalid::Scheme)),
            ("http://", Err(Invalid::Syntax)),
            ("http://a b:1", Err(Invalid::Syntax)),
            ("proxy.example:port", Err(Invalid::Syntax)),
            ("", Err(Invalid::Syntax)),
        ] {
            let url = text.parse::<ProxyUrl>().map(|url| url.to_string());
            assert_eq!(url.as_deref().map_err(|error| *error), expected, "{text}");
        }
    }

    #[test]
    fn credentials_reach_the_proxy_decoded_and_no_text() {
        let url: ProxyUrl = "http://ada:p%40ss%3A@proxy.example:1".parse().unwrap();
        let authorization = url.authorization().unwrap();
        let encoded = authorization.strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"ada:p@ss:");
        assert_eq!(
            url.expose().as_str(),
            "http://ada:p%40ss%3A@proxy.example:1"
        );
        for shown in [format!("{url}"), format!("{url:?}")] {
            assert!(!shown.contains("ada") && !shown.contains("p%40"), "{shown}");
        }
        let user: ProxyUrl = "ada@proxy.example:1".parse().unwrap();
        let authorization = user.authorization().unwrap();
        assert_eq!(
            authorization.as_str(),
            format!("Basic {}", STANDARD.encode("ada:"))
        );
        let nobody: ProxyUrl = "http://proxy.example:1".parse().unwrap();
        assert_eq!(nobody.authorization(), None);
    }
}
