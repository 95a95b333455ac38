//! Which gateways live, by their Leases, and who must be woken when one dies or comes back.
//!
//! A Lease is judged as in a leader election: by when this process saw its `renewTime` change, on a clock that only goes
//! forward. What the `renewTime` says is a gateway's clock, which may be an hour off; a gateway that renews is alive
//! whatever it thinks the time is. Nor does time count while the Leases are not seen: a gateway that could not be heard
//! is not dead.
//!
//! A Lease that runs out makes no event: a timer stands in for it. Renewals wake nobody.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::presence::GatewayLease;
use futures::{
    SinkExt as _, StreamExt as _,
    channel::mpsc::{Receiver, Sender, channel},
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::watch::{Guard, Moment, Sight, readable};

/// More gateways than anybody has: bounds what waits for a listener.
const QUEUE: usize = 64;

/// The Leases of the gateways. Cheap to clone.
#[derive(Clone)]
pub struct Gateways {
    leases: Store<Guard<Lease>>,
    sight: Sight,
    namespace: String,
    seen: Arc<Mutex<Seen>>,
}

impl Gateways {
    pub fn new(leases: Store<Guard<Lease>>, sight: Sight, namespace: String) -> Self {
        Self {
            leases,
            sight,
            namespace,
            seen: Arc::default(),
        }
    }

    /// What is known of the Lease of a gateway now.
    pub fn lease(&self, gateway: &str) -> GatewayLease {
        let Some(lease) = readable(&self.leases, gateway, &self.namespace) else {
            return GatewayLease::Absent;
        };
        let now = Moment::now();
        self.seen().see(&lease, now).judge(self.sight.since(), now)
    }

    /// The gateways that came or went since the last look.
    fn look(&self) -> Vec<String> {
        let leases: Vec<Lease> = self
            .leases
            .state()
            .iter()
            .filter_map(|lease| lease.0.as_ref().ok().cloned())
            .collect();
        self.seen().look(&leases, self.sight.since(), Moment::now())
    }

    /// When the next Lease runs out, if nobody renews it.
    fn next_end(&self) -> Option<Instant> {
        self.seen().next_end(self.sight.since())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notices when gateways die and come back.
#[derive(Default)]
pub struct Wake {
    listeners: Vec<Sender<String>>,
}

impl Wake {
    /// The name of every gateway that dies or comes back from now on.
    pub fn listen(&mut self) -> Receiver<String> {
        let (sender, receiver) = channel(QUEUE);
        self.listeners.push(sender);
        receiver
    }

    /// Looks at the Leases when one is touched, and when one runs out; until told to stop.
    pub async fn run(
        mut self,
        gateways: Gateways,
        touched: Receiver<ObjectRef<Guard<Lease>>>,
        stop: CancellationToken,
    ) {
        let mut touched = pin!(touched.take_until(stop.cancelled_owned()));
        loop {
            let until = gateways.next_end();
            tokio::select! {
                object = touched.next() => if object.is_none() { return },
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            }
            for gateway in gateways.look() {
                tracing::info!(gateway, "A gateway came or went");
                for listener in &mut self.listeners {
                    let _ = listener.send(gateway.clone()).await;
                }
            }
        }
    }
}

/// What was seen of a Lease.
#[derive(Clone, Debug)]
struct Renewals {
    /// As the gateway's clock has it: compared for change alone.
    renew_time: Option<Timestamp>,
    duration: Duration,
    /// When this renewal was first seen.
    seen: Moment,
    /// Whether it was seen to happen. What is found at the beginning may be of long ago.
    happened: bool,
    /// What was told of it last.
    told: Option<Told>,
}

/// How a Lease was judged, without its moments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Unknown,
    Live,
    Expired,
}

impl Renewals {
    fn judge(&self, sight: Option<Moment>, now: Moment) -> GatewayLease {
        let Some(renew_time) = self.renew_time else {
            return GatewayLease::Absent;
        };
        match self.end(sight) {
            Some(end) if now.instant >= end => GatewayLease::Expired {
                renewed_at: if self.happened {
                    self.seen.time
                } else {
                    // The only word on it there is. A clock that is ahead must not make the device less away.
                    renew_time.min(self.seen.time)
                },
            },
            Some(_) if self.happened => GatewayLease::Live,
            Some(_) | None => GatewayLease::Unknown,
        }
    }

    /// When it runs out. `None` while the Leases are not seen.
    fn end(&self, sight: Option<Moment>) -> Option<Instant> {
        Some(self.seen.instant.max(sight?.instant) + self.duration)
    }
}

/// What was seen of all of them.
#[derive(Debug, Default)]
struct Seen {
    renewals: HashMap<String, Renewals>,
    /// Whether the Leases that were there at the beginning were looked at.
    began: bool,
}

impl Seen {
    /// Takes in what a Lease says now.
    fn see(&mut self, lease: &Lease, now: Moment) -> &mut Renewals {
        let (renew_time, duration) = terms(lease);
        let began = self.began;
        let renewals = self
            .renewals
            .entry(lease.name_any())
            .or_insert_with(|| Renewals {
                renew_time,
                duration,
                seen: now,
                happened: began,
                told: None,
            });
        if renewals.renew_time != renew_time {
            renewals.renew_time = renew_time;
            renewals.seen = now;
            renewals.happened = true;
        }
        renewals.duration = duration;
        renewals
    }

    fn next_end(&self, sight: Option<Moment>) -> Option<Instant> {
        self.renewals
            .values()
            .filter(|renewals| renewals.told != Some(Told::Expired))
            .filter(|renewals| renewals.renew_time.is_some())
            .filter_map(|renewals| renewals.end(sight))
            .min()
    }

    /// Returns the gateways that came or went since the last look.
    fn look(&mut self, leases: &[Lease], sight: Option<Moment>, now: Moment) -> Vec<String> {
        let mut changed = Vec::new();
        for lease in leases {
            let renewals = self.see(lease, now);
            let told = match renewals.judge(sight, now) {
                GatewayLease::Live => Some(Told::Live),
                GatewayLease::Unknown => Some(Told::Unknown),
                GatewayLease::Expired { .. } => Some(Told::Expired),
                GatewayLease::Absent => None,
            };
            // What nobody can tell yet is no news.
            if renewals.told != told && told != Some(Told::Unknown) {
                changed.push(lease.name_any());
            }
            renewals.told = told;
        }
        self.began = true;
        self.renewals.retain(|name, renewals| {
            let stays = leases.iter().any(|lease| lease.name_any() == *name);
            if !stays && renewals.told != Some(Told::Expired) {
                changed.push(name.clone());
            }
            stays
        });
        changed.sort();
        changed
    }
}

fn terms(lease: &Lease) -> (Option<Timestamp>, Duration) {
    let spec = lease.spec.as_ref();
    let renew_time = spec
        .and_then(|spec| spec.renew_time.as_ref())
        .map(|time| time.0);
    (renew_time, crds::lease::lasts(lease).unsigned_abs())
}

#[cfg(test)]
mod tests;
