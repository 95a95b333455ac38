//! How a client is made.

use std::{sync::Arc, time::Duration};

use url::{Host, Url};

use crate::{
    ControlPlaneClient,
    credentials::Credentials,
    error::{Error, Result},
    retry::Retries,
    session::{Authentication, Sessions},
    tls::{self, Roots},
    transport::Inner,
};

/// How long is waited for what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// For a connection, TLS among it.
    pub connect: Duration,
    /// For a whole answer, from the request on. A long poll has as much on top of what it waits for.
    pub request: Duration,
    /// For the next bytes of an artefact or an event stream. Consoles say something into a silent stream now and then.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(30),
            silence: Duration::from_mins(1),
        }
    }
}

/// How much is taken from a console.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of one answer, artefacts and event streams apart.
    pub answer_bytes: usize,
    /// Bytes of one event.
    pub event_bytes: usize,
    /// Bytes of one artefact.
    pub artefact_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_bytes: 16 * 1024 * 1024,
            event_bytes: 1024 * 1024,
            artefact_bytes: 5_242_880_000,
        }
    }
}

/// Makes a [`ControlPlaneClient`].
#[derive(Clone, Debug)]
#[must_use = "nothing is made before `build`"]
pub struct Builder {
    url: String,
    credentials: Credentials,
    authentication: Authentication,
    roots: Roots,
    timeouts: Timeouts,
    retries: Retries,
    limits: Limits,
}

impl Builder {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: Credentials::None,
            authentication: Authentication::default(),
            roots: Roots::default(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            limits: Limits::default(),
        }
    }

    /// By what the caller is known. [`Credentials::None`] where this is not called.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Whether requests carry the token or a session. [`Authentication::Token`] where this is not called.
    pub fn authentication(mut self, authentication: Authentication) -> Self {
        self.authentication = authentication;
        self
    }

    /// Whom the console's certificate may come from. [`Roots::Platform`] where this is not called.
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }

    /// How long is waited for what.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How often and how soon something is tried again.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// How much is taken from a console.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the client. No connection is made yet.
    ///
    /// # Errors
    /// Where the address is none of a console, or the authorities cannot be read.
    pub fn build(self) -> Result<ControlPlaneClient> {
        let Self {
            url,
            credentials,
            authentication,
            roots,
            timeouts,
            retries,
            limits,
        } = self;
        let base = base(&url)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(&roots)?)
            .connect_timeout(timeouts.connect)
            // A console never redirects; who does would be handed the token.
            .redirect(reqwest::redirect::Policy::none())
            // What is sent again is decided in one place, which is not there.
            .retry(reqwest::retry::never())
            .user_agent(concat!("fairlead-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                Error::Usage(format!("make the HTTP client: {}", error.without_url()))
            })?;
        let sessions = match authentication {
            Authentication::Token => None,
            Authentication::Session => Some(Sessions::default()),
        };
        Ok(ControlPlaneClient {
            inner: Arc::new(Inner {
                http,
                base,
                credentials,
                sessions,
                timeouts,
                retries,
                limits,
            }),
        })
    }
}

/// The address of a console: `https://HOST[:PORT]`, or plain HTTP on this machine for tests. `HOST:PORT` will do.
fn base(text: &str) -> Result<Url> {
    let text = text.trim();
    let wrong = |why: &str| {
        Error::Usage(format!(
            "the console's address {why}: give https://HOST:PORT"
        ))
    };
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = Url::parse(&with_scheme).map_err(|_| wrong("cannot be read"))?;
    let local = match url.host() {
        None => return Err(wrong("has no host")),
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if local => {}
        // A token in clear text is everybody's.
        _ => return Err(wrong("is not HTTPS")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user or a password in it"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a path"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_over_https() {
        for (text, expected) in [
            (
                "https://console.example:8443",
                Some("https://console.example:8443/"),
            ),
            (
                "console.example:8443",
                Some("https://console.example:8443/"),
            ),
            ("[::1]:8443", Some("https://[::1]:8443/")),
            ("http://127.0.0.1:80", Some("http://127.0.0.1/")),
            ("http://localhost:9", Some("http://localhost:9/")),
            ("http://console.example", None),
            ("https://ada:s3cret@console.example", None),
            ("https://console.example/console", None),
            ("https://console.example/?q", None),
            ("ftp://console.example", None),
            ("", None),
        ] {
            assert_eq!(
                base(text).ok().map(String::from).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
