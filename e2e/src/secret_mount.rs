//! Plays the kubelet for one Secret: its keys are files in a folder, and stay current.
//!
//! The layout is the kubelet's, as programs that watch a mounted Secret depend on it: each key is a link to
//! `..data/<key>`, and `..data` is a link to a folder that is replaced as a whole, so no reader ever sees a
//! certificate of one generation beside the key of another.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::private;

/// A Secret that is kept in a folder for as long as this lives. The files stay when it is dropped.
#[derive(Debug)]
pub struct SecretMount {
    name: String,
    folder: PathBuf,
    generations: watch::Receiver<u64>,
    _task: JoinSet<()>,
}

impl SecretMount {
    /// Begins to watch. The Secret need not be there yet. Must be called on a Tokio runtime.
    pub fn start(
        client: Client,
        namespace: &str,
        name: &str,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        private::folder(folder)?;
        let (sender, generations) = watch::channel(0);
        let mut task = JoinSet::new();
        let api = Api::<Secret>::namespaced(client, namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mount = (name.to_owned(), folder.to_owned());
        let (name, folder) = mount.clone();
        task.spawn(async move {
            // Watch errors are repaired by the backoff; the stream has no end.
            let mut secrets =
                std::pin::pin!(watcher(api, config).default_backoff().applied_objects());
            let mut projection = Projection {
                folder,
                generation: 0,
                keys: Vec::new(),
            };
            loop {
                match secrets.try_next().await {
                    Ok(Some(secret)) => {
                        match projection.replace(&secret.data.unwrap_or_default()) {
                            Ok(()) => drop(sender.send(projection.generation)),
                            Err(error) => eprintln!("Mounting Secret {name} failed: {error:#}"),
                        }
                    }
                    Ok(None) => return,
                    Err(error) => eprintln!("Watching Secret {name} failed, will retry: {error}"),
                }
            }
        });
        let (name, folder) = mount;
        Ok(Self {
            name,
            folder,
            generations,
            _task: task,
        })
    }

    /// Waits until the Secret has been there once: no container starts before its Secrets do.
    ///
    /// # Errors
    /// When it is not there in time.
    pub async fn mounted(&mut self, within: Duration) -> anyhow::Result<()> {
        tokio::time::timeout(
            within,
            self.generations.wait_for(|generation| *generation > 0),
        )
        .await
        .with_context(|| {
            format!(
                "Secret {} is not there after {} s",
                self.name,
                within.as_secs()
            )
        })?
        .context("the mount has ended")
        .map(drop)
    }

    /// The folder with the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

struct Projection {
    folder: PathBuf,
    generation: u64,
    keys: Vec<String>,
}

impl Projection {
    fn replace(&mut self, data: &BTreeMap<String, ByteString>) -> anyhow::Result<()> {
        let old = self.folder.join(format!("..{}", self.generation));
        self.generation += 1;
        let name = format!("..{}", self.generation);
        let new = self.folder.join(&name);
        remove(&new)?;
        private::folder(&new)?;
        for (key, value) in data {
            private::write(&new.join(key), &value.0)?;
        }

        let link = self.folder.join("..data_new");
        remove(&link)?;
        symlink(&name, &link).context("link the new files")?;
        std::fs::rename(&link, self.folder.join("..data")).context("put the new files in place")?;

        for key in data.keys().filter(|key| !self.keys.contains(key)) {
            let link = self.folder.join(key);
            remove(&link)?;
            symlink(Path::new("..data").join(key), &link).with_context(|| format!("link {key}"))?;
        }
        for key in self.keys.iter().filter(|key| !data.contains_key(*key)) {
            remove(&self.folder.join(key))?;
        }
        self.keys = data.keys().cloned().collect();
        remove(&old)
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect()
    }

    #[test]
    fn a_new_version_replaces_all_files_at_once_and_removes_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut projection = Projection {
            folder: folder.path().into(),
            generation: 0,
            keys: Vec::new(),
        };
        projection
            .replace(&data(&[("tls.crt", "old"), ("extra", "x")]))
            .unwrap();
        let read = |key: &str| std::fs::read_to_string(folder.path().join(key));
        assert_eq!(read("tls.crt").unwrap(), "old");
        assert_eq!(read("extra").unwrap(), "x");

        projection
            .replace(&data(&[("tls.crt", "new"), ("tls.key", "k")]))
            .unwrap();
        assert_eq!(read("tls.crt").unwrap(), "new");
        assert_eq!(read("tls.key").unwrap(), "k");
        assert!(read("extra").is_err());
        let mode = std::fs::metadata(folder.path().join("tls.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        // The old version is gone from the disk: `..data`, its folder, and two links.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_folder_of_an_earlier_run_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        for value in ["first", "second"] {
            let mut projection = Projection {
                folder: folder.path().into(),
                generation: 0,
                keys: Vec::new(),
            };
            projection.replace(&data(&[("k", value)])).unwrap();
            assert_eq!(
                std::fs::read_to_string(folder.path().join("k")).unwrap(),
                value
            );
        }
    }
}
