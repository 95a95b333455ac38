//! One file per command, and what they have in common: what the command line and the configuration come to.
//!
//! Only here are tasks started for the life of the process.

mod capabilities;
mod pair;
mod run;
mod status;
mod unpair;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use proto::node;

use crate::{
    args::{Args, Command},
    capability::{
        About,
        command::confine,
        live::{self, OWN_PROGRAM, Source},
    },
    config::Config,
    exit::{Exit, Refusal},
    state::access::default_path,
};

/// Blocking work at once: a resolver, and capabilities. A thread costs memory for as long as it lives.
const MAX_BLOCKING_THREADS: usize = 8;

/// Runs the command, and says what went wrong.
pub fn main(args: Args) -> ExitCode {
    match run_command(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::of(&error).into()
        }
    }
}

fn run_command(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        state_dir,
        config: config_path,
        log,
        command,
    } = args;
    let settle = || -> anyhow::Result<Settings> {
        log.init()?;
        let config = Config::read(config_path.as_deref())?;
        let folder = match state_dir.or_else(|| config.state_dir.clone()) {
            Some(folder) => folder,
            None => default_folder()?,
        };
        Ok(Settings {
            folder,
            config_path,
            config,
        })
    };
    match command {
        // It runs as who the command runs as, who may not read anything of the agent's.
        Command::ExecCapability(confinement) => return Ok(confine::exec(&confinement)),
        Command::Pair(pair) => block_on(self::pair::pair(&settle()?, pair))?,
        Command::Run => block_on(run::run(settle()?))?,
        Command::Status(status) => self::status::show(&settle()?.folder, status.output)?,
        Command::Unpair(unpair) => self::unpair::unpair(&settle()?.folder, unpair.yes)?,
        Command::Capabilities => capabilities::show(&settle()?)?,
    }
    Ok(Exit::Done.into())
}

/// What the command line and the configuration come to.
struct Settings {
    /// Of the state.
    folder: PathBuf,
    config_path: Option<PathBuf>,
    config: Config,
}

impl Settings {
    fn capabilities(&self, about: About) -> Source {
        let (path, config) = (self.config_path.clone(), self.config.clone());
        Source::new(path, config, about, Path::new(OWN_PROGRAM))
    }

    /// What an approver is shown.
    fn declared(&self) -> Vec<node::Capability> {
        let (registry, problems) = self.capabilities(About::default()).load();
        live::complain(&problems);
        registry.declared()
    }
}

fn default_folder() -> anyhow::Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    default_path(
        rustix::process::geteuid().is_root(),
        variable("XDG_STATE_HOME"),
        variable("HOME"),
    )
    .ok_or_else(|| usage("no home folder is known: say where to keep the state with --state-dir"))
}

fn usage(message: impl Into<String>) -> anyhow::Error {
    Refusal::Usage(message.into()).into()
}

/// One thread is enough, and cheap.
fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(future);
    // Dropping it would wait for blocking work without an end: one file system that hangs, and no signal stops the agent.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_that_hangs_does_not_keep_the_process_from_ending() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let (ended, ends) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let result = block_on(async move {
                let (begun, begins) = tokio::sync::oneshot::channel();
                drop(tokio::task::spawn_blocking(move || {
                    begun.send(()).unwrap();
                    let _ = hangs.recv();
                }));
                begins.await?;
                Ok(())
            });
            ended.send(result).unwrap();
        });
        let result = ends.recv_timeout(Duration::from_secs(20));
        drop(release);
        result.unwrap().unwrap();
    }
}
