//! Every Device.

use std::sync::{Arc, atomic::Ordering};

use console_api::event::{ConsoleEvent, Gone};
use crds::{Device, Guarded};

use super::{
    Index, read,
    watch::{Feed, valid},
    write,
};
use crate::{
    changes::{Change, Kind},
    inventory::{Devices, Interner, Known, Name},
    record,
};

/// Most changes that are told one by one when a list finds them. Beyond it, to resync is less.
pub const MAX_FOUND: usize = 1024;

/// Feeds the devices.
pub struct DeviceFeed {
    index: Arc<Index>,
    interner: Interner,
    listed: Devices,
}

impl DeviceFeed {
    pub fn new(index: Arc<Index>) -> Self {
        Self {
            index,
            interner: Interner::default(),
            listed: Devices::default(),
        }
    }

    fn known(&mut self, object: Guarded<Device>) -> Option<Known> {
        Known::read(&valid(object)?, &mut self.interner)
    }

    /// It is not there any more, or cannot be read.
    fn remove(&self, object: &Guarded<Device>, version: u64) {
        let before = name(object).and_then(|name| {
            let mut devices = write(&self.index.devices);
            devices.reached(version);
            devices.remove(&name)
        });
        match before {
            Some(before) => self
                .index
                .changes
                .tell(Kind::Device, version, gone(&before)),
            None => self.index.changes.reached(Kind::Device, version),
        }
        self.index.reached.send_replace(version);
    }
}

impl Feed for DeviceFeed {
    type Object = Guarded<Device>;

    const KIND: &'static str = "Device";

    fn begin_list(&mut self) {
        self.listed = Devices::default();
    }

    fn listed(&mut self, object: Self::Object) {
        if let Some(device) = self.known(object) {
            let known = read(&self.index.devices).get(&device.name).cloned();
            self.listed.insert_listed(device, known.as_ref());
        }
    }

    fn end_list(&mut self, version: u64) {
        let mut next = std::mem::take(&mut self.listed);
        next.reached(version);
        let before = {
            let mut devices = write(&self.index.devices);
            std::mem::replace(&mut *devices, next)
        };
        let is_first = !self.index.filled.devices.swap(true, Ordering::AcqRel);
        let found = {
            let devices = read(&self.index.devices);
            (!is_first && before.seen() <= version).then(|| compare(&before, &devices))
        };
        match found.filter(|found| found.len() <= MAX_FOUND) {
            Some(found) => self.index.changes.tell_found(Kind::Device, version, found),
            None => self.index.changes.begin(Kind::Device, version),
        }
        self.index.reached.send_replace(version);
    }

    fn applied(&mut self, object: Self::Object, version: u64) {
        let Guarded(Ok(device)) = &object else {
            // Says why.
            self.remove(&object, version);
            valid(object);
            return;
        };
        let Some(device) = Known::read(device, &mut self.interner) else {
            return;
        };
        let device = {
            let mut devices = write(&self.index.devices);
            devices.insert(device)
        };
        self.index
            .changes
            .tell(Kind::Device, version, changed(&device));
        self.index.reached.send_replace(version);
    }

    fn gone(&mut self, object: &Self::Object, version: u64) {
        self.remove(object, version);
    }

    fn reached(&mut self, version: u64) {
        write(&self.index.devices).reached(version);
        self.index.changes.reached(Kind::Device, version);
        self.index.reached.send_replace(version);
    }
}

fn name(object: &Guarded<Device>) -> Option<Name> {
    let metadata = kube::Resource::meta(object);
    Some(Name::from(&record::id(metadata)?))
}

fn changed(device: &Known) -> Change {
    Change {
        namespace: Arc::clone(&device.name.namespace),
        event: ConsoleEvent::DeviceChanged(Box::new(device.record())),
    }
}

fn gone(device: &Known) -> Change {
    Change {
        namespace: Arc::clone(&device.name.namespace),
        event: ConsoleEvent::DeviceDeleted(Gone { id: device.id() }),
    }
}

/// What is there now and was not so before, in the order of versions, then what is gone.
fn compare(before: &Devices, now: &Devices) -> Vec<Change> {
    let version = |devices: &Devices, name: &Name| devices.get(name).map(|device| device.version);
    let mut new: Vec<_> = now
        .by_name(None, None)
        .filter(|device| version(before, &device.name) != Some(device.version))
        .collect();
    new.sort_by_key(|device| device.version);
    let gone_ones = before
        .by_name(None, None)
        .filter(|device| now.get(&device.name).is_none())
        .map(|device| gone(device));
    new.into_iter()
        .map(|device| changed(device))
        .chain(gone_ones)
        .collect()
}
