//! Children of the harness: started with a log file, ended with it, never orphaned.
//!
//! A test run that is killed must not leave an API server behind. Three ways were considered:
//! - a parent-death signal (`prctl`, `setpriv --pdeathsig`): Linux only, and the signal comes when the *thread* that
//!   spawned the child ends, which in a thread pool is any moment;
//! - a supervisor program in between: the pid at hand is then not the program's, and a test that wants to SIGKILL a
//!   gateway kills the supervisor;
//! - what is done here: a shell starts a watcher and *becomes* the program by `exec`, so pid and exit status are the
//!   program's own. The watcher reads from a pipe whose only writer is the harness. When the harness ends, however it
//!   ends, the kernel closes the pipe, the read returns, and the watcher kills the program's process group. As the
//!   watcher is a member of that group, the group's number cannot have been reused meanwhile.
//!
//! The group is the program's own, so that ctrl-C in a terminal reaches the harness alone, which then stops its
//! children in their order.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStdin, Command};

/// `$1`: file for the program's standard input; the rest: the program.
const BECOME: &str = r#"
exec 3<&0 <"$1"; shift
{ read -r line <&3; kill -s KILL -- "-$$"; } >/dev/null 2>&1 &
exec "$@" 3<&-
"#;

/// Taken over from our own environment. Nothing else is: an `ETCD_*`, a proxy or a `KUBECONFIG` of the person who
/// runs the tests would decide what they mean.
const INHERITED: [&str; 6] = [
    "PATH",
    "HOME",
    "LANG",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "TMPDIR",
];

/// What to start. Can be spawned again, for a restart.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    input: PathBuf,
    output: Option<PathBuf>,
    log: PathBuf,
}

impl Program {
    /// `name` is for messages; `log` takes standard output and standard error, and grows over restarts.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            input: "/dev/null".into(),
            output: None,
            log: log.into(),
        }
    }

    /// Adds one argument. Never a secret: every user of the machine can read it.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments. Never a secret: every user of the machine can read them.
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable; of the harness's own environment the program gets next to nothing.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The program's working folder.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// A file for the program's standard input, which is empty otherwise.
    pub fn input(mut self, file: impl Into<PathBuf>) -> Self {
        self.input = file.into();
        self
    }

    /// A file for standard output alone: the log then has standard error.
    pub fn output(mut self, file: impl Into<PathBuf>) -> Self {
        self.output = Some(file.into());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the program is not there, or the log cannot be written.
    pub fn spawn(&self) -> anyhow::Result<Process> {
        // Looked at here, since the shell's own complaint would only be found in the log.
        let path = self
            .path
            .canonicalize()
            .with_context(|| format!("find {} at {}", self.name, self.path.display()))?;
        let log = append_to(&self.log)?;
        let output = match &self.output {
            Some(file) => append_to(file)?,
            None => log.try_clone().context("share the log")?,
        };
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(BECOME)
            .arg("sh")
            .arg(&self.input)
            .arg(path)
            .args(&self.arguments)
            .env_clear()
            .envs(
                INHERITED
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        // Taken out, as waiting for a child closes its standard input first, and that is its end.
        let lifeline = child.stdin.take();
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
            .with_context(|| format!("{} ended as it started", self.name))?;
        Ok(Process {
            name: self.name.clone(),
            log: self.log.clone(),
            child,
            pid,
            lifeline,
        })
    }
}

/// A terminal may stand for the file: then it is not to become ours.
fn append_to(file: &Path) -> anyhow::Result<File> {
    let no_terminal = OFlags::NOCTTY.bits().cast_signed();
    File::options()
        .create(true)
        .append(true)
        .custom_flags(no_terminal)
        .open(file)
        .with_context(|| format!("open log {}", file.display()))
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    pid: Pid,
    /// The pipe's only writing end: closed when we drop it or die.
    lifeline: Option<ChildStdin>,
}

impl Process {
    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's own process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("look after {}", self.name))
    }

    /// Waits for its end. What it leaves behind in its process group ends then, too.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let status = self.child.wait().await;
        drop(self.lifeline.take());
        status.with_context(|| format!("wait for {}", self.name))
    }

    /// SIGKILL, and waits: what a power cut is to the program.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.wait().await.map(drop)
    }

    /// SIGTERM, `grace` to stop, then SIGKILL.
    ///
    /// # Errors
    /// When it had to be killed. It is gone in any case.
    pub async fn terminate(&mut self, grace: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        self.kill().await?;
        anyhow::bail!(
            "{} did not stop within {} s of SIGTERM and was killed\n{}",
            self.name,
            grace.as_secs(),
            self.tail()
        )
    }

    /// The end of its log, for a message.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    /// Sends a signal to the program, and to nothing that it started. Does nothing once it has ended.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        // Once it was waited for, its number may be another's.
        if self.ended()?.is_some() {
            return Ok(());
        }
        rustix::process::kill_process(self.pid, signal)
            .with_context(|| format!("signal {}", self.name))
    }
}

/// The last lines of a log with its path above them; says so where there is nothing to read.
pub fn tail(log: &Path) -> String {
    const BYTES: i64 = 8 * 1024;
    const LINES: usize = 25;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        if file.metadata()?.len() > BYTES.unsigned_abs() {
            file.seek(SeekFrom::End(-BYTES))?;
        }
        let mut bytes = Vec::new();
        file.take(BYTES.unsigned_abs()).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines: Vec<_> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES)..];
            format!("--- end of {} ---\n{}\n---", log.display(), last.join("\n"))
        }
        Err(error) => format!("--- {} cannot be read: {error} ---", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::until;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(folder: &Path, script: &str) -> Program {
        Program::new("sh", "/bin/sh", folder.join("log")).args(["-c", script])
    }

    fn alive(pid: i32) -> bool {
        // A zombie is as good as gone: whoever should reap it is not our concern.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            !stat
                .rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" Z"))
        })
    }

    #[tokio::test]
    async fn the_pid_and_the_exit_status_are_the_programs_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "echo $$; exit 7").spawn().unwrap();
        assert_eq!(process.wait().await.unwrap().code(), Some(7));
        let logged = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(logged.trim(), process.pid().to_string());
    }

    #[tokio::test]
    async fn input_comes_from_a_file_and_not_from_the_lifeline() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("input");
        std::fs::write(&input, "said").unwrap();
        let mut process = shell(folder.path(), "cat").input(&input).spawn().unwrap();
        assert!(process.wait().await.unwrap().success());
        assert_eq!(
            std::fs::read_to_string(folder.path().join("log")).unwrap(),
            "said"
        );
    }

    #[tokio::test]
    async fn what_is_said_beside_the_output_is_told_apart_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("output");
        let program = shell(folder.path(), "echo out; echo err >&2").output(&output);
        assert!(program.spawn().unwrap().wait().await.unwrap().success());
        assert_eq!(std::fs::read_to_string(output).unwrap(), "out\n");
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(log, "err\n");
    }

    #[tokio::test]
    async fn a_program_that_ignores_sigterm_is_killed_and_that_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        let mut process = shell(folder.path(), script).spawn().unwrap();
        until("trap set", SOON, async || {
            Ok(std::fs::read_to_string(folder.path().join("log"))?
                .contains("ready")
                .then_some(()))
        })
        .await
        .unwrap();
        let error = process
            .terminate(Duration::from_millis(100))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("was killed"), "{error}");
        assert!(!alive(process.pid()));
    }

    /// What happens when the harness is killed: the kernel closes the lifeline, and nobody calls `kill`.
    #[tokio::test]
    async fn a_closed_lifeline_ends_the_program_and_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "sleep 600 & echo $!; wait")
            .spawn()
            .unwrap();
        let grandchild: i32 = until("grandchild", SOON, async || {
            Ok(std::fs::read_to_string(folder.path().join("log"))?
                .trim()
                .parse()
                .ok())
        })
        .await
        .unwrap();
        assert!(alive(grandchild));
        drop(process.lifeline.take());
        let status = tokio::time::timeout(SOON, process.wait())
            .await
            .unwrap()
            .unwrap();
        assert!(!status.success());
        until("grandchild gone", SOON, async || {
            Ok((!alive(grandchild)).then_some(()))
        })
        .await
        .unwrap();
    }
}
