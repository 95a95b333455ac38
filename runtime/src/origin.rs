//! What counts as one source of connections: an address, and the networks that contain it.
//!
//! Bounds that are shared "per address" count an [`Origin`]. An attacker who holds a whole network has many origins, so
//! fair shares are nested: each [`Network`] of the widest kind has a share, within it each narrower one, and within that
//! each origin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Source of a connection or a request, as far as one person is likely to hold it: an IPv4 address, or the /64 of an
/// IPv6 address. A household has as many addresses in its /64 as it likes. An IPv4-mapped IPv6 address counts as IPv4.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Origin(IpAddr);

/// An address and the number of its leading bits that count.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Origin {
    /// Networks that contain the origin, widest first; the last one is the origin itself. IPv6: /48, /56 and /64, as
    /// providers give them to sites and households. IPv4: /24 twice, so that both families have as many levels, and the
    /// address.
    pub fn networks(self) -> [Network; 3] {
        match self.0 {
            IpAddr::V4(address) => [v4(address, 24), v4(address, 24), v4(address, 32)],
            IpAddr::V6(address) => [v6(address, 48), v6(address, 56), v6(address, 64)],
        }
    }

    /// [`Self::networks`] without the origin itself.
    pub fn wider_networks(self) -> [Network; 2] {
        let [widest, wide, _] = self.networks();
        [widest, wide]
    }
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => v6(address, 64).first,
        })
    }
}

/// `bits`: 1 to 32.
fn v4(address: Ipv4Addr, bits: u8) -> Network {
    let kept = u32::MAX << (32 - bits);
    Network {
        first: Ipv4Addr::from_bits(address.to_bits() & kept).into(),
        bits,
    }
}

/// `bits`: 1 to 128.
fn v6(address: Ipv6Addr, bits: u8) -> Network {
    let kept = u128::MAX << (128 - bits);
    Network {
        first: Ipv6Addr::from_bits(address.to_bits() & kept).into(),
        bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn neighbours_in_a_v6_network_are_one_origin() {
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::9"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    }

    #[test]
    fn origins_share_the_networks_that_contain_them() {
        let networks = |text: &str| origin(text).networks();
        let common = |a: &str, b: &str| {
            let pairs = networks(a).into_iter().zip(networks(b));
            pairs.filter(|(a, b)| a == b).count()
        };
        assert_eq!(common("2001:db8:1:2::1", "2001:db8:1:2::2"), 3);
        assert_eq!(common("2001:db8:1:2::1", "2001:db8:1:3::1"), 2);
        assert_eq!(common("2001:db8:1:2::1", "2001:db8:1:102::1"), 1);
        assert_eq!(common("2001:db8:1:2::1", "2001:db8:2:2::1"), 0);
        assert_eq!(common("192.0.2.1", "::ffff:192.0.2.1"), 3);
        assert_eq!(common("192.0.2.1", "192.0.2.254"), 2);
        assert_eq!(common("192.0.2.1", "192.0.3.1"), 0);
        // The families never share a network, even where the leading bits are the same.
        assert_eq!(common("0.0.0.0", "::2"), 0);
    }
}
