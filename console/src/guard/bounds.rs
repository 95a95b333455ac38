//! Bounds of a request.

use std::{sync::Arc, time::Duration};

use console_api::problem::ProblemCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    problem::{Answer, Fault},
    registry::Bound,
};

/// Largest body.
pub const MAX_BODY: usize = 256 * 1024;
/// Longest query.
pub const MAX_QUERY: usize = 4096;
/// All headers of a request together: a token, a cookie and what browsers send.
pub const MAX_HEADERS: usize = 32 * 1024;
/// Most headers.
pub const MAX_HEADER_COUNT: usize = 64;
/// How long an answer may take that does not wait for anything.
pub const SHORT: Duration = Duration::from_secs(25);
/// How long the body may take to arrive.
pub const BODY_TIME: Duration = Duration::from_secs(10);

/// Places for requests of each kind.
#[derive(Clone, Debug)]
pub struct Places {
    short: Arc<Semaphore>,
    wait: Arc<Semaphore>,
    stream: Arc<Semaphore>,
}

impl Places {
    /// `streams`: event streams and downloads.
    pub fn new(streams: usize) -> Self {
        Self {
            short: Arc::new(Semaphore::new(512)),
            wait: Arc::new(Semaphore::new(1024)),
            stream: Arc::new(Semaphore::new(streams)),
        }
    }

    /// A place until the result is dropped.
    ///
    /// # Errors
    /// Where there is none: nobody is kept waiting for one.
    pub fn enter(&self, bound: Bound) -> Answer<OwnedSemaphorePermit> {
        let places = match bound {
            Bound::Short => &self.short,
            Bound::Wait => &self.wait,
            Bound::Stream => &self.stream,
        };
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            Fault::new(
                ProblemCode::Unavailable,
                "this gateway has as many such requests as it may: try again",
            )
            .retry_after(2)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_place_is_told_when_to_come_back() {
        let places = Places::new(1);
        let held = places.enter(Bound::Stream).unwrap();
        let fault = places.enter(Bound::Stream).unwrap_err().0;
        assert_eq!(
            (fault.code, fault.retry_after_seconds),
            (ProblemCode::Unavailable, Some(2))
        );
        drop(held);
        assert!(places.enter(Bound::Stream).is_ok());
        assert!(places.enter(Bound::Short).is_ok());
    }
}
