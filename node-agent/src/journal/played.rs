//! A journal in memory: the bytes that the file would hold, and what they mean. For a world that is played, where a
//! crash is to take what was written up to there and begin again from it.
//!
//! Records, their bytes and their meaning are those of the real one. Only the disk is replaced: [`super::log`] and its
//! thread are not used.

use proto::node;

use super::{
    Bounds, Ledger, Record, Uid,
    ledger::{Kept, cancelled, lost},
    log::{Piece, Span},
};
use crate::host::clock::Moment;

/// What a record says in a file that was written anew.
const ALL_SYNCED: u64 = u64::MAX;

/// The journal of a device that is played.
#[derive(Debug)]
pub struct Played {
    ledger: Ledger,
    bytes: Vec<u8>,
    synced: usize,
    bounds: Bounds,
    /// Bytes that nobody needs any more, at which the file is written anew.
    garbage: u64,
}

impl Played {
    /// Begins from the bytes that an earlier life left behind, up to the first record that is not whole.
    pub fn open(bytes: &[u8], bounds: Bounds, garbage: u64, now: Moment) -> Self {
        let mut ledger = Ledger::default();
        let mut end = 0;
        while let Some(whole) = bytes.get(end..).and_then(Record::decode) {
            ledger.take(&whole.record, span(end, whole.length), now);
            end += whole.length;
        }
        ledger.settle();
        Self {
            ledger,
            bytes: bytes[..end].to_vec(),
            synced: end,
            bounds,
            garbage,
        }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// What the file holds.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Up to where a crash takes nothing away.
    pub fn synced(&self) -> usize {
        self.synced
    }

    /// The bytes that would be added by these records: a crash leaves any part of them.
    pub fn encode(&self, records: &[Record]) -> Vec<u8> {
        let synced = self.synced as u64;
        records
            .iter()
            .flat_map(|record| record.encode(synced))
            .collect()
    }

    /// As [`super::Journal::commit`].
    pub fn commit(&mut self, records: &[Record], now: Moment) {
        let synced = self.synced as u64;
        for record in records {
            let encoded = record.encode(synced);
            let span = span(self.bytes.len(), encoded.len());
            self.bytes.extend_from_slice(&encoded);
            self.ledger.take(record, span, now);
        }
        if records.iter().any(Record::must_last) {
            self.synced = self.bytes.len();
        }
    }

    /// As [`super::Journal::result`].
    pub fn result(&self, uid: &Uid) -> Option<node::Result> {
        let (kept, name) = self.ledger.result(uid)?;
        match kept {
            Kept::Lost { started } => Some(lost(uid, name, started)),
            Kept::Cancelled => Some(cancelled(uid, name)),
            Kept::Log(span) => match self.read(span)? {
                Record::Finished { result, .. } => Some(result),
                Record::Waiting { .. }
                | Record::Accepted { .. }
                | Record::Following { .. }
                | Record::Kept { .. }
                | Record::Cancelled { .. }
                | Record::Acked { .. }
                | Record::Forgotten { .. } => None,
            },
        }
    }

    fn read(&self, span: Span) -> Option<Record> {
        let from = usize::try_from(span.offset).ok()?;
        let bytes = self.bytes.get(from..from + span.length as usize)?;
        Record::decode(bytes).map(|whole| whole.record)
    }

    /// As [`super::Journal::tidy`].
    pub fn tidy(&mut self, now: Moment) {
        self.ledger.forget(now, self.bounds);
        if self.bytes.len() as u64 <= 2 * self.ledger.bytes() + self.garbage {
            return;
        }
        let mut bytes = Vec::new();
        let mut moved = Vec::new();
        for (uid, piece) in self.ledger.pieces() {
            let encoded = match &piece {
                Piece::Copy(span) => match self.read(*span) {
                    Some(record) => record.encode(ALL_SYNCED),
                    None => continue,
                },
                Piece::New(record) => record.encode(ALL_SYNCED),
            };
            let span = span(bytes.len(), encoded.len());
            bytes.extend_from_slice(&encoded);
            moved.push((uid, piece, span));
        }
        self.bytes = bytes;
        self.synced = self.bytes.len();
        self.ledger.moved(moved);
    }
}

fn span(offset: usize, length: usize) -> Span {
    Span {
        offset: offset as u64,
        length: u32::try_from(length).unwrap_or(u32::MAX),
    }
}
