//! One watch for each kind: what it sees goes into a store that everybody reads, and wakes whoever listens.
//!
//! kube's `Controller` opens a watch for each pair of controller and kind; here four loops share five watches.

use std::{
    collections::HashSet,
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

pub use crds::Guarded as Guard;

use futures::{
    SinkExt as _, StreamExt as _,
    channel::mpsc::{Receiver, Sender, channel},
};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::now;

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
    departures: Vec<Departure<K>>,
    sight: Sight,
}

type Departure<K> = Box<dyn Fn(&Guard<K>) + Send>;

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
            departures: Vec::new(),
            sight: Sight::default(),
        }
    }

    /// What was seen so far.
    pub fn store(&self) -> Store<Guard<K>> {
        self.writer.as_reader()
    }

    /// Since when it shows what happens.
    pub fn sight(&self) -> Sight {
        self.sight.clone()
    }

    /// Every object that was made, changed or deleted from now on; the store already knows.
    pub fn listen(&mut self) -> Receiver<ObjectRef<Guard<K>>> {
        let (sender, receiver) = channel(QUEUE);
        self.listeners.push(sender);
        receiver
    }

    /// Is told of every object that is deleted from now on, as it was last, before the store lacks it.
    pub fn before_delete(&mut self, told: impl Fn(&Guard<K>) + Send + 'static) {
        self.departures.push(Box::new(told));
    }

    /// Watches until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            api,
            config,
            mut writer,
            mut listeners,
            departures,
            sight,
        } = self;
        let store = writer.as_reader();
        let mut touched = Touched::default();
        let events = watcher(api, config)
            .default_backoff()
            .take_until(stop.cancelled_owned());
        let mut events = pin!(events);
        let mut sees = false;
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    // What happens from here on is not seen, whatever was seen before.
                    sight.begin();
                    sees = false;
                    let kind = K::kind(&());
                    tracing::warn!(error = &error as &dyn std::error::Error, %kind, "Watching failed");
                    continue;
                }
            };
            if let Event::Delete(object) = &event {
                for told in &departures {
                    told(object);
                }
            }
            let woken = touched.by(&event, &store);
            let listing = matches!(event, Event::Init | Event::InitApply(_));
            writer.apply_watcher_event(&event);
            if !sees && !listing {
                sight.begin();
                sees = true;
            }
            for object in woken {
                for listener in &mut listeners {
                    // A listener that is gone stops with the process.
                    let _ = listener.send(object.clone()).await;
                }
            }
        }
    }
}

/// Since when a watch has shown what happens, without a break. Whoever concludes something from silence counts from here:
/// what was not seen may have happened.
#[derive(Clone, Debug, Default)]
pub struct Sight(Arc<Mutex<Option<Moment>>>);

/// A moment, on the clock that only goes forward and on that of people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment {
    pub instant: Instant,
    pub time: jiff::Timestamp,
}

impl Moment {
    pub fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: now(),
        }
    }
}

impl Sight {
    /// `None` while nothing was seen yet.
    pub fn since(&self) -> Option<Moment> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Moment::now());
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
        Guard(Ok(device))
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
