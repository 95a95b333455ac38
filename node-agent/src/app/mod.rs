//! One file per command, and what they have in common: what the command line and the configuration come to.
//!
//! Only here are tasks started for the life of the process.

mod capabilities;
pub mod doctor;
pub mod init;
mod install;
pub mod manual;
mod pair;
mod run;
mod status;
mod unpair;

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use proto::node;
use runtime::proxy::variable;

use crate::{
    args::{Args, Command},
    capability::{
        About,
        command::confine,
        live::{self, OWN_PROGRAM, Source},
    },
    config::{
        Config,
        proxy::{Proxy, settle},
    },
    exit::{Exit, Refusal},
    mediation::{commands, notify, socket},
    state::access::{SYSTEM_PATH, default_path},
    upstream::dial::Dialer,
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
        mut state_dir,
        config: mut config_path,
        proxy,
        log,
        command,
    } = args;
    let proxy = proxy.map(|typed| typed.read()).transpose();
    let proxy = proxy.map_err(|why| usage(format!("--proxy: {why}")))?;
    let mut settle = || -> anyhow::Result<Settings> {
        log.init()?;
        let config = Config::read(config_path.as_deref())?;
        Ok(Settings {
            folder: folder(state_dir.take(), &config)?,
            config_path: config_path.take(),
            proxy: proxy.clone(),
            config,
        })
    };
    match command {
        // It runs as who the command runs as, who may not read anything of the agent's.
        Command::ExecCapability(confinement) => return Ok(confine::exec(&confinement)),
        Command::Pair(pair) => block_on(self::pair::pair(&settle()?, pair))?,
        Command::Run if init::is_needed() => {
            let mut exit = ExitCode::SUCCESS;
            block_on(async { init::serve().await.map(|code| exit = code) })?;
            return Ok(exit);
        }
        Command::Run => block_on(run::run(settle()?))?,
        Command::Status(status) => self::status::show(&settle()?.folder, status.output)?,
        Command::Unpair(unpair) => self::unpair::unpair(&settle()?.folder, unpair.yes)?,
        Command::Capabilities => capabilities::show(&settle()?)?,
        Command::Doctor(doctor) => {
            let mut exit = Exit::Done;
            let look = self::doctor::doctor(state_dir, config_path, proxy, doctor);
            block_on(async { look.await.map(|found| exit = found) })?;
            return Ok(exit.into());
        }
        Command::Install(install) => self::install::install(&install)?,
        Command::Completions(completions) => manual::complete(completions)?,
        Command::Man(manual) => self::manual::manual(&manual)?,
        Command::Uninstall(uninstall) => self::install::uninstall(&uninstall)?,
        Command::Pending(args) => block_on(commands::pending(args, || Ok(settle()?.socket())))?,
        Command::Allow(args) => block_on(commands::allow(args, || Ok(settle()?.socket())))?,
        Command::Deny(args) => block_on(commands::deny(args, || Ok(settle()?.socket())))?,
        Command::Notify(args) => block_on(notify::notify(args, || Ok(settle()?.socket())))?,
    }
    Ok(Exit::Done.into())
}

/// What the command line and the configuration come to.
struct Settings {
    /// Of the state.
    folder: PathBuf,
    config_path: Option<PathBuf>,
    /// What the command line says; it counts more than the configuration.
    proxy: Option<Proxy>,
    config: Config,
}

/// The dialer that the command line, the configuration and the environment come to.
fn dialer(proxy: Option<&Proxy>, config: &Config) -> Dialer {
    let chosen = proxy.or(config.proxy.as_ref());
    let (proxies, problem) = settle(chosen, config.no_proxy.as_deref(), variable);
    if let Some(problem) = problem {
        tracing::warn!(problem, "Connecting without the proxy of the environment");
    }
    Dialer::new(proxies)
}

impl Settings {
    fn capabilities(&self, about: About) -> Source {
        let (path, config) = (self.config_path.clone(), self.config.clone());
        Source::new(path, config, about, Path::new(OWN_PROGRAM))
    }

    fn dialer(&self) -> Dialer {
        dialer(self.proxy.as_ref(), &self.config)
    }

    /// Where the agent listens to the people at this device.
    fn socket(&self) -> PathBuf {
        socket::path_in(&self.config.mediation, &self.folder)
    }

    /// What an approver is shown.
    fn declared(&self) -> Vec<node::Capability> {
        let (registry, problems) = self.capabilities(About::default()).load();
        live::complain(&problems);
        registry.declared()
    }
}

/// Where the state is: the command line wins.
fn folder(state_dir: Option<PathBuf>, config: &Config) -> anyhow::Result<PathBuf> {
    match state_dir.or_else(|| config.state_dir.clone()) {
        Some(folder) => Ok(folder),
        None => default_folder(),
    }
}

fn default_folder() -> anyhow::Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    let user = rustix::process::geteuid();
    default_path(
        user.is_root() || owner_of(SYSTEM_PATH) == Some(user.as_raw()),
        variable("XDG_STATE_HOME"),
        variable("HOME"),
    )
    .ok_or_else(|| usage("no home folder is known: say where to keep the state with --state-dir"))
}

/// The service user, too, has the state where the service has it.
fn owner_of(path: &str) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.uid())
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
