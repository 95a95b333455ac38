//! Computations that may take longer than a millisecond, on threads that serve no connection.
//!
//! What devices declare is read and compared with what was granted, and inputs are checked against schemas of devices.
//! Each of these has a bound of some milliseconds, but a device chooses how often it asks. Therefore:
//!
//! - few run at once, so that most of the processor stays with the connections;
//! - of one device one runs at a time, and the device then rests for [`REST`] times as long as it took;
//! - of one device few wait, and whoever waits is served in the order of arrival. A device cannot fill the line.
//!
//! Small ones ([`is_small`]) are done where they arise: an ordinary device never waits behind a hostile one.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
    time::Duration,
};

use runtime::shutdown::Tasks;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep},
};

/// Most schema bytes that are read and compared where they arise: well below a millisecond.
const SMALL_BYTES: usize = 4096;
/// Most computations at once, on a machine of whatever size.
const MOST_AT_ONCE: usize = 4;
/// Most computations of one device that run, wait or rest.
const MOST_OF_ONE: usize = 4;
/// Most computations of all devices that run, wait or rest.
const MOST_OF_ALL: usize = 4096;
/// How long a device rests after a computation, as a multiple of its time: it gets a tenth of one thread at most.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Whether schemas of so many bytes are read and compared where they arise.
pub fn is_small(schema_bytes: usize) -> bool {
    schema_bytes <= SMALL_BYTES
}

/// Runs computations. Cheap to clone.
#[derive(Clone)]
pub struct Heavy {
    tasks: Tasks,
    threads: Arc<Semaphore>,
    lines: Arc<Mutex<Lines>>,
}

/// It was not done: too much waits, or the gateway stops. Trying again later helps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too much is being computed for this device: try again later")]
pub struct Busy;

#[derive(Default)]
struct Lines {
    /// By device.
    of: HashMap<String, Line>,
    places: usize,
}

struct Line {
    turn: Arc<Semaphore>,
    places: usize,
}

/// A place in the line of a device, until it is dropped.
struct Place {
    lines: Arc<Mutex<Lines>>,
    of: String,
    turn: Arc<Semaphore>,
}

impl fmt::Debug for Heavy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heavy").finish_non_exhaustive()
    }
}

impl Heavy {
    pub fn new(tasks: Tasks) -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            tasks,
            threads: Arc::new(Semaphore::new((processors / 2).clamp(1, MOST_AT_ONCE))),
            lines: Arc::default(),
        }
    }

    /// Computes on behalf of a device, when it is its turn. A caller who does not wait for the result any more before that
    /// costs nothing.
    ///
    /// # Errors
    /// [`Busy`] where too much waits for this device or for all.
    pub async fn run<T: Send + 'static>(
        &self,
        of: String,
        compute: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let place = self.join(of)?;
        let (sender, result) = oneshot::channel();
        let (threads, token) = (Arc::clone(&self.threads), self.tasks.token());
        self.tasks.spawn(async move {
            let _turn = permit(&place.turn).await;
            let thread = permit(&threads).await;
            if sender.is_closed() || token.is_cancelled() {
                return;
            }
            let began = Instant::now();
            let computed = tokio::task::spawn_blocking(move || {
                let result = compute();
                drop(thread);
                result
            });
            // Where it panics there is no result, and the caller is told that it is busy.
            if let Ok(result) = computed.await {
                let _ = sender.send(result);
            }
            let rest = began.elapsed().saturating_mul(REST).min(LONGEST_REST);
            tokio::select! {
                () = sleep(rest) => {}
                () = token.cancelled() => {}
            }
        });
        result.await.map_err(|_| Busy)
    }

    fn join(&self, of: String) -> Result<Place, Busy> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = lines.of.get(&of).map_or(0, |line| line.places);
        if waiting >= MOST_OF_ONE || lines.places >= MOST_OF_ALL {
            return Err(Busy);
        }
        lines.places += 1;
        let line = lines.of.entry(of.clone()).or_insert_with(|| Line {
            turn: Arc::new(Semaphore::new(1)),
            places: 0,
        });
        line.places += 1;
        Ok(Place {
            lines: Arc::clone(&self.lines),
            of,
            turn: Arc::clone(&line.turn),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.places -= 1;
        if let Some(line) = lines.of.get_mut(&self.of) {
            line.places -= 1;
            if line.places == 0 {
                lines.of.remove(&self.of);
            }
        }
    }
}

/// Semaphores of this file are never closed.
async fn permit(of: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(of)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use runtime::shutdown::Supervisor;

    use super::*;

    /// Longest wait of a test: far longer than anything takes.
    const DEADLINE: Duration = Duration::from_secs(20);

    fn one_thread() -> (Supervisor, Heavy) {
        let supervisor = Supervisor::new();
        let heavy = Heavy {
            threads: Arc::new(Semaphore::new(1)),
            ..Heavy::new(supervisor.tasks())
        };
        (supervisor, heavy)
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        let result = tokio::time::timeout(DEADLINE, future).await;
        result.expect("it is done in time")
    }

    #[tokio::test]
    async fn a_device_that_asks_all_the_time_is_refused_and_others_are_served() {
        let (_supervisor, heavy) = one_thread();
        let (release, held) = mpsc::channel::<()>();
        let greedy = || heavy.run("kitchen/greedy".to_owned(), || ());
        let first = heavy.run("kitchen/greedy".to_owned(), move || {
            let _ = held.recv();
        });
        let mut first = Box::pin(first);
        let mut waiting: Vec<_> = (1..MOST_OF_ONE).map(|_| Box::pin(greedy())).collect();
        // Each takes its place when it is polled for the first time.
        assert!(futures::poll!(first.as_mut()).is_pending());
        for one in &mut waiting {
            assert!(futures::poll!(one.as_mut()).is_pending());
        }
        assert_eq!(soon(greedy()).await, Err(Busy));
        let other = heavy.run("kitchen/other".to_owned(), || 7);
        let mut other = Box::pin(other);
        assert!(futures::poll!(other.as_mut()).is_pending());
        release.send(()).unwrap();
        assert_eq!(soon(first).await, Ok(()));
        // The greedy one's next turn comes after that of the other.
        assert_eq!(soon(other).await, Ok(7));
        for one in waiting {
            assert_eq!(soon(one).await, Ok(()));
        }
        let idle = async {
            while heavy.lines.lock().unwrap().places > 0 {
                tokio::task::yield_now().await;
            }
        };
        soon(idle).await;
        assert!(heavy.lines.lock().unwrap().of.is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn a_computation_that_panics_is_answered_and_takes_no_place() {
        let (_supervisor, heavy) = one_thread();
        let of = || "kitchen/lamp".to_owned();
        let broken = heavy.run(of(), || panic!("as asked"));
        assert_eq!(soon(broken).await, Err::<(), _>(Busy));
        assert_eq!(soon(heavy.run(of(), || 1)).await, Ok(1));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_computed() {
        let (_supervisor, heavy) = one_thread();
        let thread = permit(&heavy.threads).await;
        let (sender, computed) = mpsc::channel::<()>();
        let mut given_up = Box::pin(heavy.run("kitchen/lamp".to_owned(), move || sender.send(())));
        assert!(futures::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        drop(thread);
        assert_eq!(
            soon(heavy.run("kitchen/lamp".to_owned(), || 1)).await,
            Ok(1)
        );
        assert!(computed.recv().is_err(), "its sender is gone, unused");
    }
}
