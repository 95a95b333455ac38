//! Counting and pacing: pure but for a lock. Time comes in from outside.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A token bucket: `burst` at once, then one per `interval`.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the bucket will be full again. Never further ahead than `burst` intervals and the longest patience.
    full_at: Option<Instant>,
}

impl Bucket {
    /// `rate` per `period`, and as many at once as `burst`. Neither may be zero; a zero counts as one.
    pub fn new(rate: u32, period: Duration, burst: u32) -> Self {
        Self {
            interval: period / rate.max(1),
            burst: burst.max(1),
            full_at: None,
        }
    }

    /// Takes one, or says how long until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.reserve(Duration::ZERO, now).map(|_| ())
    }

    /// Takes one, ahead of its time if need be, and says how long until then. Where that is longer than the patience,
    /// nothing is taken.
    pub fn reserve(&mut self, patience: Duration, now: Instant) -> Result<Duration, Duration> {
        let next = self.full_at.map_or(now, |at| at.max(now)) + self.interval;
        let wait = (next - now).saturating_sub(self.interval * self.burst);
        if wait > patience {
            return Err(wait);
        }
        self.full_at = Some(next);
        Ok(wait)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

/// The pace of each holder: an origin, or a device by its key.
#[derive(Debug)]
pub struct Paces<K> {
    each: Bucket,
    most: usize,
    known: HashMap<K, Bucket>,
    forgot: Option<Instant>,
}

impl<K: Copy + Eq + Hash> Paces<K> {
    /// Between two looks for holders that can be forgotten: a look costs time for each of them.
    const LOOK_EVERY: Duration = Duration::from_millis(100);

    /// `most`: holders whose pace is known. More in the time that it takes a bucket to fill go at the pace of all.
    pub fn new(each: Bucket, most: usize) -> Self {
        Self {
            each,
            most,
            known: HashMap::new(),
            forgot: None,
        }
    }

    /// How long until it is the holder's turn. Where that is longer than the patience nothing is taken, and the error
    /// says how long it would be.
    pub fn turn(
        &mut self,
        holder: K,
        patience: Duration,
        now: Instant,
    ) -> Result<Duration, Duration> {
        if self.known.len() >= self.most && !self.known.contains_key(&holder) {
            self.forget(now);
            if self.known.len() >= self.most {
                return Ok(Duration::ZERO);
            }
        }
        let own = self.known.entry(holder).or_insert(self.each);
        own.reserve(patience, now)
    }

    fn forget(&mut self, now: Instant) {
        let looked = self
            .forgot
            .is_some_and(|last| now < last + Self::LOOK_EVERY);
        if !looked {
            self.known.retain(|_, bucket| !bucket.is_full(now));
            self.forgot = Some(now);
        }
    }
}

/// How many places each holder has: an origin, or a device by its key.
#[derive(Debug)]
pub struct Places<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One place of a holder; given back when dropped.
#[derive(Debug)]
pub struct HeldPlace<K: Eq + Hash> {
    places: Places<K>,
    holder: K,
}

impl<K: Copy + Eq + Hash> Places<K> {
    /// A place, unless the holder has `most` already.
    pub fn enter(&self, holder: K, most: usize) -> Option<HeldPlace<K>> {
        let mut counts = lock(&self.0);
        let count = counts.entry(holder).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(HeldPlace {
            places: self.clone(),
            holder,
        })
    }
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash> Drop for HeldPlace<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.places.0);
        if let Some(count) = counts.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.holder);
            }
        }
    }
}

/// Nothing that is done under these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use runtime::origin::Origin;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn origin(last: u8) -> Origin {
        IpAddr::from([192, 0, 2, last]).into()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, SECOND, 3);
        for _ in 0..3 {
            assert_eq!(bucket.take(now), Ok(()));
        }
        assert_eq!(bucket.take(now), Err(SECOND / 10));
        assert_eq!(bucket.take(now + SECOND / 20), Err(SECOND / 20));
        assert_eq!(bucket.take(now + SECOND / 10), Ok(()));
        assert_eq!(bucket.take(now + SECOND / 10), Err(SECOND / 10));
        // However long it was left alone, it holds no more than its burst.
        let later = now + 1000 * SECOND;
        assert_eq!((0..9).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }

    #[test]
    fn one_takes_its_turn_ahead_of_time_as_far_as_it_is_patient() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, SECOND, 1);
        let turns: Vec<_> = (0..4).map(|_| bucket.reserve(SECOND / 5, now)).collect();
        assert_eq!(
            turns,
            [
                Ok(Duration::ZERO),
                Ok(SECOND / 10),
                Ok(SECOND / 5),
                Err(SECOND * 3 / 10)
            ]
        );
        assert_eq!(
            bucket.reserve(SECOND / 5, now + SECOND / 10),
            Ok(SECOND / 5)
        );
    }

    #[test]
    fn each_origin_has_its_own_pace_and_a_bounded_number_is_remembered() {
        let now = Instant::now();
        let mut paces = Paces::new(Bucket::new(10, SECOND, 2), 4096);
        let turns = |paces: &mut Paces<Origin>, from| {
            (0..9)
                .filter(|_| paces.turn(from, Duration::ZERO, now).is_ok())
                .count()
        };
        assert_eq!(turns(&mut paces, origin(1)), 2);
        assert_eq!(turns(&mut paces, origin(2)), 2);
        for number in 0..10_000_u32 {
            let from = IpAddr::from(number.to_be_bytes()).into();
            assert!(paces.turn(from, Duration::ZERO, now).is_ok());
        }
        assert_eq!(paces.known.len(), 4096);
        paces.turn(origin(3), Duration::ZERO, now + SECOND).unwrap();
        assert_eq!(paces.known.len(), 1, "those that are quiet are forgotten");
    }

    #[test]
    fn places_are_counted_per_origin_and_given_back() {
        let origins = Places::default();
        let first = origins.enter(origin(1), 1).unwrap();
        assert!(origins.enter(origin(1), 1).is_none());
        assert!(origins.enter(origin(2), 1).is_some());
        drop(first);
        assert!(origins.enter(origin(1), 1).is_some());
        assert!(origins.0.lock().unwrap().is_empty());
    }
}
