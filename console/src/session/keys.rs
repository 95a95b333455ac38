//! The keys that seal sessions: the current one and the one before it, from a Secret that all gateways mount.
//!
//! Gateways learn of a rotation one after the other, as the kubelet brings it to them. So a gateway that sees a new key
//! goes on sealing with the one before for [`SETTLE`], while the others learn to open what the new one seals.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::{
    aead::{AES_256_GCM, LessSafeKey, UnboundKey},
    hkdf,
};
use crds::names::{CONSOLE_KEY_BYTES, CONSOLE_KEY_CURRENT, CONSOLE_KEY_PREVIOUS};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// Files of `--console-keys-dir` that must be there.
pub const FILES: &[&str] = &[CONSOLE_KEY_CURRENT];
/// Those that may be there.
pub const OPTIONAL_FILES: &[&str] = &[CONSOLE_KEY_PREVIOUS];

/// How long a new key only opens: longer than a kubelet takes to bring a Secret to all gateways.
const SETTLE: SignedDuration = SignedDuration::from_mins(3);

/// By which a cookie says what sealed it.
pub type KeyId = [u8; 4];

/// One key.
pub struct Key {
    pub id: KeyId,
    pub(super) aead: LessSafeKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &hex::encode(self.id))
            .finish_non_exhaustive()
    }
}

impl Key {
    /// From what the Secret holds.
    ///
    /// # Errors
    /// When it is not as long as a key.
    pub fn new(secret: &[u8]) -> anyhow::Result<Self> {
        ensure!(
            secret.len() == CONSOLE_KEY_BYTES,
            "a key has {CONSOLE_KEY_BYTES} bytes and not {}",
            secret.len()
        );
        // Apart, so that the id, which is in every cookie, tells nothing of the key.
        let secret =
            hkdf::Salt::new(hkdf::HKDF_SHA256, b"fairlead console session v1").extract(secret);
        let mut id = KeyId::default();
        let mut sealing = [0; 32];
        let expanded = secret
            .expand(&[b"id"], Bytes(id.len()))
            .and_then(|okm| okm.fill(&mut id))
            .and_then(|()| secret.expand(&[b"seal"], Bytes(sealing.len())))
            .and_then(|okm| okm.fill(&mut sealing));
        if expanded.is_err() {
            bail!("HKDF failed");
        }
        let aead = UnboundKey::new(&AES_256_GCM, &sealing).map(LessSafeKey::new);
        let aead = aead.ok().context("make an AES-256-GCM key")?;
        Ok(Self { id, aead })
    }
}

/// How many bytes HKDF gives.
struct Bytes(usize);

impl hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// Both keys.
#[derive(Debug)]
pub struct Keys {
    pub current: Key,
    pub previous: Option<Key>,
}

impl Keys {
    /// Takes the contents of [`FILES`] and [`OPTIONAL_FILES`]; what is not there is empty.
    ///
    /// # Errors
    /// When one is not a key.
    pub fn parse(files: &[Vec<u8>]) -> anyhow::Result<Self> {
        let [current, previous] = files else {
            bail!("expected {CONSOLE_KEY_CURRENT} and {CONSOLE_KEY_PREVIOUS}");
        };
        let current = Key::new(current).with_context(|| format!("read {CONSOLE_KEY_CURRENT}"))?;
        let previous = if previous.is_empty() {
            None
        } else {
            Some(Key::new(previous).with_context(|| format!("read {CONSOLE_KEY_PREVIOUS}"))?)
        };
        Ok(Self { current, previous })
    }

    /// The key of that id.
    pub fn by_id(&self, id: KeyId) -> Option<&Key> {
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == id)
    }
}

/// The keys as they are mounted now.
pub struct KeyRing {
    mounted: watch::Receiver<Option<Arc<Keys>>>,
    /// The current key, and since when it is; `None` where it was there when we began.
    seen: Mutex<Option<(KeyId, Option<Timestamp>)>>,
}

impl KeyRing {
    pub fn new(mounted: watch::Receiver<Option<Arc<Keys>>>) -> Self {
        Self {
            mounted,
            seen: Mutex::new(None),
        }
    }

    /// `None` until they were there once.
    pub fn keys(&self) -> Option<Arc<Keys>> {
        self.mounted.borrow().clone()
    }

    /// With what to seal now.
    pub fn sealing<'a>(&self, keys: &'a Keys, now: Timestamp) -> &'a Key {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *seen {
            Some((id, since)) if id == keys.current.id => since,
            Some(_) => Some(now),
            None => None,
        };
        *seen = Some((keys.current.id, since));
        let settles =
            since.is_some_and(|since| since.saturating_add(SETTLE).is_ok_and(|end| now < end));
        match &keys.previous {
            Some(previous) if settles => previous,
            _ => &keys.current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(of: u8) -> Vec<u8> {
        vec![of; CONSOLE_KEY_BYTES]
    }

    fn keys(current: u8, previous: Option<u8>) -> Keys {
        Keys::parse(&[secret(current), previous.map(secret).unwrap_or_default()]).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(Keys::parse(&[vec![1; 31], vec![]]).is_err());
        assert!(Keys::parse(&[secret(1), vec![1; 33]]).is_err());
        assert!(Keys::parse(&[secret(1)]).is_err());
        assert!(Keys::parse(&[vec![], vec![]]).is_err());
    }

    #[test]
    fn keys_are_found_by_their_ids_and_are_not_printed() {
        let keys = keys(1, Some(2));
        let previous = keys.previous.as_ref().unwrap();
        assert_ne!(keys.current.id, previous.id);
        assert_eq!(keys.by_id(previous.id).unwrap().id, previous.id);
        assert!(keys.by_id([0; 4]).is_none());
        let shown = format!("{keys:?}");
        assert!(!shown.contains("1, 1, 1"), "{shown}");
    }

    #[test]
    fn a_new_key_seals_once_all_gateways_can_open_it() {
        let (_sender, mounted) = watch::channel(None);
        let ring = KeyRing::new(mounted);
        let (before, after) = (keys(1, None), keys(2, Some(1)));
        assert_eq!(ring.sealing(&before, at(0)).id, before.current.id);
        assert_eq!(ring.sealing(&after, at(10)).id, before.current.id);
        assert_eq!(ring.sealing(&after, at(189)).id, before.current.id);
        assert_eq!(ring.sealing(&after, at(190)).id, after.current.id);
        // A gateway that was just started does not know when it was rotated.
        let (_sender, mounted) = watch::channel(None);
        let fresh = KeyRing::new(mounted);
        assert_eq!(fresh.sealing(&after, at(10)).id, after.current.id);
    }
}
