//! Which proxy a connection goes through, by the rules of Go's `net/http` (`golang.org/x/net/http/httpproxy`), which
//! kubectl and most of Kubernetes follow.
//!
//! - [`url`] is the URL of one proxy, whose credentials are in no text that it shows;
//! - [`exceptions`] is `NO_PROXY`.
//!
//! Chooses and parses only: it opens no connection.

pub mod exceptions;
pub mod url;

use std::{env, net::IpAddr};

pub use self::{
    exceptions::Exceptions,
    url::{Invalid, ProxyUrl, Scheme},
};

/// A proxy, and the destinations that are connected to without it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Proxies {
    proxy: Option<ProxyUrl>,
    exceptions: Exceptions,
}

/// Why the environment cannot be followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("read {variable}: {source}")]
pub struct InvalidVariable {
    pub variable: &'static str,
    pub source: Invalid,
}

impl Proxies {
    /// Connects to everything directly.
    pub fn none() -> Self {
        Self::default()
    }

    pub fn new(proxy: Option<ProxyUrl>, exceptions: Exceptions) -> Self {
        Self { proxy, exceptions }
    }

    /// What the environment says for destinations that are spoken to over TLS. `variables` is [`variable`], or stands in
    /// for it.
    ///
    /// # Errors
    /// Where the proxy's URL cannot be used. The error does not show it, for it may hold a password.
    pub fn for_tls(variables: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidVariable> {
        let proxy = tls_variable(&variables)?;
        Ok(Self::new(proxy, Exceptions::of(variables)))
    }

    /// The same, of `HTTP_PROXY` or `http_proxy`, for destinations that are spoken to without TLS.
    ///
    /// # Errors
    /// As [`Self::for_tls`].
    pub fn for_plaintext(
        variables: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidVariable> {
        let proxy = url_in(["HTTP_PROXY", "http_proxy"], &variables)?;
        Ok(Self::new(proxy, Exceptions::of(variables)))
    }

    /// The proxy for this destination; `None` where it is connected to directly. `host` is a name, or an IP address
    /// without brackets.
    pub fn towards(&self, host: &str, port: u16) -> Option<&ProxyUrl> {
        let proxy = self.proxy.as_ref()?;
        let is_own = host.eq_ignore_ascii_case("localhost")
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.to_canonical().is_loopback());
        (!is_own && !self.exceptions.contain(host, port)).then_some(proxy)
    }
}

/// The proxy that `HTTPS_PROXY` names, or `https_proxy` where that is missing.
///
/// # Errors
/// Where it cannot be used. The error does not show it, for it may hold a password.
pub fn tls_variable(
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Option<ProxyUrl>, InvalidVariable> {
    url_in(["HTTPS_PROXY", "https_proxy"], variables)
}

fn url_in(
    names: [&'static str; 2],
    variables: impl Fn(&str) -> Option<String>,
) -> Result<Option<ProxyUrl>, InvalidVariable> {
    let found = names
        .into_iter()
        .find_map(|name| Some((name, variables(name)?)));
    let url = found.map(|(variable, text)| {
        text.parse()
            .map_err(|source| InvalidVariable { variable, source })
    });
    url.transpose()
}

/// A variable of this process's environment that is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_exceptions_are_connected_to_directly_and_everything_else_through_the_proxy()
    {
        let proxies = Proxies::new(
            Some("http://proxy.example:3128".parse().unwrap()),
            Exceptions::parse("10.0.0.0/8,.internal"),
        );
        for (host, is_proxied) in [
            ("gateway.example", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("localhost", false),
            ("LOCALHOST", false),
            ("127.0.0.1", false),
            ("127.7.7.7", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("10.1.2.3", false),
            ("a.internal", false),
            ("internal", true),
        ] {
            assert_eq!(proxies.towards(host, 443).is_some(), is_proxied, "{host}");
        }
        assert_eq!(Proxies::none().towards("gateway.example", 443), None);
    }
}
