//! A bounded set of strangers that always has room for one more.
//!
//! Nothing is known of a stranger but the address, and an address can be silent for as long as a deadline allows. So a
//! stranger who arrives when the set is full takes the place of the oldest of the address with the most: an address that
//! has few places keeps them, however many others have.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::rates::{Address, Network};

/// Members by their addresses. `None` is the address where there is no connection, as in tests.
#[derive(Clone, Debug)]
pub struct Crowd {
    size: usize,
    each: usize,
    members: Arc<Mutex<Members>>,
}

#[derive(Debug, Default)]
struct Members {
    /// Counts all that ever came.
    next: u64,
    of: BTreeMap<Option<Address>, BTreeMap<u64, CancellationToken>>,
    /// The same addresses, by the number of members.
    by_count: BTreeSet<(usize, Option<Address>)>,
    all: BTreeMap<u64, Option<Address>>,
    of_network: HashMap<Network, usize>,
}

/// One member; leaves when dropped.
#[derive(Debug)]
pub struct Member {
    number: u64,
    address: Option<Address>,
    evicted: CancellationToken,
    crowd: Crowd,
}

impl Crowd {
    /// `size`: most members, `each`: most of an address. The narrower network of an address has at most twice as many, and
    /// the wider one four times.
    pub fn new(size: usize, each: usize) -> Self {
        Self {
            size: size.max(1),
            each: each.clamp(1, size.max(1)),
            members: Arc::default(),
        }
    }

    /// A place for one more; `None` if the address has as many as it may, or is itself the one with the most.
    pub fn enter(&self, address: impl Into<Option<Address>>) -> Option<Member> {
        let address = address.into();
        let mut members = self.members();
        let count = members.count(address);
        if count >= self.each || self.network_is_full(&members, address) {
            return None;
        }
        if members.all.len() >= self.size {
            members.evict_for(count + 1)?;
        }
        let evicted = CancellationToken::new();
        let number = members.add(address, evicted.clone());
        Some(Member {
            number,
            address,
            evicted,
            crowd: self.clone(),
        })
    }

    fn network_is_full(&self, members: &Members, address: Option<Address>) -> bool {
        let most = [self.each.saturating_mul(4), self.each.saturating_mul(2)];
        let Some(networks) = address.map(Address::networks) else {
            return false;
        };
        let widest_first = networks.iter().zip(most);
        let mut counts = widest_first
            .map(|(network, most)| members.of_network.get(network).copied().unwrap_or(0) >= most);
        counts.any(|is_full| is_full)
    }

    /// Poisoning is harmless: every critical section leaves the set consistent.
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Is cancelled when the place goes to another.
    pub fn evicted(&self) -> CancellationToken {
        self.evicted.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.members().remove(self.number, self.address);
    }
}

impl Members {
    fn count(&self, address: Option<Address>) -> usize {
        self.of.get(&address).map_or(0, BTreeMap::len)
    }

    fn add(&mut self, address: Option<Address>, evicted: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        let count = self.count(address);
        self.by_count.remove(&(count, address));
        self.by_count.insert((count + 1, address));
        self.of.entry(address).or_default().insert(number, evicted);
        self.all.insert(number, address);
        for network in networks(address) {
            *self.of_network.entry(network).or_default() += 1;
        }
        number
    }

    /// Takes one away from an address that has at least `least`.
    fn evict_for(&mut self, least: usize) -> Option<()> {
        let (most, address) = self.by_count.last().copied()?;
        let (number, address) = match most {
            // Each has one: the oldest goes.
            1 => self
                .all
                .first_key_value()
                .map(|(number, address)| (*number, *address))?,
            _ => (*self.of.get(&address)?.first_key_value()?.0, address),
        };
        if most < least {
            return None;
        }
        if let Some(evicted) = self.remove(number, address) {
            evicted.cancel();
        }
        Some(())
    }

    fn remove(&mut self, number: u64, address: Option<Address>) -> Option<CancellationToken> {
        let count = self.count(address);
        let members = self.of.get_mut(&address)?;
        let evicted = members.remove(&number)?;
        if members.is_empty() {
            self.of.remove(&address);
        }
        self.all.remove(&number);
        self.by_count.remove(&(count, address));
        if count > 1 {
            self.by_count.insert((count - 1, address));
        }
        for network in networks(address) {
            if let Some(count) = self.of_network.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    self.of_network.remove(&network);
                }
            }
        }
        Some(evicted)
    }
}

/// Networks of an address, each once for each level.
fn networks(address: Option<Address>) -> impl Iterator<Item = Network> {
    let mut networks = address.map_or_else(Vec::new, |address| address.wider_networks().to_vec());
    networks.dedup();
    networks.into_iter()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn is_evicted(member: &Member) -> bool {
        member.evicted.is_cancelled()
    }

    #[test]
    fn an_address_that_fills_the_crowd_makes_room_for_others() {
        let crowd = Crowd::new(8, 8);
        let many: Vec<_> = (0..8)
            .map(|_| crowd.enter(address("192.0.2.1")).unwrap())
            .collect();
        assert!(crowd.enter(address("192.0.2.1")).is_none());
        let others: Vec<_> = (0..4)
            .map(|_| crowd.enter(address("198.51.100.1")).unwrap())
            .collect();
        assert_eq!(many.iter().filter(|member| is_evicted(member)).count(), 4);
        assert!(many[..4].iter().all(is_evicted), "the oldest go first");
        assert!(!others.iter().any(is_evicted));
        // Both have a half. Neither can take more from the other.
        assert!(crowd.enter(address("192.0.2.1")).is_none());
        assert!(crowd.enter(address("198.51.100.1")).is_none());
    }

    #[test]
    fn among_addresses_with_one_place_each_the_oldest_goes() {
        let crowd = Crowd::new(3, 2);
        let mut members: Vec<_> = (1..=4)
            .map(|n| crowd.enter(address(&format!("192.0.{n}.1"))).unwrap())
            .collect();
        let evicted: Vec<_> = members.iter().map(is_evicted).collect();
        assert_eq!(evicted, [true, false, false, false]);
        members.remove(0);
        assert_eq!(
            crowd.members().all.len(),
            3,
            "one who was evicted is not counted when it leaves"
        );
        members.clear();
        let left = crowd.members();
        assert!(left.of.is_empty() && left.by_count.is_empty() && left.of_network.is_empty());
    }

    #[test]
    fn a_site_with_many_networks_has_no_more_than_four_addresses_would() {
        let crowd = Crowd::new(1000, 4);
        let members: Vec<_> = (0..0x400)
            .filter_map(|n| crowd.enter(address(&format!("2001:db8:1:{n:x}::1"))))
            .collect();
        assert_eq!(members.len(), 16);
        let customer: Vec<_> = (0..100)
            .filter_map(|n| crowd.enter(address(&format!("2001:db8:2:{n:x}::1"))))
            .collect();
        assert_eq!(customer.len(), 8, "one /56");
        assert!(crowd.enter(address("2001:db8:3::1")).is_some());
    }
}
