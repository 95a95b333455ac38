//! Which gateways live, by their Leases, and who must be woken when one dies or comes back.
//!
//! A Lease that runs out makes no event: a timer stands in for it. Renewals wake nobody.

use std::{collections::HashMap, pin::pin};

use crds::presence::GatewayLease;
use futures::{
    SinkExt as _, StreamExt as _,
    channel::mpsc::{Receiver, Sender, channel},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::now,
    watch::{Guard, readable},
};

/// More gateways than anybody has: bounds what waits for a listener.
const QUEUE: usize = 64;

/// The Leases of the gateways.
#[derive(Clone)]
pub struct Gateways {
    leases: Store<Guard<Lease>>,
    namespace: String,
}

impl Gateways {
    pub fn new(leases: Store<Guard<Lease>>, namespace: String) -> Self {
        Self { leases, namespace }
    }

    /// What is known of the Lease of a gateway.
    pub fn lease(&self, gateway: &str, now: Timestamp) -> GatewayLease {
        readable(&self.leases, gateway, &self.namespace)
            .map_or(GatewayLease::Absent, |lease| judge(&lease, now))
    }
}

fn judge(lease: &Lease, now: Timestamp) -> GatewayLease {
    let (renewed_at, duration) = terms(lease);
    GatewayLease::judge(renewed_at, duration, now)
}

fn terms(lease: &Lease) -> (Option<Timestamp>, i64) {
    let spec = lease.spec.as_ref();
    let renewed_at = spec
        .and_then(|spec| spec.renew_time.as_ref())
        .map(|time| time.0);
    let duration = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or(crds::names::GATEWAY_LEASE_SECONDS);
    // A Lease is written by whoever may: no duration may make time overflow.
    (renewed_at, i64::from(duration).clamp(1, 3600))
}

/// Notices when gateways die and come back.
#[derive(Default)]
pub struct Wake {
    listeners: Vec<Sender<String>>,
    seen: Seen,
}

impl Wake {
    /// The name of every gateway that dies or comes back from now on.
    pub fn listen(&mut self) -> Receiver<String> {
        let (sender, receiver) = channel(QUEUE);
        self.listeners.push(sender);
        receiver
    }

    /// Looks at each Lease that is touched, and at all when one runs out; until told to stop.
    pub async fn run(
        mut self,
        store: Store<Guard<Lease>>,
        touched: Receiver<ObjectRef<Guard<Lease>>>,
        stop: CancellationToken,
    ) {
        let mut touched = pin!(touched.take_until(stop.cancelled_owned()));
        loop {
            let until = self.seen.next_end().map(|end| wait(end, now()));
            tokio::select! {
                object = touched.next() => if object.is_none() { return },
                () = tokio::time::sleep(until.unwrap_or_default()), if until.is_some() => {}
            }
            let leases: Vec<Lease> = store
                .state()
                .iter()
                .filter_map(|lease| lease.0.as_ref().ok().cloned())
                .collect();
            for gateway in self.seen.look(&leases, now()) {
                tracing::info!(gateway, "A gateway came or went");
                for listener in &mut self.listeners {
                    let _ = listener.send(gateway.clone()).await;
                }
            }
        }
    }
}

/// How long until a moment; never so short that a clock that is read coarsely makes a loop.
fn wait(until: Timestamp, now: Timestamp) -> std::time::Duration {
    let left = until
        .duration_since(now)
        .max(SignedDuration::from_millis(20));
    left.unsigned_abs()
}

/// The ends of the Leases that were live when they were last looked at.
#[derive(Debug, Default)]
struct Seen(HashMap<String, Timestamp>);

impl Seen {
    fn next_end(&self) -> Option<Timestamp> {
        self.0.values().min().copied()
    }

    /// Returns the gateways that came or went since the last look.
    fn look(&mut self, leases: &[Lease], now: Timestamp) -> Vec<String> {
        let live: HashMap<String, Timestamp> = leases
            .iter()
            .filter(|lease| judge(lease, now) == GatewayLease::Live)
            .filter_map(|lease| {
                let (renewed_at, duration) = terms(lease);
                Some((
                    lease.name_any(),
                    renewed_at?
                        .checked_add(SignedDuration::from_secs(duration))
                        .ok()?,
                ))
            })
            .collect();
        let mut changed: Vec<String> = self
            .0
            .keys()
            .filter(|name| !live.contains_key(*name))
            .cloned()
            .collect();
        changed.extend(
            live.keys()
                .filter(|name| !self.0.contains_key(*name))
                .cloned(),
        );
        changed.sort();
        self.0 = live;
        changed
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime,
    };

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn lease(name: &str, renewed: i64) -> Lease {
        let mut lease = Lease {
            spec: Some(LeaseSpec {
                renew_time: Some(MicroTime(at(renewed))),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        lease.metadata.name = Some(name.to_owned());
        lease
    }

    #[test]
    fn only_the_coming_and_going_of_a_gateway_wakes() {
        let mut seen = Seen::default();
        assert_eq!(
            seen.look(&[lease("a", 0), lease("b", 0)], at(1)),
            ["a", "b"]
        );
        assert_eq!(seen.next_end(), Some(at(15)));
        assert_eq!(
            seen.look(&[lease("a", 5), lease("b", 5)], at(5)),
            [""; 0],
            "a renewal"
        );
        assert_eq!(seen.next_end(), Some(at(20)));
        assert_eq!(
            seen.look(&[lease("a", 10), lease("b", 5)], at(21)),
            ["b"],
            "ran out"
        );
        assert_eq!(seen.look(&[lease("a", 20), lease("b", 5)], at(22)), [""; 0]);
        assert_eq!(
            seen.look(&[lease("a", 20), lease("b", 23)], at(23)),
            ["b"],
            "came back"
        );
        assert_eq!(
            seen.look(&[lease("b", 23)], at(24)),
            ["a"],
            "stopped in good order"
        );
    }

    #[test]
    fn a_lease_without_terms_is_of_no_gateway_that_lives() {
        let mut bare = Lease::default();
        bare.metadata.name = Some("a".to_owned());
        assert_eq!(judge(&bare, at(0)), GatewayLease::Absent);
        let mut absurd = lease("a", 0);
        absurd.spec.as_mut().unwrap().lease_duration_seconds = Some(-5);
        assert_eq!(
            judge(&absurd, at(2)),
            GatewayLease::Expired { renewed_at: at(0) }
        );
    }
}
