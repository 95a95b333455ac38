//! The streams that are live here: one for each device.
//!
//! A stream is not sent what happened; it is told to look, and looks at the index. So nothing queues up for a stream
//! that is slow, and nothing is lost.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{domain::device::DeviceKey, index::Changed};

/// What reaches a stream from outside.
#[derive(Debug, Default)]
pub struct Handle {
    look: Notify,
    replaced: AtomicBool,
    /// One more than the milliseconds after which the device is to reconnect; nought while there is no drain.
    drain: AtomicU64,
}

impl Handle {
    /// Waits until there may be something new.
    pub async fn told_to_look(&self) {
        self.look.notified().await;
    }

    /// Whether a newer stream of the same device took its place.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// After which time the device is to reconnect elsewhere, where the gateway stops.
    pub fn drain(&self) -> Option<Duration> {
        self.drain
            .load(Ordering::Acquire)
            .checked_sub(1)
            .map(Duration::from_millis)
    }

    fn order_drain(&self, reconnect_after: Duration) {
        let millis = u64::try_from(reconnect_after.as_millis()).unwrap_or(u64::MAX - 1);
        self.drain
            .store(millis.saturating_add(1), Ordering::Release);
        self.look.notify_one();
    }
}

/// The streams that are live here.
#[derive(Debug)]
pub struct Live {
    streams: Mutex<Streams>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Streams {
    of: HashMap<DeviceKey, Arc<Handle>>,
    draining: bool,
}

/// Why a stream cannot be added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Full {
    /// There are as many as may be.
    Full,
    /// The gateway stops.
    Draining,
}

impl Live {
    pub fn new(limit: usize) -> Self {
        Self {
            streams: Mutex::default(),
            limit,
        }
    }

    /// Adds a stream, in the place of the one that the device has.
    pub fn insert(&self, key: &DeviceKey) -> Result<Arc<Handle>, Full> {
        let mut streams = self.lock();
        if streams.draining {
            return Err(Full::Draining);
        }
        if streams.of.len() >= self.limit && !streams.of.contains_key(key) {
            return Err(Full::Full);
        }
        let handle = Arc::new(Handle::default());
        if let Some(before) = streams.of.insert(key.clone(), Arc::clone(&handle)) {
            before.replaced.store(true, Ordering::Release);
            before.look.notify_one();
        }
        Ok(handle)
    }

    /// Takes a stream away, unless another one took its place.
    pub fn remove(&self, key: &DeviceKey, handle: &Arc<Handle>) {
        let mut streams = self.lock();
        if streams
            .of
            .get(key)
            .is_some_and(|current| Arc::ptr_eq(current, handle))
        {
            streams.of.remove(key);
        }
        if streams.of.is_empty() {
            // Ten thousand devices leave, and a table for ten thousand would stay.
            streams.of.shrink_to_fit();
        }
    }

    pub fn contains(&self, key: &DeviceKey) -> bool {
        self.lock().of.contains_key(key)
    }

    pub fn count(&self) -> usize {
        self.lock().of.len()
    }

    /// Tells the streams that it concerns to look.
    pub fn changed(&self, changed: Changed<'_>) {
        let streams = self.lock();
        match changed {
            Changed::Device(key) => {
                if let Some(handle) = streams.of.get(key) {
                    handle.look.notify_one();
                }
            }
            Changed::Everything => streams
                .of
                .values()
                .for_each(|handle| handle.look.notify_one()),
        }
    }

    /// Lets no more streams in, and tells each device to reconnect at a moment of its own.
    pub fn drain(&self, mut reconnect_after: impl FnMut() -> Duration) {
        let mut streams = self.lock();
        streams.draining = true;
        for handle in streams.of.values() {
            handle.order_drain(reconnect_after());
        }
    }

    /// A panic while it is held leaves a map that is whole.
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> DeviceKey {
        DeviceKey::new("kitchen", name)
    }

    #[test]
    fn a_second_stream_of_a_device_takes_the_place_of_the_first() {
        let live = Live::new(1);
        let first = live.insert(&key("a")).unwrap();
        let second = live.insert(&key("a")).unwrap();
        assert!(first.is_replaced() && !second.is_replaced());
        live.remove(&key("a"), &first);
        assert!(
            live.contains(&key("a")),
            "the first takes away nothing but itself"
        );
        live.remove(&key("a"), &second);
        assert_eq!(live.count(), 0);
    }

    #[test]
    fn streams_are_counted() {
        let live = Live::new(1);
        let _first = live.insert(&key("a")).unwrap();
        assert_eq!(live.insert(&key("b")).unwrap_err(), Full::Full);
    }

    #[test]
    fn a_gateway_that_stops_takes_no_more_and_tells_those_it_has() {
        let live = Live::new(9);
        let first = live.insert(&key("a")).unwrap();
        assert_eq!(first.drain(), None);
        live.drain(|| Duration::from_millis(70));
        assert_eq!(first.drain(), Some(Duration::from_millis(70)));
        assert_eq!(live.insert(&key("a")).unwrap_err(), Full::Draining);
    }
}
