//! What is remembered of an invocation whose result is not kept any more: that it ended, so that it is not run again.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{mark::Mark, record::Uid};
use crate::host::clock::Moment;

/// Bytes that a tombstone takes in the file, besides those of its uid.
const RECORD_BYTES: u64 = 23;
/// Bytes that a field takes there before its content: digests are short.
const FIELD_BYTES: u64 = 2;

/// What is kept of the first invocation of an idempotency key: what its followers are told, and compared with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Keyed {
    pub(super) name: String,
    pub(super) mark: Mark,
}

/// Uids, in the order in which their invocations were acked.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    order: VecDeque<(Uid, Moment)>,
    /// With the key, of those that had one.
    uids: HashMap<Uid, Option<Box<Keyed>>>,
    bytes: u64,
}

impl Tombstones {
    /// `at`: when it was acked.
    pub(super) fn add(&mut self, uid: Uid, keyed: Option<Keyed>, at: Moment) {
        if !self.contains(&uid) {
            self.bytes += bytes_of(&uid, keyed.as_ref());
            self.uids.insert(uid.clone(), keyed.map(Box::new));
            self.order.push_back((uid, at));
        }
    }

    pub(super) fn keyed(&self, uid: &Uid) -> Option<&Keyed> {
        self.uids.get(uid)?.as_deref()
    }

    pub(super) fn contains(&self, uid: &Uid) -> bool {
        self.uids.contains_key(uid)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Bytes that they take in the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Uid> {
        self.order.iter().map(|(uid, _)| uid)
    }

    /// Forgets those that are more than `count`, or older than `memory`. Returns those whose keys are free with that.
    pub(super) fn forget(
        &mut self,
        now: Moment,
        count: usize,
        memory: Duration,
    ) -> Vec<(Uid, Mark)> {
        let mut freed = Vec::new();
        while let Some((uid, at)) = self.order.front() {
            if self.order.len() <= count && now.since(*at) <= memory {
                break;
            }
            let keyed = self.uids.remove(uid).flatten();
            self.bytes = self.bytes.saturating_sub(bytes_of(uid, keyed.as_deref()));
            freed.extend(keyed.map(|keyed| (uid.clone(), keyed.mark)));
            self.order.pop_front();
        }
        freed
    }
}

fn bytes_of(uid: &Uid, keyed: Option<&Keyed>) -> u64 {
    let of_key = keyed.map_or(0, |Keyed { name, mark }| {
        let length = prost::length_delimiter_len(name.len()) + name.len();
        let digests = mark.bytes().into_iter().filter(|part| !part.is_empty());
        let digests = digests.map(|part| FIELD_BYTES + part.len() as u64);
        1 + length as u64 + digests.sum::<u64>()
    });
    RECORD_BYTES + uid.as_str().len() as u64 + of_key
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::{Record, tests::uid},
        *,
    };

    const NOW: Moment = Moment::from_millis(1_000);

    #[test]
    fn they_are_bounded_in_number_and_time() {
        let at = |seconds: u64| Moment::from_millis(1_000 * seconds);
        let minute = Duration::from_mins(1);
        let mut tombstones = Tombstones::default();
        for (name, seconds) in [("a", 0), ("b", 10), ("c", 20), ("c", 30)] {
            tombstones.add(uid(name), None, at(seconds));
        }
        let names = |tombstones: &Tombstones| -> Vec<_> {
            tombstones.iter().map(ToString::to_string).collect()
        };
        tombstones.forget(at(30), 3, minute);
        assert_eq!(names(&tombstones), ["a", "b", "c"]);
        tombstones.forget(at(30), 2, minute);
        assert_eq!(names(&tombstones), ["b", "c"]);
        tombstones.forget(at(75), 2, minute);
        assert_eq!(names(&tombstones), ["c"]);
        assert!(!tombstones.contains(&uid("b")) && tombstones.contains(&uid("c")));
        tombstones.forget(at(81), 2, minute);
        assert_eq!((tombstones.len(), tombstones.bytes()), (0, 0));
    }

    #[test]
    fn a_key_is_free_when_the_last_that_is_known_of_its_first_goes() {
        let mark = Mark::of("key", "echo", b"1", "jane");
        let keyed = Keyed {
            name: "check-a".to_owned(),
            mark,
        };
        let mut tombstones = Tombstones::default();
        tombstones.add(uid("a"), Some(keyed.clone()), NOW);
        tombstones.add(uid("b"), None, NOW);
        assert_eq!(tombstones.keyed(&uid("a")), Some(&keyed));
        assert_eq!(tombstones.keyed(&uid("b")), None);
        assert_eq!(tombstones.forget(NOW, 2, Duration::MAX), []);
        let freed = tombstones.forget(NOW, 1, Duration::MAX);
        assert_eq!(freed, [(uid("a"), mark)]);
        assert_eq!(tombstones.keyed(&uid("a")), None);
    }

    #[test]
    fn their_size_is_that_of_their_records() {
        let uid = uid("7f9c24e8-3b12-4b10-9f2a-000000000000");
        let record = Record::Acked { uid: uid.clone() };
        assert_eq!(record.encode(u64::MAX).len() as u64, bytes_of(&uid, None));
        for length in [1, 127, 128, 253] {
            let name = "x".repeat(length);
            let mark = Mark::of("key", "echo", b"1", "jane");
            let keyed = Keyed {
                name: name.clone(),
                mark,
            };
            let uid = uid.clone();
            let expected = bytes_of(&uid, Some(&keyed));
            let record = Record::Forgotten { uid, name, mark };
            assert_eq!(record.encode(u64::MAX).len() as u64, expected);
        }
    }
}
