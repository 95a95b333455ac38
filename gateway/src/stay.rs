//! How long an enrollee may stay, and in whose place.
//!
//! A stranger has a place among the strangers and little time. One that proved a code moves to a place among those who
//! wait for a decision, so that a day of undecided requests keeps no stranger out.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runtime::origin::Origin;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
};

use crate::limits::HeldPlace;

/// How long a connection stays after its call: to read the answer, and perhaps to try something else.
const FAREWELL: Duration = Duration::from_secs(5);

/// The stay of one enrollee's connection. Its place is free again when the connection and its calls are gone.
#[derive(Debug)]
pub struct Stay {
    until: watch::Sender<Instant>,
    place: Mutex<Place>,
    waiting: Arc<Semaphore>,
    busy: AtomicBool,
}

/// What an enrollee occupies.
#[derive(Debug)]
pub enum Place {
    Stranger {
        among_all: OwnedSemaphorePermit,
        of_origin: HeldPlace<Origin>,
    },
    Waiting(OwnedSemaphorePermit),
}

/// As many wait for a decision as may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

impl Stay {
    /// `waiting` has the places of those who proved a code.
    pub fn new(place: Place, until: Instant, waiting: Arc<Semaphore>) -> Self {
        Self {
            until: watch::Sender::new(until),
            place: Mutex::new(place),
            waiting,
            busy: AtomicBool::new(false),
        }
    }

    /// Moves to a place among those who wait, until then.
    pub fn wait(&self, until: Instant) -> Result<(), Full> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Place::Stranger { .. } = *place {
            let permit = Arc::clone(&self.waiting)
                .try_acquire_owned()
                .map_err(|_| Full)?;
            *place = Place::Waiting(permit);
        }
        self.until.send_replace(until);
        Ok(())
    }

    /// Shortens the stay; never lengthens it.
    pub fn end_by(&self, moment: Instant) {
        self.until.send_if_modified(|until| {
            let sooner = moment < *until;
            *until = moment.min(*until);
            sooner
        });
    }

    /// Begins a call, unless one is under way: an enrollee enrols once at a time.
    pub fn begin(self: &Arc<Self>) -> Option<Busy> {
        (!self.busy.swap(true, Ordering::AcqRel)).then(|| Busy(Arc::clone(self)))
    }

    /// Returns when the stay is over.
    pub fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut until = self.until.subscribe();
        async move {
            loop {
                let end = *until.borrow_and_update();
                tokio::select! {
                    () = sleep_until(end) => return,
                    changed = until.changed() => if changed.is_err() {
                        return sleep_until(end).await;
                    },
                }
            }
        }
    }
}

/// A call that is under way.
#[derive(Debug)]
pub struct Busy(Arc<Stay>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
        // However it ended: who neither enrols nor waits has no business here.
        self.0.end_by(Instant::now() + FAREWELL);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::limits::Places;

    const SECOND: Duration = Duration::from_secs(1);

    fn stranger(strangers: &Arc<Semaphore>, waiting: &Arc<Semaphore>, until: Instant) -> Arc<Stay> {
        let of_origin = Places::default()
            .enter(IpAddr::from([192, 0, 2, 1]).into(), 1)
            .unwrap();
        let among_all = Arc::clone(strangers).try_acquire_owned().unwrap();
        Arc::new(Stay::new(
            Place::Stranger {
                among_all,
                of_origin,
            },
            until,
            Arc::clone(waiting),
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_goes_in_time_and_one_who_waits_makes_room_for_another() {
        let (strangers, waiting) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let start = Instant::now();
        let stay = stranger(&strangers, &waiting, start + SECOND);
        let over = stay.over();
        stay.wait(start + 60 * SECOND).unwrap();
        assert_eq!(
            (strangers.available_permits(), waiting.available_permits()),
            (1, 0)
        );

        let other = stranger(&strangers, &waiting, start + SECOND);
        assert_eq!(other.wait(start + 60 * SECOND), Err(Full));
        other.over().await;
        assert_eq!(start.elapsed().as_secs(), 1);

        over.await;
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stay_that_is_over_early_ends_early() {
        let (strangers, waiting) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let start = Instant::now();
        let stay = stranger(&strangers, &waiting, start + 30 * SECOND);
        let over = tokio::time::timeout(60 * SECOND, stay.over());
        stay.end_by(start + SECOND);
        stay.end_by(start + 50 * SECOND);
        over.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_enrollee_enrols_once_at_a_time_and_goes_when_it_is_done() {
        let (strangers, waiting) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let start = Instant::now();
        let stay = stranger(&strangers, &waiting, start + 30 * SECOND);
        let busy = stay.begin().unwrap();
        assert!(stay.begin().is_none());
        stay.wait(start + 900 * SECOND).unwrap();
        drop(busy);
        assert!(stay.begin().is_some());
        stay.over().await;
        assert_eq!(start.elapsed(), FAREWELL);
    }
}
