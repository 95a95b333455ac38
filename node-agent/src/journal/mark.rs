//! What is remembered of an idempotency key: digests. Each takes the same few bytes, and no key can be read back.

use sha2::{Digest as _, Sha256};

/// Longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 128;

/// A SHA-256.
type Sum = [u8; 32];

/// A key, and what was asked under it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Mark {
    key: Sum,
    call: Sum,
}

impl Mark {
    /// Of a call under `key`, compared byte by byte. No input is `null`, as it is for a capability.
    pub fn of(key: &str, capability: &str, input: &[u8]) -> Self {
        let input = if input.is_empty() { b"null" } else { input };
        let call = Sha256::new()
            // With its length, so that no capability and input read like others.
            .chain_update((capability.len() as u64).to_le_bytes())
            .chain_update(capability)
            .chain_update(input);
        Self {
            key: Sha256::digest(key).into(),
            call: call.finalize().into(),
        }
    }

    /// From bytes that [`Mark::bytes`] gave.
    pub(super) fn read(key: &[u8], call: &[u8]) -> Option<Self> {
        Some(Self {
            key: key.try_into().ok()?,
            call: call.try_into().ok()?,
        })
    }

    /// Of the key, and of the call.
    pub(super) fn bytes(&self) -> [&[u8]; 2] {
        [&self.key, &self.call]
    }

    /// What names the key.
    pub fn key(&self) -> Sum {
        self.key
    }

    /// Whether the same was asked.
    pub fn is_same_call(&self, other: &Self) -> bool {
        self.call == other.call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_same_when_capability_and_input_are() {
        let mark = Mark::of("k", "echo", b"1");
        for (other, same_key, same_call) in [
            (Mark::of("k", "echo", b"1"), true, true),
            (Mark::of("l", "echo", b"1"), false, true),
            (Mark::of("k", "echo", b"2"), true, false),
            (Mark::of("k", "ech", b"o1"), true, false),
        ] {
            assert_eq!(mark.key() == other.key(), same_key);
            assert_eq!(mark.is_same_call(&other), same_call);
        }
        assert_eq!(Mark::of("k", "echo", b""), Mark::of("k", "echo", b"null"));
    }
}
