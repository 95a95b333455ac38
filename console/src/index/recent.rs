//! The newest few of what belongs to a device.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use crate::inventory::Name;

/// Most that are kept of a device.
pub const MAX_OF_ONE: usize = 10;
/// Most that are kept altogether. Beyond it, a device has what it has: its newest takes the place of its oldest.
pub const MAX_OF_ALL: usize = 200_000;

/// Something that belongs to a device.
pub trait Belongs {
    fn name(&self) -> &Name;
    fn device(&self) -> Name;
    fn at(&self) -> Option<Timestamp>;
    fn version(&self) -> u64;
}

/// Things by name, the newest of each device.
#[derive(Debug)]
pub struct Recent<T> {
    known: BTreeMap<Name, Arc<T>>,
    of: HashMap<Name, BTreeSet<Age>>,
    /// Whether there was something that was not kept: a list that is compared with this finds what is new, and not all
    /// that is gone.
    left_out: bool,
}

/// Within a moment, by name. A device's things are in its namespace.
type Age = (Option<Timestamp>, Arc<str>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            of: HashMap::new(),
            left_out: false,
        }
    }
}

impl<T: Belongs> Recent<T> {
    pub fn has_left_out(&self) -> bool {
        self.left_out
    }

    /// Those of a device, the newest first.
    pub fn of<'a>(&'a self, device: &'a Name) -> impl Iterator<Item = &'a T> + 'a {
        let ages = self.of.get(device).into_iter().flatten().rev();
        ages.filter_map(|(_, name)| {
            let name = Name::new(Arc::clone(&device.namespace), Arc::clone(name));
            self.known.get(&name).map(|thing| &**thing)
        })
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.known.values()
    }

    pub fn get(&self, name: &Name) -> Option<&Arc<T>> {
        self.known.get(name)
    }

    pub fn insert(&mut self, thing: Arc<T>) {
        self.remove(thing.name());
        let device = thing.device();
        let age = (thing.at(), Arc::clone(&thing.name().name));
        let is_full = self.known.len() >= MAX_OF_ALL;
        let of = self.of.get(&device);
        if is_full || of.is_some_and(|of| of.len() >= MAX_OF_ONE) {
            self.left_out = true;
            let oldest = of.and_then(BTreeSet::first);
            let Some((_, oldest)) = oldest.filter(|oldest| **oldest < age) else {
                return;
            };
            let oldest = Name::new(Arc::clone(&device.namespace), Arc::clone(oldest));
            self.remove(&oldest);
        }
        self.of.entry(device).or_default().insert(age);
        self.known.insert(thing.name().clone(), thing);
    }

    pub fn remove(&mut self, name: &Name) -> Option<Arc<T>> {
        let thing = self.known.remove(name)?;
        let device = thing.device();
        if let Some(of) = self.of.get_mut(&device) {
            of.remove(&(thing.at(), Arc::clone(&name.name)));
            if of.is_empty() {
                self.of.remove(&device);
            }
        }
        Some(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::fixtures::at;

    #[derive(Debug)]
    struct Thing {
        name: Name,
        device: &'static str,
        at: i64,
    }

    impl Belongs for Thing {
        fn name(&self) -> &Name {
            &self.name
        }

        fn device(&self) -> Name {
            Name::new(Arc::clone(&self.name.namespace), self.device)
        }

        fn at(&self) -> Option<Timestamp> {
            Some(at(self.at))
        }

        fn version(&self) -> u64 {
            0
        }
    }

    fn thing(device: &'static str, name: i64, at: i64) -> Arc<Thing> {
        let name = Name::new("a", name.to_string());
        Arc::new(Thing { name, device, at })
    }

    fn of(recent: &Recent<Thing>, device: &str) -> Vec<String> {
        let device = Name::new("a", device);
        recent
            .of(&device)
            .map(|thing| thing.name.name.to_string())
            .collect()
    }

    #[test]
    fn the_newest_are_kept() {
        let mut recent = Recent::default();
        recent.insert(thing("other", 99, 0));
        for n in (5..17).chain(0..5) {
            recent.insert(thing("lamp", n, n));
        }
        let expected: Vec<_> = (7..17).rev().map(|n| n.to_string()).collect();
        assert_eq!(of(&recent, "lamp"), expected);
        assert_eq!(of(&recent, "other"), ["99"]);
        assert!(recent.has_left_out());
    }

    #[test]
    fn what_changes_changes_its_place() {
        let mut recent = Recent::default();
        recent.insert(thing("lamp", 1, 1));
        recent.insert(thing("lamp", 2, 2));
        recent.insert(thing("lamp", 1, 3));
        assert_eq!(of(&recent, "lamp"), ["1", "2"]);
        // Deleted and made anew, for another device.
        recent.insert(thing("fan", 1, 4));
        assert_eq!(
            (of(&recent, "lamp"), of(&recent, "fan")),
            (vec!["2".to_owned()], vec!["1".to_owned()])
        );
        recent.remove(&Name::new("a", "1"));
        recent.remove(&Name::new("a", "2"));
        assert!(recent.of.is_empty() && recent.known.is_empty() && !recent.has_left_out());
    }
}
