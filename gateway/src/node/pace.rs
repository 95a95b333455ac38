//! How often a device may begin: each beginning costs writes, or the reading of everything that it declares.
//!
//! An end is never paced: it belongs to a beginning that was allowed, and is always written.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pairing::key::KeyFingerprint;
use tokio::time::Instant;

use crate::limits::{Bucket, Paces};

/// Sessions that a device may begin at once, and the time in which it gets one more. A device that flaps every four
/// seconds is never refused, and one that restarts in a loop waits four seconds at most, and half as much for jitter. A
/// session costs two writes, so a device causes half a write per second at each gateway in the long run.
const SESSIONS: u32 = 20;
const SESSION_EVERY: Duration = Duration::from_secs(4);
/// The same of declarations: registrations and capability updates. A session needs one.
const DECLARATIONS: u32 = 30;
const DECLARATION_EVERY: Duration = Duration::from_secs(3);
/// Devices whose pace is known. A bucket fills in 90 seconds, and the pace of handshakes lets fewer devices in meanwhile.
const MOST_DEVICES: usize = 65_536;

/// What devices did lately, by their keys. Each gateway knows its own: N gateways give a device N times as much.
#[derive(Debug)]
pub struct Pace {
    sessions: Mutex<Paces<KeyFingerprint>>,
    declarations: Mutex<Paces<KeyFingerprint>>,
}

impl Default for Pace {
    fn default() -> Self {
        let paces =
            |burst, every| Mutex::new(Paces::new(Bucket::new(1, every, burst), MOST_DEVICES));
        Self {
            sessions: paces(SESSIONS, SESSION_EVERY),
            declarations: paces(DECLARATIONS, DECLARATION_EVERY),
        }
    }
}

impl Pace {
    /// Counts the beginning of a session.
    ///
    /// # Errors
    /// How long the device has to wait.
    pub fn session(&self, key: KeyFingerprint) -> Result<(), Duration> {
        take(&self.sessions, key)
    }

    /// Counts a registration or a capability update.
    ///
    /// # Errors
    /// How long the device has to wait.
    pub fn declaration(&self, key: KeyFingerprint) -> Result<(), Duration> {
        take(&self.declarations, key)
    }
}

fn take(paces: &Mutex<Paces<KeyFingerprint>>, key: KeyFingerprint) -> Result<(), Duration> {
    // Poisoning is harmless: no critical section can panic half-way.
    let mut paces = paces.lock().unwrap_or_else(PoisonError::into_inner);
    paces.turn(key, Duration::ZERO, Instant::now()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::{key, other_key};

    #[tokio::test(start_paused = true)]
    async fn a_device_that_flaps_is_not_refused_and_one_that_hammers_is_told_how_long_to_wait() {
        let pace = Pace::default();
        for _ in 0..1000 {
            assert_eq!(pace.session(key()), Ok(()));
            tokio::time::advance(SESSION_EVERY).await;
        }
        let begun = (0..1000).filter(|_| pace.session(key()).is_ok()).count();
        assert_eq!(begun, 20);
        assert_eq!(pace.session(key()), Err(SESSION_EVERY));
        assert_eq!(pace.session(other_key()), Ok(()), "each has its own");
        tokio::time::advance(SESSION_EVERY).await;
        assert_eq!(pace.session(key()), Ok(()));
        assert_eq!(pace.declaration(key()), Ok(()), "counted apart");
    }
}
