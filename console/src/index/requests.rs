//! Pairing requests: those that wait for a decision, and those of a device.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use console_api::pairing::{RequestPhase, RequestSummary};
use crds::PairingRequest;
use jiff::Timestamp;

use crate::{inventory::Name, record};

/// Most requests that are kept. One that waits for a decision takes the place of the oldest one that does not.
pub const MAX_REQUESTS: usize = 20_000;

/// A request.
#[derive(Debug)]
pub struct Known {
    pub name: Name,
    pub version: u64,
    pub summary: RequestSummary,
}

impl Known {
    /// `None` for an object that no API server made.
    pub fn read(request: &PairingRequest) -> Option<Self> {
        let summary = record::request_summary(request)?;
        Some(Self {
            name: Name::from(&summary.id),
            version: request.metadata.resource_version.as_ref()?.parse().ok()?,
            summary,
        })
    }

    fn is_pending(&self) -> bool {
        self.summary.phase == RequestPhase::Pending
    }

    fn age(&self) -> Age {
        (self.summary.created_at, self.name.clone())
    }

    /// What connects it with a device.
    fn links(&self) -> impl Iterator<Item = Link> {
        let namespace = &self.name.namespace;
        let key = self.summary.public_key_sha256.as_deref();
        let key = key.map(|key| Link::Key(Name::new(Arc::clone(namespace), key)));
        let device = self.summary.device.as_ref();
        let device = device.map(|device| Link::Device(Name::from(device)));
        key.into_iter().chain(device)
    }
}

type Age = (Option<Timestamp>, Name);

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Link {
    Key(Name),
    Device(Name),
}

/// Requests.
#[derive(Debug, Default)]
pub struct Requests {
    known: BTreeMap<Name, Arc<Known>>,
    pending: BTreeSet<Age>,
    others: BTreeSet<Age>,
    pending_of: HashMap<Arc<str>, u64>,
    linked: HashMap<Link, BTreeSet<Age>>,
    left_out: bool,
}

impl Requests {
    pub fn has_left_out(&self) -> bool {
        self.left_out
    }

    pub fn get(&self, name: &Name) -> Option<&Arc<Known>> {
        self.known.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.known.values()
    }

    pub fn count_pending(&self, scope: Option<&str>) -> u64 {
        match scope {
            None => self.pending.len() as u64,
            Some(namespace) => self.pending_of.get(namespace).copied().unwrap_or_default(),
        }
    }

    /// Those that wait for a decision, the oldest first.
    pub fn pending(&self, scope: Option<&str>, most: usize) -> Vec<RequestSummary> {
        let of_scope = |age: &&Age| scope.is_none_or(|scope| *age.1.namespace == *scope);
        self.summaries(self.pending.iter().filter(of_scope).take(most))
    }

    /// Those of a device, the newest first.
    pub fn of_device(&self, device: &Name, public_key_sha256: &str) -> Vec<RequestSummary> {
        let key = Name::new(Arc::clone(&device.namespace), public_key_sha256);
        let links = [Link::Key(key), Link::Device(device.clone())];
        let ages: BTreeSet<_> = links
            .iter()
            .filter_map(|link| self.linked.get(link))
            .flatten()
            .collect();
        self.summaries(ages.into_iter().rev())
    }

    fn summaries<'a>(&self, ages: impl Iterator<Item = &'a Age>) -> Vec<RequestSummary> {
        ages.filter_map(|(_, name)| self.known.get(name))
            .map(|known| known.summary.clone())
            .collect()
    }

    pub fn insert(&mut self, request: Arc<Known>) {
        self.remove(&request.name);
        if self.known.len() >= MAX_REQUESTS {
            self.left_out = true;
            let oldest = self
                .others
                .first()
                .filter(|_| request.is_pending())
                .cloned();
            let Some((_, oldest)) = oldest else {
                return;
            };
            self.remove(&oldest);
        }
        if request.is_pending() {
            self.pending.insert(request.age());
            let namespace = Arc::clone(&request.name.namespace);
            *self.pending_of.entry(namespace).or_default() += 1;
        } else {
            self.others.insert(request.age());
        }
        for link in request.links() {
            self.linked.entry(link).or_default().insert(request.age());
        }
        self.known.insert(request.name.clone(), request);
    }

    pub fn remove(&mut self, name: &Name) -> Option<Arc<Known>> {
        let request = self.known.remove(name)?;
        let age = request.age();
        if self.pending.remove(&age) {
            if let Some(count) = self.pending_of.get_mut(&name.namespace) {
                *count -= 1;
                if *count == 0 {
                    self.pending_of.remove(&name.namespace);
                }
            }
        } else {
            self.others.remove(&age);
        }
        for link in request.links() {
            if let Some(ages) = self.linked.get_mut(&link) {
                ages.remove(&age);
                if ages.is_empty() {
                    self.linked.remove(&link);
                }
            }
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inventory::fixtures::at;

    fn request(namespace: &str, name: &str, created: i64, phase: &str) -> Arc<Known> {
        let request: PairingRequest = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
            "metadata": { "namespace": namespace, "name": name, "resourceVersion": "1",
                "creationTimestamp": at(created).to_string() },
            "spec": { "csr": "-", "publicKeySha256": "ab".repeat(32), "requestedName": "lamp" },
            "status": { "phase": phase, "deviceRef": { "name": "lamp" } },
        }))
        .unwrap();
        Arc::new(Known::read(&request).unwrap())
    }

    fn names(requests: &[RequestSummary]) -> Vec<String> {
        requests
            .iter()
            .map(|request| request.id.to_string())
            .collect()
    }

    #[test]
    fn the_oldest_that_waits_comes_first() {
        let mut requests = Requests::default();
        for (namespace, name, created, phase) in [
            ("a", "1", 3, "Pending"),
            ("b", "2", 2, "Pending"),
            ("a", "3", 1, "Denied"),
            ("a", "4", 2, "Pending"),
        ] {
            requests.insert(request(namespace, name, created, phase));
        }
        assert_eq!(names(&requests.pending(None, 9)), ["a.4", "b.2", "a.1"]);
        assert_eq!(names(&requests.pending(Some("a"), 1)), ["a.4"]);
        assert_eq!(
            (
                requests.count_pending(None),
                requests.count_pending(Some("a"))
            ),
            (3, 2)
        );
        requests.insert(request("a", "4", 2, "Issued"));
        requests.remove(&Name::new("b", "2"));
        assert_eq!(
            (
                requests.count_pending(None),
                requests.count_pending(Some("b"))
            ),
            (1, 0)
        );
    }

    #[test]
    fn a_device_has_the_requests_of_its_key_and_those_that_made_it() {
        let mut requests = Requests::default();
        requests.insert(request("a", "1", 1, "Denied"));
        requests.insert(request("a", "2", 2, "Issued"));
        requests.insert(request("b", "3", 3, "Issued"));
        let lamp = Name::new("a", "lamp");
        let key = "ab".repeat(32);
        assert_eq!(names(&requests.of_device(&lamp, &key)), ["a.2", "a.1"]);
        assert_eq!(names(&requests.of_device(&lamp, "another")), ["a.2", "a.1"]);
        assert_eq!(
            names(&requests.of_device(&Name::new("a", "fan"), &key)),
            ["a.2", "a.1"]
        );
        assert_eq!(
            names(&requests.of_device(&Name::new("c", "lamp"), &key)),
            Vec::<String>::new()
        );
        for name in ["1", "2"] {
            requests.remove(&Name::new("a", name));
        }
        requests.remove(&Name::new("b", "3"));
        assert!(requests.linked.is_empty() && requests.others.is_empty());
    }

    #[test]
    fn what_waits_is_kept_before_what_does_not() {
        let mut requests = Requests::default();
        for n in 0..MAX_REQUESTS {
            let phase = if n < 2 { "Denied" } else { "Pending" };
            requests.insert(request(
                "a",
                &n.to_string(),
                i64::try_from(n).unwrap(),
                phase,
            ));
        }
        assert!(!requests.has_left_out());
        requests.insert(request("b", "denied", 0, "Denied"));
        requests.insert(request("b", "pending", 0, "Pending"));
        assert!(requests.has_left_out());
        let is_there = |name: &str| requests.get(&Name::new("b", name)).is_some();
        assert!(is_there("pending") && !is_there("denied"));
        assert_eq!(requests.known.len(), MAX_REQUESTS);
        assert!(
            requests.get(&Name::new("a", "0")).is_none(),
            "the oldest made room"
        );
    }
}
