//! The operator in the world: its own plan for invocations, on what its watches brought so far.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::GATEWAY_LEASE_SECONDS;
use crds::presence::GatewayLease;
use crds::v1alpha1::CapabilityInvocationStatus;
use crds::{CapabilityInvocation, Device};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use operator::invocation::backlog::Standing;
use operator::invocation::departed::Absence;
use operator::invocation::plan::{self, Change, Observed, Target};

use super::api::{self, Kind, Object};

/// One process, from its start to its death.
pub struct Operator {
    pub life: u32,
    /// Changes that it has seen.
    pub seen: usize,
    devices: BTreeMap<String, Device>,
    invocations: BTreeMap<String, CapabilityInvocation>,
    /// Those to look at.
    touched: BTreeSet<String>,
    /// When to look again though nothing is heard.
    look_at: BTreeMap<String, Timestamp>,
    since: Timestamp,
    /// The last renewal of each gateway's Lease that it saw, and whether it saw it happen.
    leases: BTreeMap<String, (Timestamp, bool)>,
    /// Since when it sees, by its own clock; absent while the API server is away.
    sight: Option<Timestamp>,
}

/// An end that it wants to write onto a version.
pub struct Write {
    pub name: String,
    pub version: String,
    pub status: Box<CapabilityInvocationStatus>,
}

impl Operator {
    pub fn begin(life: u32, now: Timestamp, leases: impl Iterator<Item = String>) -> Self {
        Self {
            life,
            seen: 0,
            devices: BTreeMap::new(),
            invocations: BTreeMap::new(),
            touched: BTreeSet::new(),
            look_at: BTreeMap::new(),
            since: now,
            leases: leases.map(|gateway| (gateway, (now, false))).collect(),
            sight: Some(now),
        }
    }

    /// Sees a change.
    pub fn see(&mut self, change: api::Change) {
        let name = change.key.1;
        match (change.key.0, change.object) {
            (Kind::Device, Object::Device(device)) => {
                let of = self.invocations.iter();
                let of = of.filter(|(_, invocation)| invocation.spec.device_ref.name == name);
                self.touched.extend(of.map(|(name, _)| name.clone()));
                self.devices.insert(name, Device::clone(&device));
            }
            (Kind::Invocation, Object::Invocation(invocation)) => {
                let status = invocation.status.as_ref();
                if status.is_some_and(|status| status.phase.is_terminal()) {
                    self.invocations.remove(&name);
                    self.look_at.remove(&name);
                } else {
                    let invocation = CapabilityInvocation::clone(&invocation);
                    self.invocations.insert(name.clone(), invocation);
                    self.touched.insert(name);
                }
            }
            (Kind::Device, Object::Invocation(_)) | (Kind::Invocation, Object::Device(_)) => {}
        }
    }

    /// Sees a Lease renewed.
    pub fn renewed(&mut self, gateway: &str, now: Timestamp) {
        self.leases.insert(gateway.to_owned(), (now, true));
    }

    /// The API server went away, or came back.
    pub fn sight(&mut self, since: Option<Timestamp>) {
        if let Some(since) = since {
            self.since = since;
            self.touched.extend(self.invocations.keys().cloned());
        }
        self.sight = since;
    }

    /// As the operator's `gateways` judges.
    fn lease(&self, gateway: &str, now: Timestamp) -> GatewayLease {
        let Some((seen, happened)) = self.leases.get(gateway).copied() else {
            return GatewayLease::Absent;
        };
        let Some(sight) = self.sight else {
            return GatewayLease::Unknown;
        };
        let lasts = SignedDuration::from_secs(i64::from(GATEWAY_LEASE_SECONDS));
        match (now >= seen.max(sight) + lasts, happened) {
            (true, _) => GatewayLease::Expired { renewed_at: seen },
            (false, true) => GatewayLease::Live,
            (false, false) => GatewayLease::Unknown,
        }
    }

    /// Looks at what is to be looked at.
    pub fn work(&mut self, now: Timestamp) -> Vec<Write> {
        let due = self.look_at.iter().filter(|(_, at)| **at <= now);
        let mut look: BTreeSet<String> = due.map(|(name, _)| name.clone()).collect();
        look.append(&mut self.touched);
        let mut writes = Vec::new();
        for name in look {
            self.look_at.remove(&name);
            let Some(invocation) = self.invocations.get(&name) else {
                continue;
            };
            let device = self.devices.get(&invocation.spec.device_ref.name);
            let lease = device
                .and_then(|device| device.status.as_ref()?.session.as_ref())
                .map_or(GatewayLease::Absent, |session| {
                    self.lease(&session.gateway, now)
                });
            let plan = plan::plan(&Observed {
                now,
                invocation: invocation.clone(),
                device: device.cloned().map_or(Target::Absent, Target::known),
                lease,
                standing: Standing::Within,
                seen_since: self.since,
                absence: Absence {
                    seen_since: self.since,
                    departure: None,
                },
            });
            // A Lease that runs out makes no event.
            let lease_at = now + SignedDuration::from_secs(1);
            let again = plan.requeue_at.map_or(lease_at, |at| at.min(lease_at));
            self.look_at.insert(name.clone(), again);
            let version = invocation.resource_version().unwrap_or_default();
            writes.extend(plan.changes.into_iter().map(|change| match change {
                Change::End(status) => Write {
                    name: name.clone(),
                    version: version.clone(),
                    status,
                },
            }));
        }
        writes
    }

    pub fn next(&self) -> Option<Timestamp> {
        self.look_at.values().min().copied()
    }
}
