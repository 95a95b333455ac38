//! What stands between the agent and a command: `fairlead-agent exec-capability` bounds itself, then becomes the command.
//!
//! A process of its own, because only the new process can bound itself, and because code between fork and exec cannot be
//! safe. The command's group, user, folder and environment are those that it was started with.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use rustix::{
    process::{
        Resource, Rlimit, Signal, getpid, getppid, getrlimit, kill_process,
        set_parent_process_death_signal, setrlimit,
    },
    thread::set_no_new_privs,
};

/// Name of the subcommand.
pub const SUBCOMMAND: &str = "exec-capability";
/// What a shell says, too, where a program cannot be run, and where there is none.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The bounds of one process, and what it becomes.
#[derive(Clone, Debug, clap::Args)]
pub struct Confinement {
    /// Ends with this process, which must be the parent.
    #[arg(long, value_name = "PID")]
    pub parent: Option<u32>,
    /// Stops first of all, until it is told to go on: by then it is where the agent wants it to be.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub limits: Limits,
    /// Absolute path of a program, and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What the kernel keeps each process within. What is left out is as it is for the agent, and nothing is more than that.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::Args)]
#[group(skip)]
pub struct Limits {
    /// Bound on the private memory that each process may write to. Unlike the address space, it leaves out what a program
    /// reserves and does not use, of which Go, Node.js and Java reserve gigabytes.
    #[arg(long, value_name = "BYTES")]
    pub data_bytes: Option<u64>,
    /// Bound on the address space of each process.
    #[arg(long, value_name = "BYTES")]
    pub address_space_bytes: Option<u64>,
    /// Bound on the files that each process has open.
    #[arg(long, value_name = "COUNT")]
    pub max_open_files: Option<u64>,
    /// Bound on each file that is written.
    #[arg(long, value_name = "BYTES")]
    pub max_file_bytes: Option<u64>,
    /// Bound on the processes and threads of its user.
    #[arg(long, value_name = "COUNT")]
    pub max_processes: Option<u64>,
}

impl Limits {
    /// With the option that says each, and what the kernel calls it.
    fn all(&self) -> [(&'static str, Resource, Option<u64>); 5] {
        let Self {
            data_bytes,
            address_space_bytes,
            max_open_files,
            max_file_bytes,
            max_processes,
        } = *self;
        [
            ("data-bytes", Resource::Data, data_bytes),
            ("address-space-bytes", Resource::As, address_space_bytes),
            ("max-open-files", Resource::Nofile, max_open_files),
            ("max-file-bytes", Resource::Fsize, max_file_bytes),
            ("max-processes", Resource::Nproc, max_processes),
        ]
    }
}

impl Confinement {
    /// The command line that is read back as this.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let Self {
            parent,
            wait,
            limits,
            command,
        } = self;
        let mut arguments = vec![OsString::from(SUBCOMMAND)];
        if let Some(parent) = parent {
            arguments.push(format!("--parent={parent}").into());
        }
        if *wait {
            arguments.push("--wait".into());
        }
        for (option, _, value) in limits.all() {
            let written = value.map(|value| OsString::from(format!("--{option}={value}")));
            arguments.extend(written);
        }
        arguments.push("--".into());
        arguments.extend(command.iter().cloned());
        arguments
    }
}

/// Becomes the command. Returns only where that failed, and has said why.
pub fn exec(confinement: &Confinement) -> ExitCode {
    let (program, error) = match confine(confinement) {
        Ok(()) => become_command(&confinement.command),
        Err(error) => (None, error),
    };
    match program {
        Some(program) => eprintln!("cannot run {}: {error}", program.display()),
        None => eprintln!("cannot confine the command: {error}"),
    }
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if is_missing { NOT_FOUND } else { CANNOT_RUN })
}

fn confine(confinement: &Confinement) -> io::Result<()> {
    if let Some(parent) = confinement.parent {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Where it died before that, nobody waits for the command any more.
        if getppid().map(|pid| pid.as_raw_nonzero().get()) != i32::try_from(parent).ok() {
            return Err(io::Error::other("the agent is gone"));
        }
    }
    if confinement.wait {
        kill_process(getpid(), Signal::STOP)?;
    }
    set_no_new_privs(true)?;
    // A core could hold what came in as input, in a folder that others read.
    limit(Resource::Core, 0)?;
    for (_, resource, value) in confinement.limits.all() {
        if let Some(value) = value {
            limit(resource, value)?;
        }
    }
    Ok(())
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    // Who has no privileges cannot have more than it was given.
    let most = getrlimit(resource).maximum;
    let bound = most.map_or(value, |most| most.min(value));
    let new = Rlimit {
        current: Some(bound),
        maximum: Some(bound),
    };
    Ok(setrlimit(resource, new)?)
}

fn become_command(command: &[OsString]) -> (Option<&OsStr>, io::Error) {
    let Some((program, arguments)) = command.split_first() else {
        return (None, io::Error::other("there is none"));
    };
    let error = Command::new(program).args(arguments).exec();
    (Some(program), error)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command as Subcommand};

    #[test]
    fn what_is_written_is_read_back() {
        let some = Limits {
            data_bytes: Some(1 << 23),
            address_space_bytes: Some(1 << 24),
            max_open_files: Some(16),
            max_file_bytes: Some(0),
            max_processes: Some(u64::MAX),
        };
        for (parent, wait, limits) in [(None, false, Limits::default()), (Some(7), true, some)] {
            let written = Confinement {
                parent,
                wait,
                limits,
                command: ["/bin/x", "--parent=1", "--", "-v", ""]
                    .map(OsString::from)
                    .to_vec(),
            };
            let line = [OsString::from("fairlead-agent")]
                .into_iter()
                .chain(written.to_arguments());
            let Subcommand::ExecCapability(read) = Args::parse_from(line).command else {
                unreachable!("the subcommand was named");
            };
            assert_eq!(read.to_arguments(), written.to_arguments());
            assert_eq!(read.limits, limits);
        }
    }
}
