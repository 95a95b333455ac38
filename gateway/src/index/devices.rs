//! Every Device, trimmed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::sync::Notify;

use super::{read, write};
use crate::domain::device::{DeviceKey, KnownDevice};

/// Devices by namespace and name.
#[derive(Default)]
pub struct Devices {
    known: RwLock<HashMap<DeviceKey, Arc<KnownDevice>>>,
    /// Those that somebody follows, who is told when something is heard of them.
    followed: Mutex<HashMap<DeviceKey, Arc<Notify>>>,
}

/// Hears of one device, until it is dropped. There is one for a device at most.
pub struct Following<'a> {
    devices: &'a Devices,
    key: &'a DeviceKey,
    heard: Arc<Notify>,
}

impl Devices {
    pub fn get(&self, key: &DeviceKey) -> Option<Arc<KnownDevice>> {
        read(&self.known).get(key).cloned()
    }

    /// Those for which the predicate holds.
    pub fn filter(&self, mut predicate: impl FnMut(&KnownDevice) -> bool) -> Vec<Arc<KnownDevice>> {
        read(&self.known)
            .values()
            .filter(|device| predicate(device))
            .cloned()
            .collect()
    }

    pub fn insert(&self, device: KnownDevice) {
        let key = device.key.clone();
        write(&self.known).insert(key.clone(), Arc::new(device));
        self.tell(&key);
    }

    pub fn remove(&self, key: &DeviceKey) {
        write(&self.known).remove(key);
        self.tell(key);
    }

    /// Puts these in the place of all.
    pub fn replace(&self, devices: impl IntoIterator<Item = KnownDevice>) {
        let next = devices
            .into_iter()
            .map(|device| (device.key.clone(), Arc::new(device)))
            .collect();
        // The old map is dropped after the lock.
        let _before = std::mem::replace(&mut *write(&self.known), next);
        for heard in self.followed().values() {
            heard.notify_one();
        }
    }

    /// Follows a device, which need not be known; `None` while somebody else does.
    pub fn follow<'a>(&'a self, key: &'a DeviceKey) -> Option<Following<'a>> {
        let heard = Arc::new(Notify::new());
        let mut followed = self.followed();
        if followed.contains_key(key) {
            return None;
        }
        followed.insert(key.clone(), Arc::clone(&heard));
        Some(Following {
            devices: self,
            key,
            heard,
        })
    }

    fn tell(&self, key: &DeviceKey) {
        if let Some(heard) = self.followed().get(key) {
            heard.notify_one();
        }
    }

    /// A panic leaves it whole, as [`read`] says.
    fn followed(&self) -> MutexGuard<'_, HashMap<DeviceKey, Arc<Notify>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following<'_> {
    /// Returns when something was heard since the last time; at once where it was meanwhile.
    pub async fn changed(&self) {
        self.heard.notified().await;
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.devices.followed().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;
    use crate::domain::fixtures::minimal_device;

    #[tokio::test]
    async fn who_follows_a_device_hears_of_it_and_of_no_other() {
        let devices = Devices::default();
        let lamp = minimal_device().key;
        let following = devices.follow(&lamp).unwrap();
        assert!(devices.follow(&lamp).is_none(), "one follows at a time");

        let mut other = minimal_device();
        other.key = DeviceKey::new("kitchen", "fan");
        devices.insert(other);
        assert!(poll!(Box::pin(following.changed())).is_pending());
        devices.insert(minimal_device());
        following.changed().await;
        devices.remove(&lamp);
        following.changed().await;
        devices.replace([minimal_device()]);
        following.changed().await;

        drop(following);
        assert!(devices.follow(&lamp).is_some());
    }
}
