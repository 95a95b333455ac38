//! One watch for each kind: what it sees goes into a store that everybody reads, and wakes whoever listens.
//!
//! kube's `Controller` opens a watch for each pair of controller and kind; here four loops share five watches.

use std::{collections::HashSet, fmt::Debug, pin::pin};

use futures::{
    SinkExt as _, StreamExt as _,
    channel::mpsc::{Receiver, Sender, channel},
};
use kube::{
    Api, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

/// What a store holds: an object, or what can be said of one that cannot be read.
pub type Guard<K> = DeserializeGuard<K>;

/// How many objects may wait for a listener. It takes them in no time: a full queue only slows the watch down.
const QUEUE: usize = 1024;

/// A watch that was not started yet.
pub struct Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    api: Api<Guard<K>>,
    config: watcher::Config,
    writer: Writer<Guard<K>>,
    listeners: Vec<Sender<ObjectRef<Guard<K>>>>,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    pub fn new(api: Api<Guard<K>>, config: watcher::Config) -> Self {
        Self {
            api,
            config,
            writer: Writer::new(()),
            listeners: Vec::new(),
        }
    }

    /// What was seen so far.
    pub fn store(&self) -> Store<Guard<K>> {
        self.writer.as_reader()
    }

    /// Every object that was made, changed or deleted from now on; the store already knows.
    pub fn listen(&mut self) -> Receiver<ObjectRef<Guard<K>>> {
        let (sender, receiver) = channel(QUEUE);
        self.listeners.push(sender);
        receiver
    }

    /// Watches until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            api,
            config,
            mut writer,
            mut listeners,
        } = self;
        let store = writer.as_reader();
        let mut touched = Touched::default();
        let events = watcher(api, config)
            .default_backoff()
            .take_until(stop.cancelled_owned());
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let kind = K::kind(&());
                    tracing::warn!(error = &error as &dyn std::error::Error, %kind, "Watching failed");
                    continue;
                }
            };
            let woken = touched.by(&event, &store);
            writer.apply_watcher_event(&event);
            for object in woken {
                for listener in &mut listeners {
                    // A listener that is gone stops with the process.
                    let _ = listener.send(object.clone()).await;
                }
            }
        }
    }
}

/// Remembers what a list that is being read has shown.
#[derive(Debug)]
struct Touched<K: Resource<DynamicType = ()>>(HashSet<ObjectRef<Guard<K>>>);

impl<K: Resource<DynamicType = ()>> Default for Touched<K> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<K> Touched<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    /// Who is woken by an event. A list wakes all at its end, when the store has them; and those that it no longer
    /// shows, for they were deleted while nobody watched.
    fn by(&mut self, event: &Event<Guard<K>>, store: &Store<Guard<K>>) -> Vec<ObjectRef<Guard<K>>> {
        match event {
            Event::Apply(object) | Event::Delete(object) => vec![ObjectRef::from_obj(object)],
            Event::Init => {
                self.0 = store
                    .state()
                    .iter()
                    .map(|object| ObjectRef::from_obj(&**object))
                    .collect();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.0.insert(ObjectRef::from_obj(object));
                Vec::new()
            }
            Event::InitDone => std::mem::take(&mut self.0).into_iter().collect(),
        }
    }
}

/// The objects of a store that could be read.
pub fn readable<K>(store: &Store<Guard<K>>, name: &str, namespace: &str) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let object = store.get(&ObjectRef::new(name).within(namespace))?;
    object.0.as_ref().ok().cloned()
}

#[cfg(test)]
mod tests {
    use crds::Device;

    use super::*;

    fn device(name: &str) -> Guard<Device> {
        let mut device = Device::new(name, crds::v1alpha1::DeviceSpec::default());
        device.metadata.namespace = Some("kitchen".to_owned());
        DeserializeGuard(Ok(device))
    }

    #[test]
    fn a_device_that_was_deleted_while_nobody_watched_is_noticed() {
        let mut writer = Writer::new(());
        let store = writer.as_reader();
        let mut touched = Touched::default();
        let mut see = |event| {
            let mut woken: Vec<_> = touched
                .by(&event, &store)
                .into_iter()
                .map(|woken| woken.name)
                .collect();
            writer.apply_watcher_event(&event);
            woken.sort();
            woken
        };
        assert_eq!(see(Event::Init), [""; 0]);
        assert_eq!(see(Event::InitApply(device("kettle"))), [""; 0]);
        assert_eq!(see(Event::InitApply(device("lamp"))), [""; 0]);
        assert_eq!(see(Event::InitDone), ["kettle", "lamp"]);
        assert_eq!(see(Event::Apply(device("lamp"))), ["lamp"]);
        // The watch broke; the lamp was deleted and a fan was made before the next one.
        assert_eq!(see(Event::Init), [""; 0]);
        assert_eq!(see(Event::InitApply(device("kettle"))), [""; 0]);
        assert_eq!(see(Event::InitApply(device("fan"))), [""; 0]);
        assert_eq!(see(Event::InitDone), ["fan", "kettle", "lamp"]);
        assert_eq!(see(Event::Delete(device("fan"))), ["fan"]);
    }
}
