//! An artefact as a device claims it: what is believed of that, where it is in the store, and how its chunks become
//! parts.
//!
//! ```text
//! artefacts/NAMESPACE/NAME_UID/SHA256     whole: it is there only after its digest was checked
//! parts/NAMESPACE/UID/SHA256/NUMBER       pieces of one that is on its way
//! ```
//!
//! The key names the digest, so that an object under it is the artefact itself and needs no second look.

use crds::v1alpha1::capability_invocation::Artefact;
use proto::node;

use super::result::hex;

/// Bytes of every part but the last. Stores want pieces of 5 MiB at least, and all of one size.
pub const PART: u64 = 5 * 1024 * 1024;
/// How far a device may be ahead of what is kept: while one part is written, the next one arrives.
pub const WINDOW: u64 = 2 * PART;
/// Longest chunk.
const MAX_CHUNK: usize = 64 * 1024;
const MAX_MEDIA_TYPE: usize = 128;
/// Longest part of an invocation's name in a key: with uid and digest it must be a file's name anywhere.
const MAX_NAME: usize = 63;
/// Digits of a part's number: listed in the order of their names, parts are in order.
const NUMBER_DIGITS: usize = 8;

/// Where what is whole is.
pub const ARTEFACTS: &str = "artefacts";
/// Where pieces are.
pub const PARTS: &str = "parts";

/// What a device says of an artefact, within bounds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    pub sha256: [u8; 32],
    /// One at least.
    pub size: u64,
    pub media_type: String,
}

impl Claim {
    /// The text is for the device and for people.
    pub fn read(artefact: &node::Artefact, most: u64) -> Result<Self, String> {
        let sha256 = artefact.sha256.as_slice().try_into();
        let sha256 = sha256.map_err(|_| "the digest of the artefact is no SHA-256".to_owned())?;
        if artefact.size_bytes == 0 {
            return Err("an artefact has one byte at least".to_owned());
        }
        if artefact.size_bytes > most {
            return Err(format!(
                "the artefact has {} bytes, and the gateways take {most} at most",
                artefact.size_bytes
            ));
        }
        let media_type = match artefact.media_type.as_str() {
            "" => "application/json",
            media_type => media_type,
        };
        let plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if media_type.len() > MAX_MEDIA_TYPE || !media_type.bytes().all(plain) {
            return Err("the media type of the artefact is none".to_owned());
        }
        Ok(Self {
            sha256,
            size: artefact.size_bytes,
            media_type: media_type.to_owned(),
        })
    }
}

/// One artefact of one invocation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub namespace: String,
    /// Of the invocation, like the uid.
    pub name: String,
    pub uid: String,
    pub claim: Claim,
}

impl Place {
    /// Where it is once it is whole.
    pub fn key(&self) -> String {
        let Self {
            namespace,
            name,
            uid,
            claim,
        } = self;
        // Object names are ASCII; of what is not, the beginning would have to be cut between characters.
        let name = name.get(..MAX_NAME).unwrap_or(name);
        format!(
            "{ARTEFACTS}/{namespace}/{name}_{uid}/{}",
            hex(&claim.sha256)
        )
    }

    /// Where its parts are.
    pub fn parts(&self) -> String {
        let Self {
            namespace,
            uid,
            claim,
            ..
        } = self;
        format!("{PARTS}/{namespace}/{uid}/{}", hex(&claim.sha256))
    }

    pub fn part(&self, number: u64) -> String {
        format!("{}/{number:0NUMBER_DIGITS$}", self.parts())
    }

    /// How many parts it has.
    pub fn count(&self) -> u64 {
        self.claim.size.div_ceil(PART)
    }

    /// Bytes of that part.
    pub fn length(&self, number: u64) -> u64 {
        let before = number.saturating_mul(PART);
        self.claim.size.saturating_sub(before).min(PART)
    }

    /// Bytes from the beginning that are kept, where these parts are, each with its size. What does not continue them,
    /// or is of another size than it should be, does not count.
    pub fn kept(&self, found: &[(u64, u64)]) -> u64 {
        let is_there = |number: u64| found.contains(&(number, self.length(number)));
        let whole = (0..self.count()).take_while(|number| is_there(*number));
        whole.map(|number| self.length(number)).sum()
    }

    /// What the invocation's status says of it.
    pub fn shown(&self) -> Artefact {
        Artefact {
            key: self.key(),
            size_bytes: i64::try_from(self.claim.size).unwrap_or(i64::MAX),
            sha256: hex(&self.claim.sha256),
            media_type: Some(self.claim.media_type.clone()),
        }
    }
}

/// A piece that is full, or the last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    pub number: u64,
    pub bytes: Vec<u8>,
}

/// Makes parts of chunks. Holds less than one part.
#[derive(Debug)]
pub struct Collector {
    size: u64,
    /// From where the device was last asked to send.
    asked: u64,
    /// What comes next.
    next: u64,
    part: Vec<u8>,
    /// Something came since it began here.
    begun: bool,
}

/// What a device must not do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Odd {
    #[error("the chunks of the artefact did not come in order")]
    OutOfOrder,
    #[error("more of the artefact came than was asked for")]
    NotAsked,
    #[error("a chunk of the artefact is empty or larger than 65536 bytes")]
    Size,
}

impl Collector {
    /// What comes begins at `offset`, where a part does.
    pub fn new(size: u64, offset: u64) -> Self {
        Self {
            size,
            asked: offset,
            next: offset,
            part: Vec::new(),
            begun: false,
        }
    }

    /// The device may send on: what is before that is kept.
    pub fn ask(&mut self, offset: u64) {
        self.asked = self.asked.max(offset);
    }

    /// Whether the device has something to send.
    pub fn awaits(&self) -> bool {
        self.next < self.most()
    }

    fn most(&self) -> u64 {
        self.size.min(self.asked.saturating_add(WINDOW))
    }

    /// Takes a chunk, and gives the parts that it completes: two, where the last one is smaller than a chunk. What was taken
    /// before is left out.
    pub fn take(&mut self, offset: u64, mut data: &[u8]) -> Result<Vec<Part>, Odd> {
        let length = data.len() as u64;
        if data.is_empty() || data.len() > MAX_CHUNK {
            return Err(Odd::Size);
        }
        if offset < self.next {
            return Ok(Vec::new());
        }
        if offset > self.next {
            // On its way since before it was asked to begin here.
            return if self.begun {
                Err(Odd::OutOfOrder)
            } else {
                Ok(Vec::new())
            };
        }
        if length > self.most().saturating_sub(self.next) {
            return Err(Odd::NotAsked);
        }
        self.begun = true;
        let mut parts = Vec::new();
        while !data.is_empty() {
            let number = self.next / PART;
            let end = self.size.min((number + 1) * PART);
            // Both are less than a part.
            let room = usize::try_from(end - self.next).unwrap_or(usize::MAX);
            let (fits, rest) = data.split_at(room.min(data.len()));
            if self.part.capacity() == 0 {
                let whole = usize::try_from(end - number * PART).unwrap_or_default();
                self.part.reserve_exact(whole);
            }
            self.part.extend_from_slice(fits);
            self.next += fits.len() as u64;
            if self.next == end {
                let bytes = std::mem::take(&mut self.part);
                parts.push(Part { number, bytes });
            }
            data = rest;
        }
        Ok(parts)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// kitchen/say-hi, uid-1.
    pub(crate) fn place(bytes: &[u8]) -> Place {
        Place {
            namespace: "kitchen".to_owned(),
            name: "say-hi".to_owned(),
            uid: "1a-2b".to_owned(),
            claim: Claim {
                sha256: Sha256::digest(bytes).into(),
                size: bytes.len() as u64,
                media_type: "application/json".to_owned(),
            },
        }
    }

    fn sized(size: u64) -> Place {
        let mut place = place(b"x");
        place.claim.size = size;
        place
    }

    fn artefact() -> node::Artefact {
        node::Artefact {
            sha256: vec![7; 32],
            size_bytes: 100,
            media_type: String::new(),
        }
    }

    #[test]
    fn a_claim_is_within_bounds_or_says_what_is_not() {
        let claim = Claim::read(&artefact(), 100).unwrap();
        assert_eq!(
            (claim.size, claim.media_type.as_str()),
            (100, "application/json")
        );
        let check = |change: fn(&mut node::Artefact), says: &str| {
            let mut artefact = artefact();
            change(&mut artefact);
            let error = Claim::read(&artefact, 100).unwrap_err();
            assert!(error.contains(says), "{error}");
        };
        check(|artefact| artefact.sha256.truncate(31), "SHA-256");
        check(|artefact| artefact.size_bytes = 0, "one byte");
        check(|artefact| artefact.size_bytes = 101, "100 at most");
        check(
            |artefact| artefact.media_type = "a\nb".to_owned(),
            "media type",
        );
        check(
            |artefact| artefact.media_type = "a".repeat(129),
            "media type",
        );
    }

    #[test]
    fn a_key_is_short_enough_for_every_store_and_names_what_it_is() {
        let mut place = place(b"x");
        let digest = hex(&place.claim.sha256);
        assert_eq!(
            place.key(),
            format!("artefacts/kitchen/say-hi_1a-2b/{digest}")
        );
        assert_eq!(
            place.part(3),
            format!("parts/kitchen/1a-2b/{digest}/00000003")
        );
        place.namespace = "n".repeat(63);
        place.name = "a".repeat(253);
        place.uid = "f".repeat(64);
        assert!(place.key().len() <= 512, "{}", place.key().len());
        assert!(place.key().split('/').all(|name| name.len() <= 200));
    }

    #[test]
    fn what_is_kept_is_what_has_no_gap_and_the_right_sizes() {
        let place = sized(2 * PART + 7);
        assert_eq!(place.count(), 3);
        for (found, kept) in [
            (&[][..], 0),
            (&[(0, PART)][..], PART),
            (&[(1, PART)][..], 0),
            (&[(0, PART), (2, 7)][..], PART),
            (&[(0, PART - 1), (1, PART)][..], 0),
            (&[(2, 7), (1, PART), (0, PART)][..], 2 * PART + 7),
            (&[(0, PART), (1, PART), (2, 8), (3, 1)][..], 2 * PART),
        ] {
            assert_eq!(place.kept(found), kept, "{found:?}");
        }
    }

    #[test]
    fn chunks_come_in_order_and_no_further_than_was_asked() {
        let mut collector = Collector::new(100, 0);
        assert_eq!(
            collector.take(7, b"late"),
            Ok(vec![]),
            "from before it began"
        );
        assert_eq!(collector.take(0, b"12345"), Ok(vec![]));
        assert_eq!(collector.take(0, b"12345"), Ok(vec![]), "taken before");
        assert_eq!(collector.take(6, b"7"), Err(Odd::OutOfOrder));
        assert_eq!(collector.take(5, b""), Err(Odd::Size));
        assert_eq!(collector.take(5, &vec![0; MAX_CHUNK + 1]), Err(Odd::Size));
        assert_eq!(
            collector.take(5, &[0; 96]),
            Err(Odd::NotAsked),
            "past its end"
        );
        let parts = collector.take(5, &[0; 95]).unwrap();
        assert_eq!((parts.len(), parts[0].number), (1, 0));
        assert_eq!(parts[0].bytes.len(), 100);
        assert!(!collector.awaits());
    }

    #[test]
    fn a_device_waits_for_what_it_sent_to_be_kept() {
        let mut collector = Collector::new(10 * PART, PART);
        let chunk = vec![0; MAX_CHUNK];
        let mut offset = PART;
        while collector.awaits() {
            collector.take(offset, &chunk).unwrap();
            offset += chunk.len() as u64;
        }
        assert_eq!(offset, PART + WINDOW);
        assert_eq!(collector.take(offset, &chunk), Err(Odd::NotAsked));
        collector.ask(2 * PART);
        assert!(collector.awaits());
    }

    #[test]
    fn a_chunk_may_have_the_end_of_one_part_and_all_of_the_last() {
        let size = PART + 111;
        let mut collector = Collector::new(size, 0);
        let bytes = vec![7; usize::try_from(size).unwrap()];
        let mut parts = Vec::new();
        // No multiple of it is a part.
        for (number, chunk) in bytes.chunks(MAX_CHUNK - 1).enumerate() {
            let at = (number * (MAX_CHUNK - 1)) as u64;
            parts.extend(collector.take(at, chunk).unwrap());
        }
        let lengths: Vec<_> = parts.iter().map(|part| part.bytes.len() as u64).collect();
        assert_eq!(lengths, [PART, 111]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]

        #[test]
        fn parts_are_the_artefact_however_it_is_cut(
            size in 1_usize..12 * 1024 * 1024,
            cuts in prop::collection::vec(10_000_usize..=MAX_CHUNK, 1..20),
        ) {
            let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let place = sized(size as u64);
            let mut collector = Collector::new(size as u64, 0);
            let (mut parts, mut at) = (Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(size);
                parts.extend(collector.take(at as u64, &bytes[at..end]).unwrap());
                collector.ask(at as u64);
                at = end;
                if at == size {
                    break;
                }
            }
            let found: Vec<_> = parts.iter().map(|part| (part.number, part.bytes.len() as u64)).collect();
            prop_assert_eq!(place.kept(&found), size as u64);
            let whole: Vec<u8> = parts.into_iter().flat_map(|part| part.bytes).collect();
            prop_assert_eq!(whole, bytes);
        }
    }
}
