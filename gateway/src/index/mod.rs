//! What the gateway knows of the cluster: three watches that feed three stores, read without asking the API server.
//!
//! - [`devices`]: every Device;
//! - [`invocations`]: every open invocation, by device; `crowd`: those of a namespace;
//! - [`gateways`]: the Leases of the gateways.
//!
//! [`watch`] feeds them. The stores say what changed and hand out what is; they decide nothing and write nothing.

mod crowd;
pub mod devices;
pub mod gateways;
pub mod invocations;
pub mod watch;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::domain::device::DeviceKey;

/// What a store heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Changed<'a> {
    /// Something about this device.
    Device(&'a DeviceKey),
    /// Perhaps everything: the watch began anew.
    Everything,
}

/// Told of every change, after the store has it. Must not block.
pub type Listener = Arc<dyn Fn(Changed<'_>) + Send + Sync>;

/// The three stores.
#[derive(Default)]
pub struct Index {
    pub devices: devices::Devices,
    pub invocations: invocations::Invocations,
    pub gateways: gateways::Gateways,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// A panic while the lock is held leaves a map that is whole: each change is one insert, remove or swap.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// See [`read`].
fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
