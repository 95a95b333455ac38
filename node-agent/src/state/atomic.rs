//! Replaces a file so that a power cut leaves the old one or the new one, whole, and nothing else.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What it takes, one after the other. The order is the whole point: a rename that reaches the disk before the content
/// does leaves an empty file under the old name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Create,
    Write,
    SyncFile,
    /// Before the rename: after it, only what cannot be undone may fail.
    OpenFolder,
    Rename,
    SyncFolder,
}

const STEPS: [Step; 6] = [
    Step::Create,
    Step::Write,
    Step::SyncFile,
    Step::OpenFolder,
    Step::Rename,
    Step::SyncFolder,
];

/// How a folder is made durable. A test may have it fail.
pub(crate) type FolderSync = fn(&File) -> io::Result<()>;

/// A file that has replaced another.
#[derive(Debug)]
pub(crate) struct Replaced {
    /// Open for reading and writing. Its content is durable.
    pub(crate) file: File,
    /// Why a power cut may bring the other one back. Until then this one has the name: who goes on with the other writes
    /// into a file that nobody will find.
    pub(crate) doubt: Option<io::Error>,
}

/// Replaces `target` by what `content` writes; the file is for its owner alone. Returns the new file, open for reading
/// and writing.
///
/// After an error the old file stands, or the new one where only the last step failed.
pub(crate) fn replace(
    target: &Path,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<File> {
    let Replaced { file, doubt } = replace_or_doubt(target, File::sync_all, content)?;
    doubt.map_or(Ok(file), Err)
}

/// The same, for who holds the old file open and must know which of the two has the name: after an error it is the old
/// one.
pub(crate) fn replace_or_doubt(
    target: &Path,
    sync_folder: FolderSync,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<Replaced> {
    let new = sibling(target);
    let result = perform(target, &new, sync_folder, content);
    if result.is_err() {
        // What is left would be in nobody's way: the next replacement removes it first.
        let _ = fs::remove_file(&new);
    }
    result
}

fn perform(
    target: &Path,
    new: &Path,
    sync_folder: FolderSync,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<Replaced> {
    let mut content = Some(content);
    let mut file = None;
    let mut folder = None;
    let mut doubt = None;
    for step in STEPS {
        match (step, &mut file, &folder) {
            (Step::Create, ..) => file = Some(create(new)?),
            (Step::Write, Some(file), _) => {
                if let Some(content) = content.take() {
                    content(file)?;
                }
            }
            (Step::SyncFile, Some(file), _) => file.sync_all()?,
            (Step::OpenFolder, ..) => folder = Some(open_folder_of(target)?),
            (Step::Rename, ..) => fs::rename(new, target)?,
            (Step::SyncFolder, _, Some(folder)) => doubt = sync_folder(folder).err(),
            (Step::Write | Step::SyncFile, None, _) | (Step::SyncFolder, _, None) => {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
    }
    let file = file.ok_or(io::ErrorKind::NotFound)?;
    Ok(Replaced { file, doubt })
}

/// Makes a rename or a removal in the folder of `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    open_folder_of(path)?.sync_all()
}

fn open_folder_of(path: &Path) -> io::Result<File> {
    File::open(path.parent().ok_or(io::ErrorKind::NotFound)?)
}

/// A new file, whatever a power cut left there before, with the right mode from its first moment.
fn create(new: &Path) -> io::Result<File> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)
}

fn sibling(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    target.with_file_name(name)
}

/// What a power cut can leave behind, for everybody whose file is replaced here.
#[cfg(test)]
pub(crate) mod cut_tests {
    use super::*;

    /// Where the new content is written first.
    pub(crate) fn sibling(target: &Path) -> PathBuf {
        super::sibling(target)
    }

    /// What the file may contain after a cut anywhere in a replacement of `old` by `new`, and how many steps were over.
    pub(crate) fn cuts(old: &[u8], new: &[u8]) -> Vec<(usize, Vec<u8>)> {
        cuts_of(&STEPS, old, new)
    }

    pub(super) fn cuts_of(steps: &[Step], old: &[u8], new: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let mut outcomes = Vec::new();
        for done in 0..=steps.len() {
            let bytes = if steps.get(done) == Some(&Step::Write) {
                new.len()
            } else {
                0
            };
            for written in 0..=bytes {
                for content in after_a_cut(&steps[..done], written, old, new) {
                    outcomes.push((done, content));
                }
            }
        }
        outcomes
    }

    /// What the target may contain after a power cut that came when `done` steps were over and `written` bytes of the
    /// next one. What was not synced may be there, in part, or not at all; in a folder as in a file.
    fn after_a_cut(done: &[Step], written: usize, old: &[u8], new: &[u8]) -> Vec<Vec<u8>> {
        let is_done = |step| done.contains(&step);
        let lengths = if is_done(Step::SyncFile) {
            new.len()..=new.len()
        } else if is_done(Step::Write) {
            0..=new.len()
        } else {
            0..=written
        };
        let mut seen = Vec::new();
        if !is_done(Step::SyncFolder) {
            seen.push(old.to_vec());
        }
        if is_done(Step::Rename) {
            seen.extend(lengths.map(|length| new[..length].to_vec()));
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{cut_tests::cuts_of, *};

    const OLD: &[u8] = b"the old content";
    const NEW: &[u8] = b"what replaces it, and is longer";

    #[test]
    fn a_cut_at_any_step_and_byte_leaves_the_old_or_the_new() {
        for (done, content) in cut_tests::cuts(OLD, NEW) {
            assert!(
                content == OLD || content == NEW,
                "after {done}: {content:?}"
            );
            if done == STEPS.len() {
                assert_eq!(content, NEW);
            }
        }
    }

    #[test]
    fn another_order_would_leave_garbage() {
        let careless = [
            Step::Create,
            Step::Write,
            Step::OpenFolder,
            Step::Rename,
            Step::SyncFile,
            Step::SyncFolder,
        ];
        assert!(
            cuts_of(&careless, OLD, NEW)
                .iter()
                .any(|(_, content)| content != OLD && content != NEW)
        );
    }

    #[test]
    fn what_a_cut_left_is_replaced_and_never_read() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("identity.json");
        fs::write(&target, OLD).unwrap();
        for length in 0..=NEW.len() {
            fs::write(sibling(&target), &NEW[..length]).unwrap();
            assert_eq!(fs::read(&target).unwrap(), OLD);
        }
        replace(&target, |file| file.write_all(NEW)).unwrap();
        assert_eq!(fs::read(&target).unwrap(), NEW);
        assert!(!sibling(&target).exists());
    }

    #[test]
    fn what_may_not_last_is_the_new_one_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("journal");
        fs::write(&target, OLD).unwrap();
        let fails: FolderSync = |_| Err(io::ErrorKind::Other.into());
        let replaced = replace_or_doubt(&target, fails, |file| file.write_all(NEW)).unwrap();
        assert!(replaced.doubt.is_some());
        assert_eq!(fs::read(&target).unwrap(), NEW);
    }

    #[test]
    fn a_failed_write_leaves_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("identity.json");
        fs::write(&target, OLD).unwrap();
        let error = replace(&target, |file| {
            file.write_all(&NEW[..3])?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&target).unwrap(), OLD);
        assert!(!sibling(&target).exists());
    }
}
