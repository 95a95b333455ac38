//! Where a reader of the inventory is. All of it is in the cursor: any gateway goes on from it.
//!
//! It is no secret and gives no right: what it leads to is what its bearer may see anyway. The digest at its end is there
//! so that one that was cut or changed is told from one that was not, not against who makes one up.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use console_api::id::{is_name, is_namespace};
use sha2::{Digest as _, Sha256};

use super::{Key, Name, Rank};

const VERSION: u8 = 1;
/// Bytes of the digest at the end.
const DIGEST: usize = 8;
/// Longest cursor, as text.
pub const MAX_CURSOR: usize = 512;

/// Where a reader is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// What was asked: [`Filter::digest`](super::Filter::digest).
    pub asked: [u8; 8],
    /// What has moved since that version may have been missed.
    pub since: u64,
    /// Who goes after what may have been missed must have seen this version.
    pub need: u64,
    pub at: At,
}

/// See [`page()`](super::page()).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum At {
    /// In the order of attention, after that device.
    Walk(Key),
    /// Among those that may have been missed, after that device.
    CatchUp(Option<Name>),
}

/// What is no cursor of this question.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is no cursor of these filters: begin with the first page")]
pub struct BadCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, name) = match &self.at {
            At::Walk(key) => (rank_byte(key.rank), Some(&key.name)),
            At::CatchUp(name) => (b'c', name.as_ref()),
        };
        let mut bytes = vec![VERSION, place];
        bytes.extend(self.asked);
        bytes.extend(self.since.to_be_bytes());
        bytes.extend(self.need.to_be_bytes());
        if let Some(name) = name {
            bytes.extend(name.namespace.bytes());
            bytes.push(b'.');
            bytes.extend(name.name.bytes());
        }
        bytes.extend(digest(&bytes));
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        if text.len() > MAX_CURSOR {
            return Err(BadCursor);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| BadCursor)?;
        read(&bytes).ok_or(BadCursor)
    }
}

fn read(bytes: &[u8]) -> Option<Cursor> {
    let (bytes, said) = bytes.split_last_chunk::<DIGEST>()?;
    if digest(bytes) != *said {
        return None;
    }
    let ([version, place], rest) = bytes.split_first_chunk()?;
    let (asked, rest) = rest.split_first_chunk()?;
    let (since, rest) = rest.split_first_chunk()?;
    let (need, rest) = rest.split_first_chunk()?;
    if *version != VERSION {
        return None;
    }
    let name = match std::str::from_utf8(rest).ok()? {
        "" => None,
        text => {
            let (namespace, name) = text.split_once('.')?;
            (is_namespace(namespace) && is_name(name)).then_some(())?;
            Some(Name::new(namespace, name))
        }
    };
    let at = match (*place, name) {
        (b'c', name) => At::CatchUp(name),
        (place, Some(name)) => At::Walk(Key {
            rank: Rank::ALL
                .into_iter()
                .find(|rank| rank_byte(*rank) == place)?,
            name,
        }),
        (_, None) => return None,
    };
    Some(Cursor {
        asked: *asked,
        since: u64::from_be_bytes(*since),
        need: u64::from_be_bytes(*need),
        at,
    })
}

fn rank_byte(rank: Rank) -> u8 {
    match rank {
        Rank::Degraded => b'0',
        Rank::Stale => b'1',
        Rank::Offline => b'2',
        Rank::Online => b'3',
    }
}

fn digest(bytes: &[u8]) -> [u8; DIGEST] {
    let whole = Sha256::new()
        .chain_update("fairlead inventory cursor\0")
        .chain_update(bytes)
        .finalize();
    let mut first = [0; DIGEST];
    first.copy_from_slice(&whole[..DIGEST]);
    first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minimal(at: At) -> Cursor {
        Cursor {
            asked: [7; 8],
            since: 1,
            need: u64::MAX,
            at,
        }
    }

    fn walk(rank: Rank) -> Cursor {
        let name = Name::new("workshop", "kiosk.7");
        minimal(At::Walk(Key { rank, name }))
    }

    #[test]
    fn what_is_written_is_read() {
        let caught = minimal(At::CatchUp(Some(Name::new(
            "n".repeat(63),
            "a".repeat(253),
        ))));
        let cursors = Rank::ALL.map(walk).into_iter();
        for cursor in cursors.chain([caught, minimal(At::CatchUp(None))]) {
            let text = cursor.to_string();
            assert!(text.len() <= MAX_CURSOR, "{}", text.len());
            assert_eq!(text.parse(), Ok(cursor));
        }
    }

    #[test]
    fn a_cursor_of_another_version_is_none() {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(walk(Rank::Stale).to_string())
            .unwrap();
        let mut other = bytes[..bytes.len() - DIGEST].to_vec();
        other[0] += 1;
        other.extend(digest(&other.clone()));
        assert_eq!(
            BASE64_URL_SAFE_NO_PAD.encode(other).parse::<Cursor>(),
            Err(BadCursor)
        );
    }

    proptest! {
        #[test]
        fn a_cursor_that_was_changed_is_none(at in 0_usize..60, bit in 0_u8..6, cut in 1_usize..60) {
            let text = walk(Rank::Offline).to_string();
            prop_assert_eq!(text[..text.len() - cut].parse::<Cursor>(), Err(BadCursor));
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(bytes).parse::<Cursor>(), Err(BadCursor));
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,600}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
