//! Turns at scarce work, fair among the sources of connections.
//!
//! A turn is given when a slot is free and the pace allows it, and only then is the next one chosen. Each network has the
//! same share as its neighbours ([`Origin::networks`]), and a source that did not wait for a while goes before those
//! with a backlog. A flood of one source, or of many in one network, therefore delays the others by one turn at most.
//!
//! The order is that of start-time fair queueing (Goyal, Vin and Cheng, 1996) at each level of the networks.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtime::origin::{Network, Origin};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep},
};

use crate::limits::Bucket;

/// Gives turns, with at most as many at once as there are slots.
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
    slots: Arc<Semaphore>,
    /// Held by the one who waits and chooses for all: there is no task to do so.
    chooser: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    queue: Queue<oneshot::Sender<Turn>>,
    pace: Option<Bucket>,
}

/// Leave to work; the slot is free again when dropped.
#[derive(Debug)]
pub struct Turn {
    _slot: OwnedSemaphorePermit,
}

impl Turns {
    /// `slots` may be shared with others. Without a pace, turns are given as soon as there is a slot.
    pub fn new(slots: Arc<Semaphore>, pace: Option<Bucket>) -> Self {
        Self {
            state: Mutex::new(State {
                queue: Queue::default(),
                pace,
            }),
            slots,
            chooser: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits for a turn. Dropping the future leaves the queue. `None` only where the slots were closed.
    pub async fn turn(&self, origin: Origin) -> Option<Turn> {
        let (sender, mut given) = oneshot::channel();
        let id = self.lock().queue.push(&origin.networks(), sender);
        let _waiting = Waiting {
            turns: self,
            origin,
            id,
        };
        tokio::select! {
            biased;
            turn = &mut given => turn.ok(),
            () = self.choose() => None,
        }
    }

    /// Gives turns until dropped; returns only when the slots are closed. Nothing is lost when it is dropped: what is
    /// taken is given without an await in between.
    async fn choose(&self) {
        let _chooser = self.chooser.lock().await;
        while let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await {
            let Some(wait) = self.give(slot) else {
                // Whoever waits here is in the queue, so an empty queue means that the turn was given to us.
                std::future::pending::<()>().await;
                return;
            };
            if !wait.is_zero() {
                sleep(wait).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Gives the slot to the next in the queue, or says how long until the pace allows it. `None` where nobody waits.
    fn give(&self, slot: OwnedSemaphorePermit) -> Option<std::time::Duration> {
        let mut state = self.lock();
        if state.queue.is_empty() {
            return None;
        }
        if let Some(pace) = &mut state.pace
            && let Err(wait) = pace.take(Instant::now())
        {
            return Some(wait);
        }
        let mut turn = Turn { _slot: slot };
        while let Some(next) = state.queue.pop() {
            // Given to one who left at this moment: the next one gets it.
            match next.send(turn) {
                Ok(()) => break,
                Err(unused) => turn = unused,
            }
        }
        Some(std::time::Duration::ZERO)
    }

    /// Poisoning is harmless: no critical section can panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, given up when dropped.
struct Waiting<'a> {
    turns: &'a Turns,
    origin: Origin,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.turns
            .lock()
            .queue
            .remove(&self.origin.networks(), self.id);
    }
}

/// Items that wait, by the networks that they come from.
#[derive(Debug)]
struct Queue<T> {
    next: u64,
    root: Level<T>,
}

/// The networks in a wider one.
#[derive(Debug)]
struct Level<T> {
    /// Virtual time: when the one that was chosen last began.
    clock: u64,
    /// Networks in which something waits, by when they may begin. Among those of the same time, one in which something
    /// began to wait goes before one with a backlog; apart from that, the order is random.
    order: BTreeSet<(u64, u32, Network)>,
    networks: HashMap<Network, Share<T>>,
}

#[derive(Debug)]
struct Share<T> {
    start: u64,
    salt: u32,
    narrower: Level<T>,
    /// At the narrowest level.
    items: VecDeque<(u64, T)>,
}

/// Bit of the random number of a network with a backlog.
const BACKLOG: u32 = 1 << 31;
/// Networks that are remembered at each level although nothing waits in them. Beyond it they are forgotten, and may go
/// first once more.
const MOST_IDLE: usize = 1024;

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            next: 0,
            root: Level::default(),
        }
    }
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self {
            clock: 0,
            order: BTreeSet::new(),
            networks: HashMap::new(),
        }
    }
}

impl<T> Queue<T> {
    fn is_empty(&self) -> bool {
        self.root.order.is_empty()
    }

    fn push(&mut self, path: &[Network], item: T) -> u64 {
        let id = self.next;
        self.next += 1;
        self.root.push(path, id, item);
        id
    }

    fn pop(&mut self) -> Option<T> {
        self.root.pop()
    }

    fn remove(&mut self, path: &[Network], id: u64) {
        self.root.remove(path, id);
    }
}

impl<T> Level<T> {
    fn push(&mut self, path: &[Network], id: u64, item: T) {
        let Some((network, narrower)) = path.split_first() else {
            return;
        };
        let clock = self.clock;
        let share = self.networks.entry(*network).or_insert_with(|| Share {
            start: clock,
            salt: 0,
            narrower: Self::default(),
            items: VecDeque::new(),
        });
        if share.is_empty() {
            share.start = share.start.max(clock);
            share.salt = rand::random::<u32>() & !BACKLOG;
            self.order.insert((share.start, share.salt, *network));
        }
        if narrower.is_empty() {
            share.items.push_back((id, item));
        } else {
            share.narrower.push(narrower, id, item);
        }
    }

    fn pop(&mut self) -> Option<T> {
        let (start, _, network) = self.order.pop_first()?;
        self.clock = start;
        let share = self.networks.get_mut(&network)?;
        let item = match share.items.pop_front() {
            Some((_, item)) => Some(item),
            None => share.narrower.pop(),
        };
        share.start = start + 1;
        if !share.is_empty() {
            share.salt |= BACKLOG;
            self.order.insert((share.start, share.salt, network));
        }
        self.forget();
        item
    }

    fn remove(&mut self, path: &[Network], id: u64) {
        let Some((network, narrower)) = path.split_first() else {
            return;
        };
        let Some(share) = self.networks.get_mut(network) else {
            return;
        };
        if share.is_empty() {
            return;
        }
        if narrower.is_empty() {
            share.items.retain(|(other, _)| *other != id);
        } else {
            share.narrower.remove(narrower, id);
        }
        if share.is_empty() {
            self.order.remove(&(share.start, share.salt, *network));
            self.forget();
        }
    }

    /// Forgets networks in which nothing waits, once nothing waits anywhere or there are too many of them.
    fn forget(&mut self) {
        if self.order.is_empty() {
            self.networks.clear();
        } else if self.networks.len() > self.order.len() + MOST_IDLE {
            self.networks.retain(|_, share| !share.is_empty());
        }
    }
}

impl<T> Share<T> {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.narrower.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn filled(backlog: &[(&str, usize)]) -> Queue<String> {
        let mut queue = Queue::default();
        for (source, count) in backlog {
            for _ in 0..*count {
                queue.push(&origin(source).networks(), (*source).to_owned());
            }
        }
        queue
    }

    fn popped(queue: &mut Queue<String>, count: usize) -> Vec<String> {
        (0..count).filter_map(|_| queue.pop()).collect()
    }

    #[test]
    fn a_newcomer_goes_before_a_backlog() {
        for newcomer in ["192.0.2.200", "198.51.100.1", "2001:db8::1"] {
            let flood: Vec<_> = (1..=16).map(|last| format!("192.0.2.{last}")).collect();
            let backlog: Vec<_> = flood.iter().map(|source| (source.as_str(), 50)).collect();
            let mut queue = filled(&backlog);
            popped(&mut queue, 100);
            for _ in 0..5 {
                queue.push(&origin(newcomer).networks(), "newcomer".to_owned());
                assert_eq!(popped(&mut queue, 1), ["newcomer"], "{newcomer}");
                // A round later.
                popped(&mut queue, 40);
            }
        }
    }

    #[test]
    fn networks_share_alike_whatever_is_in_them() {
        let mut queue = Queue::default();
        for n in 0..64 {
            let text = format!("2001:db8:1:{n:x}::1");
            for _ in 0..4 {
                queue.push(&origin(&text).networks(), "many".to_owned());
            }
        }
        for _ in 0..64 {
            queue.push(&origin("2001:db8:2::1").networks(), "one".to_owned());
        }
        let next = popped(&mut queue, 64);
        assert_eq!(next.iter().filter(|source| *source == "one").count(), 32);
    }

    #[test]
    fn one_source_keeps_its_order_and_who_leaves_is_gone() {
        let networks = origin("192.0.2.1").networks();
        let mut queue = Queue::default();
        let ids: Vec<_> = (0..4).map(|n| queue.push(&networks, n)).collect();
        queue.remove(&networks, ids[1]);
        queue.remove(&networks, ids[1]);
        assert_eq!(
            std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(),
            [0, 2, 3]
        );
        assert!(queue.is_empty() && queue.root.networks.is_empty());
        let id = queue.push(&networks, 7);
        queue.remove(&networks, id);
        assert!(queue.pop().is_none() && queue.root.networks.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut queue = filled(&[("192.0.2.1", 200_000)]);
        for n in 0..20_000_u32 {
            let source = Origin::from(IpAddr::from((n << 8).to_be_bytes()));
            queue.push(&source.networks(), String::new());
            queue.pop();
        }
        assert!(queue.root.networks.len() <= queue.root.order.len() + MOST_IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_paced_and_slots_are_given_back() {
        let bucket = Bucket::new(10, Duration::from_secs(1), 1);
        let slots = Arc::new(Semaphore::new(1));
        let turns = Turns::new(Arc::clone(&slots), Some(bucket));
        let start = Instant::now();
        for _ in 0..11 {
            turns.turn(origin("192.0.2.1")).await.unwrap();
        }
        assert_eq!(start.elapsed().as_millis() / 100, 10);
        assert_eq!(slots.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_leaves_passes_the_choosing_on() {
        let slots = Arc::new(Semaphore::new(1));
        let turns = Arc::new(Turns::new(Arc::clone(&slots), None));
        let held = turns.turn(origin("192.0.2.1")).await.unwrap();
        let waiter = |last: u8| {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move {
                turns
                    .turn(IpAddr::from([192, 0, 2, last]).into())
                    .await
                    .is_some()
            })
        };
        let (first, second, third) = (waiter(1), waiter(2), waiter(3));
        tokio::task::yield_now().await;
        first.abort();
        let _ = first.await;
        drop(held);
        assert!(second.await.unwrap() && third.await.unwrap());
        assert_eq!(slots.available_permits(), 1);
        assert!(turns.lock().queue.is_empty());
    }
}
