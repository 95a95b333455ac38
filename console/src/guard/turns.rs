//! Questions to the API server, so many at once: those who find no room wait, each holder in a queue of its own.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// At most `each` at once for each holder, and `all` together. One holder never has more than `each` in the common
/// queue, so the wait of another is bounded by the number of holders.
#[derive(Debug)]
pub struct Turns<K: Clone + Eq + Hash> {
    each: usize,
    all: Arc<Semaphore>,
    queues: Queues<K>,
}

type Queues<K> = Arc<Mutex<HashMap<K, Queue>>>;

#[derive(Debug)]
struct Queue {
    room: Arc<Semaphore>,
    /// Turns that are taken or waited for.
    users: usize,
}

/// A turn; the next one begins when it is dropped.
#[derive(Debug)]
pub struct Turn<K: Clone + Eq + Hash> {
    // Given back before the queue is left.
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    _ticket: Ticket<K>,
}

/// Keeps a queue for as long as it is used.
#[derive(Debug)]
struct Ticket<K: Clone + Eq + Hash> {
    holder: K,
    queues: Queues<K>,
}

impl<K: Clone + Eq + Hash> Turns<K> {
    pub fn new(all: usize, each: usize) -> Self {
        Self {
            each,
            all: Arc::new(Semaphore::new(all)),
            queues: Arc::default(),
        }
    }

    /// Waits for a turn of the holder. The caller bounds the wait.
    pub async fn wait(&self, holder: K) -> Turn<K> {
        let (ticket, room) = self.join(holder);
        loop {
            let own = Arc::clone(&room).acquire_owned().await;
            let all = Arc::clone(&self.all).acquire_owned().await;
            // Neither is ever closed.
            if let (Ok(own), Ok(all)) = (own, all) {
                return Turn {
                    _permits: (own, all),
                    _ticket: ticket,
                };
            }
        }
    }

    fn join(&self, holder: K) -> (Ticket<K>, Arc<Semaphore>) {
        let mut queues = lock(&self.queues);
        let queue = queues.entry(holder.clone()).or_insert_with(|| Queue {
            room: Arc::new(Semaphore::new(self.each)),
            users: 0,
        });
        queue.users += 1;
        let room = Arc::clone(&queue.room);
        let queues = Arc::clone(&self.queues);
        (Ticket { holder, queues }, room)
    }
}

impl<K: Clone + Eq + Hash> Drop for Ticket<K> {
    fn drop(&mut self) {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get_mut(&self.holder) {
            queue.users -= 1;
            if queue.users == 0 {
                queues.remove(&self.holder);
            }
        }
    }
}

/// Poisoning is harmless: every critical section leaves the counts consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_holder_waits_for_its_own_turns_and_not_for_those_of_others() {
        let turns = Turns::new(4, 2);
        let held = [turns.wait("ada").await, turns.wait("ada").await];
        let mut waits = Box::pin(turns.wait("ada"));
        assert!(waits.as_mut().now_or_never().is_none());
        let other = turns.wait("bob").now_or_never().unwrap();
        drop(held);
        assert!(waits.as_mut().now_or_never().is_some());
        drop((waits, other));
        assert!(lock(&turns.queues).is_empty());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_no_trace() {
        let turns = Turns::new(1, 1);
        let held = turns.wait("ada").await;
        for holder in ["ada", "bob"] {
            assert!(turns.wait(holder).now_or_never().is_none());
        }
        drop(held);
        assert!(lock(&turns.queues).is_empty());
        assert!(turns.wait("bob").now_or_never().is_some());
    }
}
