//! How often something may be tried: by one origin, and by all together.
//!
//! An origin that is out of tries is refused at once. The tries of all are given in turns, so that a few origins that use
//! them up cannot keep the others from theirs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use runtime::origin::Origin;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    limits::{Bucket, Paces},
    turns::Turns,
};

/// Origins whose own tries are known. Others have those of all.
const MOST_ORIGINS: usize = 4096;
/// How long a try waits for its turn among all.
const PATIENCE: Duration = Duration::from_secs(5);
/// When one may come back whose turn did not come in time.
const RETRY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Tries {
    own: Mutex<Paces<Origin>>,
    all: Turns,
}

impl Tries {
    /// Per minute; up to a tenth of it, and at least ten, at once.
    pub fn per_minute(all: u32, each: u32) -> Self {
        let bucket = |rate: u32| Bucket::new(rate, Duration::from_mins(1), (rate / 10).max(10));
        let slots = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self {
            own: Mutex::new(Paces::new(bucket(each), MOST_ORIGINS)),
            all: Turns::new(slots, Some(bucket(all))),
        }
    }

    /// Counts one try, once its turn has come. Callers are bounded, and so is the queue.
    ///
    /// # Errors
    /// How long to wait before the next try.
    pub async fn take(&self, origin: Origin) -> Result<(), Duration> {
        {
            // Poisoning is harmless: no critical section can panic half-way.
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.turn(origin, Duration::ZERO, Instant::now())?;
        }
        match timeout(PATIENCE, self.all.turn(origin)).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err(RETRY),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures::future::join_all;

    use super::*;

    fn origin(last: u8) -> Origin {
        IpAddr::from([192, 0, 2, last]).into()
    }

    #[tokio::test(start_paused = true)]
    async fn one_origin_cannot_use_up_the_tries_of_the_others() {
        let tries = Tries::per_minute(200, 60);
        let taken = join_all((0..1000).map(|_| tries.take(origin(1)))).await;
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 10);
        assert_eq!(tries.take(origin(2)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn sixteen_origins_cannot_use_up_the_tries_of_the_others() {
        let tries = Arc::new(Tries::per_minute(600, 600));
        // Each of them always has a try that waits.
        for last in 0..16 {
            let tries = Arc::clone(&tries);
            tokio::spawn(async move {
                loop {
                    let _ = tries.take(origin(last)).await;
                    tokio::task::yield_now().await;
                }
            });
        }
        tokio::time::sleep(Duration::from_mins(1)).await;
        for _ in 0..20 {
            assert_eq!(tries.take(origin(200)).await, Ok(()));
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_origins_together_are_bounded() {
        let tries = Tries::per_minute(100, 60);
        let taken = join_all((0..=255).map(|last| tries.take(origin(last)))).await;
        let taken = taken.iter().filter(|taken| taken.is_ok()).count();
        // Ten at once, and those of the time that the others wait.
        assert_eq!(taken, 10 + 8);
    }
}
