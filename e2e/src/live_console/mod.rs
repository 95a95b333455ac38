//! A gateway's console with something behind it, for as long as a command runs that asks it: what tests the console from
//! outside and is not written in Rust.

mod scene;

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::cluster::Cluster;
use crate::controlplane::{Binaries, ControlPlane};
use crate::install::install;
use crate::stack::{Place, Programs, Stack};
use scene::Scene;

/// As fast as the command asks: what is tried here is what is answered, and not how often one may ask.
const FLAGS: &[&str] = &[
    "--console-requests-per-second-per-address=100000",
    "--console-requests-per-second-per-user=100000",
];

/// Boot a control plane, an operator, a gateway and a device, run a command, and end with its exit code.
///
/// The command finds in its environment FAIRLEAD_CONSOLE_URL, FAIRLEAD_CONSOLE_CA (a file of certificates),
/// FAIRLEAD_CONSOLE_TOKEN_FILE (a token of somebody with every right) and FAIRLEAD_CONSOLE_SPEC_DIGEST (of all pairing
/// requests that wait). docs/testing.md says what there is to be asked for.
#[derive(Debug, Parser)]
#[command(name = "live-console", bin_name = "cargo live-console")]
pub struct Arguments {
    /// The command, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl Arguments {
    /// Runs the command.
    ///
    /// # Errors
    /// When what it is to ask does not come up, or does not stop cleanly after it. Logs are kept then, as they are when
    /// the command fails.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let programs = Programs::build()?;
        let binaries = Binaries::find()?;
        let mut folder = tempfile::Builder::new()
            .prefix("fairlead-live-console-")
            .tempdir()
            .context("make a folder for states and logs")?;
        let path = folder.path().to_owned();
        let ended = tokio::runtime::Runtime::new()
            .context("start the runtime")?
            .block_on(self.with_control_plane(&binaries, &programs, &path));
        if !ended.as_ref().is_ok_and(ExitStatus::success) {
            folder.disable_cleanup(true);
            eprintln!("Logs and states are in {}", path.display());
        }
        let code = ended?.code().and_then(|code| u8::try_from(code).ok());
        Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
    }

    async fn with_control_plane(
        &self,
        binaries: &Binaries,
        programs: &Programs,
        folder: &Path,
    ) -> anyhow::Result<ExitStatus> {
        let control_plane = ControlPlane::start(binaries, &folder.join("controlplane")).await?;
        let ended = self
            .with_stack(control_plane.cluster(), programs, folder)
            .await;
        let stopped = control_plane.stop().await;
        ended.and_then(|status| stopped.map(|()| status))
    }

    async fn with_stack(
        &self,
        cluster: &Cluster,
        programs: &Programs,
        folder: &Path,
    ) -> anyhow::Result<ExitStatus> {
        install(&cluster.client()).await?;
        let places = [Place::on_loopback()?];
        let folder = folder.join("stack");
        let mut stack =
            Stack::start_with_flags(cluster, programs, &folder, 1, &places, FLAGS).await?;
        let mut scene = Scene::set(&mut stack).await?;
        let ended = self.command(&scene).await;
        let ended = ended.and_then(|status| {
            // A console that fell over while it was asked is no other's fault.
            let gateway = stack.gateways().first_mut().context("no gateway")?;
            match gateway.service().process().ended()? {
                Some(how) => bail!("the gateway ended meanwhile ({how})"),
                None => Ok(status),
            }
        });
        let stopped = scene.end().await;
        let stopped = stack.stop().await.and(stopped);
        ended.and_then(|status| stopped.map(|()| status))
    }

    async fn command(&self, scene: &Scene) -> anyhow::Result<ExitStatus> {
        let (program, arguments) = self.command.split_first().context("there is no command")?;
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .envs(scene.environment())
            .kill_on_drop(true);
        tokio::select! {
            status = command.status() => {
                status.with_context(|| format!("run {}", program.display()))
            }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("listen for SIGINT")?;
                bail!("interrupted")
            }
        }
    }
}
