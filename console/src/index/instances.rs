//! What runs Fairlead: gateways and operators, from their Leases.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering};

use console_api::inventory::{Component, Instance};
use crds::{
    Guarded,
    lease::Beat,
    names::{ADVERTISE_ANNOTATION, COMPONENT_GATEWAY, COMPONENT_LABEL, OPERATOR_LEASE},
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;

use super::{Index, watch::Feed, write};
use crate::clock;

/// Most that are kept.
const MAX_INSTANCES: usize = 256;
/// Longest address and name that are passed on.
const MAX_TEXT: usize = 253 + 6;

/// By the name of the Lease.
#[derive(Clone, Debug, Default)]
pub struct Instances(BTreeMap<String, Seen>);

#[derive(Clone, Debug)]
struct Seen {
    component: Component,
    name: String,
    address: Option<String>,
    beat: Beat,
}

impl Instances {
    pub fn at(&self, now: Timestamp) -> Vec<Instance> {
        self.0
            .values()
            .map(|seen| Instance {
                component: seen.component,
                name: seen.name.clone(),
                live: seen.beat.is_live(now),
                address: seen.address.clone(),
                renewed_at: seen.beat.renewed_at,
            })
            .collect()
    }

    /// `before`: what was known of it.
    fn insert(&mut self, lease: Lease, before: Option<&Seen>, now: Timestamp) {
        let key = lease.name_any();
        match read(lease, before, now) {
            Some(seen) if self.0.contains_key(&key) || self.0.len() < MAX_INSTANCES => {
                self.0.insert(key, seen);
            }
            Some(_) => {}
            None => {
                self.0.remove(&key);
            }
        }
    }
}

/// `None` for a Lease of something else, and for one that nobody holds.
fn read(lease: Lease, before: Option<&Seen>, now: Timestamp) -> Option<Seen> {
    let is_gateway =
        lease.labels().get(COMPONENT_LABEL).map(String::as_str) == Some(COMPONENT_GATEWAY);
    let address = lease.annotations().get(ADVERTISE_ANNOTATION).cloned();
    let name = lease.name_any();
    let beat = Beat::read(&lease, before.map(|before| &before.beat), now);
    let spec = lease.spec?;
    spec.lease_duration_seconds?;
    let (component, name) = if is_gateway {
        (Component::Gateway, name)
    } else if name == OPERATOR_LEASE {
        (
            Component::Operator,
            spec.holder_identity.unwrap_or_default(),
        )
    } else {
        return None;
    };
    let is_short = |text: &String| !text.is_empty() && text.len() <= MAX_TEXT;
    is_short(&name).then_some(())?;
    Some(Seen {
        component,
        name,
        address: address.filter(is_short),
        beat,
    })
}

/// Feeds the instances.
pub struct InstanceFeed {
    index: Arc<Index>,
    listed: Instances,
}

impl InstanceFeed {
    pub fn new(index: Arc<Index>) -> Self {
        Self {
            index,
            listed: Instances::default(),
        }
    }
}

impl Feed for InstanceFeed {
    // Any gateway writes its own: one that cannot be read must not hide the others.
    type Object = Guarded<Lease>;

    const KIND: &'static str = "Lease";

    fn begin_list(&mut self) {
        self.listed = Instances::default();
    }

    fn listed(&mut self, object: Guarded<Lease>) {
        let Some(object) = object.readable() else {
            return;
        };
        let instances = super::read(&self.index.instances);
        let before = instances.0.get(&object.name_any());
        self.listed.insert(object, before, clock::now());
    }

    fn end_list(&mut self, _version: u64) {
        *write(&self.index.instances) = std::mem::take(&mut self.listed);
        self.index.filled.instances.store(true, Ordering::Release);
    }

    fn applied(&mut self, object: Guarded<Lease>, _version: u64) {
        let Some(object) = object.readable() else {
            return;
        };
        let mut instances = write(&self.index.instances);
        let before = instances.0.get(&object.name_any()).cloned();
        instances.insert(object, before.as_ref(), clock::now());
    }

    fn gone(&mut self, object: &Guarded<Lease>, _version: u64) {
        write(&self.index.instances).0.remove(&object.name_any());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::inventory::fixtures::at;

    fn lease(name: &str, renewed: i64) -> Lease {
        let labels: Value = if name == OPERATOR_LEASE || name == "other" {
            json!({})
        } else {
            json!({ COMPONENT_LABEL: COMPONENT_GATEWAY })
        };
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "annotations": { ADVERTISE_ANNOTATION: "gw:7443" } },
            "spec": { "holderIdentity": "op-1", "leaseDurationSeconds": 15, "renewTime": format!("{:.6}", at(renewed)) },
        }))
        .unwrap()
    }

    fn renew(instances: &mut Instances, lease: Lease, now: i64) {
        let before = instances.0.get(&lease.name_any()).cloned();
        instances.insert(lease, before.as_ref(), at(now));
    }

    fn live(instances: &Instances, now: i64) -> Vec<(String, bool)> {
        let shown = instances.at(at(now)).into_iter();
        shown
            .map(|instance| (instance.name, instance.live))
            .collect()
    }

    #[test]
    fn gateways_and_the_leading_operator_are_shown() {
        let mut instances = Instances::default();
        for name in ["gw-0", OPERATOR_LEASE, "other"] {
            renew(&mut instances, lease(name, 100), 100);
        }
        let shown = instances.at(at(101));
        let shown: Vec<_> = shown
            .iter()
            .map(|one| (one.component, one.name.as_str()))
            .collect();
        assert_eq!(
            shown,
            [(Component::Operator, "op-1"), (Component::Gateway, "gw-0")]
        );
    }

    #[test]
    fn whether_it_lives_is_told_by_when_it_is_seen_to_renew() {
        let mut instances = Instances::default();
        // Its clock is an hour behind.
        renew(&mut instances, lease("gw-0", 100), 3700);
        assert_eq!(live(&instances, 3700), [("gw-0".to_owned(), false)]);
        renew(&mut instances, lease("gw-0", 105), 3705);
        assert_eq!(live(&instances, 3719), [("gw-0".to_owned(), true)]);
        // The same Lease, heard of again, is no renewal.
        renew(&mut instances, lease("gw-0", 105), 3719);
        assert_eq!(live(&instances, 3720), [("gw-0".to_owned(), false)]);
    }

    #[test]
    fn a_lease_that_claims_decades_is_of_nobody_that_lives() {
        let mut instances = Instances::default();
        let mut claims = lease("gw-0", 1_000_000_000);
        claims.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MAX);
        renew(&mut instances, claims, 100);
        let cap = i64::from(crds::lease::MAX_LEASE_SECONDS);
        assert_eq!(live(&instances, 99 + cap), [("gw-0".to_owned(), true)]);
        assert_eq!(live(&instances, 100 + cap), [("gw-0".to_owned(), false)]);
    }
}
