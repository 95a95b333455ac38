//! Where the gateways are reached, from their Leases.

use std::{collections::BTreeMap, sync::RwLock};

use crds::names::ADVERTISE_ANNOTATION;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;

use super::{read, write};

/// Most addresses that a device is told.
const MAX_ADDRESSES: usize = 64;
/// Longest address that is passed on.
const MAX_ADDRESS: usize = 253 + 6;

/// Gateways by the name of their Lease.
#[derive(Default)]
pub struct Gateways(RwLock<BTreeMap<String, Gateway>>);

/// A gateway as its Lease shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gateway {
    pub name: String,
    advertise: String,
    /// It counts as gone from then on.
    expires: Timestamp,
}

impl Gateway {
    /// `None` for a Lease that says nothing of use.
    pub fn read(lease: Lease) -> Option<Self> {
        let spec = lease.spec?;
        let duration = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds?));
        let advertise = lease.metadata.annotations?.remove(ADVERTISE_ANNOTATION)?;
        (!advertise.is_empty() && advertise.len() <= MAX_ADDRESS).then_some(())?;
        Some(Self {
            name: lease.metadata.name?,
            advertise,
            // Twice as long as it is valid: a device loses little by an address where nobody answers, and much by the
            // lack of one because clocks differ.
            expires: spec.renew_time?.0.checked_add(duration * 2).ok()?,
        })
    }
}

impl Gateways {
    /// Where the live gateways are reached, `own` first.
    pub fn addresses(&self, own: &str, now: Timestamp) -> Vec<String> {
        let gateways = read(&self.0);
        let others = gateways
            .values()
            .filter(|gateway| gateway.expires > now && gateway.advertise != own)
            .map(|gateway| gateway.advertise.clone());
        std::iter::once(own.to_owned())
            .chain(others)
            .take(MAX_ADDRESSES)
            .collect()
    }

    /// Whether a gateway is the first of those that live. Of what one of them does, that one does it.
    pub fn leads(&self, name: &str, now: Timestamp) -> bool {
        let gateways = read(&self.0);
        let first = gateways.values().find(|gateway| gateway.expires > now);
        first.is_some_and(|first| first.name == name)
    }

    pub fn insert(&self, gateway: Gateway) {
        write(&self.0).insert(gateway.name.clone(), gateway);
    }

    pub fn remove(&self, name: &str) {
        write(&self.0).remove(name);
    }

    /// Puts these in the place of all.
    pub fn replace(&self, gateways: impl IntoIterator<Item = Gateway>) {
        *write(&self.0) = gateways
            .into_iter()
            .map(|gateway| (gateway.name.clone(), gateway))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::fixtures::at;

    fn gateway(name: &str, renewed: i64) -> Option<Gateway> {
        Gateway::read(
            serde_json::from_value(json!({
                "metadata": { "name": name, "annotations": { ADVERTISE_ANNOTATION: format!("{name}:7443") } },
                "spec": { "leaseDurationSeconds": 15, "renewTime": format!("{:.6}", at(renewed)) },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn a_device_is_told_of_this_gateway_first_and_of_those_that_live() {
        let gateways = Gateways::default();
        gateways.replace(
            [("b", 100), ("a", 100), ("own", 100), ("dead", 60)]
                .map(|(n, t)| gateway(n, t).unwrap()),
        );
        assert_eq!(
            gateways.addresses("own:7443", at(110)),
            ["own:7443", "a:7443", "b:7443"]
        );
        assert!(gateways.leads("a", at(110)) && !gateways.leads("b", at(110)));
        gateways.remove("a");
        assert!(gateways.leads("b", at(110)) && !gateways.leads("dead", at(110)));
        assert_eq!(
            gateways.addresses("own:7443", at(110)),
            ["own:7443", "b:7443"]
        );
        assert_eq!(
            Gateways::default().addresses("own:7443", at(110)),
            ["own:7443"]
        );
    }

    #[test]
    fn a_lease_without_an_address_is_passed_over() {
        let lease = json!({"metadata": {"name": "a"}, "spec": {"leaseDurationSeconds": 15}});
        assert_eq!(Gateway::read(serde_json::from_value(lease).unwrap()), None);
    }
}
