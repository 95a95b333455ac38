//! Every open invocation, by device, in the order of creation.
//!
//! The watch's selector leaves out what has ended: an invocation that ends leaves the store. Of a device that has more
//! open ones than it may have, the oldest are kept and the others known by name: what a tenant creates must not fill a
//! gateway. They come to be kept, one by one, for a device that is served here.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use crds::{
    excess::Excess,
    names::{MAX_OPEN_PER_DEVICE, MAX_OPEN_PER_NAMESPACE},
};
use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};

use super::{crowd::Crowd, read, write};
use crate::domain::{device::DeviceKey, invocation::OpenInvocation};

/// Most open invocations of a device that are kept: as many as it may have, and some of those beyond, to be ended.
const MOST_KEPT: usize = MAX_OPEN_PER_DEVICE + 16;
/// Most others of a device whose names are known. What is beyond them is not looked at until the watch begins anew: it
/// ends at its deadline.
const MOST_NAMED: usize = 4096;

/// An open invocation.
#[derive(Debug)]
pub struct Entry {
    pub invocation: Arc<OpenInvocation>,
    /// When it was first heard of.
    pub seen: Instant,
}

/// Those of a device that are kept, in the order of creation.
#[derive(Debug, Default)]
pub struct Open {
    pub entries: Vec<Arc<Entry>>,
    /// How many of them are within the bound of the namespace.
    within: usize,
}

impl Open {
    /// Which bound the one in that place is beyond.
    pub fn excess(&self, place: usize) -> Option<Excess> {
        if place >= MAX_OPEN_PER_DEVICE {
            Some(Excess::OfDevice)
        } else {
            (place >= self.within).then_some(Excess::OfNamespace)
        }
    }
}

/// Open invocations.
#[derive(Default)]
pub struct Invocations {
    store: RwLock<Store>,
    wanted: Mutex<HashSet<DeviceKey>>,
    wants: Notify,
}

/// What a list brings, before it takes the place of all.
#[derive(Default)]
pub struct Listed(Store);

#[derive(Default)]
struct Store {
    devices: HashMap<DeviceKey, OfDevice>,
    namespaces: HashMap<String, Crowd<Order>>,
    heard: u64,
}

/// The kept ones are older than the others.
#[derive(Default)]
struct OfDevice {
    known: HashMap<String, Known>,
    kept: BTreeMap<Order, Arc<Entry>>,
    /// Names.
    others: BTreeMap<Order, String>,
}

/// The API server's clock has whole seconds; within one, what was heard of first comes first.
type Order = (Timestamp, u64);

struct Known {
    uid: String,
    order: Order,
    seen: Instant,
}

impl Invocations {
    /// Those of a device that are kept. Where there are others and room for them, it is said that they are wanted.
    pub fn of(&self, device: &DeviceKey) -> Open {
        let store = read(&self.store);
        let Some(of) = store.devices.get(device) else {
            return Open::default();
        };
        if of.next_other().is_some() {
            lock(&self.wanted).insert(device.clone());
            self.wants.notify_one();
        }
        let crowd = store.namespaces.get(&device.namespace);
        Open {
            entries: of.kept.values().cloned().collect(),
            within: match crowd.and_then(Crowd::first_beyond) {
                None => of.kept.len(),
                Some(first) => of.kept.range(..first).count(),
            },
        }
    }

    /// The one with that uid, if it is kept.
    pub fn find(&self, device: &DeviceKey, uid: &str) -> Option<Arc<Entry>> {
        let store = read(&self.store);
        let kept = &store.devices.get(device)?.kept;
        kept.values()
            .find(|entry| entry.invocation.uid == uid)
            .cloned()
    }

    /// Devices that have more open invocations than are kept, and are served here. Waits until there are some.
    pub async fn wanted(&self) -> Vec<DeviceKey> {
        loop {
            let wanted = std::mem::take(&mut *lock(&self.wanted));
            if !wanted.is_empty() {
                return wanted.into_iter().collect();
            }
            self.wants.notified().await;
        }
    }

    /// The name of the oldest that is not kept, where there is room for it.
    pub fn next_other(&self, device: &DeviceKey) -> Option<String> {
        let store = read(&self.store);
        store.devices.get(device)?.next_other().cloned()
    }

    pub fn insert(&self, invocation: OpenInvocation) {
        write(&self.store).insert(invocation, None);
    }

    pub fn remove(&self, device: &DeviceKey, name: &str) {
        write(&self.store).remove(device, name);
    }

    /// Adds to what takes the place of all. What was heard of before keeps its place and its moment.
    pub fn list(&self, listed: &mut Listed, invocation: OpenInvocation) {
        let known = {
            let store = read(&self.store);
            // What is new comes after all that was heard of before.
            listed.0.heard = listed.0.heard.max(store.heard);
            store.known(&invocation).map(|known| Known {
                uid: known.uid.clone(),
                ..*known
            })
        };
        listed.0.insert(invocation, known);
    }

    /// Puts what was listed in the place of all.
    pub fn replace(&self, listed: Listed) {
        let mut next = listed.0;
        let mut store = write(&self.store);
        next.heard = next.heard.max(store.heard);
        let before = std::mem::replace(&mut *store, next);
        drop(store);
        drop(before);
    }
}

impl Store {
    fn known(&self, invocation: &OpenInvocation) -> Option<&Known> {
        let known = self
            .devices
            .get(&invocation.device)?
            .known
            .get(&invocation.name)?;
        (known.uid == invocation.uid).then_some(known)
    }

    /// `before`: what was known of it elsewhere.
    fn insert(&mut self, invocation: OpenInvocation, before: Option<Known>) {
        self.heard += 1;
        let heard = self.heard;
        let of = self.devices.entry(invocation.device.clone()).or_default();
        if of
            .known
            .get(&invocation.name)
            .is_some_and(|known| known.uid != invocation.uid)
        {
            // Deleted and made anew between two events.
            let (device, name) = (invocation.device.clone(), invocation.name.clone());
            self.remove(&device, &name);
        }
        let of = self.devices.entry(invocation.device.clone()).or_default();
        let known = of.known.entry(invocation.name.clone()).or_insert_with(|| {
            before.unwrap_or_else(|| Known {
                uid: invocation.uid.clone(),
                order: (invocation.created, heard),
                seen: Instant::now(),
            })
        });
        let (order, seen) = (known.order, known.seen);
        let namespace = invocation.device.namespace.clone();
        let forgotten = of.place(order, seen, invocation);
        let crowd = self
            .namespaces
            .entry(namespace)
            .or_insert_with(|| Crowd::new(MAX_OPEN_PER_NAMESPACE));
        crowd.insert(order);
        if let Some(forgotten) = forgotten {
            crowd.remove(forgotten);
        }
    }

    fn remove(&mut self, device: &DeviceKey, name: &str) {
        let Some(of) = self.devices.get_mut(device) else {
            return;
        };
        let removed = of.remove(name);
        if of.known.is_empty() {
            self.devices.remove(device);
        }
        if let Some(order) = removed
            && let Some(crowd) = self.namespaces.get_mut(&device.namespace)
        {
            crowd.remove(order);
            if crowd.is_empty() {
                self.namespaces.remove(&device.namespace);
            }
        }
    }
}

impl OfDevice {
    /// Returns which one is forgotten in its place.
    fn place(&mut self, order: Order, seen: Instant, invocation: OpenInvocation) -> Option<Order> {
        // Nothing overtakes what is older and not kept.
        let is_older_than_others = self
            .others
            .first_key_value()
            .is_none_or(|(other, _)| order <= *other);
        let is_older_than_last = self
            .kept
            .last_key_value()
            .is_some_and(|(last, _)| order <= *last);
        if is_older_than_last || (is_older_than_others && self.kept.len() < MOST_KEPT) {
            self.others.remove(&order);
            let invocation = Arc::new(invocation);
            self.kept
                .insert(order, Arc::new(Entry { invocation, seen }));
            if self.kept.len() > MOST_KEPT
                && let Some((order, entry)) = self.kept.pop_last()
            {
                self.others.insert(order, entry.invocation.name.clone());
            }
        } else {
            self.others.insert(order, invocation.name);
        }
        if self.others.len() <= MOST_NAMED {
            return None;
        }
        let (order, name) = self.others.pop_last()?;
        self.known.remove(&name);
        Some(order)
    }

    /// Returns the place that it had.
    fn remove(&mut self, name: &str) -> Option<Order> {
        let Known { order, .. } = self.known.remove(name)?;
        self.kept.remove(&order);
        self.others.remove(&order);
        Some(order)
    }

    fn next_other(&self) -> Option<&String> {
        let (_, name) = self.others.first_key_value()?;
        (self.kept.len() < MOST_KEPT).then_some(name)
    }
}

/// A set is whole whenever a panic may have come.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::fixtures::{at, invocation_object};

    fn invocation(name: &str, created: i64) -> OpenInvocation {
        let mut object = invocation_object(at(created));
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(format!("uid-of-{name}"));
        OpenInvocation::read(object).unwrap()
    }

    fn lamp() -> DeviceKey {
        DeviceKey::new("kitchen", "lamp-1")
    }

    fn names(invocations: &Invocations) -> Vec<String> {
        let of = invocations.of(&lamp());
        of.entries
            .iter()
            .map(|entry| entry.invocation.name.clone())
            .collect()
    }

    fn list(invocations: &Invocations, all: Vec<OpenInvocation>) {
        let mut listed = Listed::default();
        for invocation in all {
            invocations.list(&mut listed, invocation);
        }
        invocations.replace(listed);
    }

    #[tokio::test]
    async fn they_come_in_the_order_of_creation_and_then_of_hearing() {
        let invocations = Invocations::default();
        for (name, created) in [("late", 9), ("b", 5), ("a", 5), ("early", 1)] {
            invocations.insert(invocation(name, created));
        }
        assert_eq!(names(&invocations), ["early", "b", "a", "late"]);
        invocations.insert(invocation("b", 5));
        assert_eq!(
            names(&invocations),
            ["early", "b", "a", "late"],
            "a new version keeps its place"
        );
        list(
            &invocations,
            vec![invocation("a", 5), invocation("b", 5), invocation("new", 2)],
        );
        assert_eq!(names(&invocations), ["new", "b", "a"], "and so does a list");
        list(
            &invocations,
            ["c", "d", "e", "a", "b"]
                .map(|name| invocation(name, 5))
                .into(),
        );
        assert_eq!(
            names(&invocations),
            ["b", "a", "c", "d", "e"],
            "what is new comes last within a second"
        );
    }

    #[tokio::test]
    async fn one_that_was_made_anew_under_the_same_name_is_another_one() {
        let invocations = Invocations::default();
        invocations.insert(invocation("a", 1));
        let mut anew = invocation("a", 2);
        anew.uid = "uid-2".to_owned();
        invocations.insert(anew);
        assert_eq!(names(&invocations), ["a"]);
        assert!(invocations.find(&lamp(), "uid-2").is_some());
        assert!(invocations.find(&lamp(), "uid-of-a").is_none());
    }

    #[tokio::test]
    async fn a_device_without_any_costs_nothing() {
        let invocations = Invocations::default();
        invocations.insert(invocation("a", 1));
        invocations.remove(&lamp(), "a");
        let store = read(&invocations.store);
        assert!(store.devices.is_empty() && store.namespaces.is_empty());
    }

    #[tokio::test]
    async fn what_is_beyond_a_bound_is_so_until_there_is_room() {
        let invocations = Invocations::default();
        let bed = |number: usize| {
            let mut other = invocation(&format!("b{number}"), 1);
            other.device = DeviceKey::new("kitchen", format!("bed-{}", number / 200));
            other
        };
        for number in 0..MAX_OPEN_PER_NAMESPACE - 2 {
            invocations.insert(bed(number));
        }
        for (name, created) in [("a", 2), ("b", 3), ("c", 4)] {
            invocations.insert(invocation(name, created));
        }
        let excess = || {
            let of = invocations.of(&lamp());
            [0, 1, 2].map(|place| of.excess(place))
        };
        assert_eq!(excess(), [None, None, Some(Excess::OfNamespace)]);
        invocations.insert(bed(MAX_OPEN_PER_NAMESPACE));
        let beyond = Some(Excess::OfNamespace);
        assert_eq!(excess(), [None, beyond, beyond], "what is older is before");
        for number in [0, 1] {
            let gone = bed(number);
            invocations.remove(&gone.device, &gone.name);
        }
        assert_eq!(excess(), [None, None, None]);

        let of = too_many().of(&lamp());
        assert_eq!(of.excess(MAX_OPEN_PER_DEVICE - 1), None);
        assert_eq!(of.excess(MAX_OPEN_PER_DEVICE), Some(Excess::OfDevice));
    }

    /// `MOST_KEPT` and ten more, the newest first.
    fn too_many() -> Invocations {
        let invocations = Invocations::default();
        for number in (0..MOST_KEPT + 10).rev() {
            let created = i64::try_from(number).unwrap();
            invocations.insert(invocation(&format!("n{number}"), created));
        }
        invocations
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_are_kept_and_the_others_follow_in_their_order() {
        let invocations = too_many();
        let oldest: Vec<String> = (0..MOST_KEPT).map(|number| format!("n{number}")).collect();
        assert_eq!(names(&invocations), oldest);
        assert!(invocations.wanted().now_or_never().is_none(), "no room");

        invocations.remove(&lamp(), "n3");
        // It must not overtake those that are not kept.
        invocations.insert(invocation("newest", 10_000));
        assert_eq!(names(&invocations).len(), MOST_KEPT - 1);
        assert_eq!(invocations.wanted().now_or_never(), Some(vec![lamp()]));
        let next = format!("n{MOST_KEPT}");
        assert_eq!(invocations.next_other(&lamp()), Some(next.clone()));
        invocations.insert(invocation(&next, i64::try_from(MOST_KEPT).unwrap()));
        assert_eq!(names(&invocations).last(), Some(&next));
        assert_eq!(invocations.next_other(&lamp()), None);
    }

    #[tokio::test]
    async fn one_that_is_not_kept_is_forgotten_when_it_ends() {
        let invocations = too_many();
        invocations.remove(&lamp(), &format!("n{MOST_KEPT}"));
        invocations.remove(&lamp(), "n0");
        let next = format!("n{}", MOST_KEPT + 1);
        assert_eq!(invocations.next_other(&lamp()), Some(next));
    }

    #[tokio::test]
    async fn the_names_of_those_that_are_not_kept_are_bounded() {
        let invocations = Invocations::default();
        for number in 0..MOST_KEPT + MOST_NAMED + 5 {
            let created = i64::try_from(number).unwrap();
            invocations.insert(invocation(&format!("n{number}"), created));
        }
        let store = read(&invocations.store);
        let of = &store.devices[&lamp()];
        assert_eq!(
            (of.kept.len(), of.others.len(), of.known.len()),
            (MOST_KEPT, MOST_NAMED, MOST_KEPT + MOST_NAMED)
        );
    }
}
