//! `fairlead://HOST:PORT/?ns=NAMESPACE&ca=SPKI_SHA256#CODE`: a pairing code as a QR code carries it.
//!
//! The pin of the authority lets the device check the gateway in the TLS handshake, before the code plays any part.
//! The code is the fragment, which no well-behaved program sends anywhere.

use std::{fmt, str::FromStr};

use url::Url;

use crate::{code, code::PairingCode, key::KeyFingerprint};

/// Scheme of the URI.
pub const SCHEME: &str = "fairlead";

/// Longest URI that is read, in bytes.
const MAX_LENGTH: usize = 2048;

/// A pairing code, where to prove it, and to whom.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PairingUri {
    /// `HOST:PORT` of a gateway.
    pub gateway: String,
    /// Namespace that the device will belong to. For people: the code's id finds the namespace.
    pub namespace: String,
    /// The key of the authority that the gateway's certificate must come from.
    pub authority: KeyFingerprint,
    /// The code.
    pub code: PairingCode,
}

/// A text is no pairing URI. Says what is wrong and never what was read, for that may be a code.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("a pairing URI is {MAX_LENGTH} bytes long at most")]
    Length,
    #[error("not a URI: scan or copy the code again")]
    Syntax,
    #[error("a pairing URI begins with {SCHEME}://")]
    Scheme,
    #[error("the URI names no gateway as HOST:PORT")]
    Gateway,
    #[error("the URI has no ns=NAMESPACE")]
    Namespace,
    #[error("the URI has no ca=SHA-256 of the authority's key")]
    Authority,
    #[error("the URI's code")]
    Code(#[source] code::Error),
}

impl PairingUri {
    /// The whole URI with its code. For the Secret and the QR code, never for a log.
    pub fn expose(&self) -> String {
        let Self {
            gateway,
            namespace,
            authority,
            code,
        } = self;
        format!(
            "{SCHEME}://{gateway}/?ns={namespace}&ca={authority}#{}",
            code.expose()
        )
    }
}

impl FromStr for PairingUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() > MAX_LENGTH {
            return Err(Error::Length);
        }
        let url = Url::parse(text).map_err(|_| Error::Syntax)?;
        if url.scheme() != SCHEME {
            return Err(Error::Scheme);
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port()) else {
            return Err(Error::Gateway);
        };
        if host.is_empty() || !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Gateway);
        }
        let value = |key| {
            url.query_pairs()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value.into_owned())
        };
        Ok(Self {
            gateway: format!("{host}:{port}"),
            namespace: value("ns")
                .filter(|namespace| is_label(namespace))
                .ok_or(Error::Namespace)?,
            authority: value("ca")
                .and_then(|pin| pin.parse().ok())
                .ok_or(Error::Authority)?,
            code: PairingCode::parse(url.fragment().unwrap_or_default()).map_err(Error::Code)?,
        })
    }
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Without the code.
impl fmt::Display for PairingUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCHEME}://{}/?ns={}&ca={}",
            self.gateway, self.namespace, self.authority
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri() -> PairingUri {
        PairingUri {
            gateway: "gateway.example:7443".to_owned(),
            namespace: "kitchen".to_owned(),
            authority: KeyFingerprint::of_spki(b"authority"),
            code: PairingCode::parse("0101-ABCDEF").unwrap(),
        }
    }

    #[test]
    fn what_was_written_can_be_read() {
        for gateway in ["gateway.example:7443", "127.0.0.1:7443", "[::1]:7443"] {
            let uri = PairingUri {
                gateway: gateway.to_owned(),
                ..uri()
            };
            assert_eq!(uri.expose().parse(), Ok(uri));
        }
    }

    #[test]
    fn each_part_is_needed() {
        let whole = uri().expose();
        for (from, to, expected) in [
            ("fairlead://", "https://", Error::Scheme),
            ("fairlead:", "", Error::Syntax),
            (":7443", "", Error::Gateway),
            (
                "gateway.example",
                "user:secret@gateway.example",
                Error::Gateway,
            ),
            ("ns=kitchen", "ns=", Error::Namespace),
            ("ns=kitchen", "ns=Kitchen/..", Error::Namespace),
            ("ca=", "ca=00", Error::Authority),
            ("ca=", "pin=", Error::Authority),
            ("#0101-ABCDEF", "", Error::Code(code::Error::Length(0))),
        ] {
            assert_eq!(
                whole.replace(from, to).parse::<PairingUri>(),
                Err(expected),
                "{from} -> {to}"
            );
        }
        assert_eq!("x".repeat(4096).parse::<PairingUri>(), Err(Error::Length));
    }

    #[test]
    fn display_and_debug_show_no_code() {
        let uri = uri();
        for shown in [uri.to_string(), format!("{uri:?}")] {
            assert!(!shown.contains("ABCDEF"), "{shown}");
        }
    }
}
