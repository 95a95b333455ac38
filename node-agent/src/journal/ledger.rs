//! What the journal's records mean: where each invocation stands. In memory, without the outputs; no I/O.

mod once;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use proto::node;

use self::once::Once;
pub use self::once::{FRAME_BYTES, Holder};
use super::{
    log::{Piece, Span},
    mark::Mark,
    record::{Record, Uid},
    tombstones::{Keyed, Tombstones},
};
use crate::host::clock::Moment;

/// What is kept, at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of records that are not acked, and those that are set aside for results to come. Past it new work is
    /// refused.
    pub bytes: u64,
    /// Invocations that are not acked.
    pub open: usize,
    /// Invocations that are acked, and whose results are kept so that a gateway that asks late gets the same answer.
    pub acked: usize,
    /// How long those are kept.
    pub retention: Duration,
    /// Invocations that are acked and of which nothing is kept but that: a gateway that dispatches one late, from what it
    /// knew before, must not have it run again.
    pub tombstones: usize,
    /// How long those are remembered: past the longest deadline that an invocation can have, a week in a queue and an
    /// hour, nobody dispatches it.
    pub memory: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes: 32 * 1024 * 1024,
            open: 1024,
            acked: 4096,
            retention: Duration::from_hours(1),
            tombstones: 65_536,
            memory: Duration::from_hours(8 * 24),
        }
    }
}

/// Where an invocation stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    Waiting,
    /// For the end of another, which has the same idempotency key. Never runs.
    Following,
    Running,
    /// It ran, and its output waits to be stored.
    Storing,
    Ended,
}

/// Where the result of an ended invocation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    Log(Span),
    /// The agent stopped before there was one.
    Lost {
        started: bool,
    },
    /// It was cancelled before it came.
    Cancelled,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    state: State,
    acked: bool,
    /// Bytes of its records.
    bytes: u64,
    /// Its idempotency key, where it is the first with it.
    mark: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting,
    Following,
    Running,
    /// What is told once its output is stored.
    Storing(Span),
    Ended(Kept),
}

/// Every invocation that this device knows of.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<Uid, Entry>,
    /// Ended and not acked, in the order in which they ended.
    unacked: Vec<Uid>,
    /// Acked, in the order in which that happened.
    acked: VecDeque<(Uid, Moment)>,
    /// Acked, and nothing else is known any more.
    tombstones: Tombstones,
    once: Once,
    open_bytes: u64,
    acked_bytes: u64,
}

/// For `status`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// For their turn, or for another with the same idempotency key.
    pub waiting: usize,
    pub running: usize,
    pub unacked: usize,
    /// Those whose results are kept.
    pub acked: usize,
    /// Those that are acked, and whose results are not kept.
    pub forgotten: usize,
}

impl Ledger {
    /// Takes a record in. What it says must be true already; the order is that of the file.
    pub(super) fn take(&mut self, record: &Record, span: Span, now: Moment) {
        let uid = record.uid();
        if self.tombstones.contains(uid) {
            return;
        }
        let bytes = u64::from(span.length);
        let entry = match record {
            Record::Acked { .. } => {
                self.ack(uid, bytes, now);
                return;
            }
            Record::Forgotten { name, mark, .. } => {
                let keyed = Keyed {
                    name: name.clone(),
                    mark: *mark,
                };
                self.once.hold(mark, uid);
                self.tombstones.add(uid.clone(), Some(keyed), now);
                return;
            }
            Record::Waiting { name, mark, .. } | Record::Accepted { name, mark, .. } => {
                if let Some(mark) = mark {
                    self.once.hold(mark, uid);
                }
                self.entry(uid, name, State::Waiting)
            }
            Record::Following { name, .. } => self.entry(uid, name, State::Following),
            Record::Kept { result, .. } => self.entry(uid, &result.name, State::Storing(span)),
            Record::Finished { result, .. } => {
                self.entry(uid, &result.name, State::Ended(Kept::Log(span)))
            }
            Record::Cancelled { name, .. } => self.entry(uid, name, State::Ended(Kept::Cancelled)),
        };
        entry.bytes += bytes;
        entry.mark = entry.mark.or(record.mark());
        if entry.acked {
            // What is where it belongs is not told once more, whatever the file says of it behind its ack.
            self.acked_bytes += bytes;
            return;
        }
        match (record, entry.state) {
            (Record::Accepted { .. }, State::Waiting) => entry.state = State::Running,
            (Record::Kept { .. }, State::Waiting | State::Running) => {
                entry.state = State::Storing(span);
            }
            (
                Record::Finished { .. },
                State::Waiting | State::Following | State::Running | State::Storing(_),
            ) => entry.state = State::Ended(Kept::Log(span)),
            (Record::Cancelled { .. }, State::Waiting | State::Following) => {
                entry.state = State::Ended(Kept::Cancelled);
            }
            // An end stands.
            _ => {}
        }
        let state = entry.state;
        self.open_bytes += bytes;
        if let (Record::Following { follow, .. }, State::Following) = (record, state) {
            self.once.follow(uid, follow);
        }
        let is_end = matches!(record, Record::Finished { .. } | Record::Cancelled { .. });
        if is_end {
            self.once.leave(uid);
        }
        if is_end && !self.unacked.contains(uid) {
            self.unacked.push(uid.clone());
        }
    }

    fn entry(&mut self, uid: &Uid, name: &str, state: State) -> &mut Entry {
        self.entries.entry(uid.clone()).or_insert_with(|| Entry {
            name: name.to_owned(),
            state,
            acked: false,
            bytes: 0,
            mark: None,
        })
    }

    fn ack(&mut self, uid: &Uid, bytes: u64, now: Moment) {
        let Some(entry) = self.entries.get_mut(uid) else {
            self.tombstones.add(uid.clone(), None, now);
            return;
        };
        self.once.leave(uid);
        entry.bytes += bytes;
        if entry.acked {
            self.acked_bytes += bytes;
            return;
        }
        entry.acked = true;
        self.open_bytes = self.open_bytes.saturating_sub(entry.bytes - bytes);
        self.acked_bytes += entry.bytes;
        self.unacked.retain(|other| other != uid);
        self.acked.push_back((uid.clone(), now));
    }

    /// After a start: whatever had no end has one now. It is not written down, for it follows from what is. What waits for
    /// another still does, and ends as that one did; what waits to be stored still does.
    pub(super) fn settle(&mut self) {
        let mut lost = Vec::new();
        for (uid, entry) in &mut self.entries {
            let started = match entry.state {
                State::Following if self.once.is_following(uid) => continue,
                State::Waiting | State::Following => false,
                State::Running => true,
                State::Storing(_) | State::Ended(_) => continue,
            };
            entry.state = State::Ended(Kept::Lost { started });
            if !entry.acked {
                lost.push(uid.clone());
            }
        }
        // In the same order each time: what the file says is what a start gives.
        lost.sort_unstable();
        self.unacked.append(&mut lost);
    }

    pub fn phase(&self, uid: &Uid) -> Option<Phase> {
        match self.entries.get(uid) {
            Some(entry) => Some(match entry.state {
                State::Waiting => Phase::Waiting,
                State::Following => Phase::Following,
                State::Running => Phase::Running,
                State::Storing(_) => Phase::Storing,
                State::Ended(_) => Phase::Ended,
            }),
            None => self.tombstones.contains(uid).then_some(Phase::Ended),
        }
    }

    /// Whether all that is known of it is that it ended, and that its result was acked.
    pub fn is_forgotten(&self, uid: &Uid) -> bool {
        self.tombstones.contains(uid)
    }

    /// Where the result is, and the invocation's name.
    pub(super) fn result(&self, uid: &Uid) -> Option<(Kept, &str)> {
        let entry = self.entries.get(uid)?;
        match entry.state {
            State::Ended(kept) => Some((kept, &entry.name)),
            State::Waiting | State::Following | State::Running | State::Storing(_) => None,
        }
    }

    /// Where it is written what is told of those whose outputs wait to be stored.
    pub(super) fn storing(&self) -> Vec<Span> {
        let spans = self.entries.values().filter_map(|entry| match entry.state {
            State::Storing(span) => Some(span),
            State::Waiting | State::Following | State::Running | State::Ended(_) => None,
        });
        spans.collect()
    }

    /// Results that nobody acked, the oldest first.
    pub fn unacked(&self) -> &[Uid] {
        &self.unacked
    }

    pub fn is_acked(&self, uid: &Uid) -> bool {
        self.tombstones.contains(uid) || self.entries.get(uid).is_some_and(|entry| entry.acked)
    }

    /// Invocations that are not acked.
    pub fn open(&self) -> usize {
        self.entries.len().saturating_sub(self.acked.len())
    }

    /// Bytes of their records.
    pub fn open_bytes(&self) -> u64 {
        self.open_bytes
    }

    /// Bytes of everything that is remembered.
    pub(super) fn bytes(&self) -> u64 {
        self.open_bytes + self.acked_bytes + self.tombstones.bytes()
    }

    pub fn counts(&self) -> Counts {
        let of = |phase| {
            let entries = self.entries.keys();
            entries.filter(|uid| self.phase(uid) == Some(phase)).count()
        };
        Counts {
            waiting: of(Phase::Waiting) + of(Phase::Following),
            // What is not stored yet has not ended.
            running: of(Phase::Running) + of(Phase::Storing),
            unacked: self.unacked.len(),
            acked: self.acked.len(),
            forgotten: self.tombstones.len(),
        }
    }

    /// Forgets what was acked long ago, or is too much: first the results, and much later that there was one.
    pub(super) fn forget(&mut self, now: Moment, bounds: Bounds) {
        while let Some((_, at)) = self.acked.front() {
            let due = self.acked.len() > bounds.acked
                || now.since(*at) > bounds.retention
                || self.open_bytes + self.acked_bytes > bounds.bytes;
            if !due {
                break;
            }
            let Some((uid, at)) = self.acked.pop_front() else {
                break;
            };
            let mut keyed = None;
            if let Some(entry) = self.entries.remove(&uid) {
                self.acked_bytes = self.acked_bytes.saturating_sub(entry.bytes);
                let name = entry.name;
                keyed = entry.mark.map(|mark| Keyed { name, mark });
            }
            self.tombstones.add(uid, keyed, at);
        }
        let freed = self
            .tombstones
            .forget(now, bounds.tombstones, bounds.memory);
        for (uid, mark) in freed {
            self.once.let_go(&mark, &uid);
        }
    }

    /// What a new file must hold, in an order that gives the same ledger.
    pub(super) fn pieces(&self) -> Vec<(Uid, Piece)> {
        let acked = |uid: Uid| Piece::New(Box::new(Record::Acked { uid }));
        let tombstones = self.tombstones.iter();
        let mut pieces: Vec<_> = tombstones
            .map(|uid| (uid.clone(), self.tombstone(uid)))
            .collect();
        let remembered = self.acked.iter().map(|(uid, _)| uid);
        let live = self.entries.iter().filter_map(|(uid, entry)| {
            let ended = matches!(entry.state, State::Ended(_));
            (!ended && !entry.acked).then_some(uid)
        });
        let mut live: Vec<_> = live.collect();
        live.sort_unstable();
        for uid in remembered.chain(&self.unacked).chain(live) {
            let Some(entry) = self.entries.get(uid) else {
                continue;
            };
            let name = entry.name.clone();
            let uid = uid.clone();
            let new = |record| Piece::New(Box::new(record));
            let mark = entry.mark;
            if let (Some(_), State::Storing(_) | State::Ended(Kept::Log(_) | Kept::Cancelled)) =
                (mark, entry.state)
            {
                // The end alone does not say whose key it was.
                let (uid, name) = (uid.clone(), name.clone());
                pieces.push((uid.clone(), new(Record::Waiting { uid, name, mark })));
            }
            let piece = match entry.state {
                State::Storing(span) | State::Ended(Kept::Log(span)) => Piece::Copy(span),
                State::Following => match self.once.follow_of(&uid) {
                    Some(follow) => {
                        let (uid, follow) = (uid.clone(), follow.clone());
                        new(Record::Following { uid, name, follow })
                    }
                    None => continue,
                },
                State::Waiting | State::Ended(Kept::Lost { started: false }) => {
                    let uid = uid.clone();
                    new(Record::Waiting { uid, name, mark })
                }
                State::Running | State::Ended(Kept::Lost { started: true }) => {
                    let uid = uid.clone();
                    new(Record::Accepted { uid, name, mark })
                }
                State::Ended(Kept::Cancelled) => {
                    let uid = uid.clone();
                    new(Record::Cancelled { uid, name })
                }
            };
            pieces.push((uid.clone(), piece));
            if entry.acked {
                pieces.push((uid.clone(), acked(uid)));
            }
        }
        pieces
    }

    fn tombstone(&self, uid: &Uid) -> Piece {
        let keyed = self.tombstones.keyed(uid).cloned();
        let uid = uid.clone();
        Piece::New(Box::new(match keyed {
            Some(Keyed { name, mark }) => Record::Forgotten { uid, name, mark },
            None => Record::Acked { uid },
        }))
    }

    /// Where things are in the new file.
    pub(super) fn moved(&mut self, to: impl IntoIterator<Item = (Uid, Piece, Span)>) {
        for entry in self.entries.values_mut() {
            entry.bytes = 0;
        }
        (self.open_bytes, self.acked_bytes) = (0, 0);
        for (uid, piece, span) in to {
            let Some(entry) = self.entries.get_mut(&uid) else {
                continue;
            };
            if matches!(piece, Piece::Copy(_)) {
                entry.state = match entry.state {
                    State::Storing(_) => State::Storing(span),
                    State::Waiting | State::Following | State::Running | State::Ended(_) => {
                        State::Ended(Kept::Log(span))
                    }
                };
            }
            entry.bytes += u64::from(span.length);
            if entry.acked {
                self.acked_bytes += u64::from(span.length);
            } else {
                self.open_bytes += u64::from(span.length);
            }
        }
    }
}

#[cfg(test)]
impl Ledger {
    /// Takes a record in as if it had been written.
    pub(crate) fn add(&mut self, record: &Record) {
        let length = u32::try_from(record.encode(0).len()).unwrap();
        self.take(record, Span { offset: 0, length }, Moment::default());
    }

    /// Forgets as a journal does.
    pub(crate) fn shrink(&mut self, now: Moment, bounds: Bounds) {
        self.forget(now, bounds);
    }

    /// What a journal answers whose log holds `finished`.
    pub(crate) fn told(
        &self,
        uid: &Uid,
        finished: &HashMap<Uid, node::Result>,
    ) -> Option<node::Result> {
        let (kept, name) = self.result(uid)?;
        match kept {
            Kept::Lost { started } => Some(lost(uid, name, started)),
            Kept::Cancelled => Some(cancelled(uid, name)),
            Kept::Log(_) => finished.get(uid).cloned(),
        }
    }

    /// What a restart makes of these records.
    pub(crate) fn restarted(records: &[Record]) -> Self {
        let mut ledger = Self::default();
        for record in records {
            ledger.add(record);
        }
        ledger.settle();
        ledger
    }
}

/// What is said of an invocation whose end nobody saw.
pub(super) fn lost(uid: &Uid, name: &str, started: bool) -> node::Result {
    let (outcome, message) = if started {
        (
            node::Outcome::Unknown,
            "the agent was restarted while it ran: it may have had its effect, and is not run again",
        )
    } else {
        (
            node::Outcome::Failed,
            "the agent was restarted while it waited for its turn or for an answer: it never started",
        )
    };
    without_output(
        uid,
        name,
        outcome,
        node::FailureCode::AgentRestarted,
        message,
    )
}

/// What is said of an invocation that was cancelled before it came.
pub(super) fn cancelled(uid: &Uid, name: &str) -> node::Result {
    without_output(
        uid,
        name,
        node::Outcome::Cancelled,
        node::FailureCode::Cancelled,
        "cancelled before it reached this device",
    )
}

/// A result that is no success.
pub fn without_output(
    uid: &Uid,
    name: &str,
    outcome: node::Outcome,
    code: node::FailureCode,
    message: &str,
) -> node::Result {
    node::Result {
        uid: uid.as_str().to_owned(),
        name: name.to_owned(),
        outcome: outcome.into(),
        output: Vec::new(),
        output_sha256: Vec::new(),
        failure: Some(node::Failure {
            code: code.into(),
            message: crate::terminal::printable(message),
        }),
        ..node::Result::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::{Follow, tests::uid},
        *,
    };

    const AT: Moment = Moment::from_millis(1_000);

    fn span(offset: u64) -> Span {
        Span { offset, length: 10 }
    }

    fn accepted(name: &str) -> Record {
        Record::Accepted {
            uid: uid(name),
            name: format!("check-{name}"),
            mark: None,
        }
    }

    fn finished(name: &str) -> Record {
        Record::Finished {
            uid: uid(name),
            result: node::Result::default(),
        }
    }

    fn acked(name: &str) -> Record {
        Record::Acked { uid: uid(name) }
    }

    fn mark(name: &str) -> Mark {
        Mark::of(name, "echo", b"1", "jane")
    }

    /// Waits, and has a key.
    fn keyed(name: &str) -> Record {
        Record::Waiting {
            uid: uid(name),
            name: format!("check-{name}"),
            mark: Some(mark(name)),
        }
    }

    fn forgotten(name: &str) -> Record {
        Record::Forgotten {
            uid: uid(name),
            name: format!("check-{name}"),
            mark: mark(name),
        }
    }

    fn following(name: &str, first: &str) -> Record {
        Record::Following {
            uid: uid(name),
            name: format!("check-{name}"),
            follow: Follow {
                first: uid(first),
                first_name: format!("check-{first}"),
                max_output_bytes: 1_000,
                is_of_another: false,
            },
        }
    }

    fn ledger(records: &[Record]) -> Ledger {
        let mut ledger = Ledger::default();
        for (index, record) in records.iter().enumerate() {
            ledger.take(record, span(index as u64 * 10), AT);
        }
        ledger
    }

    #[test]
    fn after_a_restart_what_ran_is_unknown_and_what_waited_never_started() {
        let mut ledger = ledger(&[
            Record::Waiting {
                uid: uid("w"),
                name: "check-w".to_owned(),
                mark: None,
            },
            accepted("r"),
            accepted("f"),
            finished("f"),
        ]);
        assert_eq!(ledger.phase(&uid("w")), Some(Phase::Waiting));
        assert_eq!(ledger.phase(&uid("r")), Some(Phase::Running));
        ledger.settle();
        for (name, expected) in [
            ("w", Kept::Lost { started: false }),
            ("r", Kept::Lost { started: true }),
            ("f", Kept::Log(span(30))),
        ] {
            assert_eq!(ledger.result(&uid(name)).unwrap().0, expected);
            assert!(ledger.unacked().contains(&uid(name)));
        }
        let result = lost(&uid("r"), "check-r", true);
        assert_eq!(result.outcome(), node::Outcome::Unknown);
        let result = lost(&uid("w"), "check-w", false);
        assert_eq!(result.outcome(), node::Outcome::Failed);
    }

    #[test]
    fn an_end_stands_whatever_comes_after_it() {
        let ledger = ledger(&[accepted("a"), finished("a"), accepted("a"), finished("a")]);
        assert_eq!(ledger.result(&uid("a")).unwrap().0, Kept::Log(span(10)));
        assert_eq!(ledger.unacked(), [uid("a")]);
    }

    fn end(name: &str) -> [Record; 3] {
        [accepted(name), finished(name), acked(name)]
    }

    const BOUNDS: Bounds = Bounds {
        bytes: 100,
        open: 10,
        acked: 2,
        retention: Duration::from_mins(1),
        tombstones: 2,
        memory: Duration::from_hours(1),
    };

    #[test]
    fn a_result_that_is_acked_is_kept_for_a_while_and_its_uid_for_longer() {
        let mut few = ledger(&[end("a"), end("b")].concat());
        assert_eq!(few.open_bytes(), 0);
        few.forget(AT, BOUNDS);
        assert_eq!(few.counts().acked, 2);
        few.forget(AT.after(Duration::from_secs(61)), BOUNDS);
        assert_eq!((few.counts().acked, few.counts().forgotten), (0, 2));
        for name in ["a", "b"] {
            assert_eq!(few.phase(&uid(name)), Some(Phase::Ended));
            assert!(few.is_acked(&uid(name)) && few.is_forgotten(&uid(name)));
            assert!(few.result(&uid(name)).is_none());
        }
        few.forget(AT.after(Duration::from_secs(3_601)), BOUNDS);
        assert_eq!((few.counts(), few.bytes()), (Counts::default(), 0));
        assert_eq!(few.phase(&uid("a")), None);
    }

    #[test]
    fn too_many_and_too_large_results_go_first_and_leave_their_uids() {
        let mut many = ledger(&[end("a"), end("b"), end("c")].concat());
        many.forget(AT, BOUNDS);
        assert!(many.is_forgotten(&uid("a")) && !many.is_forgotten(&uid("c")));
        assert_eq!(many.phase(&uid("a")), Some(Phase::Ended));

        let small = Bounds {
            bytes: 35,
            ..BOUNDS
        };
        let mut large = ledger(&[end("a"), end("b")].concat());
        large.forget(AT, small);
        assert!(large.is_forgotten(&uid("a")) && !large.is_forgotten(&uid("b")));
        assert_eq!(large.acked_bytes, 30);

        let none = Bounds { acked: 0, ..BOUNDS };
        let mut most = ledger(&[end("a"), end("b"), end("c")].concat());
        most.forget(AT, none);
        assert_eq!(most.phase(&uid("a")), None);
        assert_eq!(most.counts().forgotten, 2);
    }

    #[test]
    fn what_a_file_says_behind_an_ack_is_not_told_once_more() {
        for ack in [&end("a")[..], &[acked("a")]] {
            let mut ledger = ledger(&[ack, &end("a")[..2]].concat());
            ledger.settle();
            assert_eq!(ledger.unacked(), []);
            assert!(ledger.is_acked(&uid("a")));
            let nothing = Bounds { bytes: 0, ..BOUNDS };
            ledger.forget(AT, nothing);
            assert_eq!(
                (ledger.open(), ledger.open_bytes(), ledger.acked_bytes),
                (0, 0, 0)
            );
            assert_eq!(ledger.phase(&uid("a")), Some(Phase::Ended));
        }
    }

    #[test]
    fn a_key_that_became_free_and_was_taken_again_is_the_later_ones() {
        let again = Record::Waiting {
            uid: uid("b"),
            name: "check-b".to_owned(),
            mark: Some(mark("a")),
        };
        // The file still knows the first one.
        let mut ledger = ledger(&[keyed("a"), finished("a"), acked("a"), again]);
        assert_eq!(ledger.holder(&mark("a")).unwrap().uid, &uid("b"));
        let nothing = Bounds {
            acked: 0,
            tombstones: 0,
            ..BOUNDS
        };
        ledger.forget(AT, nothing);
        assert_eq!(ledger.phase(&uid("a")), None);
        assert_eq!(ledger.holder(&mark("a")).unwrap().uid, &uid("b"));
    }

    #[test]
    fn what_follows_still_does_after_a_restart_and_is_owed_an_end() {
        let mut ledger = ledger(&[keyed("a"), following("b", "a")]);
        assert_eq!(ledger.owed().count(), 0);
        ledger.settle();
        assert_eq!(ledger.phase(&uid("b")), Some(Phase::Following));
        assert_eq!(ledger.owed().collect::<Vec<_>>(), [(&uid("b"), &uid("a"))]);
        ledger.take(&finished("b"), span(20), AT);
        assert_eq!((ledger.owed().count(), ledger.reserved()), (0, 0));
        assert_eq!(ledger.phase(&uid("b")), Some(Phase::Ended));
    }

    #[test]
    fn what_is_not_acked_is_never_forgotten() {
        let mut ledger = ledger(&[accepted("a"), finished("a"), accepted("b")]);
        let nothing = Bounds {
            bytes: 0,
            open: 0,
            acked: 0,
            retention: Duration::ZERO,
            tombstones: 0,
            memory: Duration::ZERO,
        };
        ledger.forget(AT.after(Duration::from_secs(1_000_000)), nothing);
        assert_eq!(ledger.open(), 2);
    }

    #[test]
    fn the_pieces_of_a_ledger_give_the_same_ledger() {
        let waiting = Record::Waiting {
            uid: uid("w"),
            name: "check-w".to_owned(),
            mark: None,
        };
        let mut before = ledger(&[
            waiting,
            accepted("r"),
            accepted("f"),
            finished("f"),
            accepted("k"),
            finished("k"),
            acked("k"),
            acked("t"),
            Record::Cancelled {
                uid: uid("c"),
                name: "check-c".to_owned(),
            },
            keyed("kw"),
            keyed("kf"),
            finished("kf"),
            keyed("kk"),
            finished("kk"),
            acked("kk"),
            forgotten("kt"),
            following("n", "kw"),
            following("m", "kf"),
        ]);
        let pieces = before.pieces();
        let mut after = Ledger::default();
        let mut moved = Vec::new();
        for (index, (uid, piece)) in pieces.into_iter().enumerate() {
            let to = span(1_000 + index as u64 * 10);
            let record = match &piece {
                Piece::Copy(_) => finished(uid.as_str()),
                Piece::New(record) => Record::clone(record),
            };
            after.take(&record, to, AT);
            moved.push((uid, piece, to));
        }
        before.moved(moved);
        assert_eq!(after.counts(), before.counts());
        assert_eq!(after.unacked(), before.unacked());
        assert_eq!(
            (after.open_bytes(), after.bytes()),
            (before.open_bytes(), before.bytes())
        );
        assert_eq!(after.result(&uid("c")), Some((Kept::Cancelled, "check-c")));
        for name in ["kw", "kf", "kk", "kt"] {
            for ledger in [&before, &after] {
                let holder = ledger.holder(&mark(name)).unwrap();
                assert_eq!((holder.uid, holder.mark), (&uid(name), mark(name)));
                assert_eq!(holder.name, format!("check-{name}"));
            }
        }
        for ledger in [&before, &after] {
            assert_eq!(ledger.owed().collect::<Vec<_>>(), [(&uid("m"), &uid("kf"))]);
            assert_eq!(ledger.reserved(), 2 * (1_000 + FRAME_BYTES));
        }
        assert_eq!(after.following(&uid("n")), before.following(&uid("n")));
        for name in [
            "w", "r", "f", "k", "t", "c", "kw", "kf", "kk", "kt", "n", "m",
        ] {
            assert_eq!(after.phase(&uid(name)), before.phase(&uid(name)));
            assert_eq!(after.is_acked(&uid(name)), before.is_acked(&uid(name)));
        }
    }
}
