//! Every open invocation, by device, in the order of creation.
//!
//! The watch's selector leaves out what has ended: an invocation that ends leaves the store.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use tokio::time::Instant;

use super::{read, write};
use crate::domain::{device::DeviceKey, invocation::OpenInvocation};

/// An open invocation.
#[derive(Debug)]
pub struct Entry {
    pub invocation: Arc<OpenInvocation>,
    /// When it was first heard of.
    pub seen: Instant,
    /// The API server's clock has whole seconds; within one, what was heard of first comes first.
    order: u64,
}

/// Open invocations.
#[derive(Default)]
pub struct Invocations(RwLock<Store>);

#[derive(Default)]
struct Store {
    devices: HashMap<DeviceKey, Vec<Arc<Entry>>>,
    heard: u64,
}

impl Invocations {
    /// Those of a device, in the order of creation.
    pub fn of(&self, device: &DeviceKey) -> Vec<Arc<Entry>> {
        read(&self.0)
            .devices
            .get(device)
            .cloned()
            .unwrap_or_default()
    }

    /// The one with that uid.
    pub fn find(&self, device: &DeviceKey, uid: &str) -> Option<Arc<Entry>> {
        let store = read(&self.0);
        store
            .devices
            .get(device)?
            .iter()
            .find(|entry| entry.invocation.uid == uid)
            .cloned()
    }

    pub fn insert(&self, invocation: OpenInvocation) {
        write(&self.0).insert(invocation);
    }

    pub fn remove(&self, device: &DeviceKey, name: &str) {
        write(&self.0).remove(device, name);
    }

    /// Puts these in the place of all.
    pub fn replace(&self, invocations: Vec<OpenInvocation>) {
        let mut store = write(&self.0);
        let before = std::mem::take(&mut store.devices);
        for invocation in invocations {
            // What was heard of before keeps its place and its moment.
            if let Some(known) = before.get(&invocation.device).and_then(|entries| {
                entries
                    .iter()
                    .find(|entry| entry.invocation.uid == invocation.uid)
            }) {
                let (seen, order) = (known.seen, known.order);
                store.place(Entry {
                    invocation: Arc::new(invocation),
                    seen,
                    order,
                });
            } else {
                store.insert(invocation);
            }
        }
    }
}

impl Store {
    fn insert(&mut self, invocation: OpenInvocation) {
        let entries = self.devices.entry(invocation.device.clone()).or_default();
        match entries
            .iter_mut()
            .find(|entry| entry.invocation.name == invocation.name)
        {
            Some(known) if known.invocation.uid == invocation.uid => {
                let (seen, order) = (known.seen, known.order);
                *known = Arc::new(Entry {
                    invocation: Arc::new(invocation),
                    seen,
                    order,
                });
                return;
            }
            // Deleted and made anew between two events.
            Some(_) => entries.retain(|entry| entry.invocation.name != invocation.name),
            None => {}
        }
        self.heard += 1;
        let (seen, order) = (Instant::now(), self.heard);
        self.place(Entry {
            invocation: Arc::new(invocation),
            seen,
            order,
        });
    }

    fn place(&mut self, entry: Entry) {
        let entries = self
            .devices
            .entry(entry.invocation.device.clone())
            .or_default();
        let key = |entry: &Entry| (entry.invocation.created, entry.order);
        let at = entries.partition_point(|other| key(other) < key(&entry));
        entries.insert(at, Arc::new(entry));
    }

    fn remove(&mut self, device: &DeviceKey, name: &str) {
        let Some(entries) = self.devices.get_mut(device) else {
            return;
        };
        entries.retain(|entry| entry.invocation.name != name);
        if entries.is_empty() {
            self.devices.remove(device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::{at, invocation_object};

    fn invocation(name: &str, created: i64) -> OpenInvocation {
        let mut object = invocation_object(at(created));
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(format!("uid-of-{name}"));
        OpenInvocation::read(object).unwrap()
    }

    fn names(invocations: &Invocations) -> Vec<String> {
        let of = invocations.of(&DeviceKey::new("kitchen", "lamp-1"));
        of.iter()
            .map(|entry| entry.invocation.name.clone())
            .collect()
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
        invocations.replace(vec![
            invocation("a", 5),
            invocation("b", 5),
            invocation("new", 2),
        ]);
        assert_eq!(names(&invocations), ["new", "b", "a"], "and so does a list");
    }

    #[tokio::test]
    async fn one_that_was_made_anew_under_the_same_name_is_another_one() {
        let invocations = Invocations::default();
        invocations.insert(invocation("a", 1));
        let mut anew = invocation("a", 2);
        anew.uid = "uid-2".to_owned();
        invocations.insert(anew);
        assert_eq!(names(&invocations), ["a"]);
        let device = DeviceKey::new("kitchen", "lamp-1");
        assert!(invocations.find(&device, "uid-2").is_some());
        assert!(invocations.find(&device, "uid-of-a").is_none());
    }

    #[tokio::test]
    async fn a_device_without_any_costs_nothing() {
        let invocations = Invocations::default();
        invocations.insert(invocation("a", 1));
        invocations.remove(&DeviceKey::new("kitchen", "lamp-1"), "a");
        assert!(read(&invocations.0).devices.is_empty());
    }
}
