//! What the journal says, and how it is written: length, checksum, content.

use std::{fmt, sync::Arc};

use prost::Message as _;
use proto::node;

/// Longest uid, in bytes; Kubernetes' have 36.
const MAX_UID_BYTES: usize = 64;
/// Length and checksum.
pub(super) const HEADER: usize = 8;
/// Largest record that is read: a result with the largest output, and its frame.
pub(super) const MAX_RECORD: usize = 512 * 1024;

/// metadata.uid of an invocation: names it for ever. Cheap to clone, and many are kept.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uid(Arc<str>);

impl Uid {
    /// `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        ((1..=MAX_UID_BYTES).contains(&text.len()) && text.bytes().all(plain))
            .then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One fact about an invocation.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// It waits for its turn; nothing of it ran.
    Waiting { uid: Uid, name: String },
    /// Its capability is about to start. From here on it may have had its effect.
    Accepted { uid: Uid, name: String },
    /// How it ended.
    Finished { uid: Uid, result: node::Result },
    /// It was cancelled before this device ever heard of it, and is not run if it comes after all. The name is empty
    /// where the gateway did not say it; that of a result never is.
    Cancelled { uid: Uid, name: String },
    /// Its result is where it belongs. By itself, without a record of what is acked: nothing else is kept of it.
    Acked { uid: Uid },
}

/// How a record is encoded. Numbers are the file's format: they are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(enumeration = "Kind", tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(message, optional, tag = "4")]
    result: Option<node::Result>,
    #[prost(uint64, tag = "5")]
    synced: u64,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Unspecified = 0,
    Waiting = 1,
    Accepted = 2,
    Finished = 3,
    Acked = 4,
    Cancelled = 5,
}

/// A record that was written whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Whole {
    pub(super) record: Record,
    /// Bytes that it takes.
    pub(super) length: usize,
    /// Up to where the file was durable when it was written. With it, damage can be told from what a power cut leaves:
    /// of what was added after the last sync any part may be missing, of what was there before none.
    pub(super) synced: u64,
}

impl Record {
    pub fn uid(&self) -> &Uid {
        match self {
            Self::Waiting { uid, .. }
            | Self::Accepted { uid, .. }
            | Self::Finished { uid, .. }
            | Self::Cancelled { uid, .. }
            | Self::Acked { uid } => uid,
        }
    }

    /// Whether what follows depends on it being durable. Of an ack nothing depends: a result that is sent once more is
    /// acked once more.
    pub fn must_last(&self) -> bool {
        match self {
            Self::Waiting { .. }
            | Self::Accepted { .. }
            | Self::Finished { .. }
            | Self::Cancelled { .. } => true,
            Self::Acked { .. } => false,
        }
    }

    /// See [`Whole::synced`].
    pub(super) fn encode(&self, synced: u64) -> Vec<u8> {
        let mut wire = Wire::from(self);
        wire.synced = synced;
        let content = wire.encode_to_vec();
        // Nothing is recorded that is near 4 GiB; what is read is bounded by MAX_RECORD.
        let length = u32::try_from(content.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes();
        let mut bytes = Vec::with_capacity(HEADER + content.len());
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&checksum(length, &content).to_le_bytes());
        bytes.extend_from_slice(&content);
        bytes
    }

    /// Reads what stands at the beginning of `bytes`; `None` where nothing was written whole.
    pub(super) fn decode(bytes: &[u8]) -> Option<Whole> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let (length, sum) = header_of(header)?;
        let content = rest.get(..length)?;
        if checksum(u32::try_from(length).ok()?.to_le_bytes(), content) != sum {
            return None;
        }
        let wire = Wire::decode(content).ok()?;
        Some(Whole {
            synced: wire.synced,
            record: Self::try_from(wire).ok()?,
            length: HEADER + length,
        })
    }
}

/// Length of the content and its checksum; `None` where the length cannot be one.
pub(super) fn header_of(header: &[u8]) -> Option<(usize, u32)> {
    let length = u32::from_le_bytes(header.get(..4)?.try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(header.get(4..HEADER)?.try_into().ok()?);
    (1..=MAX_RECORD).contains(&length).then_some((length, sum))
}

/// Covers the length too: a torn length must not send the reader elsewhere.
fn checksum(length: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(content);
    hasher.finalize()
}

impl From<&Record> for Wire {
    fn from(record: &Record) -> Self {
        let (kind, name, result) = match record {
            Record::Waiting { name, .. } => (Kind::Waiting, name.clone(), None),
            Record::Accepted { name, .. } => (Kind::Accepted, name.clone(), None),
            Record::Finished { result, .. } => {
                (Kind::Finished, String::new(), Some(result.clone()))
            }
            Record::Cancelled { name, .. } => (Kind::Cancelled, name.clone(), None),
            Record::Acked { .. } => (Kind::Acked, String::new(), None),
        };
        Self {
            kind: kind.into(),
            uid: record.uid().as_str().to_owned(),
            name,
            result,
            synced: 0,
        }
    }
}

impl TryFrom<Wire> for Record {
    type Error = ();

    fn try_from(wire: Wire) -> Result<Self, ()> {
        let kind = wire.kind();
        let uid = Uid::parse(&wire.uid).ok_or(())?;
        let name = wire.name;
        Ok(match kind {
            Kind::Unspecified => return Err(()),
            Kind::Waiting => Self::Waiting { uid, name },
            Kind::Accepted => Self::Accepted { uid, name },
            Kind::Finished => Self::Finished {
                uid,
                result: wire.result.ok_or(())?,
            },
            Kind::Cancelled => Self::Cancelled { uid, name },
            Kind::Acked => Self::Acked { uid },
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    /// One record of each kind that an invocation on its way leaves.
    pub(crate) fn records() -> Vec<Record> {
        let result = node::Result {
            uid: "b".to_owned(),
            name: "check-b".to_owned(),
            outcome: node::Outcome::Succeeded.into(),
            output: b"{\"load\":1}".to_vec(),
            output_sha256: vec![7; 32],
            ..node::Result::default()
        };
        vec![
            Record::Waiting {
                uid: uid("a"),
                name: "check-a".to_owned(),
            },
            Record::Accepted {
                uid: uid("b"),
                name: "check-b".to_owned(),
            },
            Record::Finished {
                uid: uid("b"),
                result,
            },
            Record::Acked { uid: uid("b") },
        ]
    }

    fn all_kinds() -> Vec<Record> {
        let mut records = records();
        records.push(Record::Cancelled {
            uid: uid("c"),
            name: "check-c".to_owned(),
        });
        records
    }

    #[test]
    fn what_was_written_is_read() {
        for record in all_kinds() {
            let bytes = record.encode(7);
            let expected = Whole {
                record,
                length: bytes.len(),
                synced: 7,
            };
            assert_eq!(Record::decode(&bytes), Some(expected));
        }
    }

    #[test]
    fn a_record_with_any_bit_turned_or_any_byte_missing_is_none() {
        for record in all_kinds() {
            let bytes = record.encode(7);
            for length in 0..bytes.len() {
                assert_eq!(Record::decode(&bytes[..length]), None);
            }
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&bytes), None, "bit {bit}");
            }
        }
        // What a file system may leave at the end of a file.
        assert_eq!(Record::decode(&[0; 64]), None);
    }

    #[test]
    fn only_plain_short_words_are_uids() {
        for (text, expected) in [
            ("7f9c24e8-3b12-4b10-9f2a-000000000000", true),
            ("", false),
            ("a b", false),
            ("a/b", false),
        ] {
            assert_eq!(Uid::parse(text).is_some(), expected, "{text}");
        }
        assert!(Uid::parse(&"x".repeat(65)).is_none());
    }
}
