//! Which gateway is next. Pure.

/// Gateways that are kept, at most.
const MAX_GATEWAYS: usize = 32;
/// Longest `HOST:PORT`: the longest name in the DNS and a port.
const MAX_BYTES: usize = 253 + 6;

/// What a gateway told of gateways: those that are addresses, each once, not too many.
pub fn acceptable(addresses: Vec<String>) -> Vec<String> {
    let mut accepted = Vec::new();
    for address in addresses {
        if accepted.len() < MAX_GATEWAYS && is_address(&address) && !accepted.contains(&address) {
            accepted.push(address);
        }
    }
    accepted
}

/// Whether a text is `HOST:PORT`. Says nothing about whether somebody is there.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let host_is_fine = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(plain),
    };
    text.len() <= MAX_BYTES
        && host_is_fine
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A way through the gateways: each in turn, so that one that is dead costs one attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rotation {
    addresses: Vec<String>,
    next: usize,
}

impl Rotation {
    /// `random` in 0..1 chooses the first, so that devices that start together spread.
    pub fn new(addresses: Vec<String>, random: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a number below the length of a short list"
        )]
        let next = (random.clamp(0.0, 1.0) * addresses.len() as f64) as usize;
        let mut rotation = Self { addresses, next };
        rotation.wrap();
        rotation
    }

    fn wrap(&mut self) {
        if self.next >= self.addresses.len() {
            self.next = 0;
        }
    }

    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The one to try now; the one after it is tried next.
    pub fn take(&mut self) -> Option<String> {
        let address = self.addresses.get(self.next).cloned();
        self.next += 1;
        self.wrap();
        address
    }

    /// Replaces the list while connected to `current`: whoever comes after that one is next.
    pub fn replace(&mut self, addresses: Vec<String>, current: &str) {
        self.next = addresses
            .iter()
            .position(|address| address == current)
            .map_or(0, |index| index + 1);
        self.addresses = addresses;
        self.wrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_addresses() {
        for (text, expected) in [
            ("gateway.example:7443", true),
            ("127.0.0.1:1", true),
            ("[::1]:7443", true),
            ("gateway.example", false),
            (":7443", false),
            ("host:0", false),
            ("host:+1", false),
            ("host:65536", false),
            ("::1:7443", false),
            ("[::1:7443", false),
            ("[x]:7443", false),
            ("ho st:1", false),
            ("host/path:1", false),
            ("\u{1b}:1", false),
        ] {
            assert_eq!(is_address(text), expected, "{text:?}");
        }
        assert!(!is_address(&format!("{}:1", "x".repeat(300))));
    }

    #[test]
    fn what_a_gateway_tells_is_bounded() {
        let many = (1..1000).map(|port| format!("host:{port}")).collect();
        assert_eq!(acceptable(many).len(), MAX_GATEWAYS);
        let twice = vec!["a:1".to_owned(), "a:1".to_owned(), "b".to_owned()];
        assert_eq!(acceptable(twice), ["a:1"]);
    }

    #[test]
    fn after_one_comes_another_whatever_the_list_becomes() {
        let list =
            |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
        let mut rotation = Rotation::new(list(&["a", "b", "c"]), 0.99);
        assert_eq!(rotation.take().unwrap(), "c");
        assert_eq!(rotation.take().unwrap(), "a");
        rotation.replace(list(&["x", "a", "b"]), "a");
        assert_eq!(rotation.take().unwrap(), "b");
        assert_eq!(rotation.take().unwrap(), "x");
        rotation.replace(list(&["y"]), "x");
        assert_eq!(rotation.take().unwrap(), "y");
        assert_eq!(rotation.take().unwrap(), "y");
        assert_eq!(Rotation::new(vec![], 1.0).take(), None);
    }
}
