//! What becomes of what is on the disk where the journal was.

use std::{fs, path::PathBuf, sync::Arc};

use node_agent::{
    host::clock::Moment,
    journal::{Bounds, Journal, Phase, Record, Uid},
};

/// A journal with invocations that began, each recorded by itself.
pub struct Disk {
    path: PathBuf,
    whole: Vec<u8>,
    _folder: tempfile::TempDir,
}

impl Disk {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut journal = Journal::open(&path, Bounds::default(), Moment::default()).unwrap();
        runtime.block_on(async {
            for text in ["a", "b", "c", "d"] {
                let accepted = Record::Accepted {
                    uid: uid(text),
                    name: format!("say-{text}"),
                    mark: None,
                };
                let records = Arc::from([accepted]);
                journal.commit(records, 0, Moment::default()).await.unwrap();
            }
        });
        let whole = fs::read(&path).unwrap();
        Self {
            path,
            whole,
            _folder: folder,
        }
    }

    /// How much there is to damage.
    pub fn len(&self) -> usize {
        self.whole.len()
    }

    /// Something else is there.
    pub fn holds(&self, bytes: &[u8]) {
        fs::write(&self.path, bytes).unwrap();
        // Either is fine.
        let _ = Journal::peek(&self.path);
    }

    /// The damage that an input stands for: where, with what, and what is behind the end.
    pub fn damage(&self, bytes: &[u8]) -> Option<(usize, u8, Vec<u8>)> {
        let [high, low, with, tail @ ..] = bytes else {
            return None;
        };
        let at = usize::from(u16::from_be_bytes([*high, *low])) % self.len();
        Some((at, *with, tail.to_vec()))
    }

    /// One byte is another, and something is behind the end.
    pub fn is_damaged(&self, at: usize, with: u8, tail: &[u8]) {
        let mut bytes = self.whole.clone();
        bytes[at] = with;
        bytes.extend(tail);
        fs::write(&self.path, bytes).unwrap();
        // Refused, or it knows all that was safe on the disk. Of the last record nobody can tell.
        if let Ok(journal) = Journal::open(&self.path, Bounds::default(), Moment::default()) {
            for text in ["a", "b", "c"] {
                let phase = journal.ledger().phase(&uid(text));
                assert_eq!(phase, Some(Phase::Ended), "{at}");
            }
        }
    }
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}
