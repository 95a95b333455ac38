//! One run of a command: its pipes, its process group, its end.
//!
//! The command leads a process group of its own. It ends when its first process ends, when it is told to stop, when its
//! own time is over, or when it writes too much; whatever the end, what is left of the group is killed, and the first
//! process is reaped. Where the host allows, the run has a control group, too, from before its first instruction, and what
//! left the process group dies with that. The process group is killed before that process is reaped, for only until then is the group's number
//! certainly its own.

use std::{
    ffi::OsString,
    future::pending,
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use proto::node::FailureCode;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::de::IgnoredAny;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    signal::{
        self,
        unix::{SignalKind, signal},
    },
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    account::Account,
    confine::{Confinement, Limits},
    groups::{Bounds, Group, Groups},
    stderr::Sorter,
};
use crate::capability::{
    Failure,
    progress::Reporter,
    spool::{Fault, Spool, Whose, Writer},
};

/// What is kept of the end of standard error.
const ERROR_TAIL_BYTES: usize = 1024;
/// What of that fits into a failure's message.
const ERROR_TAIL_CHARACTERS: usize = 400;
/// What is written to a file at once.
const PIECE_BYTES: usize = 256 * 1024;
/// How long what a command left behind may still write, after its own end.
const LEFTOVER_TIME: Duration = Duration::from_secs(1);
/// How long output may stay open after everything of the group was killed: only what left the group can hold it.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Absolute.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// All of it.
    pub(crate) environment: Vec<(String, OsString)>,
    pub(crate) working_directory: PathBuf,
    pub(crate) account: Option<Account>,
    pub(crate) limits: Limits,
    /// Of the output, as an answer.
    pub(crate) max_told_bytes: usize,
    /// Of the output, as an answer or in a file.
    pub(crate) max_output_bytes: u64,
    /// Where the file goes.
    pub(crate) spool: Option<Spool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    /// For its standard input.
    pub(crate) input: Vec<u8>,
    /// Where runs have control groups, and what those bound.
    pub(crate) groups: Option<Arc<Groups>>,
    pub(crate) bounds: Bounds,
}

/// Why a run did not end by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cut {
    Stopped,
    TimedOut,
    TooLarge,
}

/// What a run wrote.
#[derive(Debug, Default)]
struct Written {
    output: Vec<u8>,
    /// The output, where it was too large for an answer; or why it is not there.
    file: Option<Result<Writer, Fault>>,
    /// The end of standard error.
    errors: Vec<u8>,
}

/// Runs it until it ends, or until `stopped` and the grace after that. Dropping the future kills it.
///
/// `launcher` is the agent's own program. Must be polled on a thread that lives as long as the process, for the command
/// is killed when the thread that started it ends.
pub(super) async fn run(
    launcher: &Path,
    job: &Job,
    stopped: &CancellationToken,
    progress: &Reporter,
) -> Result<Vec<u8>, Failure> {
    let control = control_group(job);
    let attempted = attempt(launcher, job, control.as_ref(), stopped, progress).await;
    let (cut, status, written) = attempted?;
    let starved = control.is_some_and(|control| control.ran_out_of_memory());
    let judged = judge(cut, status, written, job).map_err(|failure| of_memory(failure, starved));
    match judged? {
        Answer::Told(output) => Ok(output),
        Answer::File(writer) => {
            // All of it is there, and what is left takes as long as the disk does.
            let whole = blocking(move || writer.finish()).await;
            whole.map_err(|fault| fault.failure())?.keep();
            Ok(Vec::new())
        }
    }
}

/// Runs it for what it does, and not for what it says; why it failed, if it did.
pub(crate) async fn carry_out(
    launcher: &Path,
    job: &Job,
    stopped: &CancellationToken,
) -> Result<(), String> {
    let control = control_group(job);
    let attempted = attempt(
        launcher,
        job,
        control.as_ref(),
        stopped,
        &Reporter::default(),
    )
    .await;
    let (cut, status, written) = attempted.map_err(|failure| failure.message)?;
    match (cut, status) {
        (None, Ok(status)) if status.success() => Ok(()),
        (None, Ok(status)) => Err(end_of(status, &written.errors)),
        (None, Err(error)) => Err(format!("how it ended cannot be told: {error}")),
        (Some(Cut::Stopped), _) => Err("stopped, for the agent stops".to_owned()),
        (Some(Cut::TimedOut), _) => Err(format!(
            "stopped after {} s",
            job.timeout.unwrap_or_default().as_secs()
        )),
        (Some(Cut::TooLarge), _) => Err("stopped, for it writes too much".to_owned()),
    }
}

async fn attempt(
    launcher: &Path,
    job: &Job,
    control: Option<&Group<'_>>,
    stopped: &CancellationToken,
    progress: &Reporter,
) -> Result<(Option<Cut>, io::Result<ExitStatus>, Written), Failure> {
    let cannot = |error: io::Error| {
        Failure::new(
            FailureCode::Unavailable,
            format!("the command cannot be started: {error}"),
        )
    };
    // Listened for before there is a child: one may end at once.
    let ends = signal(SignalKind::child()).map_err(cannot)?;
    let mut child = command(launcher, job, control).spawn().map_err(cannot)?;
    let mut group = ProcessGroup::of(&child).map_err(cannot)?;
    let mut leader = Leader {
        pid: group.leader,
        ends,
    };
    if let Some(control) = control {
        leader.has_stopped().await;
        if let Err(error) = control.take_in(leader.pid) {
            if job.bounds != Bounds::default() {
                // Dropping the child and its group ends it, before its first instruction.
                return Err(Failure::new(
                    FailureCode::Unavailable,
                    format!(
                        "the command cannot be put into a control group, and so not be bounded: {error}"
                    ),
                ));
            }
            tracing::warn!(%error, "The command runs without a control group");
        }
        group.signal(Signal::CONT);
    }
    let pipes = Pipes::of(&mut child).ok_or_else(|| cannot(io::ErrorKind::BrokenPipe.into()))?;

    let (too_large, closed) = (CancellationToken::new(), CancellationToken::new());
    let mut written = Written::default();
    let (cut, status) = {
        let gathering = gather(pipes, job, &mut written, progress, &too_large, &closed);
        tokio::pin!(gathering);
        let cut = {
            let life = live(&mut leader, &group, job, stopped, &too_large, &closed);
            tokio::pin!(life);
            loop {
                tokio::select! {
                    cut = &mut life => break cut,
                    () = &mut gathering, if !closed.is_cancelled() => {}
                }
            }
        };
        group.kill();
        if let Some(control) = control {
            control.kill();
        }
        let status = child.wait().await;
        if !closed.is_cancelled() {
            // What it wrote before its end is in the pipe.
            let _ = timeout(DRAIN_TIME, gathering).await;
        }
        (cut, status)
    };
    Ok((cut, status, written))
}

/// `None` where there are none, or none could be made: then it runs without.
fn control_group(job: &Job) -> Option<Group<'_>> {
    match job.groups.as_ref()?.add(job.bounds) {
        Ok(group) => Some(group),
        Err(error) => {
            tracing::warn!(%error, "No control group could be made: the command runs without");
            None
        }
    }
}

/// A bare signal 9 would leave a person guessing.
fn of_memory(failure: Failure, starved: bool) -> Failure {
    if !starved || failure.code != FailureCode::CapabilityFailed {
        return failure;
    }
    let message = format!(
        "it took more memory than memory_bytes allows; {}",
        failure.message
    );
    Failure::new(failure.code, message)
}

/// Bounds of each process, for a run that has this control group, if any.
fn limits(job: &Job, control: Option<&Group<'_>>) -> Limits {
    let is_bounded = control.is_some_and(Group::bounds_memory);
    Limits {
        data_bytes: job.bounds.memory_bytes.filter(|_| !is_bounded),
        ..job.limits
    }
}

fn command(launcher: &Path, job: &Job, control: Option<&Group<'_>>) -> Command {
    let program = job.program.clone().into_os_string();
    let arguments = job.arguments.iter().map(OsString::from);
    let confinement = Confinement {
        parent: Some(std::process::id()),
        wait: control.is_some(),
        limits: limits(job, control),
        command: [program].into_iter().chain(arguments).collect(),
    };
    let mut command = Command::new(launcher);
    command
        .args(confinement.to_arguments())
        .env_clear()
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&job.working_directory)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(Account { uid, gid }) = job.account {
        command.uid(uid).gid(gid);
    }
    command
}

/// The process group of a child that was not reaped yet. Killed when dropped.
struct ProcessGroup {
    leader: Pid,
    is_alive: bool,
}

impl ProcessGroup {
    fn of(child: &Child) -> io::Result<Self> {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let leader = id.and_then(Pid::from_raw);
        Ok(Self {
            leader: leader.ok_or(io::ErrorKind::NotFound)?,
            is_alive: true,
        })
    }

    fn signal(&self, signal: Signal) {
        // Fails where nothing is left of it.
        let _ = kill_process_group(self.leader, signal);
    }

    /// After this the leader may be reaped.
    fn kill(&mut self) {
        if std::mem::replace(&mut self.is_alive, false) {
            self.signal(Signal::KILL);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first process of a group.
struct Leader {
    pid: Pid,
    /// Some child of this process ended.
    ends: signal::unix::Signal,
}

impl Leader {
    /// Until it ended. Does not reap it.
    async fn ended(&mut self) {
        self.changed(WaitIdOptions::EXITED).await;
    }

    /// Until it stopped itself, or ended.
    async fn has_stopped(&mut self) {
        self.changed(WaitIdOptions::STOPPED | WaitIdOptions::EXITED)
            .await;
    }

    async fn changed(&mut self, how: WaitIdOptions) {
        let options = how | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while let Ok(None) = waitid(WaitId::Pid(self.pid), options) {
            if self.ends.recv().await.is_none() {
                // The runtime goes; then everything is dropped.
                pending::<()>().await;
            }
        }
    }
}

/// Until nothing of the command needs to live any more; why it was cut short, if it was.
async fn live(
    leader: &mut Leader,
    group: &ProcessGroup,
    job: &Job,
    stopped: &CancellationToken,
    too_large: &CancellationToken,
    closed: &CancellationToken,
) -> Option<Cut> {
    let cut = tokio::select! {
        biased;
        () = leader.ended() => None,
        () = stopped.cancelled() => Some(Cut::Stopped),
        () = too_large.cancelled() => Some(Cut::TooLarge),
        () = over(job.timeout) => Some(Cut::TimedOut),
    };
    if cut.is_none() {
        // `exec > >(tee log)`: a helper may have the last words.
        let _ = timeout(LEFTOVER_TIME, closed.cancelled()).await;
        return None;
    }
    group.signal(Signal::TERM);
    // Too much was read where too much was written: then nothing closes.
    let all_ended = async {
        leader.ended().await;
        if cut != Some(Cut::TooLarge) {
            closed.cancelled().await;
        }
    };
    let _ = timeout(job.grace, all_ended).await;
    cut
}

async fn over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => sleep(timeout).await,
        None => pending().await,
    }
}

struct Pipes {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Pipes {
    fn of(child: &mut Child) -> Option<Self> {
        Some(Self {
            stdin: child.stdin.take()?,
            stdout: child.stdout.take()?,
            stderr: child.stderr.take()?,
        })
    }
}

/// Writes the input and reads what comes, within bounds, until both outputs are closed.
async fn gather(
    pipes: Pipes,
    job: &Job,
    written: &mut Written,
    progress: &Reporter,
    too_large: &CancellationToken,
    closed: &CancellationToken,
) {
    let Pipes {
        mut stdin,
        stdout,
        mut stderr,
    } = pipes;
    let Written {
        output,
        file,
        errors,
    } = written;
    let feed = async move {
        // A command need not read its input.
        let _ = stdin.write_all(&job.input).await;
        drop(stdin);
    };
    let read = async {
        let most = job.max_told_bytes as u64 + 1;
        let mut beginning = stdout.take(most);
        let _ = beginning.read_to_end(output).await;
        if output.len() > job.max_told_bytes {
            // Unless it is read to its end.
            *file = Some(Err(Fault::Cut));
            let kept = match room(job) {
                Ok(room) => spill(room, output, beginning.into_inner()).await,
                Err(fault) => Err(fault),
            };
            if kept.is_err() {
                too_large.cancel();
            }
            *file = Some(kept);
        }
    };
    let read_errors = async {
        let mut chunk = [0; ERROR_TAIL_BYTES];
        let mut sorter = Sorter::default();
        while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
            if let Some(step) = sorter.take(chunk.get(..length).unwrap_or_default(), errors) {
                progress.report(step);
            }
            let excess = errors.len().saturating_sub(ERROR_TAIL_BYTES);
            errors.drain(..excess);
        }
        sorter.end(errors);
    };
    tokio::join!(feed, read, read_errors);
    closed.cancel();
}

/// Where an output goes that is too large for an answer.
struct Room {
    spool: Spool,
    /// How large it may be there, and who says so.
    most: u64,
    whose: Whose,
}

fn room(job: &Job) -> Result<Room, Fault> {
    let told = job.max_told_bytes as u64;
    let declared = job.max_output_bytes;
    let too_long = |whose| Err(Fault::TooLong { most: told, whose });
    match &job.spool {
        _ if declared <= told => too_long(Whose::Declared),
        Some(spool) if spool.gateways_store() > told => {
            let stored = spool.gateways_store();
            let whose = if declared <= stored {
                Whose::Declared
            } else {
                Whose::Gateways
            };
            Ok(Room {
                spool: spool.clone(),
                most: declared.min(stored),
                whose,
            })
        }
        Some(_) | None => too_long(Whose::Asked),
    }
}

/// Puts an output into a file: its beginning, and what still comes. Never more than a piece of it is in memory.
async fn spill(
    room: Room,
    beginning: &mut Vec<u8>,
    mut stdout: ChildStdout,
) -> Result<Writer, Fault> {
    let Room { spool, most, whose } = room;
    let mut writer = blocking(move || spool.begin()).await?;
    let mut piece = std::mem::take(beginning);
    loop {
        if writer.length() + piece.len() as u64 > most {
            return Err(Fault::TooLong { most, whose });
        }
        (writer, piece) = blocking(move || {
            writer.write(&piece)?;
            piece.clear();
            Ok((writer, piece))
        })
        .await?;
        piece.reserve(PIECE_BYTES);
        while piece.len() < PIECE_BYTES {
            // What closes badly closes.
            if !matches!(stdout.read_buf(&mut piece).await, Ok(1..)) {
                break;
            }
        }
        if piece.is_empty() {
            return Ok(writer);
        }
    }
}

/// A disk may hang: not here.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let acted = tokio::task::spawn_blocking(act).await;
    acted.unwrap_or_else(|error| Err(Fault::Disk(io::Error::other(error))))
}

/// What a run that ended well answers.
#[derive(Debug)]
enum Answer {
    Told(Vec<u8>),
    /// Too large for that. Not durable yet.
    File(Writer),
}

/// What a run comes to.
fn judge(
    cut: Option<Cut>,
    status: io::Result<ExitStatus>,
    written: Written,
    job: &Job,
) -> Result<Answer, Failure> {
    let Written {
        output,
        file,
        errors,
    } = written;
    let (file, is_cut) = match file {
        Some(Err(Fault::Cut)) => (None, true),
        file => (file.transpose().map_err(|fault| fault.failure())?, false),
    };
    let failed = |message: String| Err(Failure::new(FailureCode::CapabilityFailed, message));
    let status = match status {
        Ok(status) => status,
        Err(error) => return failed(format!("how it ended cannot be told: {error}")),
    };
    let output = output.trim_ascii();
    let is_silent = output.is_empty() && file.is_none();
    match cut {
        // Told to stop, most programs that heed it end well and without a word: that is no success. What ends well and
        // with an answer was done, whoever wanted it stopped.
        Some(Cut::TimedOut) if is_silent || !status.success() => {
            let seconds = job.timeout.unwrap_or_default().as_secs();
            return Err(Failure::new(
                FailureCode::DeadlineExceeded,
                format!("stopped after {seconds} s, the most that this device allows it"),
            ));
        }
        Some(Cut::Stopped) if is_silent || !status.success() => {
            return Err(Failure::new(FailureCode::Cancelled, "stopped"));
        }
        None | Some(Cut::Stopped | Cut::TimedOut | Cut::TooLarge) => {}
    }
    if !status.success() {
        return failed(end_of(status, &errors));
    }
    if is_cut {
        return Err(Fault::Cut.failure());
    }
    if let Some(file) = file {
        return Ok(Answer::File(file));
    }
    if output.is_empty() {
        return Ok(Answer::Told(b"null".to_vec()));
    }
    match serde_json::from_slice::<IgnoredAny>(output) {
        Ok(_) => Ok(Answer::Told(output.to_vec())),
        Err(error) => failed(format!("its output is no JSON: {error}")),
    }
}

fn end_of(status: ExitStatus, errors: &[u8]) -> String {
    let mut message = match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) if signal == Signal::XFSZ.as_raw() => {
            "a file that it wrote became larger than max_file_bytes allows".to_owned()
        }
        (None, Some(signal)) => format!("signal {signal} ended it"),
        (None, None) => "it failed".to_owned(),
    };
    let tail = tail_of(errors);
    if !tail.is_empty() {
        message.push_str(": ");
        message.push_str(&tail);
    }
    message
}

/// The last words of standard error, on one line.
fn tail_of(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let text: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let excess = text.chars().count().saturating_sub(ERROR_TAIL_CHARACTERS);
    text.chars().skip(excess).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{capability::terms::Terms, enrol::issued::tests::runner};

    fn job() -> Job {
        Job {
            program: PathBuf::from("/x"),
            arguments: Vec::new(),
            environment: Vec::new(),
            working_directory: PathBuf::from("/"),
            account: None,
            limits: Limits::default(),
            max_told_bytes: 10,
            max_output_bytes: 10,
            spool: None,
            timeout: Some(Duration::from_secs(3)),
            grace: Duration::ZERO,
            input: Vec::new(),
            groups: None,
            bounds: Bounds::default(),
        }
    }

    #[test]
    fn who_ran_out_of_memory_is_told_so_and_nobody_else() {
        let failed = Failure::new(FailureCode::CapabilityFailed, "signal 9 ended it");
        let told = of_memory(failed.clone(), true);
        assert!(
            told.message.contains("memory_bytes") && told.message.ends_with("signal 9 ended it")
        );
        assert_eq!(of_memory(failed.clone(), false), failed);
        let stopped = Failure::new(FailureCode::Cancelled, "stopped");
        assert_eq!(of_memory(stopped.clone(), true), stopped);
    }

    #[test]
    fn an_end_is_told_as_what_it_is() {
        const WELL: i32 = 0;
        const CODE_3: i32 = 3 << 8;
        const KILLED: i32 = 9;
        use FailureCode::{Cancelled, CapabilityFailed, DeadlineExceeded, OutputTooLarge};
        for (cut, status, output, expected) in [
            (None, WELL, " {\"a\": 1}\n", Ok("{\"a\": 1}")),
            (None, WELL, "\n", Ok("null")),
            (None, WELL, "done", Err(CapabilityFailed)),
            (None, WELL, "1 2", Err(CapabilityFailed)),
            (None, CODE_3, "1", Err(CapabilityFailed)),
            (None, KILLED, "", Err(CapabilityFailed)),
            (None, WELL, "\"12345678901\"", Err(OutputTooLarge)),
            (
                Some(Cut::TooLarge),
                KILLED,
                "\"12345678901\"",
                Err(OutputTooLarge),
            ),
            (Some(Cut::TimedOut), WELL, "1", Ok("1")),
            (Some(Cut::TimedOut), WELL, "", Err(DeadlineExceeded)),
            (Some(Cut::TimedOut), KILLED, "1", Err(DeadlineExceeded)),
            (Some(Cut::Stopped), WELL, "1", Ok("1")),
            (Some(Cut::Stopped), WELL, "", Err(Cancelled)),
            (Some(Cut::Stopped), KILLED, "1", Err(Cancelled)),
        ] {
            let too_long = output.len() > job().max_told_bytes;
            let written = Written {
                output: output.as_bytes().to_vec(),
                file: too_long.then(|| room(&job()).map(|_| unreachable!("there is none"))),
                errors: Vec::new(),
            };
            let told = judge(cut, Ok(ExitStatus::from_raw(status)), written, &job());
            let told = told.map(|answer| match answer {
                Answer::Told(output) => output,
                Answer::File(_) => unreachable!("there is none"),
            });
            let told = told.as_deref().map_err(|failure| failure.code);
            assert_eq!(
                told,
                expected.map(str::as_bytes),
                "{cut:?} {status} {output}"
            );
        }
    }

    #[test]
    fn a_failure_carries_the_last_words_and_nothing_that_moves_a_cursor() {
        let errors = format!("{}\x1b[31mno\nspace left\n", "x".repeat(2000));
        let message = end_of(ExitStatus::from_raw(1 << 8), errors.as_bytes());
        assert!(
            message.starts_with("it ended with exit code 1: xxx"),
            "{message}"
        );
        assert!(message.ends_with("no space left"), "{message}");
        assert!(message.chars().count() < 512);
        assert!(!message.contains(char::is_control));
        assert_eq!(
            end_of(ExitStatus::from_raw(9), b"\xff\n"),
            "signal 9 ended it: \u{fffd}"
        );
        assert!(end_of(ExitStatus::from_raw(25), b"").contains("max_file_bytes"));
    }

    /// Of a run: what a command wrote on both outputs, how it ended, and why it was cut short.
    fn runs() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, i32, Option<Cut>)> {
        let json = prop_oneof![
            Just("{}".to_owned()),
            "[0-9]{1,9}",
            "[\\[{\"a:,}\\] ]{0,20}",
            "\\[{0,300}",
        ];
        let output = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            json.prop_map(String::into_bytes),
            (0_usize..64).prop_map(|depth| "[".repeat(depth * 8).into_bytes()),
        ];
        let cuts = prop::option::of(prop_oneof![
            Just(Cut::Stopped),
            Just(Cut::TimedOut),
            Just(Cut::TooLarge)
        ]);
        let errors = prop::collection::vec(any::<u8>(), 0..64);
        let status = prop_oneof![Just(0), any::<i32>()];
        (output, errors, status, cuts)
    }

    #[test]
    fn whatever_a_command_says_is_json_that_its_declaration_allows_or_a_failure_in_one_line() {
        let terms = Terms {
            output: Some(surface::Schema::parse(br#"{"type":"object"}"#).unwrap()),
            ..Terms::default()
        };
        let job = Job {
            max_told_bytes: 1024,
            max_output_bytes: 1024,
            ..job()
        };
        runner()
            .run(&runs(), |(output, errors, status, cut)| {
                let said = output.clone();
                let written = Written {
                    output,
                    file: None,
                    errors,
                };
                let status = ExitStatus::from_raw(status);
                let judged =
                    judge(cut, Ok(status), written, &job).and_then(|answer| match answer {
                        Answer::Told(output) => {
                            // Whatever is declared.
                            serde_json::from_slice::<IgnoredAny>(&output).unwrap();
                            terms.answers(output)
                        }
                        Answer::File(_) => unreachable!("there is none"),
                    });
                match judged {
                    Ok(told) => {
                        prop_assert!(status.success());
                        prop_assert_eq!(&told[..], said.trim_ascii());
                        let value = serde_json::from_slice::<serde_json::Value>(&told);
                        prop_assert!(value.is_ok_and(|value| value.is_object()));
                    }
                    Err(failure) => {
                        prop_assert!(!failure.message.contains(char::is_control));
                        prop_assert!(failure.message.chars().count() <= 512);
                    }
                }
                Ok(())
            })
            .unwrap();
    }
}
