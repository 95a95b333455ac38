//! Every Device, trimmed.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use super::{read, write};
use crate::domain::device::{DeviceKey, KnownDevice};

/// Devices by namespace and name.
#[derive(Default)]
pub struct Devices(RwLock<HashMap<DeviceKey, Arc<KnownDevice>>>);

impl Devices {
    pub fn get(&self, key: &DeviceKey) -> Option<Arc<KnownDevice>> {
        read(&self.0).get(key).cloned()
    }

    /// Those for which the predicate holds.
    pub fn filter(&self, mut predicate: impl FnMut(&KnownDevice) -> bool) -> Vec<Arc<KnownDevice>> {
        read(&self.0)
            .values()
            .filter(|device| predicate(device))
            .cloned()
            .collect()
    }

    pub fn insert(&self, device: KnownDevice) {
        write(&self.0).insert(device.key.clone(), Arc::new(device));
    }

    pub fn remove(&self, key: &DeviceKey) {
        write(&self.0).remove(key);
    }

    /// Puts these in the place of all.
    pub fn replace(&self, devices: impl IntoIterator<Item = KnownDevice>) {
        let next = devices
            .into_iter()
            .map(|device| (device.key.clone(), Arc::new(device)))
            .collect();
        // The old map is dropped after the lock.
        let _before = std::mem::replace(&mut *write(&self.0), next);
    }
}
