//! What the journal says, and how it is written: length, checksum, content.

use std::{fmt, sync::Arc};

use prost::Message as _;
use proto::node;

use super::mark::Mark;

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
    /// It waits for its turn; nothing of it ran. With its idempotency key, where it has one.
    Waiting {
        uid: Uid,
        name: String,
        mark: Option<Mark>,
    },
    /// Its capability is about to start. From here on it may have had its effect.
    Accepted {
        uid: Uid,
        name: String,
        mark: Option<Mark>,
    },
    /// Another with its idempotency key came first. It never runs, and ends as that one does.
    Following {
        uid: Uid,
        name: String,
        follow: Follow,
    },
    /// It ended well, and its output is in a file until a gateway has stored it: it never runs again, and its end is not
    /// told yet. The result is what is told once it is stored.
    Kept { uid: Uid, result: node::Result },
    /// How it ended.
    Finished { uid: Uid, result: node::Result },
    /// It was cancelled before this device ever heard of it, and is not run if it comes after all. The name is empty
    /// where the gateway did not say it; that of a result never is.
    Cancelled { uid: Uid, name: String },
    /// Its result is where it belongs. By itself, without a record of what is acked: nothing else is kept of it.
    Acked { uid: Uid },
    /// The same, of one that was the first with its idempotency key.
    Forgotten { uid: Uid, name: String, mark: Mark },
}

/// What one waits for that is not the first with its idempotency key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Follow {
    /// The first, and its name: it may be forgotten meanwhile.
    pub first: Uid,
    pub first_name: String,
    /// What is kept of the output.
    pub max_output_bytes: u32,
    /// Somebody else asked for the first: what a person said of that one says nothing of this one.
    pub is_of_another: bool,
}

/// How a record is encoded. Numbers are the file's format: they are never reused. What has a key is of the kind that it
/// would be of without, so that an agent that knows nothing of keys reads the file too.
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
    #[prost(bytes = "vec", tag = "6")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    call: Vec<u8>,
    #[prost(string, tag = "8")]
    first: String,
    #[prost(string, tag = "9")]
    first_name: String,
    #[prost(uint32, tag = "10")]
    max_output_bytes: u32,
    #[prost(bytes = "vec", tag = "11")]
    requester: Vec<u8>,
    #[prost(bool, tag = "12")]
    is_of_another: bool,
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
            | Self::Kept { uid, .. }
            | Self::Finished { uid, .. }
            | Self::Following { uid, .. }
            | Self::Cancelled { uid, .. }
            | Self::Forgotten { uid, .. }
            | Self::Acked { uid } => uid,
        }
    }

    /// The idempotency key whose first it is about.
    pub(super) fn mark(&self) -> Option<Mark> {
        match self {
            Self::Waiting { mark, .. } | Self::Accepted { mark, .. } => *mark,
            Self::Forgotten { mark, .. } => Some(*mark),
            Self::Following { .. }
            | Self::Kept { .. }
            | Self::Finished { .. }
            | Self::Cancelled { .. }
            | Self::Acked { .. } => None,
        }
    }

    /// Whether what follows depends on it being durable. Of an ack nothing depends: a result that is sent once more is
    /// acked once more.
    pub fn must_last(&self) -> bool {
        match self {
            Self::Waiting { .. }
            | Self::Accepted { .. }
            | Self::Following { .. }
            | Self::Kept { .. }
            | Self::Finished { .. }
            | Self::Cancelled { .. } => true,
            Self::Acked { .. } | Self::Forgotten { .. } => false,
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
        let [key, call, requester] = record
            .mark()
            .as_ref()
            .map_or_else(Default::default, |mark| mark.bytes().map(<[u8]>::to_vec));
        let mut wire = Self {
            uid: record.uid().as_str().to_owned(),
            key,
            call,
            requester,
            ..Self::default()
        };
        let (kind, name) = match record {
            Record::Waiting { name, .. } => (Kind::Waiting, name.as_str()),
            Record::Accepted { name, .. } => (Kind::Accepted, name.as_str()),
            Record::Following { name, follow, .. } => {
                follow.first.as_str().clone_into(&mut wire.first);
                wire.first_name.clone_from(&follow.first_name);
                wire.max_output_bytes = follow.max_output_bytes;
                wire.is_of_another = follow.is_of_another;
                (Kind::Waiting, name.as_str())
            }
            // For an agent that knows nothing of files it runs, and so it says after its start that nobody knows.
            Record::Kept { result, .. } => {
                wire.result = Some(result.clone());
                (Kind::Accepted, result.name.as_str())
            }
            Record::Finished { result, .. } => {
                wire.result = Some(result.clone());
                (Kind::Finished, "")
            }
            Record::Cancelled { name, .. } => (Kind::Cancelled, name.as_str()),
            Record::Acked { .. } => (Kind::Acked, ""),
            Record::Forgotten { name, .. } => (Kind::Acked, name.as_str()),
        };
        wire.kind = kind.into();
        name.clone_into(&mut wire.name);
        wire
    }
}

impl TryFrom<Wire> for Record {
    type Error = ();

    fn try_from(wire: Wire) -> Result<Self, ()> {
        let kind = wire.kind();
        let uid = Uid::parse(&wire.uid).ok_or(())?;
        let mark = if wire.key.is_empty() {
            None
        } else {
            Some(Mark::read(&wire.key, &wire.call, &wire.requester).ok_or(())?)
        };
        let name = wire.name;
        Ok(match (kind, mark) {
            (Kind::Unspecified, _) => return Err(()),
            (Kind::Waiting, _) if !wire.first.is_empty() => Self::Following {
                uid,
                name,
                follow: Follow {
                    first: Uid::parse(&wire.first).ok_or(())?,
                    first_name: wire.first_name,
                    max_output_bytes: wire.max_output_bytes,
                    is_of_another: wire.is_of_another,
                },
            },
            (Kind::Waiting, mark) => Self::Waiting { uid, name, mark },
            (Kind::Accepted, _) if wire.result.is_some() => Self::Kept {
                uid,
                result: wire.result.ok_or(())?,
            },
            (Kind::Accepted, mark) => Self::Accepted { uid, name, mark },
            (Kind::Finished, _) => Self::Finished {
                uid,
                result: wire.result.ok_or(())?,
            },
            (Kind::Cancelled, _) => Self::Cancelled { uid, name },
            (Kind::Acked, None) => Self::Acked { uid },
            (Kind::Acked, Some(mark)) => Self::Forgotten { uid, name, mark },
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
                mark: Some(Mark::of("key-a", "echo", b"1", "jane")),
            },
            Record::Accepted {
                uid: uid("b"),
                name: "check-b".to_owned(),
                mark: Some(Mark::of("key-b", "echo", b"1", "jane")),
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
        let mark = Mark::of("key-b", "echo", b"1", "jane");
        records.extend([
            Record::Kept {
                uid: uid("k"),
                result: node::Result {
                    uid: "k".to_owned(),
                    name: "check-k".to_owned(),
                    artefact: Some(node::Artefact {
                        sha256: vec![7; 32],
                        size_bytes: 1 << 40,
                        media_type: "text/plain".to_owned(),
                    }),
                    ..node::Result::default()
                },
            },
            Record::Cancelled {
                uid: uid("c"),
                name: "check-c".to_owned(),
            },
            Record::Waiting {
                uid: uid("d"),
                name: "check-d".to_owned(),
                mark: None,
            },
            Record::Following {
                uid: uid("e"),
                name: "check-e".to_owned(),
                follow: Follow {
                    first: uid("b"),
                    first_name: "check-b".to_owned(),
                    max_output_bytes: 1_000,
                    is_of_another: true,
                },
            },
            Record::Forgotten {
                uid: uid("b"),
                name: "check-b".to_owned(),
                mark,
            },
        ]);
        records
    }

    /// The format as it was before there were keys.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Before {
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

    #[test]
    fn a_record_from_before_there_were_keys_is_read_and_one_with_a_key_was_readable_then() {
        for (kind, expected) in [
            (
                Kind::Waiting,
                Record::Waiting {
                    uid: uid("a"),
                    name: "check".to_owned(),
                    mark: None,
                },
            ),
            (
                Kind::Accepted,
                Record::Accepted {
                    uid: uid("a"),
                    name: "check".to_owned(),
                    mark: None,
                },
            ),
            (Kind::Acked, Record::Acked { uid: uid("a") }),
        ] {
            let before = Before {
                kind: kind.into(),
                uid: "a".to_owned(),
                name: "check".to_owned(),
                ..Before::default()
            };
            let wire = Wire::decode(before.encode_to_vec().as_slice()).unwrap();
            assert_eq!(Record::try_from(wire), Ok(expected));
        }
        for record in all_kinds() {
            let wire = Wire::from(&record);
            let before = Before::decode(wire.encode_to_vec().as_slice()).unwrap();
            assert_eq!((before.kind, &before.uid), (wire.kind, &wire.uid));
        }
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
