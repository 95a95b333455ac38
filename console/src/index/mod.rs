//! What the console knows of the cluster: watches that feed stores, which are read without asking the API server.
//!
//! - [`devices`](Index::inventory): every Device;
//! - [`recent`]: the newest invocations and events of each device;
//! - [`requests`]: pairing requests;
//! - [`instances`]: the Leases of gateways and operators;
//! - [`followers`]: who waits for an invocation.
//!
//! [`watch`] feeds them, with the gateway's rights; a store is changed first, then the change is told. While the API
//! server is away, what was known last is shown.
//!
//! Everything is bounded: by the number of Devices, and where somebody else could make many, by constants. What is left
//! out by them can be read from the API server, with the caller's own rights, where a route does that.

mod device_feed;
mod event_feed;
mod feeds;
mod followers;
mod instances;
mod invocation_feed;
mod recent;
mod request_feed;
mod requests;
mod watch;

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use console_api::{
    ObjectId,
    inventory::{Action, DeviceDetail, Instance, Inventory},
};
use jiff::Timestamp;
use tokio::{
    sync::watch as channel,
    time::{Instant, timeout_at},
};

use self::{
    event_feed::DeviceEvent, followers::Followers, instances::Instances,
    invocation_feed::RecentInvocation, recent::Recent, requests::Requests,
};
use crate::{
    changes::Changes,
    inventory::{
        Around, At, Devices, Filter, Known, Name, Page, PageError, Paged, See, detail, page,
        withheld,
    },
    registry::Permission,
};

pub use self::{feeds::start, followers::Following};

/// Most pending requests that the inventory shows.
const MAX_PENDING_SHOWN: usize = 100;

/// See the [module](self).
#[derive(Default)]
pub struct Index {
    devices: RwLock<Devices>,
    /// The version of devices that was reached.
    reached: channel::Sender<u64>,
    invocations: RwLock<Recent<RecentInvocation>>,
    events: RwLock<Recent<DeviceEvent>>,
    requests: RwLock<Requests>,
    instances: RwLock<Instances>,
    followers: Followers,
    changes: Changes,
    filled: Filled,
}

/// Which stores were filled once. Events are not waited for: where the gateway may not watch them, devices are shown
/// without.
#[derive(Debug, Default)]
struct Filled {
    devices: AtomicBool,
    invocations: AtomicBool,
    requests: AtomicBool,
    instances: AtomicBool,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

impl Index {
    /// Whether every store was filled once. Until then nothing can be said about what is not in them.
    pub fn is_synced(&self) -> bool {
        let Filled {
            devices,
            invocations,
            requests,
            instances,
        } = &self.filled;
        [devices, invocations, requests, instances]
            .into_iter()
            .all(|filled| filled.load(Ordering::Acquire))
    }

    /// A page of the inventory. `scope`: a namespace; absent, all of them.
    ///
    /// # Errors
    /// For a cursor that is none of these filters, and where this gateway is [behind](PageError::Behind) the one that
    /// gave it: [`Index::heard_of`] waits for that.
    pub fn inventory(
        &self,
        scope: Option<&str>,
        filter: &Filter,
        asked: &Page,
        see: See,
        now: Timestamp,
    ) -> Result<Inventory, PageError> {
        // Before anything is read: what changes meanwhile is told of again, and not missed.
        let head = self.changes.head();
        let Paged {
            mut summary,
            devices,
            next,
        } = page(&read(&self.devices), scope, filter, asked)?;
        let is_first = asked.cursor.is_none();
        let (mut pending_pairings, mut left_out) = (Vec::new(), Vec::new());
        if see.pairings {
            let requests = read(&self.requests);
            summary.pending_pairings = requests.count_pending(scope);
            if is_first {
                pending_pairings = requests.pending(scope, MAX_PENDING_SHOWN);
            }
        } else {
            left_out.push(withheld("pendingPairings", Permission::PairingRead));
            left_out.push(withheld("summary.pendingPairings", Permission::PairingRead));
        }
        Ok(Inventory {
            summary,
            devices: devices.iter().map(|device| device.record()).collect(),
            next_cursor: next.map(|next| next.to_string()),
            event_id: is_first.then(|| head.to_string()),
            pending_pairings,
            instances: if is_first {
                self.instances(now)
            } else {
                Vec::new()
            },
            withheld: left_out,
        })
    }

    /// Waits until this gateway has heard of what others have shown on the pages before, or until that moment.
    pub async fn heard_of(&self, asked: &Page, until: Instant) {
        let Some(cursor) = asked.cursor.as_ref() else {
            return;
        };
        if let At::CatchUp(_) = cursor.at {
            let mut reached = self.reached.subscribe();
            // It is looked at again by who shows the page.
            let _ = timeout_at(until, reached.wait_for(|reached| *reached >= cursor.need)).await;
        }
    }

    /// A device, as it is known.
    pub fn device(&self, id: &ObjectId) -> Option<Arc<Known>> {
        read(&self.devices).get(&id.into()).cloned()
    }

    /// How many devices are known.
    pub fn count_devices(&self) -> usize {
        read(&self.devices).len()
    }

    /// All that is known of a device. `actions`: what the caller may do with it.
    pub fn detail(
        &self,
        id: &ObjectId,
        see: See,
        actions: Vec<Action>,
        now: Timestamp,
    ) -> Option<DeviceDetail> {
        let device = self.device(id)?;
        let name = &device.name;
        let around = Around {
            pairings: see
                .pairings
                .then(|| read(&self.requests).of_device(name, &device.public_key_sha256)),
            recent_invocations: see.invocations.then(|| {
                read(&self.invocations)
                    .of(name)
                    .map(RecentInvocation::summary)
                    .collect()
            }),
            events: see.events.then(|| {
                read(&self.events)
                    .of(name)
                    .map(DeviceEvent::record)
                    .collect()
            }),
        };
        Some(detail(&device, around, actions, now))
    }

    /// What runs Fairlead.
    pub fn instances(&self, now: Timestamp) -> Vec<Instance> {
        read(&self.instances).at(now)
    }

    /// What changes.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Follows an invocation, which need not be known. Begin before it is read from the API server: what happens to it
    /// from now on is heard of.
    pub fn follow_invocation(&self, id: &ObjectId) -> Following<'_> {
        self.followers.follow(Name::from(id))
    }
}

/// A panic while a lock is held leaves a store that is as good as one that missed a change: the watch that panicked has
/// ended, and so has the process.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// See [`read`].
fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
