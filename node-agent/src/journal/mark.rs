//! What is remembered of an idempotency key: digests. Each takes the same few bytes, and no key can be read back.

use sha2::{Digest as _, Sha256};

/// Longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 128;

/// A SHA-256.
type Sum = [u8; 32];
/// The first half of one: to tell the users of one cluster apart.
type Half = [u8; 16];

/// A key, what was asked under it, and by whom.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Mark {
    key: Sum,
    call: Sum,
    /// `None` where it was recorded before requesters were.
    requester: Option<Half>,
}

impl Mark {
    /// Of a call under `key`, compared byte by byte. No input is `null`, as it is for a capability.
    pub fn of(key: &str, capability: &str, input: &[u8], requester: &str) -> Self {
        let input = if input.is_empty() { b"null" } else { input };
        let call = Sha256::new()
            // With its length, so that no capability and input read like others.
            .chain_update((capability.len() as u64).to_le_bytes())
            .chain_update(capability)
            .chain_update(input);
        let requester: Sum = Sha256::digest(requester).into();
        Self {
            key: Sha256::digest(key).into(),
            call: call.finalize().into(),
            requester: requester.first_chunk().copied(),
        }
    }

    /// From bytes that [`Mark::bytes`] gave.
    pub(super) fn read(key: &[u8], call: &[u8], requester: &[u8]) -> Option<Self> {
        Some(Self {
            key: key.try_into().ok()?,
            call: call.try_into().ok()?,
            requester: match requester {
                [] => None,
                half => Some(half.try_into().ok()?),
            },
        })
    }

    /// Of the key, of the call, and of who asked; empty where that is not known.
    pub(super) fn bytes(&self) -> [&[u8]; 3] {
        let requester = self.requester.as_ref();
        [
            &self.key,
            &self.call,
            requester.map_or(&[], |half| half.as_slice()),
        ]
    }

    /// What names the key.
    pub fn key(&self) -> Sum {
        self.key
    }

    /// Whether the same was asked.
    pub fn is_same_call(&self, other: &Self) -> bool {
        self.call == other.call
    }

    /// Whether the same user asked. Who is not known is nobody's like.
    pub fn is_same_requester(&self, other: &Self) -> bool {
        self.requester.is_some() && self.requester == other.requester
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_same_when_capability_and_input_are() {
        let of = |key, capability, input: &[u8]| Mark::of(key, capability, input, "jane");
        let mark = of("k", "echo", b"1");
        for (other, same_key, same_call) in [
            (of("k", "echo", b"1"), true, true),
            (of("l", "echo", b"1"), false, true),
            (of("k", "echo", b"2"), true, false),
            (of("k", "ech", b"o1"), true, false),
            (Mark::of("k", "echo", b"1", "joe"), true, true),
        ] {
            assert_eq!(mark.key() == other.key(), same_key);
            assert_eq!(mark.is_same_call(&other), same_call);
        }
        assert_eq!(of("k", "echo", b""), of("k", "echo", b"null"));
    }

    #[test]
    fn a_requester_is_the_same_only_where_it_is_known_to_be() {
        let mark = |requester| Mark::of("k", "echo", b"1", requester);
        let [key, call, half] = [0, 1, 2].map(|part| mark("jane").bytes()[part].to_vec());
        let unknown = Mark::read(&key, &call, &[]).unwrap();
        let read = Mark::read(&key, &call, &half).unwrap();
        for (one, other, is_same) in [
            (mark("jane"), mark("jane"), true),
            (mark("jane"), read, true),
            (mark("jane"), mark("joe"), false),
            (mark("jane"), unknown, false),
            (unknown, unknown, false),
        ] {
            assert_eq!(one.is_same_requester(&other), is_same);
            assert!(one.is_same_call(&other));
        }
        assert_eq!(Mark::read(&key, &call, &half[1..]), None);
    }
}
