//! Files that are mounted, and replaced while we run: read again every other second, as one.
//!
//! A mounted Secret is a folder of links through `..data`, which is switched at once; reading through that link once
//! keeps a certificate and its key of one generation. What cannot be used leaves what was read before in force.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often files are looked at. Local reads of a few kilobytes.
const EVERY: Duration = Duration::from_secs(2);
/// Largest file that is read, in bytes: a Secret holds no more.
const MAX_BYTES: u64 = 1024 * 1024;

/// What was last read, parsed; `None` until the files were there once. Cheap to clone.
pub type Current<T> = watch::Receiver<Option<Arc<T>>>;

/// Files of one folder, and what they mean.
pub struct Mounted<T> {
    folder: PathBuf,
    names: &'static [&'static str],
    /// Those that need not be there.
    optional: &'static [&'static str],
    parse: Parse<T>,
    current: watch::Sender<Option<Arc<T>>>,
    /// Of what was last read, whether it could be used or not: keys are not kept twice.
    digest: Option<[u8; 32]>,
    complaint: Option<String>,
}

/// Gets the files' contents in the order of their names.
type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> anyhow::Result<T> + Send + Sync>;

impl<T: Send + Sync + 'static> Mounted<T> {
    /// `parse` gets the contents in the order of `names`.
    pub fn new(
        folder: PathBuf,
        names: &'static [&'static str],
        parse: impl Fn(&[Vec<u8>]) -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> Self {
        let (current, _) = watch::channel(None);
        Self {
            folder,
            names,
            optional: &[],
            parse: Box::new(parse),
            current,
            digest: None,
            complaint: None,
        }
    }

    /// With files that may be missing: their contents follow the others', empty where they are.
    pub fn with_optional(mut self, names: &'static [&'static str]) -> Self {
        self.optional = names;
        self
    }

    pub fn current(&self) -> Current<T> {
        self.current.subscribe()
    }

    /// Keeps what was read up to date until told to stop.
    pub async fn follow(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            self.look().await;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn look(&mut self) {
        let folder = self.folder.display().to_string();
        match self.read_anew().await {
            Ok(true) => {
                self.complaint = None;
                tracing::info!(folder, "Read the mounted files");
            }
            Ok(false) => {}
            Err(error) => {
                let complaint = format!("{error:#}");
                // Once, and not every other second.
                if self.complaint.as_ref() != Some(&complaint) {
                    if self.current.borrow().is_some() {
                        tracing::error!(folder, error = complaint, "Keeping what was read before");
                    } else {
                        tracing::warn!(folder, error = complaint, "Waiting for the mounted files");
                    }
                    self.complaint = Some(complaint);
                }
            }
        }
    }

    /// Whether something new is in force.
    async fn read_anew(&mut self) -> anyhow::Result<bool> {
        let contents = read(&self.folder, self.names, self.optional).await?;
        let mut hash = Sha256::new();
        for content in &contents {
            hash.update((content.len() as u64).to_be_bytes());
            hash.update(content);
        }
        let digest: [u8; 32] = hash.finalize().into();
        if self.digest == Some(digest) {
            return Ok(false);
        }
        let parsed = (self.parse)(&contents)?;
        // Only now: files that were half written are tried again.
        self.digest = Some(digest);
        self.current.send_replace(Some(Arc::new(parsed)));
        Ok(true)
    }
}

async fn read(folder: &Path, names: &[&str], optional: &[&str]) -> anyhow::Result<Vec<Vec<u8>>> {
    let data = folder.join("..data");
    let folder = match tokio::fs::canonicalize(&data).await {
        Ok(generation) => generation,
        Err(_) => folder.to_owned(),
    };
    let mut contents = Vec::with_capacity(names.len() + optional.len());
    for name in names.iter().chain(optional) {
        let path = folder.join(name);
        let size = match tokio::fs::metadata(&path).await {
            Ok(found) => found.len(),
            Err(error) if error.kind() == ErrorKind::NotFound && optional.contains(name) => {
                contents.push(Vec::new());
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("look for {name}")),
        };
        ensure!(size <= MAX_BYTES, "{name} is larger than {MAX_BYTES} bytes");
        contents.push(
            tokio::fs::read(&path)
                .await
                .with_context(|| format!("read {name}"))?,
        );
    }
    Ok(contents)
}

/// Waits until the files were there once.
pub async fn loaded<T>(current: &mut Current<T>) -> anyhow::Result<()> {
    current
        .wait_for(Option::is_some)
        .await
        .map(|_| ())
        .context("wait for the mounted files")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn numbers(folder: &Path) -> Mounted<(u32, u32)> {
        Mounted::new(folder.to_owned(), &["a", "b"], |contents| {
            let number = |content: &[u8]| anyhow::Ok(std::str::from_utf8(content)?.parse()?);
            let (a, b) = (number(&contents[0])?, number(&contents[1])?);
            ensure!(a == b, "a and b do not belong together");
            Ok((a, b))
        })
    }

    fn write(folder: &Path, a: &str, b: &str) {
        fs::write(folder.join("a"), a).unwrap();
        fs::write(folder.join("b"), b).unwrap();
    }

    #[tokio::test]
    async fn files_that_come_late_or_wrong_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let mut mounted = numbers(folder.path());
        let current = mounted.current();
        let seen = || current.borrow().as_deref().copied();
        mounted.look().await;
        assert_eq!(seen(), None);
        write(folder.path(), "1", "1");
        mounted.look().await;
        assert_eq!(seen(), Some((1, 1)));
        write(folder.path(), "1", "2");
        mounted.look().await;
        assert_eq!(seen(), Some((1, 1)));
        write(folder.path(), "2", "2");
        mounted.look().await;
        assert_eq!(seen(), Some((2, 2)));
        fs::remove_file(folder.path().join("a")).unwrap();
        mounted.look().await;
        assert_eq!(seen(), Some((2, 2)));
    }

    #[tokio::test]
    async fn a_file_that_need_not_be_there_may_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut mounted = Mounted::new(folder.path().to_owned(), &["a"], |contents| {
            Ok(contents.to_vec())
        })
        .with_optional(&["b"]);
        let current = mounted.current();
        let seen = || current.borrow().as_deref().cloned();
        mounted.look().await;
        assert_eq!(seen(), None);
        fs::write(folder.path().join("a"), "1").unwrap();
        mounted.look().await;
        assert_eq!(seen(), Some(vec![b"1".to_vec(), Vec::new()]));
        fs::write(folder.path().join("b"), "2").unwrap();
        mounted.look().await;
        assert_eq!(seen(), Some(vec![b"1".to_vec(), b"2".to_vec()]));
        fs::remove_file(folder.path().join("b")).unwrap();
        mounted.look().await;
        assert_eq!(seen(), Some(vec![b"1".to_vec(), Vec::new()]));
    }

    #[tokio::test]
    async fn a_mounted_secret_is_read_as_one_generation() {
        let folder = tempfile::tempdir().unwrap();
        let generation = |name: &str, number: &str| {
            fs::create_dir(folder.path().join(name)).unwrap();
            write(&folder.path().join(name), number, number);
        };
        let switch = |name: &str| {
            std::os::unix::fs::symlink(name, folder.path().join("..next")).unwrap();
            fs::rename(folder.path().join("..next"), folder.path().join("..data")).unwrap();
        };
        generation("..1", "1");
        switch("..1");
        let mut mounted = numbers(folder.path());
        let current = mounted.current();
        mounted.look().await;
        assert_eq!(current.borrow().as_deref(), Some(&(1, 1)));
        generation("..2", "2");
        switch("..2");
        mounted.look().await;
        assert_eq!(current.borrow().as_deref(), Some(&(2, 2)));
    }
}
