//! Where the gateways are reached, and whether others may take one for gone, from their Leases.

use std::{collections::BTreeMap, sync::RwLock};

use crds::names::ADVERTISE_ANNOTATION;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;

use super::{read, write};
use crate::domain::invocation::{Moment, OpenInvocation};

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
    renewed: Moment,
    /// Past it, whoever heard of that renewal soon may take it for gone before the news of the next one arrives.
    late: Timestamp,
    /// The last renewal that was late.
    back: Option<Moment>,
}

impl Gateway {
    /// `None` for a Lease that says nothing of use.
    pub fn read(lease: Lease) -> Option<Self> {
        let spec = lease.spec?;
        let renewed = spec.renew_time?.0;
        let duration = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds?));
        let advertise = lease.metadata.annotations?.remove(ADVERTISE_ANNOTATION)?;
        (!advertise.is_empty() && advertise.len() <= MAX_ADDRESS).then_some(())?;
        Some(Self {
            name: lease.metadata.name?,
            advertise,
            // Twice as long as it is valid: a device loses little by an address where nobody answers, and much by the
            // lack of one because clocks differ.
            expires: renewed.checked_add(duration * 2).ok()?,
            renewed: Moment {
                at: renewed,
                version: lease.metadata.resource_version.unwrap_or_default(),
            },
            // A third of it is for the news.
            late: renewed.checked_add(duration * 2 / 3).ok()?,
            back: None,
        })
    }

    /// The same, after what was known before.
    fn after(mut self, known: &BTreeMap<String, Self>) -> Self {
        self.back = known.get(&self.name).and_then(|before| {
            if self.renewed.at >= before.late {
                Some(self.renewed.clone())
            } else {
                before.back.clone()
            }
        });
        self
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

    /// Whether somebody may have taken this gateway for gone since the invocation was made, or does so now: it stood still,
    /// or its Lease could not be renewed. It wrote the times of its renewals itself, so one clock counts. `false` where
    /// its Lease was never seen.
    pub fn may_have_been_gone(
        &self,
        own: &str,
        invocation: &OpenInvocation,
        now: Timestamp,
    ) -> bool {
        read(&self.0).get(own).is_some_and(|gateway| {
            let back = gateway.back.as_ref();
            gateway.late <= now || back.is_some_and(|back| invocation.may_be_older_than(back))
        })
    }

    pub fn insert(&self, gateway: Gateway) {
        let mut gateways = write(&self.0);
        let gateway = gateway.after(&gateways);
        gateways.insert(gateway.name.clone(), gateway);
    }

    pub fn remove(&self, name: &str) {
        write(&self.0).remove(name);
    }

    /// Puts these in the place of all.
    pub fn replace(&self, gateways: impl IntoIterator<Item = Gateway>) {
        let mut known = write(&self.0);
        *known = gateways
            .into_iter()
            .map(|gateway| (gateway.name.clone(), gateway.after(&known)))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::fixtures::{at, invocation_object};

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
    fn a_gateway_that_renews_late_may_have_been_taken_for_gone_before() {
        let renewal = |version: &str, renewed| Gateway {
            renewed: Moment {
                at: at(renewed),
                version: version.to_owned(),
            },
            ..gateway("own", renewed).unwrap()
        };
        let made = |version: &str, seconds| {
            let mut made = invocation_object(at(seconds));
            made.metadata.resource_version = Some(version.to_owned());
            OpenInvocation::read(made).unwrap()
        };
        for by_list in [false, true] {
            let gateways = Gateways::default();
            let gone = |made: &_, now| gateways.may_have_been_gone("own", made, at(now));
            assert!(!gone(&made("11", 100), 100), "its Lease is not seen yet");
            gateways.insert(renewal("10", 100));
            gateways.insert(renewal("20", 105));
            assert!(!gone(&made("15", 103), 114));
            assert!(gone(&made("21", 106), 115), "it is late");
            let back = renewal("40", 130);
            if by_list {
                gateways.replace([back]);
            } else {
                gateways.insert(back);
            }
            gateways.insert(renewal("50", 135));
            assert!(gone(&made("30", 120), 136));
            assert!(gone(&made("39", 131), 136), "its clock is behind");
            assert!(!gone(&made("41", 131), 136));
        }
    }

    #[test]
    fn a_lease_without_an_address_is_passed_over() {
        let lease = json!({"metadata": {"name": "a"}, "spec": {"leaseDurationSeconds": 15}});
        assert_eq!(Gateway::read(serde_json::from_value(lease).unwrap()), None);
    }
}
