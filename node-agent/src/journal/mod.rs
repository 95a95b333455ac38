//! What makes an effect happen at most once: a fact is on the disk before anybody acts on it or hears of it.
//!
//! - [`record`]: one fact, and its bytes;
//! - [`log`]: the file, which is added to at its end, survives a cut at any byte and a full disk;
//! - `writer`: the thread that alone touches it;
//! - [`ledger`]: what the records mean, in memory;
//! - [`mark`]: what is remembered of an idempotency key;
//! - `played` (a feature): the same in memory, for a world that is played;
//! - `tombstones`: what is left of an invocation after its result is forgotten.
//!
//! [`Journal`] keeps the two in step. It decides nothing: what is recorded, and when, is [`crate::agent::plan`]'s.

pub mod ledger;
pub mod log;
pub mod mark;
#[cfg(feature = "played")]
pub mod played;
pub mod record;
mod tombstones;
mod writer;

use std::{io, path::Path, sync::Arc};

use proto::node;

pub use self::{
    ledger::{Bounds, Counts, Ledger, Phase},
    log::OpenError,
    mark::Mark,
    record::{Follow, Record, Uid},
};
use self::{
    ledger::{Kept, cancelled, lost, without_output},
    log::Log,
    writer::Writer,
};
use crate::host::clock::Moment;

/// Bytes that nobody needs any more, at which the file is written anew. Twice as many as are needed, and at least this.
const GARBAGE: u64 = 1024 * 1024;

/// The journal of this device.
#[derive(Debug)]
pub struct Journal {
    ledger: Ledger,
    writer: Writer,
    /// Of the file.
    bytes: u64,
    bounds: Bounds,
}

impl Journal {
    /// Opens or makes the journal. Whatever had no end has one from now on: unknown, or never started.
    pub fn open(path: &Path, bounds: Bounds, now: Moment) -> Result<Self, OpenError> {
        let mut ledger = Ledger::default();
        let log = Log::open(path, &mut |record, span| ledger.take(&record, span, now))?;
        ledger.settle();
        let bytes = log.bytes();
        let writer = Writer::start(log).map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            ledger,
            writer,
            bytes,
            bounds,
        })
    }

    /// Reads the counts and the size of a journal that another process may use.
    pub fn peek(path: &Path) -> Result<(Counts, u64), OpenError> {
        let mut ledger = Ledger::default();
        let bytes = Log::peek(path, &mut |record, span| {
            ledger.take(&record, span, Moment::default());
        })?;
        Ok((ledger.counts(), bytes))
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Records facts, all or none, in one write and one sync. On return they are durable. `reserve` bytes are set aside
    /// for results to come.
    pub async fn commit(
        &mut self,
        records: Arc<[Record]>,
        reserve: u64,
        now: Moment,
    ) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let written = Arc::clone(&records);
        let (spans, bytes) = self
            .writer
            .run(move |log| {
                let spans = log.append(&written, reserve)?;
                Ok((spans, log.bytes()))
            })
            .await?;
        self.bytes = bytes;
        for (record, span) in records.iter().zip(spans) {
            self.ledger.take(record, span, now);
        }
        Ok(())
    }

    /// How an invocation ended; `None` where it did not, is not known, or is forgotten.
    pub async fn result(&self, uid: &Uid) -> Option<node::Result> {
        let (kept, name) = self.ledger.result(uid)?;
        let span = match kept {
            Kept::Lost { started } => return Some(lost(uid, name, started)),
            Kept::Cancelled => return Some(cancelled(uid, name)),
            Kept::Log(span) => span,
        };
        if let Ok(Record::Finished { result, .. }) =
            self.writer.run(move |log| log.read(span)).await
        {
            return Some(result);
        }
        tracing::error!(%uid, "A recorded result cannot be read back: is the disk failing?");
        Some(without_output(
            uid,
            name,
            node::Outcome::Unknown,
            node::FailureCode::Internal,
            "it ended, but the device cannot read the recorded result back",
        ))
    }

    /// What is told of those whose outputs wait to be stored, once they are. One that cannot be read back is left out: it
    /// is asked for no more than any other damage.
    pub async fn storing(&self) -> Vec<node::Result> {
        let mut results = Vec::new();
        for span in self.ledger.storing() {
            if let Ok(Record::Kept { result, .. }) =
                self.writer.run(move |log| log.read(span)).await
            {
                results.push(result);
            }
        }
        results
    }

    /// Forgets what may be forgotten, and writes the file anew where that is worth it.
    pub async fn tidy(&mut self, now: Moment) -> io::Result<()> {
        self.ledger.forget(now, self.bounds);
        let needed = self.ledger.bytes();
        if self.bytes <= 2 * needed + GARBAGE {
            return Ok(());
        }
        let (uids, pieces): (Vec<_>, Vec<_>) = self.ledger.pieces().into_iter().unzip();
        let (pieces, spans, bytes) = self
            .writer
            .run(move |log| {
                let spans = log.rewrite(&pieces)?;
                Ok((pieces, spans, log.bytes()))
            })
            .await?;
        self.bytes = bytes;
        let moved = uids.into_iter().zip(pieces).zip(spans);
        self.ledger
            .moved(moved.map(|((uid, piece), span)| (uid, piece, span)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{record::tests::records, *};

    /// Longest wait of a test: far longer than anything takes.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn facts_are_recorded_while_every_blocking_thread_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let recorded = runtime.block_on(async {
            drop(tokio::task::spawn_blocking(move || hangs.recv()));
            let mut journal = Journal::open(&path, Bounds::default(), Moment::default()).unwrap();
            tokio::time::timeout(DEADLINE, async {
                let now = Moment::default();
                journal.commit(records().into(), 0, now).await.unwrap();
                journal.result(records()[2].uid()).await
            })
            .await
        });
        drop(release);
        assert!(recorded.unwrap().is_some());
        let (counts, _) = Journal::peek(&path).unwrap();
        assert_eq!((counts.waiting, counts.acked), (1, 1));
    }

    #[tokio::test]
    async fn what_is_no_longer_needed_is_written_away_and_the_file_stays_bounded() {
        const BYTES: usize = 16 * 1024;
        const COUNT: u64 = 300;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let bounds = Bounds {
            acked: 8,
            tombstones: 8,
            ..Bounds::default()
        };
        let mut journal = Journal::open(&path, bounds, Moment::default()).unwrap();
        let mut largest = 0;
        for number in 0..COUNT {
            let now = Moment::from_millis(number);
            let uid = Uid::parse(&format!("u{number}")).unwrap();
            let name = format!("check-{number}");
            let accepted = Record::Accepted {
                uid: uid.clone(),
                name: name.clone(),
                mark: None,
            };
            journal.commit([accepted].into(), 0, now).await.unwrap();
            let result = node::Result {
                uid: uid.as_str().to_owned(),
                name,
                output: vec![b'1'; BYTES],
                ..node::Result::default()
            };
            let finished = Record::Finished {
                uid: uid.clone(),
                result,
            };
            // The first one is never taken.
            let acked = (number > 0).then_some(Record::Acked { uid });
            let records: Vec<_> = [finished].into_iter().chain(acked).collect();
            journal.commit(records.into(), 0, now).await.unwrap();
            journal.tidy(now).await.unwrap();
            largest = largest.max(std::fs::metadata(&path).unwrap().len());
        }
        // 5 MB were written; so much is in the file where half of it may be garbage.
        assert!(largest < 2 * GARBAGE, "{largest}");
        let first = Uid::parse("u0").unwrap();
        assert_eq!(journal.result(&first).await.unwrap().output.len(), BYTES);
        drop(journal);
        let mut journal = Journal::open(&path, bounds, Moment::default()).unwrap();
        journal.tidy(Moment::default()).await.unwrap();
        assert_eq!(journal.ledger().unacked(), std::slice::from_ref(&first));
        assert_eq!(journal.result(&first).await.unwrap().output.len(), BYTES);
    }
}
