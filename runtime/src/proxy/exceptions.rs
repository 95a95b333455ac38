//! `NO_PROXY`: destinations that are connected to without the proxy.

use std::net::IpAddr;

use ipnet::IpNet;

/// What `NO_PROXY` lists, separated by commas. Entries that cannot be read are passed over, as Go does:
///
/// - `*`: everything;
/// - `10.0.0.0/8`, `fd00::/8`: addresses of a network;
/// - `10.0.0.1`, `[::1]:6443`: an address, with or without a port;
/// - `example.org`, `example.org:443`: a name and all names below it;
/// - `.example.org`, `*.example.org`: names below it only.
///
/// Names are never looked up: a network does not cover a name whose address is in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Exceptions {
    is_everything: bool,
    networks: Vec<IpNet>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    domains: Vec<Domain>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Domain {
    /// Begins with a dot, in lower case.
    suffix: String,
    port: Option<u16>,
    /// The name itself, too, and not only names below it.
    includes_itself: bool,
}

impl Exceptions {
    /// Reads `NO_PROXY`, or `no_proxy` where that is missing.
    pub fn of(variables: impl Fn(&str) -> Option<String>) -> Self {
        let text = variables("NO_PROXY").or_else(|| variables("no_proxy"));
        Self::parse(&text.unwrap_or_default())
    }

    pub fn parse(text: &str) -> Self {
        let mut exceptions = Self::default();
        for entry in text.split(',') {
            exceptions.add(&entry.trim().to_lowercase());
        }
        exceptions
    }

    fn add(&mut self, entry: &str) {
        if entry == "*" {
            self.is_everything = true;
        } else if let Ok(network) = entry.parse::<IpNet>() {
            self.networks.push(network.trunc());
        } else {
            let Some((host, port)) = split_port(entry) else {
                return;
            };
            if let Ok(address) = host.parse::<IpAddr>() {
                self.addresses.push((address.to_canonical(), port));
                return;
            }
            let below = host.strip_prefix('*').filter(|rest| rest.starts_with('.'));
            let host = below.unwrap_or(host);
            let (suffix, includes_itself) = if host.starts_with('.') {
                (host.to_owned(), false)
            } else {
                (format!(".{host}"), true)
            };
            self.domains.push(Domain {
                suffix,
                port,
                includes_itself,
            });
        }
    }

    /// Whether this destination is connected to directly. `host` is a name, or an IP address without brackets.
    pub fn contain(&self, host: &str, port: u16) -> bool {
        if self.is_everything {
            return true;
        }
        let has_port = |wanted: Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = address.to_canonical();
            return self
                .networks
                .iter()
                .any(|network| network.contains(&address))
                || self
                    .addresses
                    .iter()
                    .any(|(one, port)| *one == address && has_port(*port));
        }
        let host = host.to_lowercase();
        self.domains.iter().any(|domain| {
            let is_itself = domain.includes_itself && domain.suffix.get(1..) == Some(&host);
            (is_itself || host.ends_with(&domain.suffix)) && has_port(domain.port)
        })
    }
}

/// Host and port of `HOST`, `HOST:PORT`, `[ADDRESS]:PORT` or a bare IPv6 address; `None` where there is no host or the port
/// is not one.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match entry.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match entry.split_once(':') {
            // An IPv6 address has several colons.
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            Some(_) | None => (entry, None),
        },
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse().ok()?),
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each verdict is that of Go 1.26's `httpproxy.Config.ProxyFunc`.
    #[test]
    fn exceptions_are_those_of_go() {
        for (text, host, port, expected) in [
            ("", "example.org", 443, false),
            ("*", "example.org", 443, true),
            ("a,*", "192.0.2.1", 443, true),
            ("example.org", "example.org", 443, true),
            ("example.org", "EXAMPLE.ORG", 443, true),
            ("EXAMPLE.org", "example.org", 443, true),
            ("example.org", "a.example.org", 443, true),
            ("example.org", "notexample.org", 443, false),
            (".example.org", "example.org", 443, false),
            (".example.org", "a.example.org", 443, true),
            ("*.example.org", "a.b.example.org", 443, true),
            ("*.example.org", "example.org", 443, false),
            ("example.org:6443", "example.org", 6443, true),
            ("example.org:6443", "example.org", 443, false),
            (" a , example.org ", "example.org", 443, true),
            (",,example.org,", "example.org", 443, true),
            ("a b", "example.org", 443, false),
            ("10.0.0.0/8", "10.200.0.1", 6443, true),
            ("10.1.2.3/8", "10.200.0.1", 6443, true),
            ("10.0.0.0/8", "11.0.0.1", 6443, false),
            ("10.0.0.0/8", "ten.example", 6443, false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", 6443, true),
            ("10.0.0.1", "10.0.0.1", 6443, true),
            ("10.0.0.1:6443", "10.0.0.1", 6443, true),
            ("10.0.0.1:6443", "10.0.0.1", 443, false),
            ("10.0.0", "10.0.0.1", 443, false),
            ("fd00::/8", "fd12::1", 6443, true),
            ("fd00::1", "fd00::1", 6443, true),
            ("[fd00::1]:6443", "fd00::1", 6443, true),
            ("[fd00::1]:6443", "fd00::1", 443, false),
            ("fd00::/8", "fe00::1", 6443, false),
            (".", "a.", 443, true),
            (":443", "example.org", 443, false),
        ] {
            assert_eq!(
                Exceptions::parse(text).contain(host, port),
                expected,
                "{text:?} {host} {port}"
            );
        }
    }
}
