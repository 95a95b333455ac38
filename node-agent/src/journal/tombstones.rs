//! What is remembered of an invocation whose result is not kept any more: that it ended, so that it is not run again.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use super::record::Uid;
use crate::host::clock::Moment;

/// Bytes that a tombstone takes in the file, besides those of its uid.
const RECORD_BYTES: u64 = 23;

/// Uids, in the order in which their invocations were acked.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    order: VecDeque<(Uid, Moment)>,
    uids: HashSet<Uid>,
    bytes: u64,
}

impl Tombstones {
    /// `at`: when it was acked.
    pub(super) fn add(&mut self, uid: Uid, at: Moment) {
        if self.uids.insert(uid.clone()) {
            self.bytes += bytes_of(&uid);
            self.order.push_back((uid, at));
        }
    }

    pub(super) fn contains(&self, uid: &Uid) -> bool {
        self.uids.contains(uid)
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

    /// Forgets those that are more than `count`, or older than `memory`.
    pub(super) fn forget(&mut self, now: Moment, count: usize, memory: Duration) {
        while let Some((uid, at)) = self.order.front() {
            if self.order.len() <= count && now.since(*at) <= memory {
                return;
            }
            self.bytes = self.bytes.saturating_sub(bytes_of(uid));
            self.uids.remove(uid);
            self.order.pop_front();
        }
    }
}

fn bytes_of(uid: &Uid) -> u64 {
    RECORD_BYTES + uid.as_str().len() as u64
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::{Record, tests::uid},
        *,
    };

    #[test]
    fn they_are_bounded_in_number_and_time() {
        let at = |seconds: u64| Moment::from_millis(1_000 * seconds);
        let minute = Duration::from_mins(1);
        let mut tombstones = Tombstones::default();
        for (name, seconds) in [("a", 0), ("b", 10), ("c", 20), ("c", 30)] {
            tombstones.add(uid(name), at(seconds));
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
    fn their_size_is_that_of_their_records() {
        let uid = uid("7f9c24e8-3b12-4b10-9f2a-000000000000");
        let record = Record::Acked { uid: uid.clone() };
        assert_eq!(record.encode(u64::MAX).len() as u64, bytes_of(&uid));
    }
}
