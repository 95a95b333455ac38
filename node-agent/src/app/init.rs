//! Process 1 of a container: has another process be the agent, and reaps whatever else is left to it.
//!
//! The kernel gives every process whose parent has ended to process 1. The agent itself waits for its own children only:
//! to reap others as well, it would have to know of each process whether one of its tasks waits for it.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use crate::capability::live::OWN_PROGRAM;

/// What a shell says of a process that a signal ended.
const SIGNALLED: i32 = 128;

/// Whether this process is process 1.
pub(super) fn is_needed() -> bool {
    getpid() == Pid::INIT
}

/// Whether the parent is this program as process 1.
pub fn is_parent() -> bool {
    let same = || -> io::Result<bool> {
        let (parent, own) = (
            fs::metadata("/proc/1/exe")?,
            fs::metadata("/proc/self/exe")?,
        );
        Ok((parent.dev(), parent.ino()) == (own.dev(), own.ino()))
    };
    getppid() == Some(Pid::INIT) && same().unwrap_or(false)
}

/// Starts this program once more with the same arguments, passes signals on to it, and reaps every process that ends.
/// Returns when that one has ended, with its exit code.
pub(super) async fn serve() -> anyhow::Result<ExitCode> {
    // Before there is a child, which may end at once.
    let mut ended = signal(SignalKind::child()).context("listen for SIGCHLD")?;
    let listen = |kind| signal(kind).context("listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut quit = listen(SignalKind::quit())?;
    let child = Command::new(OWN_PROGRAM)
        .args(env::args_os().skip(1))
        .spawn()
        .context("start the agent below process 1")?;
    let agent = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let agent = agent.context("start the agent below process 1: it has no ID")?;
    loop {
        if let Some(status) = reap(agent)? {
            return Ok(code_of(status));
        }
        let signal = tokio::select! {
            _ = ended.recv() => continue,
            _ = terminate.recv() => Signal::TERM,
            _ = interrupt.recv() => Signal::INT,
            _ = hang_up.recv() => Signal::HUP,
            _ = quit.recv() => Signal::QUIT,
        };
        // Fails where it has just ended.
        let _ = kill_process(agent, signal);
    }
}

/// Reaps all that have ended; how the agent ended, if it did.
fn reap(agent: Pid) -> anyhow::Result<Option<WaitStatus>> {
    while let Some((process, status)) = wait(WaitOptions::NOHANG).context("wait for processes")? {
        if process == agent {
            return Ok(Some(status));
        }
    }
    Ok(None)
}

fn code_of(status: WaitStatus) -> ExitCode {
    let signalled = || Some(SIGNALLED + status.terminating_signal()?);
    let code = status.exit_status().or_else(signalled);
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
