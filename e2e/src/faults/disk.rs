//! A small disk of its own under an agent's state, so that it can be full. Only root can make one.
#![expect(clippy::print_stdout, reason = "what is left out is said")]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room for a journal with some results, and little more.
const SIZE: &str = "size=4m,mode=0700";
const FILLER: &str = "filler";
const CHUNK: usize = 64 * 1024;
const MOST_CHUNKS: usize = 1024;

/// A file system in memory, for as long as this lives.
pub struct Disk(PathBuf);

impl Disk {
    /// On an empty folder. `None` where this process may not, which is said.
    pub fn mount(folder: &Path) -> Option<Self> {
        let mounted = rustix::process::geteuid().is_root()
            && run("mount", &["-t", "tmpfs", "-o", SIZE, "tmpfs"], folder);
        if !mounted {
            println!("no disk is ever full: only root can make one of its own for an agent");
        }
        mounted.then(|| Self(folder.to_owned()))
    }

    /// Leaves no room on it.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.0.join(FILLER))?;
        let chunk = vec![0; CHUNK];
        for _ in 0..MOST_CHUNKS {
            if file.write_all(&chunk).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.0.join(FILLER))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A process that still has a file open there must not keep the folder from being removed.
        run("umount", &["--lazy"], &self.0);
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .arg(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
