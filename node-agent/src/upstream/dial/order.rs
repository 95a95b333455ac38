//! In which order the addresses of a name are tried. Pure.

use std::net::SocketAddr;

/// Addresses that one connection tries at most. Others have their turn the next time.
const MAX_ADDRESSES: usize = 8;

/// Where to begin, by what became of the last connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// This one answered.
    With(SocketAddr),
    /// This one was the first, and no address answered.
    After(SocketAddr),
}

impl Start {
    /// The same name, but not with the address that answered.
    #[must_use]
    pub fn elsewhere(self) -> Self {
        match self {
            Self::With(address) | Self::After(address) => Self::After(address),
        }
    }
}

/// Orders what a resolver found, whose order is the system's preference (RFC 6724): the families alternate, beginning with
/// the preferred one (RFC 8305, section 4), and `start` says where in that circle to begin.
pub fn of(found: Vec<SocketAddr>, start: Option<Start>) -> Vec<SocketAddr> {
    let mut distinct = Vec::new();
    for address in found {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    let mut ordered = alternate(distinct);
    let (address, past) = match start {
        None => (None, 0),
        Some(Start::With(address)) => (Some(address), 0),
        Some(Start::After(address)) => (Some(address), 1),
    };
    // An address that the name has no more says nothing.
    let position = ordered.iter().position(|one| Some(*one) == address);
    if let Some(position) = position {
        let begin = (position + past) % ordered.len();
        ordered.rotate_left(begin);
    }
    ordered.truncate(MAX_ADDRESSES);
    ordered
}

fn alternate(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().copied() else {
        return addresses;
    };
    let (preferred, others): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first.is_ipv6());
    let mut others = others.into_iter();
    let mut alternating = Vec::new();
    for address in preferred {
        alternating.push(address);
        alternating.extend(others.next());
    }
    alternating.extend(others);
    alternating
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        let parse = |text: &&str| format!("{text}:1").parse().unwrap();
        texts.iter().map(parse).collect()
    }

    #[test]
    fn families_alternate_and_each_address_comes_once() {
        for (found, expected) in [
            (&[][..], &[][..]),
            (&["10.0.0.1"], &["10.0.0.1"]),
            (
                &["[::1]", "[::2]", "10.0.0.1", "10.0.0.2", "[::1]"],
                &["[::1]", "10.0.0.1", "[::2]", "10.0.0.2"],
            ),
            (
                &["10.0.0.1", "[::1]", "[::2]", "[::3]"],
                &["10.0.0.1", "[::1]", "[::2]", "[::3]"],
            ),
        ] {
            assert_eq!(of(addresses(found), None), addresses(expected), "{found:?}");
        }
    }

    #[test]
    fn the_next_connection_begins_with_what_answered_and_after_what_did_not() {
        let found = || addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let at = |index: usize| found()[index];
        for (start, expected) in [
            (Start::With(at(1)), &["10.0.0.2", "10.0.0.3", "10.0.0.1"]),
            (Start::After(at(0)), &["10.0.0.2", "10.0.0.3", "10.0.0.1"]),
            (Start::After(at(2)), &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
            (
                Start::With(addresses(&["10.9.9.9"])[0]),
                &["10.0.0.1", "10.0.0.2", "10.0.0.3"],
            ),
        ] {
            assert_eq!(of(found(), Some(start)), addresses(expected), "{start:?}");
        }
        assert_eq!(Start::With(at(1)).elsewhere(), Start::After(at(1)));
    }

    #[test]
    fn a_name_with_very_many_addresses_gets_round_all_of_them() {
        let many: Vec<SocketAddr> = (1..=30).map(|last| ([10, 0, 0, last], 1).into()).collect();
        let mut seen = Vec::new();
        let mut start = None;
        for _ in 0..many.len() {
            let tried = of(many.clone(), start);
            assert_eq!(tried.len(), MAX_ADDRESSES);
            start = tried.first().copied().map(Start::After);
            seen.extend(tried);
        }
        assert!(many.iter().all(|address| seen.contains(address)));
    }
}
