//! Capabilities that an administrator of this device declares: a command, JSON in, JSON out.
//!
//! - [`declaration`]: what may be declared, and what is wrong with the rest;
//! - [`folder`]: the files that declare;
//! - [`argument`]: how the input gets into arguments: no shell, ever;
//! - [`account`]: which user it runs as;
//! - [`confine`]: what bounds it, in the process that becomes it;
//! - `process`: one run of it.

pub mod account;
pub mod argument;
pub mod confine;
pub mod declaration;
pub mod folder;
mod process;

use std::{env, fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc, time::Duration};

use proto::node::{Availability, Execution, FailureCode};
use serde_json::Value;
use tokio::sync::watch;

use self::{declaration::Declaration, process::Job};
use super::{Call, Capability, Failure, Running};
use crate::config::document::check_writers;

/// On top of a command's own grace: for SIGKILL to be seen, and for its last output.
const KILL_TIME: Duration = Duration::from_secs(2);

/// A declared command, ready to run.
pub struct Declared {
    declaration: Arc<Declaration>,
    /// The agent's own program.
    launcher: Arc<Path>,
    slots: Arc<Slots>,
    availability: Availability,
}

impl Declared {
    /// Fails nothing where its program cannot be run: then it is declared, and not available, and the text says why.
    pub fn new(
        declaration: Declaration,
        launcher: Arc<Path>,
        slots: Arc<Slots>,
    ) -> (Self, Option<String>) {
        let objection = judge_program(&declaration).err();
        let declared = Self {
            declaration: Arc::new(declaration),
            launcher,
            slots,
            availability: match objection {
                None => Availability::Available,
                Some(_) => Availability::Unavailable,
            },
        };
        (declared, objection)
    }
}

fn judge_program(declaration: &Declaration) -> Result<(), String> {
    let Declaration {
        name,
        program,
        account,
        ..
    } = declaration;
    let cannot = |why: String| format!("{name} is not available: {}: {why}", program.display());
    let metadata = fs::metadata(program).map_err(|error| cannot(error.to_string()))?;
    if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
        return Err(cannot(
            "it is no program: give another path, or `chmod +x` it".to_owned(),
        ));
    }
    let own = account.map(|account| account.uid);
    check_writers(&metadata, own.as_slice()).map_err(cannot)
}

impl Capability for Declared {
    fn name(&self) -> &str {
        &self.declaration.name
    }

    fn execution(&self) -> Execution {
        self.declaration.execution
    }

    fn availability(&self) -> Availability {
        self.availability
    }

    fn grace(&self) -> Duration {
        self.declaration.grace + KILL_TIME
    }

    fn run(&self, call: Call) -> Running {
        let declaration = Arc::clone(&self.declaration);
        let (launcher, slots) = (Arc::clone(&self.launcher), Arc::clone(&self.slots));
        Box::pin(async move {
            let stopped = call.stopped.clone();
            let job = job(&declaration, call)?;
            let _slot = tokio::select! {
                biased;
                () = stopped.cancelled() => {
                    return Err(Failure::new(FailureCode::Cancelled, "stopped before its turn"));
                }
                slot = slots.take(declaration.concurrency) => slot,
            };
            process::run(&launcher, &job, &stopped).await
        })
    }
}

fn job(declaration: &Declaration, call: Call) -> Result<Job, Failure> {
    let invalid = |message: String| Failure::new(FailureCode::InvalidInput, message);
    let input: Value = serde_json::from_slice(&call.input)
        .map_err(|error| invalid(format!("the input is no JSON: {error}")))?;
    let environment = declaration.environment.iter();
    Ok(Job {
        program: declaration.program.clone(),
        arguments: argument::fill(&declaration.arguments, &input).map_err(invalid)?,
        environment: environment
            .filter_map(|name| Some((name.clone(), env::var_os(name)?)))
            .collect(),
        working_directory: declaration.working_directory.clone(),
        account: declaration.account,
        memory_bytes: declaration.memory_bytes,
        max_output_bytes: declaration.max_output_bytes.min(call.max_output_bytes),
        timeout: declaration.timeout,
        grace: declaration.grace,
        input: call.input,
    })
}

/// How many runs of one name there are, over all declarations of it: a new one does not run beside what an old one still
/// does.
#[derive(Debug)]
pub struct Slots {
    taken: watch::Sender<usize>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            taken: watch::Sender::new(0),
        }
    }
}

impl Slots {
    /// Waits until fewer than `limit` are taken.
    async fn take(self: &Arc<Self>, limit: usize) -> Slot {
        let mut changes = self.taken.subscribe();
        loop {
            let took = self.taken.send_if_modified(|taken| {
                let free = *taken < limit;
                *taken += usize::from(free);
                free
            });
            if took {
                return Slot(Arc::clone(self));
            }
            // Cannot fail: its sender is here.
            let _ = changes.changed().await;
        }
    }
}

/// Free again when dropped.
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.send_modify(|taken| *taken -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn as_many_run_at_once_as_may_and_a_slot_comes_back() {
        let slots = Arc::new(Slots::default());
        let first = slots.take(2).await;
        let _second = slots.take(2).await;
        let none = timeout(Duration::from_millis(1), slots.take(2)).await;
        assert!(none.is_err());
        let waiting = slots.take(2);
        tokio::pin!(waiting);
        assert!(
            timeout(Duration::from_millis(1), &mut waiting)
                .await
                .is_err()
        );
        drop(first);
        timeout(Duration::from_secs(20), waiting).await.unwrap();
    }
}
