//! What changes, for who follows it: one bounded ring that all subscribers walk, each with its own place in it.
//!
//! ```text
//! watches ─→ Changes::tell ─→ ring ←─ Subscriber::next ─→ (id, event)
//! ```
//!
//! Nothing is kept for a subscriber but its place: one that reads slowly costs nothing, and when the ring has gone on
//! without it, it is told to `resync`. Changes of one kind are told in the order of their versions.
//!
//! An [`EventId`] says up to which version of each kind its bearer has been told. Versions are the cluster's, not the
//! gateway's, so it is good at every gateway: there, what is newer is told. Where the ring does not reach back that far,
//! it is told to `resync` first; where a gateway is behind the one that gave the id, by milliseconds as a rule, it goes on
//! when this one has caught up. Versions of one kind can be compared (KEP-5504; before it, they were etcd's revisions).
//!
//! A change is told as text that was written once, whoever follows.

mod event_id;
mod ring;
mod subscriber;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use console_api::event::ConsoleEvent;
use tokio::sync::watch;

use ring::Ring;

pub use event_id::{BadEventId, EventId, Kind};
pub use ring::Bounds;
pub use subscriber::{Subscriber, Told};

use crate::inventory::See;

/// What a client sends as `Last-Event-ID`.
pub type LastEventId = EventId;

/// What changes.
pub struct Changes {
    shared: Arc<Shared>,
}

struct Shared {
    ring: RwLock<Ring>,
    /// Moves with every change: who waits looks again.
    moved: watch::Sender<()>,
}

/// A change.
#[derive(Clone, Debug)]
pub struct Change {
    pub namespace: Arc<str>,
    pub event: ConsoleEvent,
}

impl Default for Changes {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

impl Changes {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            shared: Arc::new(Shared {
                ring: RwLock::new(Ring::new(bounds)),
                moved: watch::Sender::new(()),
            }),
        }
    }

    /// Follows what changes in a namespace, or everywhere, of what the caller may see. Devices are told of always.
    ///
    /// `from`: what the client has been told of, somewhere. Without it, what comes from now on is told.
    pub fn subscribe(
        &self,
        from: Option<LastEventId>,
        scope: Option<String>,
        see: See,
    ) -> Subscriber {
        Subscriber::new(Arc::clone(&self.shared), from, scope, see)
    }

    /// Up to where everything is told. What is read after this is at least as new.
    pub fn head(&self) -> EventId {
        self.shared.read().head()
    }

    /// Something changed, at that version.
    pub fn tell(&self, kind: Kind, version: u64, change: Change) {
        self.shared.write().tell(kind, version, vec![change]);
        self.shared.moved.send_replace(());
    }

    /// What changed up to that version, found by comparing. Not known one by one is when.
    pub fn tell_found(&self, kind: Kind, version: u64, changes: Vec<Change>) {
        self.shared.write().tell(kind, version, changes);
        self.shared.moved.send_replace(());
    }

    /// There was no change up to that version but those that were told.
    pub fn reached(&self, kind: Kind, version: u64) {
        // Nobody is woken: it only moves where a reader at the head goes on from.
        self.shared.write().reached(kind, version);
    }

    /// All is as it is at that version, and what changed before is not known: who follows must resync.
    pub fn begin(&self, kind: Kind, version: u64) {
        self.shared.write().begin(kind, version);
        self.shared.moved.send_replace(());
    }
}

/// A panic while the lock is held leaves a ring that is whole, or one of which some subscribers miss a change that the
/// panicking watch did not tell of either.
impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Ring> {
        self.ring.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
