//! Outputs that are too large to be told: each goes to a file, and from there to the store of the gateways.
//!
//! The folder is `artefacts` in the state folder, the owner's alone, and bounded. A file is named by its invocation's
//! uid; it goes when the end of that one is acked, and one that nobody knows goes at the start.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use proto::node::{self, FailureCode};
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};

use super::Failure;
use crate::{journal::Uid, state::atomic};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// The folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spools(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// Most bytes of all files together.
    most: u64,
    /// Largest that the gateways store; 0 where they store none.
    stored: AtomicU64,
    /// By uid, how long they are.
    files: Mutex<BTreeMap<String, u64>>,
}

impl Spools {
    /// A folder that is made when it is needed.
    pub fn new(folder: PathBuf, most: u64) -> Self {
        Self(Arc::new(Inner {
            folder,
            most,
            stored: AtomicU64::new(0),
            files: Mutex::default(),
        }))
    }

    /// Removes files that an earlier life left, but for those that are needed.
    pub fn tidy(&self, is_needed: impl Fn(&str) -> bool) {
        let Ok(found) = fs::read_dir(&self.0.folder) else {
            return;
        };
        for entry in found.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_needed(&name) {
                let length = entry.metadata().map_or(0, |metadata| metadata.len());
                self.files().insert(name, length);
            } else if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(%error, name, "Removing an output that nobody needs failed");
            }
        }
    }

    /// What a gateway said when the session began.
    pub fn gateways_store(&self, most: u64) {
        self.0.stored.store(most, Ordering::Relaxed);
    }

    /// For the output of one invocation.
    pub fn spool(&self, uid: &Uid) -> Spool {
        Spool {
            spools: self.clone(),
            uid: uid.as_str().to_owned(),
            done: Arc::default(),
        }
    }

    /// Reads a piece of an output.
    pub fn read(&self, uid: &Uid, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let file = File::open(self.0.folder.join(uid.as_str()))?;
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// It is where it belongs, or nobody wants it.
    pub fn remove(&self, uid: &str) {
        if self.files().remove(uid).is_some()
            && let Err(error) = fs::remove_file(self.0.folder.join(uid))
        {
            tracing::warn!(%error, uid, "Removing a stored output failed: the next start does it");
        }
    }

    /// A map is whole whenever a panic may have come.
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the output of one invocation goes if it is too large to be told. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool {
    spools: Spools,
    uid: String,
    done: Arc<Mutex<Option<node::Artefact>>>,
}

/// Why an output is not kept.
#[derive(Debug)]
pub enum Fault {
    /// It is longer than that.
    TooLong {
        most: u64,
        whose: Whose,
    },
    Disk(io::Error),
    /// The command ended before all of it was read.
    Cut,
}

/// Whose bound it is that an output is longer than.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whose {
    /// Of the declaration.
    Declared,
    /// Of the invocation, where nothing is stored that is larger.
    Asked,
    Gateways,
    /// Of the folder.
    Device,
}

impl Fault {
    pub fn failure(&self) -> Failure {
        match self {
            Self::TooLong { most, whose } => {
                let whose = match whose {
                    Whose::Declared => "the most that this device lets it write",
                    Whose::Asked => {
                        "the most that is asked for, and the gateways have no store for more"
                    }
                    Whose::Gateways => "the most that the gateways store",
                    Whose::Device => "which is what this device has room for now",
                };
                Failure::new(
                    FailureCode::OutputTooLarge,
                    format!("it was stopped when it wrote more than {most} bytes, {whose}"),
                )
            }
            Self::Cut => Failure::new(
                FailureCode::ArtefactNotStored,
                "it was stopped, or something that it left behind still wrote: not all of its output is there",
            ),
            Self::Disk(error) => Failure::new(
                FailureCode::ArtefactNotStored,
                format!(
                    "it ran, but its output could not be kept on this device's disk: {}",
                    error.kind()
                ),
            ),
        }
    }
}

impl Spool {
    /// Largest that the gateways store; 0 where they store none.
    pub fn gateways_store(&self) -> u64 {
        self.spools.0.stored.load(Ordering::Relaxed)
    }

    /// Begins the file.
    pub fn begin(&self) -> Result<Writer, Fault> {
        let Inner { folder, .. } = &*self.spools.0;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(Fault::Disk)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(folder.join(&self.uid))
            .map_err(Fault::Disk)?;
        self.spools.files().insert(self.uid.clone(), 0);
        Ok(Writer {
            spool: self.clone(),
            file,
            hasher: Sha256::new(),
            length: 0,
            is_done: false,
        })
    }

    /// What was kept, once.
    pub fn take(&self) -> Option<node::Artefact> {
        self.done().take()
    }

    fn done(&self) -> MutexGuard<'_, Option<node::Artefact>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is being written. Removed when dropped before its end.
#[derive(Debug)]
pub struct Writer {
    spool: Spool,
    file: File,
    hasher: Sha256,
    length: u64,
    is_done: bool,
}

impl Writer {
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Blocks, as a disk does.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let length = self.length + bytes.len() as u64;
        {
            let mut files = self.spool.spools.files();
            let others: u64 = files
                .iter()
                .filter(|(uid, _)| **uid != self.spool.uid)
                .map(|(_, length)| length)
                .sum();
            let most = self.spool.spools.0.most.saturating_sub(others);
            if length > most {
                let whose = Whose::Device;
                return Err(Fault::TooLong { most, whose });
            }
            files.insert(self.spool.uid.clone(), length);
        }
        self.file.write_all(bytes).map_err(Fault::Disk)?;
        self.hasher.update(bytes);
        self.length = length;
        Ok(())
    }

    /// On return it is durable. Blocks.
    pub fn finish(self) -> Result<Whole, Fault> {
        self.file.sync_all().map_err(Fault::Disk)?;
        let path = self.spool.spools.0.folder.join(&self.spool.uid);
        atomic::sync_folder_of(&path).map_err(Fault::Disk)?;
        let written = File::open(&path).map_err(Fault::Disk)?;
        // In constant memory: what is skipped is not kept.
        let json = serde_json::from_reader::<_, IgnoredAny>(BufReader::new(written));
        let artefact = node::Artefact {
            sha256: self.hasher.clone().finalize().to_vec(),
            size_bytes: self.length,
            media_type: if json.is_ok() { JSON } else { BYTES }.to_owned(),
        };
        Ok(Whole {
            writer: self,
            artefact,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_done {
            self.spool.spools.remove(&self.spool.uid);
        }
    }
}

/// A file that was written whole. Removed when dropped before it is kept.
#[derive(Debug)]
pub struct Whole {
    writer: Writer,
    artefact: node::Artefact,
}

impl Whole {
    /// It is the output.
    pub fn keep(mut self) {
        self.writer.is_done = true;
        *self.writer.spool.done() = Some(self.artefact.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    fn keep(spools: &Spools, name: &str, content: &[u8]) -> Result<node::Artefact, Fault> {
        let spool = spools.spool(&uid(name));
        let mut writer = spool.begin()?;
        for chunk in content.chunks(7) {
            writer.write(chunk)?;
        }
        writer.finish()?.keep();
        Ok(spool.take().unwrap())
    }

    #[test]
    fn an_output_is_kept_with_its_digest_for_its_owner_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("artefacts");
        let spools = Spools::new(folder.clone(), 1000);
        let artefact = keep(&spools, "a", b" [1, 2, {\"a\": null}] \n").unwrap();
        assert_eq!(
            artefact.sha256,
            Sha256::digest(b" [1, 2, {\"a\": null}] \n").to_vec()
        );
        assert_eq!(
            (artefact.size_bytes, artefact.media_type.as_str()),
            (22, JSON)
        );
        assert_eq!(
            keep(&spools, "b", b"plain words").unwrap().media_type,
            BYTES
        );
        assert_eq!(spools.read(&uid("b"), 6, 5).unwrap(), b"words");
        assert!(spools.read(&uid("b"), 7, 5).is_err(), "past its end");
        for (path, mode) in [(folder.clone(), 0o700), (folder.join("a"), 0o600)] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                mode
            );
        }
        spools.remove("a");
        assert!(!folder.join("a").exists());
    }

    #[test]
    fn the_folder_is_bounded_and_what_is_not_kept_goes() {
        let temporary = tempfile::tempdir().unwrap();
        let spools = Spools::new(temporary.path().to_owned(), 30);
        keep(&spools, "a", &[b'x'; 20]).unwrap();
        let fault = keep(&spools, "b", &[b'x'; 11]).unwrap_err();
        assert!(
            matches!(
                fault,
                Fault::TooLong {
                    most: 10,
                    whose: Whose::Device
                }
            ),
            "{fault:?}"
        );
        assert_eq!(fault.failure().code, FailureCode::OutputTooLarge);
        assert!(!temporary.path().join("b").exists());
        keep(&spools, "b", &[b'x'; 10]).unwrap();
        spools.remove("a");
        keep(&spools, "c", &[b'x'; 20]).unwrap();
    }

    #[test]
    fn a_full_disk_is_told_as_what_it_is() {
        let fault = Fault::Disk(io::ErrorKind::StorageFull.into());
        let failure = fault.failure();
        assert_eq!(failure.code, FailureCode::ArtefactNotStored);
        assert!(
            failure.message.contains("storage space"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn a_start_removes_what_nobody_needs_and_counts_the_rest() {
        let temporary = tempfile::tempdir().unwrap();
        let before = Spools::new(temporary.path().to_owned(), 30);
        keep(&before, "a", &[b'x'; 20]).unwrap();
        keep(&before, "b", &[b'x'; 5]).unwrap();
        let after = Spools::new(temporary.path().to_owned(), 30);
        after.tidy(|uid| uid == "a");
        assert!(temporary.path().join("a").exists() && !temporary.path().join("b").exists());
        assert!(keep(&after, "c", &[b'x'; 11]).is_err());
    }
}
