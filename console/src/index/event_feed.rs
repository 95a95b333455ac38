//! Kubernetes events about devices: the newest of each.

use std::sync::Arc;

use console_api::inventory::EventRecord;
use crds::Guarded;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Resource as _;

use super::{
    Index,
    recent::{Belongs, Recent},
    watch::{Feed, valid},
    write,
};
use crate::{
    inventory::{Interner, Name},
    record,
};

/// Longest note that is kept, in characters: what writers of events are told to keep to.
const MAX_NOTE: usize = 1024;

/// An event about a device.
#[derive(Debug)]
pub struct DeviceEvent {
    name: Name,
    version: u64,
    device: Arc<str>,
    kind: Arc<str>,
    reason: Arc<str>,
    note: Arc<str>,
    reporter: Arc<str>,
    at: Option<Timestamp>,
    count: u32,
}

impl DeviceEvent {
    /// `None` for what is not about a device of its own namespace: rights to one are not rights to the other.
    fn read(event: &Event, interner: &mut Interner) -> Option<Self> {
        let metadata = &event.metadata;
        let id = record::id(metadata)?;
        let regarding = event.regarding.as_ref()?;
        let is_of_device = regarding.kind.as_deref() == Some(&*crds::Device::kind(&()))
            && regarding.api_version.as_deref() == Some(&*crds::Device::api_version(&()))
            && regarding.namespace.as_deref() == Some(id.namespace());
        if !is_of_device {
            return None;
        }
        let series = event.series.as_ref();
        let moments = [
            series.map(|series| series.last_observed_time.0),
            event.deprecated_last_timestamp.as_ref().map(|time| time.0),
            event.event_time.as_ref().map(|time| time.0),
            metadata.creation_timestamp.as_ref().map(|time| time.0),
        ];
        let count = series.map(|series| series.count).or(event.deprecated_count);
        let note: String = event
            .note
            .iter()
            .flat_map(|note| note.chars())
            .take(MAX_NOTE)
            .collect();
        let reporter = event.reporting_controller.as_deref();
        let mut text = |text: Option<&str>| interner.text(text.unwrap_or_default());
        Some(Self {
            version: metadata.resource_version.as_ref()?.parse().ok()?,
            device: text(regarding.name.as_deref()),
            kind: text(event.type_.as_deref()),
            reason: text(event.reason.as_deref()),
            note: text(Some(&note)),
            reporter: text(reporter),
            at: moments.into_iter().flatten().next(),
            count: count
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(1)
                .max(1),
            name: Name::new(text(Some(id.namespace())), id.name()),
        })
    }

    pub fn record(&self) -> EventRecord {
        EventRecord {
            kind: self.kind.to_string(),
            reason: self.reason.to_string(),
            note: self.note.to_string(),
            reporter: self.reporter.to_string(),
            at: self.at,
            count: self.count,
        }
    }
}

impl Belongs for DeviceEvent {
    fn name(&self) -> &Name {
        &self.name
    }

    fn device(&self) -> Name {
        Name::new(Arc::clone(&self.name.namespace), Arc::clone(&self.device))
    }

    fn at(&self) -> Option<Timestamp> {
        self.at
    }

    fn version(&self) -> u64 {
        self.version
    }
}

/// Feeds the events.
pub struct EventFeed {
    index: Arc<Index>,
    interner: Interner,
    listed: Recent<DeviceEvent>,
}

impl EventFeed {
    pub fn new(index: Arc<Index>) -> Self {
        Self {
            index,
            interner: Interner::default(),
            listed: Recent::default(),
        }
    }

    fn read(&mut self, object: Guarded<Event>) -> Option<Arc<DeviceEvent>> {
        DeviceEvent::read(&valid(object)?, &mut self.interner).map(Arc::new)
    }
}

impl Feed for EventFeed {
    type Object = Guarded<Event>;

    const KIND: &'static str = "Event";

    fn begin_list(&mut self) {
        self.listed = Recent::default();
    }

    fn listed(&mut self, object: Self::Object) {
        if let Some(event) = self.read(object) {
            self.listed.insert(event);
        }
    }

    fn end_list(&mut self, _version: u64) {
        let next = std::mem::take(&mut self.listed);
        let before = std::mem::replace(&mut *write(&self.index.events), next);
        drop(before);
    }

    fn applied(&mut self, object: Self::Object, _version: u64) {
        if let Some(event) = self.read(object) {
            write(&self.index.events).insert(event);
        }
    }

    fn gone(&mut self, object: &Self::Object, _version: u64) {
        if let Some(id) = record::id(object.meta()) {
            write(&self.index.events).remove(&Name::from(&id));
        }
    }
}
