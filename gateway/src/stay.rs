//! How long an enrollee may stay, and in whose place.
//!
//! A stranger has a place among the strangers and little time. One that proved a code moves to a place among those who
//! wait for a decision, so that a day of undecided requests keeps no stranger out. An enrollee for which the gateway does
//! not work at the moment may be ended when another one needs the place.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::pool::{Member, Pool, Work};

/// How long a connection stays after its call: to read the answer, and perhaps to try something else.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long it stays when another one needs its place: to read that.
const SHORT_FAREWELL: Duration = Duration::from_secs(1);

/// The stay of one enrollee's connection. Its place is free again when the connection and its calls are gone.
#[derive(Debug)]
pub struct Stay {
    until: watch::Sender<Instant>,
    place: Mutex<Place>,
    waiting: Pool,
    busy: AtomicBool,
}

/// What an enrollee occupies.
#[derive(Debug)]
enum Place {
    Stranger(Member),
    Waiting(Member),
}

/// The places of those who wait for a decision are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

impl Stay {
    /// `stranger` is a member of the strangers' pool; `waiting` has the places of those who proved a code.
    pub fn new(stranger: Member, until: Instant, waiting: Pool) -> Self {
        Self {
            until: watch::Sender::new(until),
            place: Mutex::new(Place::Stranger(stranger)),
            waiting,
            busy: AtomicBool::new(false),
        }
    }

    /// Moves to a place among those who wait, until then.
    pub fn wait(&self, until: Instant) -> Result<(), Full> {
        let mut place = self.place();
        if let Place::Stranger(member) = &*place {
            *place = Place::Waiting(self.waiting.enter(member.origin()).ok_or(Full)?);
        }
        drop(place);
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

    /// Keeps the place from being given to another one while the result lives. `None` where that has happened, or
    /// while the result of an earlier call lives.
    pub fn work(&self) -> Option<Work> {
        self.place().member().work()
    }

    /// Returns when the place was given to another one.
    pub async fn given_away(&self) {
        let mut until = self.until.subscribe();
        loop {
            // Marked as seen first: a move to another place is announced here.
            until.borrow_and_update();
            let given_away = self.place().member().ended();
            tokio::select! {
                () = given_away => return,
                _ = until.changed() => {}
            }
        }
    }

    /// Returns when the stay is over.
    pub async fn over(self: Arc<Self>) {
        tokio::select! {
            () = self.time_is_up() => return,
            () = self.given_away() => {}
        }
        if self.busy.load(Ordering::Acquire) {
            self.end_by(Instant::now() + SHORT_FAREWELL);
            self.time_is_up().await;
        }
    }

    async fn time_is_up(&self) {
        let mut until = self.until.subscribe();
        loop {
            let end = *until.borrow_and_update();
            tokio::select! {
                () = sleep_until(end) => return,
                // The sender is ours, and lives as long as this.
                _ = until.changed() => {}
            }
        }
    }

    /// Poisoning is harmless: no critical section can panic half-way.
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn member(&self) -> &Member {
        match self {
            Self::Stranger(member) | Self::Waiting(member) => member,
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
    use crate::pool::{Bounds, Yields};

    const SECOND: Duration = Duration::from_secs(1);

    fn pool(yields: Yields) -> Pool {
        Pool::new(Bounds {
            members: 1,
            per_origin: 1,
            yields,
        })
    }

    fn pools() -> (Pool, Pool) {
        (pool(Yields::Member), pool(Yields::MemberOfLarger))
    }

    fn stranger(strangers: &Pool, waiting: &Pool, until: Instant) -> Arc<Stay> {
        let member = strangers
            .enter(IpAddr::from([192, 0, 2, 1]).into())
            .unwrap();
        Arc::new(Stay::new(member, until, waiting.clone()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_goes_in_time_and_one_who_waits_makes_room_for_another() {
        let (strangers, waiting) = pools();
        let start = Instant::now();
        let stay = stranger(&strangers, &waiting, start + SECOND);
        let over = Arc::clone(&stay).over();
        stay.wait(start + 60 * SECOND).unwrap();
        assert_eq!((strangers.fill(), waiting.fill()), (0, 1000));

        let other = stranger(&strangers, &waiting, start + SECOND);
        assert_eq!(other.wait(start + 60 * SECOND), Err(Full));
        other.over().await;
        assert_eq!(start.elapsed().as_secs(), 1);

        over.await;
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stay_that_is_over_early_ends_early() {
        let (strangers, waiting) = pools();
        let start = Instant::now();
        let stay = stranger(&strangers, &waiting, start + 30 * SECOND);
        let over = tokio::time::timeout(60 * SECOND, Arc::clone(&stay).over());
        stay.end_by(start + SECOND);
        stay.end_by(start + 50 * SECOND);
        over.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_enrollee_enrols_once_at_a_time_and_goes_when_it_is_done() {
        let (strangers, waiting) = pools();
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

    #[tokio::test(start_paused = true)]
    async fn an_idle_stranger_yields_its_place_and_one_for_whom_we_work_does_not() {
        let (strangers, waiting) = pools();
        let start = Instant::now();
        let first = stranger(&strangers, &waiting, start + 30 * SECOND);
        let work = first.work().unwrap();
        assert!(
            strangers
                .enter(IpAddr::from([192, 0, 2, 2]).into())
                .is_none()
        );
        drop(work);
        let busy = first.begin().unwrap();
        let second = stranger(&strangers, &waiting, start + 30 * SECOND);
        assert!(first.work().is_none());
        first.given_away().await;
        first.over().await;
        assert_eq!(start.elapsed(), SHORT_FAREWELL);
        drop(busy);

        let _third = stranger(&strangers, &waiting, start + 30 * SECOND);
        second.over().await;
        assert_eq!(start.elapsed(), SHORT_FAREWELL, "it had no call to answer");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_waits_keeps_its_place_however_many_strangers_come() {
        let (strangers, waiting) = pools();
        let start = Instant::now();
        let first = stranger(&strangers, &waiting, start + SECOND);
        let over = tokio::spawn(Arc::clone(&first).over());
        tokio::task::yield_now().await;
        first.wait(start + 60 * SECOND).unwrap();
        for _ in 0..9 {
            stranger(&strangers, &waiting, start + SECOND);
        }
        over.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 60);
    }
}
