//! Capabilities that an administrator of this device declares: a command, JSON in, JSON out.
//!
//! - [`declaration`]: what may be declared, and what is wrong with the rest;
//! - [`folder`]: the files that declare;
//! - [`argument`]: how the input gets into arguments: no shell, ever;
//! - [`account`]: which user it runs as;
//! - [`confine`]: what bounds it, in the process that becomes it;
//! - [`groups`]: what bounds all of its processes together, where the host allows it;
//! - `process`: one run of it; `stderr`: what it says on the way.

pub mod account;
pub mod argument;
pub mod confine;
pub mod declaration;
pub mod folder;
pub mod groups;
pub(crate) mod process;
mod stderr;

use std::{env, fs, io, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use proto::node::{Availability, Execution, FailureCode};
use serde_json::Value;

use self::{
    confine::Limits,
    declaration::Declaration,
    groups::{Bounds, Groups},
    process::Job,
};
use super::{Call, Capability, Failure, Running, terms::Terms};
use crate::config::document::{Problem, check_writers};

/// On top of a command's own grace: for SIGKILL to be seen, and for its last output.
const KILL_TIME: Duration = Duration::from_secs(2);

/// Processes and threads that a user of a command's own has at most, where nothing is declared: far more than a command
/// needs, and an end to one that does nothing else than start others.
const USER_PROCESSES: u64 = 4096;

/// A declared command, ready to run.
pub struct Declared {
    declaration: Arc<Declaration>,
    /// The agent's own program.
    launcher: Arc<Path>,
    groups: Option<Arc<Groups>>,
    availability: Availability,
}

impl Declared {
    /// Does not fail where its program cannot be run: then it is declared as not available, and the problem says why.
    /// `groups` is where its runs have control groups, if they have.
    pub fn new(
        declaration: Declaration,
        launcher: Arc<Path>,
        groups: Option<Arc<Groups>>,
    ) -> (Self, Option<Problem>) {
        let problem = unusable_program(&declaration);
        let declared = Self {
            declaration: Arc::new(declaration),
            launcher,
            groups,
            availability: match problem {
                None => Availability::Available,
                Some(_) => Availability::Unavailable,
            },
        };
        (declared, problem)
    }
}

fn unusable_program(declaration: &Declaration) -> Option<Problem> {
    let Declaration {
        name,
        program,
        program_at,
        account,
        ..
    } = declaration;
    let own = account.map(|account| account.uid);
    let why = check_program(program, own.as_slice()).err()?;
    let message = format!("{name} is not available: {}: {why}", program.display());
    Some(program_at.problem("command", message))
}

/// Whether it is a program that nobody but root, this process's own user and `trusted` can have written.
pub(crate) fn check_program(program: &Path, trusted: &[u32]) -> Result<(), String> {
    let metadata = fs::metadata(program).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            "there is no such program: install it, or give another path".to_owned()
        } else {
            error.to_string()
        }
    })?;
    if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
        return Err("it is no program: give another path, or `chmod +x` it".to_owned());
    }
    check_writers(&metadata, trusted)
}

impl Capability for Declared {
    fn name(&self) -> &str {
        &self.declaration.name
    }

    fn description(&self) -> &str {
        &self.declaration.description
    }

    fn terms(&self) -> &Terms {
        &self.declaration.terms
    }

    /// Arguments come from the input, too.
    fn takes(&self, input: &[u8]) -> Result<(), Failure> {
        self.terms().takes(input)?;
        arguments(&self.declaration, input).map(drop)
    }

    fn execution(&self) -> Execution {
        self.declaration.execution
    }

    fn availability(&self) -> Availability {
        self.availability
    }

    fn concurrency(&self) -> usize {
        self.declaration.concurrency
    }

    fn grace(&self) -> Duration {
        self.declaration.grace + KILL_TIME
    }

    fn run(&self, call: Call) -> Running {
        let declaration = Arc::clone(&self.declaration);
        let launcher = Arc::clone(&self.launcher);
        let groups = self.groups.clone();
        Box::pin(async move {
            let (stopped, progress) = (call.stopped.clone(), call.progress.clone());
            let job = job(&declaration, groups, call)?;
            process::run(&launcher, &job, &stopped, &progress).await
        })
    }
}

fn arguments(declaration: &Declaration, input: &[u8]) -> Result<Vec<String>, Failure> {
    let invalid = |message: String| Failure::new(FailureCode::InvalidInput, message);
    let input: Value = serde_json::from_slice(input)
        .map_err(|error| invalid(format!("the input is no JSON: {error}")))?;
    argument::fill(&declaration.arguments, &input).map_err(invalid)
}

fn job(declaration: &Declaration, groups: Option<Arc<Groups>>, call: Call) -> Result<Job, Failure> {
    let environment = declaration.environment.iter();
    Ok(Job {
        program: declaration.program.clone(),
        arguments: arguments(declaration, &call.input)?,
        environment: environment
            .filter_map(|name| Some((name.clone(), env::var_os(name)?)))
            .collect(),
        working_directory: declaration.working_directory.clone(),
        account: declaration.account,
        limits: limits(declaration),
        max_told_bytes: usize::try_from(declaration.max_output_bytes)
            .unwrap_or(usize::MAX)
            .min(call.max_output_bytes),
        max_output_bytes: declaration.max_output_bytes,
        spool: call.spool,
        timeout: declaration.timeout,
        grace: declaration.grace,
        input: call.input,
        groups,
        bounds: Bounds {
            memory_bytes: declaration.memory_bytes,
            processes: declaration.max_processes,
        },
    })
}

fn limits(declaration: &Declaration) -> Limits {
    Limits {
        // Of a whole run where it has a control group; else process::attempt sets it.
        data_bytes: None,
        address_space_bytes: declaration.address_space_bytes,
        max_open_files: Some(declaration.max_open_files),
        max_file_bytes: Some(declaration.max_file_bytes),
        // The kernel counts what a user has, whoever started it: for the agent's own that would be the agent, too.
        max_processes: declaration
            .account
            .map(|_| declaration.max_processes.unwrap_or(USER_PROCESSES)),
    }
}
