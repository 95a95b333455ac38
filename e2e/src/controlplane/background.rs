//! One control plane per folder for a person at a terminal: up, env, down.
//!
//! `up` starts itself again in the background; that second process holds a lock on the folder for as long as the
//! control plane runs. The lock is the truth about whether one is up: unlike a file with a process id, it cannot
//! outlive its process or be mistaken for another's.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::binaries::cache_root;
use super::{Binaries, ControlPlane};
use crate::private;
use crate::process::tail;
use crate::wait::Stopwatch;

/// More than the control plane's own deadline for becoming ready.
const UP_WITHIN: Duration = Duration::from_mins(2);
const DOWN_WITHIN: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// A folder in which a control plane runs or does not.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
}

/// What one needs to use a control plane that is up.
#[derive(Debug, Deserialize, Serialize)]
pub struct Ready {
    kubeconfig: PathBuf,
    tools: PathBuf,
}

impl Ready {
    /// Lines for a shell's `eval`.
    pub fn exports(&self) -> String {
        format!(
            "export KUBECONFIG={}\nexport PATH={}:\"$PATH\"\n",
            quoted(&self.kubeconfig),
            quoted(&self.tools)
        )
    }
}

impl Place {
    /// The given folder, or `run/default` in the cache.
    pub fn new(folder: Option<PathBuf>) -> anyhow::Result<Self> {
        let folder = folder.map_or_else(
            || Ok(cache_root()?.join("run/default")),
            Ok::<_, anyhow::Error>,
        )?;
        Ok(Self {
            folder: std::path::absolute(folder).context("find the folder")?,
        })
    }

    /// Starts a control plane in the background, if none is up, and returns when it is ready.
    pub fn up(&self) -> anyhow::Result<Ready> {
        if !self.is_up()? {
            // Here and not in the background, so that its progress is seen.
            Binaries::find()?;
            self.start_in_background()?;
        }
        self.ready()?.with_context(|| {
            format!(
                "the control plane in {} is still starting: try again",
                self.folder.display()
            )
        })
    }

    /// What `up` said, if one is up.
    pub fn env(&self) -> anyhow::Result<Ready> {
        ensure!(
            self.is_up()?,
            "no control plane is up in {}: start one with `cargo controlplane up`",
            self.folder.display()
        );
        self.ready()?.with_context(|| {
            format!(
                "the control plane in {} is still starting: try again",
                self.folder.display()
            )
        })
    }

    /// Stops the control plane; `false` when none was up.
    pub fn down(&self) -> anyhow::Result<bool> {
        if !self.is_up()? {
            return Ok(false);
        }
        let mut text = String::new();
        File::open(self.lock_path())
            .and_then(|file| file.take(32).read_to_string(&mut text))
            .context("read who holds the folder")?;
        let pid = text
            .trim()
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{} names no process", self.lock_path().display()))?;
        rustix::process::kill_process(pid, Signal::TERM).context("signal the control plane")?;
        let watch = Stopwatch::start();
        while self.is_up()? {
            ensure!(
                watch.elapsed() < DOWN_WITHIN,
                "the control plane (process {}) did not stop\n{}",
                pid.as_raw_nonzero(),
                tail(&self.log_path())
            );
            std::thread::sleep(POLL_EVERY);
        }
        Ok(true)
    }

    /// Runs one until SIGTERM or SIGINT, or until a part of it ends. `announce` is called when it is ready.
    pub async fn run(
        &self,
        binaries: &Binaries,
        announce: impl FnOnce(&Ready),
    ) -> anyhow::Result<()> {
        private::folder(&self.folder)?;
        let _lock = self.hold()?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        // Taken and ignored: the terminal that it was started from may close.
        let _hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(stop);

        let mut control_plane = tokio::select! {
            started = ControlPlane::start(binaries, &self.folder) => started?,
            () = &mut stop => return Ok(()),
        };
        let ready = Ready {
            kubeconfig: control_plane.cluster().kubeconfig().to_owned(),
            tools: binaries.folder().to_owned(),
        };
        let text = serde_json::to_vec(&ready).context("render the state")?;
        private::write(&self.ready_path(), &text)?;
        announce(&ready);
        let failed = tokio::select! {
            error = control_plane.failed() => Some(error),
            () = &mut stop => None,
        };
        std::fs::remove_file(self.ready_path()).context("remove the state")?;
        let stopped = control_plane.stop().await;
        failed.map_or(stopped, Err)
    }

    fn start_in_background(&self) -> anyhow::Result<()> {
        private::folder(&self.folder)?;
        let log_path = self.log_path();
        let log =
            File::create(&log_path).with_context(|| format!("make {}", log_path.display()))?;
        let mut child = Command::new(std::env::current_exe().context("find this program")?)
            .args(["up", "--foreground", "--dir"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            // A group of its own: ctrl-C in this terminal is not meant for it.
            .process_group(0)
            .spawn()
            .context("start the control plane in the background")?;
        let watch = Stopwatch::start();
        while self.ready()?.is_none() || !self.is_up()? {
            if let Some(status) = child.try_wait().context("look after the control plane")? {
                bail!(
                    "the control plane did not start ({status})\n{}",
                    tail(&log_path)
                );
            }
            ensure!(
                watch.elapsed() < UP_WITHIN,
                "the control plane is not ready after {} s\n{}",
                UP_WITHIN.as_secs(),
                tail(&log_path)
            );
            std::thread::sleep(POLL_EVERY);
        }
        Ok(())
    }

    fn ready(&self) -> anyhow::Result<Option<Ready>> {
        match std::fs::read(self.ready_path()) {
            Ok(text) => serde_json::from_slice(&text)
                .context("read the state")
                .map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("read the state"),
        }
    }

    fn is_up(&self) -> anyhow::Result<bool> {
        let file = match File::open(self.lock_path()) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).context("open the lock"),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).context("look at the lock"),
        }
    }

    /// Takes the lock and writes who has it.
    fn hold(&self) -> anyhow::Result<File> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.lock_path())
            .context("make the lock")?;
        let watch = Stopwatch::start();
        // Somebody's look at the lock takes it for an instant.
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::WouldBlock => ensure!(
                    watch.elapsed() < Duration::from_secs(1),
                    "a control plane is up in {} already: stop it with `cargo controlplane down`",
                    self.folder.display()
                ),
                TryLockError::Error(error) => return Err(error).context("take the lock"),
            }
            std::thread::sleep(POLL_EVERY);
        }
        if let Err(error) = std::fs::remove_file(self.ready_path()) {
            ensure!(
                error.kind() == std::io::ErrorKind::NotFound,
                "remove an old state: {error}"
            );
        }
        file.set_len(0).context("write the lock")?;
        writeln!(file, "{}", std::process::id()).context("write the lock")?;
        Ok(file)
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join("controlplane.lock")
    }

    fn ready_path(&self) -> PathBuf {
        self.folder.join("controlplane.json")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("controlplane.log")
    }
}

/// As one word for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_up_where_nobody_holds_the_lock_though_its_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(Some(folder.path().into())).unwrap();
        assert!(!place.is_up().unwrap());
        let lock = place.hold().unwrap();
        assert!(place.is_up().unwrap());
        assert!(
            place
                .env()
                .unwrap_err()
                .to_string()
                .contains("still starting")
        );
        drop(lock);
        assert!(!place.is_up().unwrap());
        assert!(!place.down().unwrap());
        let told = place.env().unwrap_err().to_string();
        assert!(told.contains("cargo controlplane up"), "{told}");
    }

    #[test]
    fn a_second_one_in_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(Some(folder.path().into())).unwrap();
        let _lock = place.hold().unwrap();
        let told = place.hold().unwrap_err().to_string();
        assert!(told.contains("already"), "{told}");
    }

    #[test]
    fn a_path_with_spaces_and_quotes_is_one_word_for_the_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
