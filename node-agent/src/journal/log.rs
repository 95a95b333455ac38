//! The journal's file: records are added at its end, and a record that was synced is never lost.
//!
//! A power cut can leave any part of what was added since the last sync. Opening keeps every record up to the first that is
//! not whole, and cuts the rest off: nobody was told of it. Where the rest holds a record that was written after that one
//! was durable, no power cut did it but a disk or a person, and the file is left as it is for somebody to decide.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::record::{HEADER, Record, Whole, header_of};
use crate::state::atomic::{self, Replaced};

/// The beginning of the file: what it is, and the version of its format.
const MAGIC: &[u8; 8] = b"FLJRNL01";
const START: u64 = MAGIC.len() as u64;
/// Bytes of the disk that are set aside at once, beyond what is needed.
const STEP: u64 = 64 * 1024;
/// What a record says that is on the disk, with all before it, before anybody can see it.
const ALL_SYNCED: u64 = u64::MAX;
/// Bytes that are searched at once.
const CHUNK: usize = 64 * 1024;

/// Where a record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    pub(super) offset: u64,
    pub(super) length: u32,
}

/// What is written when the file is written anew.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// A record that is in the file already.
    Copy(Span),
    New(Box<Record>),
}

/// The open file. Blocking: never used in the async loop itself.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Where the next record goes.
    end: u64,
    /// Up to where it is durable.
    synced: u64,
    /// Up to where the disk has room for certain.
    room: u64,
    /// A sync failed: what the file holds past an earlier sync is not known any more, or whether it keeps its name.
    doubtful: bool,
    sync_folder: atomic::FolderSync,
}

/// A file that cannot be the journal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is not a journal of this version: move it away if you know that nothing of it is needed", .0.display())]
    NotAJournal(PathBuf),
    #[error(
        "the journal {} is damaged at byte {at}, and records behind that were safe on the disk: restore the file from a \
         backup; or move it away, if it does no harm that an invocation which is still open runs a second time, and that \
         results which were not delivered yet are lost", path.display()
    )]
    Damaged { path: PathBuf, at: u64 },
    #[error("open the journal {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Log {
    /// Opens or makes the file, and tells of every record that is whole, with its place. One at a time: all of them
    /// together may be more than this device has memory for.
    pub(super) fn open(path: &Path, each: &mut dyn FnMut(Record, Span)) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < START {
            // New, or cut before anything could depend on it.
            let file = atomic::replace(path, |file| file.write_all(MAGIC)).map_err(io)?;
            return Ok(Self::at(path, file, START));
        }
        let end = scan(path, &mut file, each)?;
        if end < length {
            tracing::warn!(
                bytes = length - end,
                "Dropped the torn end of the journal, which a stop left behind"
            );
            file.set_len(end).map_err(io)?;
        }
        // Whoever wrote it may have been killed before its own sync, and what was read is believed from here on.
        file.sync_all().map_err(io)?;
        atomic::sync_folder_of(path).map_err(io)?;
        Ok(Self::at(path, file, end))
    }

    /// Tells of every record of a file that somebody else may be writing to. Returns its bytes.
    pub(super) fn peek(path: &Path, each: &mut dyn FnMut(Record, Span)) -> Result<u64, OpenError> {
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            opened => opened.map_err(io)?,
        };
        if file.metadata().map_err(io)?.len() < START {
            return Ok(0);
        }
        scan(path, &mut file, each)
    }

    fn at(path: &Path, file: File, end: u64) -> Self {
        Self {
            path: path.to_owned(),
            file,
            end,
            synced: end,
            room: end,
            doubtful: false,
            sync_folder: File::sync_all,
        }
    }

    /// Goes on with the file that has the name now. Where that may not last, the next record waits until it does.
    fn adopt(&mut self, Replaced { file, doubt }: Replaced, end: u64) -> io::Result<()> {
        self.file = file;
        self.end = end;
        self.synced = end;
        self.room = end;
        self.doubtful = doubt.is_some();
        doubt.map_or(Ok(()), Err)
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Adds records: all of them, or none. Durable on return where one of them must last. `reserve` bytes more are set
    /// aside on the disk, so that what must be recorded later finds room.
    pub(super) fn append(&mut self, records: &[Record], reserve: u64) -> io::Result<Vec<Span>> {
        if self.doubtful {
            self.heal()?;
        }
        let mut bytes = Vec::new();
        let mut spans = Vec::with_capacity(records.len());
        for record in records {
            let encoded = record.encode(self.synced);
            spans.push(span(self.end + bytes.len() as u64, encoded.len())?);
            bytes.extend_from_slice(&encoded);
        }
        self.set_aside(self.end + bytes.len() as u64 + reserve)?;
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // A part may be there. Where it cannot be cut off now, the next opening does: it is not whole.
            self.doubtful = self.file.set_len(self.end).is_err();
            self.room = self.end;
            return Err(error);
        }
        let must_last = records.iter().any(Record::must_last);
        if must_last && let Err(error) = self.file.sync_data() {
            self.doubtful = true;
            return Err(error);
        }
        self.end += bytes.len() as u64;
        if must_last {
            self.synced = self.end;
        }
        Ok(spans)
    }

    /// Makes the disk keep room up to `until`. In large steps, for each costs the next sync something.
    fn set_aside(&mut self, until: u64) -> io::Result<()> {
        if until <= self.room {
            return Ok(());
        }
        for until in [until + STEP, until] {
            let length = until - self.end;
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.end, length) {
                // Not every file system can; then a full disk is noticed later, and said then.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
                    self.room = until;
                    return Ok(());
                }
                Err(Errno::NOSPC) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::NOSPC.into())
    }

    /// One record, read back. Fails where the disk does not give back what it was given.
    pub(super) fn read(&self, span: Span) -> io::Result<Record> {
        let mut bytes = vec![0; span.length as usize];
        self.file.read_exact_at(&mut bytes, span.offset)?;
        let whole = Record::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(whole.record)
    }

    /// Writes the file anew with what is given and nothing else. Returns where each piece is now. After an error the old
    /// file stands, for as long as this lives and after a power cut.
    pub(super) fn rewrite(&mut self, pieces: &[Piece]) -> io::Result<Vec<Span>> {
        let mut spans = Vec::with_capacity(pieces.len());
        let mut end = START;
        let replaced = atomic::replace_or_doubt(&self.path, self.sync_folder, |file| {
            let mut out = io::BufWriter::new(file);
            out.write_all(MAGIC)?;
            for piece in pieces {
                let bytes = match piece {
                    // Not blindly: what is copied without a look is lost with everything behind it.
                    Piece::Copy(span) => self.read(*span)?.encode(ALL_SYNCED),
                    Piece::New(record) => record.encode(ALL_SYNCED),
                };
                out.write_all(&bytes)?;
                spans.push(span(end, bytes.len())?);
                end += bytes.len() as u64;
            }
            out.flush()
        })?;
        // A power cut may bring the old file back, which says the same. Nothing is added before that is settled.
        if let Err(error) = self.adopt(replaced, end) {
            tracing::warn!(%error, "Making the new journal's name durable failed; it is tried again");
        }
        Ok(spans)
    }

    /// After a failed sync: a new file with everything that was durable, and of the rest what can still be read. What was
    /// not synced yet are acks alone.
    fn heal(&mut self) -> io::Result<()> {
        let mut end = START;
        let replaced = atomic::replace_or_doubt(&self.path, self.sync_folder, |file| {
            let mut out = io::BufWriter::new(file);
            out.write_all(MAGIC)?;
            while end < self.end {
                let Some((bytes, _)) = whole_at(&self.file, end)? else {
                    if end < self.synced {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    break;
                };
                out.write_all(&bytes)?;
                end += bytes.len() as u64;
            }
            out.flush()
        })?;
        self.adopt(replaced, end)
    }
}

fn span(offset: u64, length: usize) -> io::Result<Span> {
    let length = u32::try_from(length).map_err(io::Error::other)?;
    Ok(Span { offset, length })
}

/// Tells of each whole record up to the first that is not. Returns where that is.
fn scan(
    path: &Path,
    file: &mut File,
    each: &mut dyn FnMut(Record, Span),
) -> Result<u64, OpenError> {
    let io = |source| OpenError::Io {
        path: path.to_owned(),
        source,
    };
    let Some(end) = scan_whole(file, each).map_err(io)? else {
        return Err(OpenError::NotAJournal(path.to_owned()));
    };
    if stands_before_a_later_one(file, end).map_err(io)? {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            at: end,
        });
    }
    Ok(end)
}

/// `None` where the beginning is another file's.
fn scan_whole(file: &mut File, each: &mut dyn FnMut(Record, Span)) -> io::Result<Option<u64>> {
    let mut reader = BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    reader.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Ok(None);
    }
    let mut end = START;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        reader
            .by_ref()
            .take(HEADER as u64)
            .read_to_end(&mut bytes)?;
        let Some((length, _)) = header_of(&bytes) else {
            break;
        };
        reader
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut bytes)?;
        let Some(Whole { record, length, .. }) = Record::decode(&bytes) else {
            break;
        };
        each(record, span(end, length)?);
        end += length as u64;
    }
    Ok(Some(end))
}

/// Whether a record stands anywhere behind `bad` that was written when `bad` was durable already. Looks at every byte:
/// where the next record begins is not known, for the length of the bad one may be what is damaged.
fn stands_before_a_later_one(file: &File, bad: u64) -> io::Result<bool> {
    let mut chunk = Vec::new();
    let mut start = bad + 1;
    loop {
        chunk.resize(CHUNK, 0);
        let read = read_at(file, &mut chunk, start)?;
        chunk.truncate(read);
        if read < HEADER {
            return Ok(false);
        }
        let candidates = (start..).zip(chunk.windows(HEADER));
        for (at, header) in candidates {
            if header_of(header).is_some()
                && let Some((_, Whole { synced, .. })) = whole_at(file, at)?
                && synced > bad
            {
                return Ok(true);
            }
        }
        start += (read - HEADER + 1) as u64;
    }
}

/// The record at a place and its bytes, where there is one.
fn whole_at(file: &File, at: u64) -> io::Result<Option<(Vec<u8>, Whole)>> {
    let mut bytes = vec![0; HEADER];
    if read_at(file, &mut bytes, at)? < HEADER {
        return Ok(None);
    }
    let Some((length, _)) = header_of(&bytes) else {
        return Ok(None);
    };
    bytes.resize(HEADER + length, 0);
    if read_at(file, &mut bytes, at)? < HEADER + length {
        return Ok(None);
    }
    Ok(Record::decode(&bytes).map(|whole| (bytes, whole)))
}

/// As many bytes as there are, and fit.
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::record::tests::records, *};

    fn open(path: &Path) -> (Log, Vec<Record>) {
        let mut found = Vec::new();
        let log = Log::open(path, &mut |record, _| found.push(record)).unwrap();
        (log, found)
    }

    #[test]
    fn a_cut_at_any_byte_leaves_a_valid_beginning_and_the_log_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut log, _) = open(&path);
        let mut ends = vec![log.bytes()];
        for record in records() {
            log.append(&[record], 0).unwrap();
            ends.push(log.bytes());
        }
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (mut log, found) = open(&path);
            let kept = ends
                .iter()
                .filter(|&&end| end <= length as u64)
                .count()
                .saturating_sub(1);
            assert_eq!(found, records()[..kept], "cut at {length}");
            // And what is added then is found behind it.
            let more = records().pop().unwrap();
            log.append(std::slice::from_ref(&more), 0).unwrap();
            drop(log);
            let (_, found) = open(&path);
            assert_eq!(found.last(), Some(&more), "cut at {length}");
        }
    }

    #[test]
    fn garbage_after_the_last_record_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut log, _) = open(&path);
        log.append(&records(), 0).unwrap();
        let whole = fs::read(&path).unwrap();
        for garbage in [&[0; 4096][..], &[0xff; 4096], b"FLJRNL01"] {
            fs::write(&path, [&whole, garbage].concat()).unwrap();
            let (_, found) = open(&path);
            assert_eq!(found, records());
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn another_file_in_its_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        fs::write(&path, "something else entirely").unwrap();
        assert!(matches!(
            Log::open(&path, &mut |_, _| ()),
            Err(OpenError::NotAJournal(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"something else entirely");
    }

    #[test]
    fn a_full_disk_is_an_error_and_nothing_is_half_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut log, _) = open(&path);
        log.append(&records(), 0).unwrap();
        let file = std::mem::replace(
            &mut log.file,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        );
        let error = log.append(&records(), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        // The disk has room again.
        log.file = file;
        assert_eq!(log.room, log.end);
        log.append(&records(), 0).unwrap();
        drop(log);
        let (_, found) = open(&path);
        assert_eq!(found, [records(), records()].concat());
    }

    #[test]
    fn written_anew_it_holds_what_was_given_and_reads_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut log, _) = open(&path);
        let spans = log.append(&records(), 0).unwrap();
        let [_, accepted, finished, acked] = records().try_into().unwrap();
        let pieces = [Piece::New(accepted.clone().into()), Piece::Copy(spans[2])];
        let spans = log.rewrite(&pieces).unwrap();
        assert_eq!(log.read(spans[1]).unwrap(), finished);
        log.append(std::slice::from_ref(&acked), 0).unwrap();
        drop(log);
        let (_, found) = open(&path);
        assert_eq!(found, [accepted, finished, acked]);
    }

    #[test]
    fn after_a_failed_sync_the_file_is_made_anew_from_what_was_sure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut log, _) = open(&path);
        log.append(&records(), 0).unwrap();
        // Half of a record, as a failed sync may leave it.
        log.file
            .write_all_at(&records()[0].encode(log.synced)[..5], log.end)
            .unwrap();
        log.doubtful = true;
        log.append(&records(), 0).unwrap();
        drop(log);
        let (_, found) = open(&path);
        assert_eq!(found, [records(), records()].concat());
    }

    #[test]
    fn what_is_added_after_a_replacement_that_may_not_last_is_in_the_file_that_has_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut log, _) = open(&path);
        let spans = log.append(&records(), 0).unwrap();
        log.sync_folder = |_| Err(io::ErrorKind::Other.into());
        let [_, accepted, finished, acked] = records().try_into().unwrap();
        let spans = log.rewrite(&[Piece::Copy(spans[1]), Piece::Copy(spans[2])]);
        // The new places count, for the new file is the one that is read.
        assert_eq!(log.read(spans.unwrap()[1]).unwrap(), finished);
        // A power cut could take away what is added now.
        log.append(std::slice::from_ref(&acked), 0).unwrap_err();
        log.sync_folder = File::sync_all;
        log.append(std::slice::from_ref(&acked), 0).unwrap();
        drop(log);
        let (_, found) = open(&path);
        assert_eq!(found, [accepted, finished, acked]);
    }

    /// A journal of which each record was synced by itself, and where each begins.
    fn synced_one_by_one(path: &Path) -> (Vec<u8>, Vec<u64>) {
        let (mut log, _) = open(path);
        let mut begins = Vec::new();
        for record in [records(), records()].concat() {
            begins.push(log.bytes());
            log.append(&[record], 0).unwrap();
        }
        drop(log);
        (fs::read(path).unwrap(), begins)
    }

    #[test]
    fn damage_in_front_of_what_was_safe_is_refused_and_nothing_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (whole, begins) = synced_one_by_one(&path);
        // In the length, in the checksum, in the content; in the first record and in the last but two.
        for begin in [begins[0], begins[5]] {
            for byte in [0, 2, 5, 12] {
                let mut damaged = whole.clone();
                let at = usize::try_from(begin).unwrap() + byte;
                damaged[at] ^= 0xff;
                fs::write(&path, &damaged).unwrap();
                let refused = Log::open(&path, &mut |_, _| ()).unwrap_err();
                assert!(
                    matches!(refused, OpenError::Damaged { at, .. } if at == begin),
                    "{refused}"
                );
                assert!(refused.to_string().contains("backup"), "{refused}");
                Log::peek(&path, &mut |_, _| ()).unwrap_err();
                assert_eq!(fs::read(&path).unwrap(), damaged);
            }
        }
    }

    #[test]
    fn a_hole_in_what_was_not_synced_is_what_a_power_cut_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut log, _) = open(&path);
        log.append(&records()[..2], 0).unwrap();
        let synced = usize::try_from(log.bytes()).unwrap();
        // Two records in one write; of the first, the disk got nothing.
        log.append(&records()[2..], 0).unwrap();
        drop(log);
        let mut cut = fs::read(&path).unwrap();
        let first = records()[2].encode(synced as u64).len();
        cut[synced..synced + first].fill(0);
        fs::write(&path, &cut).unwrap();
        let (_, found) = open(&path);
        assert_eq!(found, records()[..2]);
        assert_eq!(fs::read(&path).unwrap().len(), synced);
    }

    #[test]
    fn what_is_made_anew_leaves_out_acks_that_were_lost_and_never_what_was_safe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut log, _) = open(&path);
        log.append(&records()[..3], 0).unwrap();
        let synced = log.bytes();
        let ack = &records()[3..];
        // An ack is not synced. The next sync fails, and takes it along.
        log.append(ack, 0).unwrap();
        log.file.write_all_at(&[0; 12], synced).unwrap();
        log.doubtful = true;
        log.append(ack, 0).unwrap();
        let (_, found) = open(&path);
        assert_eq!(found, records());

        log.file.write_all_at(&[0; 12], START).unwrap();
        log.doubtful = true;
        let error = log.append(ack, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
