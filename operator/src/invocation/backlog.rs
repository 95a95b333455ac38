//! How many invocations are open, by device and by namespace, and which of them are too many.
//!
//! Whoever may create can create without end. The oldest keep their places; the newest beyond the bounds are ended, so
//! that no gateway must hold more of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crds::{
    CapabilityInvocation,
    names::{MAX_OPEN_PER_DEVICE, MAX_OPEN_PER_NAMESPACE},
};
use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use crate::watch::Guard;

/// The open invocations that were seen.
#[derive(Debug, Default)]
pub struct Backlog(Mutex<Open>);

/// Whether an invocation may be open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    Within,
    /// Older ones of its device fill all places.
    BeyondDevice,
    /// Older ones of its namespace fill all places.
    BeyondNamespace,
}

type Reference = ObjectRef<Guard<CapabilityInvocation>>;

impl Backlog {
    /// Takes in what was seen of an invocation; nothing, where it is gone or has ended. Returns whom to look at: it, and
    /// those that it pushed out of their places.
    pub fn note(
        &self,
        reference: &Reference,
        seen: Option<&Guard<CapabilityInvocation>>,
    ) -> Vec<Reference> {
        let namespace = reference.namespace.clone().unwrap_or_default();
        let mut open = self.open();
        let mut woken = vec![reference.clone()];
        match seen.map(|seen| &seen.0) {
            Some(Ok(invocation)) => {
                let pushed_out = open.keep(Place::of(invocation));
                woken.extend(
                    pushed_out
                        .into_iter()
                        .filter(|name| *name != reference.name)
                        .map(|name| ObjectRef::new(&name).within(&namespace)),
                );
            }
            // What cannot be read is ended anyway.
            Some(Err(_)) | None => open.forget(&namespace, &reference.name),
        }
        woken
    }

    /// Whether it may be open.
    pub fn standing(&self, invocation: &CapabilityInvocation) -> Standing {
        self.open().standing(&Place::of(invocation))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The order in which places are given: by the moment of creation, then by name.
type Turn = (Timestamp, String);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    namespace: String,
    device: String,
    turn: Turn,
}

impl Place {
    fn of(invocation: &CapabilityInvocation) -> Self {
        let created = invocation.metadata.creation_timestamp.as_ref();
        Self {
            namespace: invocation.namespace().unwrap_or_default(),
            device: invocation.spec.device_ref.name.clone(),
            turn: (
                created.map_or(Timestamp::MAX, |time| time.0),
                invocation.name_any(),
            ),
        }
    }
}

#[derive(Debug, Default)]
struct Open {
    /// By namespace and name.
    places: HashMap<(String, String), Place>,
    /// By namespace and device.
    of_devices: HashMap<(String, String), BTreeSet<Turn>>,
    of_namespaces: HashMap<String, BTreeSet<Turn>>,
}

impl Open {
    /// Returns the names of the first ones that have no place now.
    fn keep(&mut self, place: Place) -> Vec<String> {
        let Place {
            namespace,
            device,
            turn,
        } = place.clone();
        // Another one of that name may have been made since.
        self.forget(&namespace, &turn.1);
        self.places
            .insert((namespace.clone(), turn.1.clone()), place);
        let of_device = self
            .of_devices
            .entry((namespace.clone(), device))
            .or_default();
        of_device.insert(turn.clone());
        let of_namespace = self.of_namespaces.entry(namespace).or_default();
        of_namespace.insert(turn);
        let mut out = Vec::new();
        out.extend(first_beyond(of_device, MAX_OPEN_PER_DEVICE));
        out.extend(first_beyond(of_namespace, MAX_OPEN_PER_NAMESPACE));
        out.into_iter().map(|(_, name)| name.clone()).collect()
    }

    fn forget(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(place) = self.places.remove(&key) else {
            return;
        };
        let device = (place.namespace.clone(), place.device);
        take_out(&mut self.of_devices, &device, &place.turn);
        take_out(&mut self.of_namespaces, &place.namespace, &place.turn);
    }

    fn standing(&self, place: &Place) -> Standing {
        let device = (place.namespace.clone(), place.device.clone());
        let is_beyond = |open: Option<&BTreeSet<Turn>>, most| {
            open.and_then(|open| first_beyond(open, most))
                .is_some_and(|first| place.turn >= *first)
        };
        if is_beyond(self.of_devices.get(&device), MAX_OPEN_PER_DEVICE) {
            Standing::BeyondDevice
        } else if is_beyond(
            self.of_namespaces.get(&place.namespace),
            MAX_OPEN_PER_NAMESPACE,
        ) {
            Standing::BeyondNamespace
        } else {
            Standing::Within
        }
    }
}

fn first_beyond(open: &BTreeSet<Turn>, most: usize) -> Option<&Turn> {
    (open.len() > most).then(|| open.iter().nth(most)).flatten()
}

fn take_out<K: Eq + std::hash::Hash>(sets: &mut HashMap<K, BTreeSet<Turn>>, key: &K, turn: &Turn) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(turn);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{CapabilityInvocationSpec, ObjectReference};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn invocation(name: &str, device: &str, second: i64) -> CapabilityInvocation {
        let spec = CapabilityInvocationSpec {
            device_ref: ObjectReference::new(device),
            ..CapabilityInvocationSpec::default()
        };
        let mut invocation = CapabilityInvocation::new(name, spec);
        invocation.metadata.namespace = Some("kitchen".to_owned());
        invocation.metadata.creation_timestamp = Some(Time(
            Timestamp::from_second(1_800_000_000 + second).unwrap(),
        ));
        invocation
    }

    /// Who is looked at.
    fn note(backlog: &Backlog, invocation: &CapabilityInvocation) -> Vec<String> {
        let reference = ObjectRef::new(&invocation.name_any()).within("kitchen");
        let woken = backlog.note(&reference, Some(&Guard(Ok(invocation.clone()))));
        woken.into_iter().map(|woken| woken.name).collect()
    }

    fn gone(backlog: &Backlog, name: &str) {
        backlog.note(&ObjectRef::new(name).within("kitchen"), None);
    }

    #[test]
    fn the_newest_beyond_what_a_device_may_have_are_too_many() {
        let backlog = Backlog::default();
        let all: Vec<_> = (0..258)
            .map(|second| invocation(&format!("i{second}"), "lamp", second))
            .collect();
        for invocation in &all {
            assert_eq!(note(&backlog, invocation)[0], invocation.name_any());
        }
        let standing = |number: usize| backlog.standing(&all[number]);
        assert_eq!(standing(0), Standing::Within);
        assert_eq!(standing(255), Standing::Within);
        assert_eq!(standing(256), Standing::BeyondDevice);
        assert_eq!(standing(257), Standing::BeyondDevice);
        let other = invocation("other", "kettle", 999);
        note(&backlog, &other);
        assert_eq!(backlog.standing(&other), Standing::Within);
        gone(&backlog, "i0");
        assert_eq!(standing(256), Standing::Within, "a place became free");
        assert_eq!(standing(257), Standing::BeyondDevice);
    }

    #[test]
    fn who_is_pushed_out_of_its_place_is_looked_at_again() {
        let backlog = Backlog::default();
        for number in 0..256 {
            note(&backlog, &invocation(&format!("m{number:03}"), "lamp", 0));
        }
        // Made in the same second, and first by name.
        let first = invocation("a", "lamp", 0);
        assert_eq!(note(&backlog, &first), ["a", "m255"]);
        assert_eq!(backlog.standing(&first), Standing::Within);
        let last = backlog.standing(&invocation("m255", "lamp", 0));
        assert_eq!(last, Standing::BeyondDevice);
        assert_eq!(note(&backlog, &invocation("z", "lamp", 9)), ["z", "m255"]);
    }

    #[test]
    fn a_namespace_is_bounded_over_all_of_its_devices() {
        let backlog = Backlog::default();
        let all: Vec<_> = (0..4097)
            .map(|number| invocation(&format!("i{number}"), &format!("d{}", number % 40), number))
            .collect();
        for invocation in &all {
            note(&backlog, invocation);
        }
        assert_eq!(backlog.standing(&all[4095]), Standing::Within);
        assert_eq!(backlog.standing(&all[4096]), Standing::BeyondNamespace);
        let mut elsewhere = all[4096].clone();
        elsewhere.metadata.namespace = Some("garden".to_owned());
        assert_eq!(backlog.standing(&elsewhere), Standing::Within);
    }

    #[test]
    fn what_was_seen_twice_has_one_place_and_what_is_gone_has_none() {
        let backlog = Backlog::default();
        for _ in 0..300 {
            note(&backlog, &invocation("one", "lamp", 1));
            note(&backlog, &invocation("one", "lamp", 2));
        }
        assert_eq!(backlog.open().of_devices.len(), 1);
        gone(&backlog, "one");
        gone(&backlog, "one");
        let open = backlog.open();
        assert!(open.places.is_empty() && open.of_devices.is_empty());
        assert!(open.of_namespaces.is_empty());
    }
}
