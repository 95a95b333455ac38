//! Where the gateways are reached, and whether others may take one for gone, from their Leases.
//!
//! Another gateway lives while its Lease is seen to change ([`crds::lease`]): no Lease keeps an address in the list that
//! devices get, or its writer first among the gateways, for longer than that.

use std::{collections::BTreeMap, sync::RwLock};

use crds::{lease::Beat, names::ADVERTISE_ANNOTATION};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use super::{read, write};
use crate::domain::invocation::{Moment, OpenInvocation};

/// Most gateways that are kept: the oldest of them. Who may write Leases can write any number.
const MAX_GATEWAYS: usize = 256;
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
    beat: Beat,
    /// What the Lease says; the own one says it by this clock.
    renewed: Moment,
    /// Past it, whoever heard of that renewal soon may take it for gone before the news of the next one arrives.
    late: Timestamp,
    /// The last renewal that was late.
    back: Option<Moment>,
}

impl Gateway {
    /// `before`: what was known of it. `None` for a Lease that says nothing of use.
    pub fn read(lease: Lease, before: Option<&Self>, now: Timestamp) -> Option<Self> {
        let beat = Beat::read(&lease, before.map(|before| &before.beat), now);
        lease.spec.as_ref()?.lease_duration_seconds?;
        // Somebody else may have written a time in the future: that is no renewal that is still to come.
        let renewed = beat.renewed_at?.min(now);
        let advertise = lease.metadata.annotations?.remove(ADVERTISE_ANNOTATION)?;
        (!advertise.is_empty() && advertise.len() <= MAX_ADDRESS).then_some(())?;
        let renewed = Moment {
            at: renewed,
            version: lease.metadata.resource_version.unwrap_or_default(),
        };
        Some(Self {
            name: lease.metadata.name?,
            advertise,
            // A third of it is for the news.
            late: renewed.at.checked_add(beat.lasts * 2 / 3).ok()?,
            back: before.and_then(|before| {
                if renewed.at >= before.late {
                    Some(renewed.clone())
                } else {
                    before.back.clone()
                }
            }),
            renewed,
            beat,
        })
    }

    /// Twice as long as its Lease is valid: a device loses little by an address where nobody answers, and much by the
    /// lack of one that was read late.
    fn is_live(&self, now: Timestamp) -> bool {
        self.beat.is_within(self.beat.lasts * 2, now)
    }
}

impl Gateways {
    /// Where the live gateways are reached, `own` first.
    pub fn addresses(&self, own: &str, now: Timestamp) -> Vec<String> {
        let gateways = read(&self.0);
        let others = gateways
            .values()
            .filter(|gateway| gateway.is_live(now) && gateway.advertise != own)
            .map(|gateway| gateway.advertise.clone());
        std::iter::once(own.to_owned())
            .chain(others)
            .take(MAX_ADDRESSES)
            .collect()
    }

    /// Whether a gateway is the first of those that live. Of what one of them does, that one does it.
    pub fn leads(&self, name: &str, now: Timestamp) -> bool {
        let gateways = read(&self.0);
        let first = gateways.values().find(|gateway| gateway.is_live(now));
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

    /// Takes in a Lease that was made or changed.
    pub fn insert(&self, lease: Lease, now: Timestamp) {
        let mut gateways = write(&self.0);
        let Some(name) = lease.metadata.name.clone() else {
            return;
        };
        let before = gateways.get(&name);
        if before.is_none() && gateways.len() >= MAX_GATEWAYS {
            return;
        }
        if let Some(gateway) = Gateway::read(lease, before, now) {
            gateways.insert(name, gateway);
        }
    }

    pub fn remove(&self, name: &str) {
        write(&self.0).remove(name);
    }

    /// Puts these in the place of all.
    pub fn replace(&self, mut leases: Vec<Lease>, now: Timestamp) {
        leases.sort_by_key(|lease| {
            let created = lease.metadata.creation_timestamp.as_ref();
            created.map_or(Timestamp::MAX, |time| time.0)
        });
        let mut known = write(&self.0);
        *known = leases
            .into_iter()
            .filter_map(|lease| {
                let before = known.get(lease.metadata.name.as_ref()?);
                Gateway::read(lease, before, now)
            })
            .take(MAX_GATEWAYS)
            .map(|gateway| (gateway.name.clone(), gateway))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::fixtures::{at, invocation_object};

    fn lease(name: &str, renewed: i64) -> Lease {
        serde_json::from_value(json!({
            "metadata": { "name": name, "annotations": { ADVERTISE_ANNOTATION: format!("{name}:7443") } },
            "spec": { "leaseDurationSeconds": 15, "renewTime": format!("{:.6}", at(renewed)) },
        }))
        .unwrap()
    }

    #[test]
    fn a_device_is_told_of_this_gateway_first_and_of_those_that_live() {
        let gateways = Gateways::default();
        let leases = [("b", 100), ("a", 100), ("own", 100), ("dead", 60)];
        gateways.replace(leases.map(|(name, at)| lease(name, at)).into(), at(100));
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
        let renewal = |version: &str, renewed| {
            let mut lease = lease("own", renewed);
            lease.metadata.resource_version = Some(version.to_owned());
            lease
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
            gateways.insert(renewal("10", 100), at(100));
            gateways.insert(renewal("20", 105), at(105));
            assert!(!gone(&made("15", 103), 114));
            assert!(gone(&made("21", 106), 115), "it is late");
            let back = renewal("40", 130);
            if by_list {
                gateways.replace(vec![back], at(130));
            } else {
                gateways.insert(back, at(130));
            }
            gateways.insert(renewal("50", 135), at(135));
            assert!(gone(&made("30", 120), 136));
            assert!(gone(&made("39", 131), 136), "its clock is behind");
            assert!(!gone(&made("41", 131), 136));
        }
    }

    #[test]
    fn a_lease_without_an_address_is_passed_over() {
        let lease = json!({"metadata": {"name": "a"}, "spec": {"leaseDurationSeconds": 15}});
        let lease = serde_json::from_value(lease).unwrap();
        assert_eq!(Gateway::read(lease, None, at(0)), None);
    }

    #[test]
    fn a_lease_that_claims_decades_or_the_future_is_of_no_gateway_that_lives() {
        let gateways = Gateways::default();
        let mut decades = lease("a-decades", 100);
        decades.spec.as_mut().unwrap().lease_duration_seconds = Some(1_000_000_000);
        let future = lease("a-future", 1_000_000_000);
        gateways.replace(vec![decades, future, lease("own", 100)], at(100));
        assert!(gateways.leads("a-decades", at(110)));
        let later = 100 + 2 * i64::from(crds::lease::MAX_LEASE_SECONDS);
        gateways.insert(lease("own", later), at(later));
        assert!(gateways.leads("own", at(later)));
        assert_eq!(gateways.addresses("own:7443", at(later)), ["own:7443"]);
    }

    #[test]
    fn a_time_in_the_future_that_somebody_wrote_into_the_own_lease_hides_no_delay() {
        let gateways = Gateways::default();
        gateways.insert(lease("own", 1_000_000_000), at(100));
        let mut made = invocation_object(at(100));
        made.metadata.resource_version = Some("1".to_owned());
        let made = OpenInvocation::read(made).unwrap();
        assert!(gateways.may_have_been_gone("own", &made, at(111)));
    }

    #[test]
    fn more_leases_than_gateways_that_anybody_has_are_not_kept() {
        let gateways = Gateways::default();
        let many = (0..1000).map(|number| lease(&format!("gateway-{number}"), 100));
        gateways.replace(many.collect(), at(100));
        gateways.insert(lease("one-more", 100), at(100));
        assert_eq!(read(&gateways.0).len(), MAX_GATEWAYS);
        // Those that are known are renewed.
        gateways.insert(lease("gateway-0", 200), at(200));
        assert!(gateways.leads("gateway-0", at(200)));
    }
}
