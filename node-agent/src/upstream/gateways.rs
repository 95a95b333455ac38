//! Which gateway is next. Pure: randomness comes from outside, as a seed.

use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// Gateways that one tells of, at most.
const MAX_GATEWAYS: usize = 32;
/// Gateways that were reached and are remembered, at most.
const MAX_REACHED: usize = 16;
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

/// The gateways that are remembered once this one was reached and verified: the last one first. One that nobody reached is
/// never among them, whatever a gateway tells.
pub fn remembered(before: &[String], reached: &str) -> Vec<String> {
    let others = before.iter().filter(|address| *address != reached);
    std::iter::once(reached)
        .chain(others.map(String::as_str))
        .take(MAX_REACHED)
        .map(str::to_owned)
        .collect()
}

/// Both lists, each address once.
pub fn joined(mut first: Vec<String>, second: Vec<String>) -> Vec<String> {
    for address in second {
        if !first.contains(&address) {
            first.push(address);
        }
    }
    first
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

/// A way through the gateways: each in turn, so that one that is dead costs one attempt. Each device has an order of its
/// own: gateways tell the same list to all, and in that order all devices of a dead one would go to the same neighbour.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rotation {
    addresses: Vec<String>,
    next: usize,
}

impl Rotation {
    /// All in an order that `seed` draws.
    pub fn new(addresses: Vec<String>, seed: u64) -> Self {
        Self {
            addresses: shuffled(addresses, seed),
            next: 0,
        }
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
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
        if self.next >= self.addresses.len() {
            self.next = 0;
        }
        address
    }

    /// Makes one of them the next; the others keep their order.
    pub fn stay(&mut self, current: &str) {
        let position = self.addresses.iter().position(|address| address == current);
        self.next = position.unwrap_or(self.next);
    }

    /// Replaces the list while connected to `current`: the others are next, in an order that `seed` draws, and that one
    /// comes after them.
    pub fn replace(&mut self, addresses: Vec<String>, current: &str, seed: u64) {
        let (last, others): (Vec<_>, Vec<_>) = addresses
            .into_iter()
            .partition(|address| address == current);
        *self = Self::new(others, seed);
        self.addresses.extend(last);
    }
}

fn shuffled(mut addresses: Vec<String>, seed: u64) -> Vec<String> {
    addresses.shuffle(&mut StdRng::seed_from_u64(seed));
    addresses
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
    fn what_is_remembered_was_reached_and_is_bounded() {
        let before = list(&["a:1", "b:1"]);
        assert_eq!(remembered(&before, "b:1"), ["b:1", "a:1"]);
        assert_eq!(remembered(&before, "c:1"), ["c:1", "a:1", "b:1"]);
        let mut many = Vec::new();
        for port in 1..100 {
            many = remembered(&many, &format!("host:{port}"));
        }
        assert_eq!(many.len(), MAX_REACHED);
        assert_eq!(many[0], "host:99");
        assert_eq!(joined(before, list(&["b:1", "c:1"])), ["a:1", "b:1", "c:1"]);
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn round(rotation: &mut Rotation) -> Vec<String> {
        (0..rotation.len())
            .filter_map(|_| rotation.take())
            .collect()
    }

    #[test]
    fn each_is_tried_once_a_round_whatever_the_list_becomes() {
        let mut rotation = Rotation::new(list(&["a", "b", "c"]), 1);
        let first = round(&mut rotation);
        assert_eq!(round(&mut rotation), first);
        let mut sorted = first;
        sorted.sort();
        assert_eq!(sorted, ["a", "b", "c"]);

        rotation.replace(list(&["x", "a", "b"]), "a", 2);
        let mut others = round(&mut rotation);
        assert_eq!(others.pop().unwrap(), "a");
        others.sort();
        assert_eq!(others, ["b", "x"]);

        rotation.replace(list(&["y"]), "x", 3);
        assert_eq!(rotation.take().unwrap(), "y");
        assert_eq!(rotation.take().unwrap(), "y");
        assert_eq!(Rotation::new(vec![], 4).take(), None);
    }

    #[test]
    fn the_devices_of_a_dead_gateway_spread_over_all_the_others() {
        // As every gateway tells it: itself first, the others by name.
        let told = list(&["dead", "a", "b", "c", "d"]);
        let mut next = std::collections::BTreeMap::<String, u32>::new();
        for device in 0..1_000 {
            let mut rotation = Rotation::new(told.clone(), device);
            rotation.replace(told.clone(), "dead", device + 1_000_000);
            *next.entry(rotation.take().unwrap()).or_default() += 1;
        }
        assert_eq!(next.len(), 4, "{next:?}");
        // 250 each would be fair; 180 is five standard deviations away.
        assert!(next.values().all(|&devices| devices > 180), "{next:?}");
    }
}
