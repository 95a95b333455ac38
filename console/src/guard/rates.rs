//! How often one may ask.
//!
//! An address is counted before anything else is done for it, an identity as soon as it is known: who has many addresses
//! has no more for it, and of many behind one address each has his own.

use std::{hash::Hash, num::NonZeroU32};

use console_api::problem::ProblemCode;
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::DashMapStateStore,
};

/// Source of a request, and the networks that contain it.
pub use runtime::origin::{Network, Origin as Address};

use crate::problem::{Answer, Fault};

/// Most keys whose pace is known. Beyond it the places of all bound them.
const MOST: usize = 65_536;
/// One request of as many may bring a token that is not known. Each user brings one every ten seconds at most.
const NEW_TOKENS: u32 = 10;
/// As many seconds' worth may come at once.
const BURST_SECONDS: u32 = 2;
/// Logouts of one user at once; then one per second.
const LOGOUTS: NonZeroU32 = NonZeroU32::new(10).expect("10 is not 0");

/// Paces of addresses and identities.
pub struct Rates {
    addresses: Pace<Address>,
    /// Tokens of an address that nobody has asked about lately: each costs the API server a review.
    tokens: Pace<Address>,
    users: Pace<String>,
    /// Logouts of a user: each costs the API server a write.
    logouts: Pace<String>,
}

impl Rates {
    pub fn new(per_address: NonZeroU32, per_user: NonZeroU32) -> Self {
        Self {
            addresses: Pace::new(per_address),
            tokens: Pace::new(
                NonZeroU32::new(per_address.get() / NEW_TOKENS).unwrap_or(NonZeroU32::MIN),
            ),
            users: Pace::new(per_user),
            logouts: Pace::of(Quota::per_second(NonZeroU32::MIN).allow_burst(LOGOUTS)),
        }
    }

    /// # Errors
    /// Where the address asks too often.
    pub fn of_address(&self, address: Address) -> Answer<()> {
        self.addresses
            .take(&address)
            .map_err(|seconds| limited(seconds, "this address"))
    }

    /// # Errors
    /// Where the address brings too many tokens that are not known.
    pub fn of_new_token(&self, address: Address) -> Answer<()> {
        self.tokens.take(&address).map_err(|seconds| {
            limited(seconds, "this address, with tokens that are not known here")
        })
    }

    /// # Errors
    /// Where the user asks too often.
    pub fn of_user(&self, user: &str) -> Answer<()> {
        self.users
            .take(&user.to_owned())
            .map_err(|seconds| limited(seconds, "you"))
    }

    /// # Errors
    /// If the user logs out too often.
    pub fn of_logout(&self, user: &str) -> Answer<()> {
        self.logouts
            .take(&user.to_owned())
            .map_err(|seconds| limited(seconds, "you, to log out"))
    }
}

fn limited(seconds: u32, who: &str) -> Fault {
    let detail = format!("too many requests from {who}: come back in {seconds} s");
    Fault::new(ProblemCode::TooManyRequests, detail).retry_after(seconds)
}

/// How often each key may do something.
pub struct Pace<K: Clone + Eq + Hash>(RateLimiter<K, DashMapStateStore<K>, DefaultClock>);

impl<K: Clone + Eq + Hash> Pace<K> {
    /// So many per second, and twice as many at once.
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst =
            per_second.saturating_mul(NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN));
        Self::of(Quota::per_second(per_second).allow_burst(burst))
    }

    fn of(quota: Quota) -> Self {
        Self(RateLimiter::dashmap(quota))
    }

    /// Counts one.
    ///
    /// # Errors
    /// If it comes too soon: in how many seconds it may come.
    pub fn take(&self, key: &K) -> Result<(), u32> {
        if self.0.len() >= MOST {
            self.0.retain_recent();
            if self.0.len() >= MOST {
                return Ok(());
            }
        }
        self.0.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.0.clock().now());
            u32::try_from(wait.as_secs())
                .unwrap_or(u32::MAX)
                .saturating_add(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn rate(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn one_who_asks_too_often_is_told_when_to_come_back_and_others_are_not_kept_out() {
        let rates = Rates::new(rate(1000), rate(2));
        let refused = (0..10)
            .filter_map(|_| rates.of_user("ada").err())
            .collect::<Vec<_>>();
        assert!(refused.len() >= 5, "{}", refused.len());
        let problem = &refused[0].0;
        assert_eq!(problem.status, 429);
        assert_eq!(problem.retry_after_seconds, Some(1));
        assert!(rates.of_user("bob").is_ok());
    }

    #[test]
    fn tokens_that_are_not_known_are_paced_more_slowly() {
        let rates = Rates::new(rate(100), rate(1));
        let address = Address::from(IpAddr::from([192, 0, 2, 1]));
        let taken = (0..1000)
            .filter(|_| rates.of_new_token(address).is_ok())
            .count();
        assert!((20..40).contains(&taken), "{taken}");
        assert!(rates.of_address(address).is_ok());
    }
}
