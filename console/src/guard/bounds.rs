//! Bounds of a request.

use std::time::Duration;

use console_api::problem::ProblemCode;

use super::{
    crowd::Crowd,
    party::Party,
    pool::{Full, Held, Pool},
};
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

/// Largest body of a login: a token, and what is around it.
pub const MAX_LOGIN: usize = 16 * 1024;

/// Requests that are answered at once.
const SHORT_PLACES: usize = 512;
/// Bytes of bodies that are being read, or belong to a request that is being answered, and as much for the headers of
/// each as they may have.
const BODIES: usize = 64 * 1024 * 1024;
/// Requests of users whose tokens are reviewed again.
const REVIEWED: usize = 1024;
/// Strangers whose login or token is being looked at; one address may have an eighth.
const STRANGERS: usize = 1024;

/// How many requests of each kind there may be, for all and for each.
#[derive(Clone, Debug)]
pub struct Places {
    short: Pool,
    wait: Pool,
    stream: Pool,
    download: Pool,
    /// Bytes of bodies.
    pub bodies: Pool,
    /// Users before their tokens are reviewed again.
    pub reviewed: Pool,
    /// Strangers before they are known.
    pub strangers: Crowd,
}

impl Places {
    /// `waits`: requests with `?wait=`; `streams`: event streams, and a quarter as many downloads.
    pub fn new(waits: usize, streams: usize) -> Self {
        Self {
            short: Pool::new(SHORT_PLACES),
            wait: Pool::new(waits),
            stream: Pool::new(streams),
            download: Pool::new(streams.div_ceil(4)),
            bodies: Pool::new(BODIES),
            reviewed: Pool::new(REVIEWED),
            strangers: Crowd::new(STRANGERS, STRANGERS / 8),
        }
    }

    /// A place until the result is dropped.
    ///
    /// # Errors
    /// If there is no room. Nobody waits.
    pub fn enter(&self, bound: Bound, party: &Party) -> Answer<Held> {
        let pool = match bound {
            Bound::Short => &self.short,
            Bound::Wait => &self.wait,
            Bound::Stream => &self.stream,
            Bound::Download => &self.download,
        };
        pool.enter(party).map_err(full)
    }
}

/// Returns the answer for a bound that has no room.
pub fn full(full: Full) -> Fault {
    let fault = match full {
        Full::Share => Fault::new(
            ProblemCode::TooManyRequests,
            "too many requests of this kind are open from you or your address: end one, or try again",
        ),
        Full::All => Fault::new(
            ProblemCode::Unavailable,
            "too many requests of this kind are open at this gateway: try again",
        ),
    };
    fault.retry_after(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> Party {
        Party {
            address: None,
            user: Some(format!("user-{number}")),
        }
    }

    #[test]
    fn a_request_without_room_is_answered_with_when_to_come_back() {
        let places = Places::new(8, 8);
        let fault = |number| places.enter(Bound::Stream, &user(number)).unwrap_err().0;
        let held: Vec<_> = (0..8)
            .map(|number| places.enter(Bound::Stream, &user(number)).unwrap())
            .collect();
        let (own, all) = (fault(0), fault(8));
        assert_eq!(
            (own.code, own.retry_after_seconds),
            (ProblemCode::TooManyRequests, Some(2))
        );
        assert_eq!(
            (all.code, all.retry_after_seconds),
            (ProblemCode::Unavailable, Some(2))
        );
        drop(held);
        assert!(places.enter(Bound::Stream, &user(8)).is_ok());
        for bound in [Bound::Short, Bound::Wait, Bound::Download] {
            assert!(places.enter(bound, &user(0)).is_ok(), "{bound:?}");
        }
    }
}
