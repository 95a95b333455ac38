//! Every device, kept in the order of attention and counted, so that a page costs what is on it.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use console_api::inventory::Summary;
use crds::v1alpha1::device::Trust;

use super::{Key, Known, Name, Rank};

/// Devices.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// For all that there are.
    named: BTreeMap<Name, Arc<Known>>,
    in_order: BTreeMap<Key, Arc<Known>>,
    counts: Summary,
    counts_of: HashMap<Arc<str>, Summary>,
    /// The newest version of a device that was here.
    newest: u64,
    /// Everything up to that version is in.
    seen: u64,
}

impl Devices {
    pub fn get(&self, name: &Name) -> Option<&Arc<Known>> {
        self.named.get(name)
    }

    pub fn len(&self) -> usize {
        self.named.len()
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    pub fn newest(&self) -> u64 {
        self.newest
    }

    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Everything up to that version is in.
    pub fn reached(&mut self, version: u64) {
        self.seen = self.seen.max(version);
    }

    /// Puts a device in, in the place of the one that had its name.
    pub fn insert(&mut self, mut device: Known) -> Arc<Known> {
        let before = self.remove(&device.name);
        // One version after the other is seen: where the rank is the same, it did not move.
        if let Some(before) = before.filter(|before| before.rank() == device.rank()) {
            device.moved_at = before.moved_at;
        }
        let device = Arc::new(device);
        self.put(Arc::clone(&device));
        device
    }

    /// Puts a device in that a list showed. What came between it and what `known` says of it was not seen: it may have
    /// moved, and back.
    pub fn insert_listed(&mut self, device: Known, known: Option<&Arc<Known>>) {
        match known.filter(|known| known.version == device.version) {
            Some(known) => self.put(Arc::clone(known)),
            None => self.put(Arc::new(device)),
        }
    }

    fn put(&mut self, device: Arc<Known>) {
        self.newest = self.newest.max(device.version);
        self.reached(device.version);
        count(&mut self.counts, &device, 1);
        let namespace = Arc::clone(&device.name.namespace);
        count(self.counts_of.entry(namespace).or_default(), &device, 1);
        self.in_order.insert(key(&device), Arc::clone(&device));
        self.named.insert(device.name.clone(), device);
    }

    pub fn remove(&mut self, name: &Name) -> Option<Arc<Known>> {
        let device = self.named.remove(name)?;
        self.in_order.remove(&key(&device));
        count(&mut self.counts, &device, -1);
        if let Some(counts) = self.counts_of.get_mut(&name.namespace) {
            count(counts, &device, -1);
            if counts.devices == 0 {
                self.counts_of.remove(&name.namespace);
            }
        }
        Some(device)
    }

    /// How many there are of each kind. Requests are not counted here.
    pub fn counts(&self, scope: Option<&str>) -> Summary {
        match scope {
            None => self.counts,
            Some(namespace) => self.counts_of.get(namespace).copied().unwrap_or_default(),
        }
    }

    /// In the order of attention, after that device.
    pub fn in_order<'a>(
        &'a self,
        scope: Option<&'a str>,
        after: Option<&'a Key>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Known>> + 'a> {
        let Some(namespace) = scope else {
            let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
            return Box::new(
                self.in_order
                    .range((start, Bound::Unbounded))
                    .map(|(_, device)| device),
            );
        };
        let ranks = Rank::ALL
            .into_iter()
            .filter(move |rank| after.is_none_or(|after| after.rank <= *rank));
        Box::new(ranks.flat_map(move |rank| {
            let start = match after.filter(|after| after.rank == rank) {
                Some(after) => Bound::Excluded(after.clone()),
                None => Bound::Included(Key {
                    rank,
                    name: Name::new(namespace, ""),
                }),
            };
            self.in_order
                .range((start, Bound::Unbounded))
                .take_while(move |(key, _)| key.rank == rank && *key.name.namespace == *namespace)
                .map(|(_, device)| device)
        }))
    }

    /// By namespace and name, after that one: an order in which nothing moves.
    pub fn by_name<'a>(
        &'a self,
        scope: Option<&'a str>,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Known>> + 'a {
        let start = match (after, scope) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(namespace)) => Bound::Included(Name::new(namespace, "")),
            (None, None) => Bound::Unbounded,
        };
        self.named
            .range((start, Bound::Unbounded))
            .take_while(move |(name, _)| scope.is_none_or(|scope| *name.namespace == *scope))
            .map(|(_, device)| device)
    }
}

/// Where a device stands.
pub fn key(device: &Known) -> Key {
    Key {
        rank: device.rank(),
        name: device.name.clone(),
    }
}

/// Counts a device, `by` times.
pub fn count(counts: &mut Summary, device: &Known, by: i64) {
    let mut add = |counter: fn(&mut Summary) -> &mut u64| {
        let counter = counter(counts);
        *counter = counter.saturating_add_signed(by);
    };
    add(|counts| &mut counts.devices);
    match device.rank() {
        Rank::Degraded => add(|counts| &mut counts.degraded),
        Rank::Stale => add(|counts| &mut counts.stale),
        Rank::Offline => add(|counts| &mut counts.offline),
        Rank::Online => add(|counts| &mut counts.online),
    }
    match device.trust {
        Some(Trust::Trusted) => add(|counts| &mut counts.trusted),
        Some(Trust::Untrusted) => add(|counts| &mut counts.untrusted),
        Some(Trust::Revoked) => add(|counts| &mut counts.revoked),
        None => {}
    }
    if device.counts.pending > 0 {
        add(|counts| &mut counts.awaiting_grant);
    }
}
