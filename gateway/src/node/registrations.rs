//! What devices said about themselves, from Register until their stream begins. In memory only: a device that meets
//! another gateway registers there.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pairing::key::KeyFingerprint;
use tokio::time::Instant;

use crate::domain::{device::DeviceKey, register::Declared};

/// How long a registration waits for its stream.
const WAITS: Duration = Duration::from_mins(1);

/// One for each device at most.
#[derive(Debug, Default)]
pub struct Registrations(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    of: HashMap<DeviceKey, Registration>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Registration {
    id: String,
    fingerprint: KeyFingerprint,
    declared: Declared,
    since: Instant,
}

impl Registrations {
    /// Keeps it, in the place of an earlier one of the device. Returns what the device gives back in Hello.
    pub fn insert(
        &self,
        key: DeviceKey,
        fingerprint: KeyFingerprint,
        declared: Declared,
    ) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting
            .swept
            .is_none_or(|swept| now.duration_since(swept) > WAITS / 4)
        {
            waiting
                .of
                .retain(|_, registration| now.duration_since(registration.since) < WAITS);
            waiting.swept = Some(now);
        }
        waiting.of.insert(
            key,
            Registration {
                id: id.clone(),
                fingerprint,
                declared,
                since: now,
            },
        );
        id
    }

    /// Takes it out, if it is this one, of this key, and not too old.
    pub fn take(
        &self,
        key: &DeviceKey,
        fingerprint: &KeyFingerprint,
        id: &str,
    ) -> Option<Declared> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = waiting.of.get(key)?;
        let fits =
            known.id == id && known.fingerprint == *fingerprint && known.since.elapsed() < WAITS;
        if !fits {
            return None;
        }
        waiting
            .of
            .remove(key)
            .map(|registration| registration.declared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fixtures::{declared, key, other_key};

    fn lamp() -> DeviceKey {
        DeviceKey::new("kitchen", "lamp-1")
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_is_taken_once_by_who_made_it() {
        let registrations = Registrations::default();
        let id = registrations.insert(lamp(), key(), declared(&["echo"]));
        assert_eq!(registrations.take(&lamp(), &key(), "another"), None);
        assert_eq!(registrations.take(&lamp(), &other_key(), &id), None);
        assert_eq!(
            registrations.take(&lamp(), &key(), &id),
            Some(declared(&["echo"]))
        );
        assert_eq!(registrations.take(&lamp(), &key(), &id), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_without_a_stream_is_forgotten() {
        let registrations = Registrations::default();
        let id = registrations.insert(lamp(), key(), declared(&[]));
        tokio::time::advance(WAITS).await;
        assert_eq!(registrations.take(&lamp(), &key(), &id), None);
        registrations.insert(DeviceKey::new("kitchen", "lamp-2"), key(), declared(&[]));
        assert_eq!(
            registrations.0.lock().unwrap().of.len(),
            1,
            "and takes no room"
        );
    }
}
