//! The demo: what a person sees of Fairlead in a minute, and what the machine measures meanwhile.
//!
//! Here is what surrounds the story: building the programs, a control plane or somebody's cluster, and taking
//! everything down again.
#![expect(clippy::print_stdout, reason = "what is printed is the demo")]

mod story;

use std::path::{Path, PathBuf};
use std::pin::pin;

use anyhow::{Context as _, bail};
use clap::Parser;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::controlplane::{Binaries, ControlPlane};
use crate::stack::Programs;
use story::Story;

/// Pair a device, approve it, run a capability on it, and lose a gateway: on a real Kubernetes API server.
#[derive(Debug, Parser)]
#[command(name = "demo", bin_name = "cargo demo")]
pub struct Arguments {
    /// Print the figures and end, instead of staying up to be played with
    #[arg(long)]
    exit: bool,

    /// Use this cluster, as its administrator, instead of booting a control plane; what is installed stays there
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// What it runs on.
enum Ground {
    Own(Binaries),
    Given(PathBuf),
}

impl Arguments {
    /// Runs the demo.
    ///
    /// # Errors
    /// At the first step that did not do what it should; logs and states are kept then, and the message says where.
    pub fn run(self) -> anyhow::Result<()> {
        let Self { exit, kubeconfig } = self;
        let programs = Programs::build()?;
        let ground = match kubeconfig {
            Some(file) => Ground::Given(file),
            None => Ground::Own(Binaries::find()?),
        };
        let mut folder = tempfile::Builder::new()
            .prefix("fairlead-demo-")
            .tempdir()
            .context("make a folder for states and logs")?;
        let path = folder.path().to_owned();
        let told = tokio::runtime::Runtime::new()
            .context("start the runtime")?
            .block_on(on_ground(&ground, &programs, &path, exit));
        if told.is_err() {
            folder.disable_cleanup(true);
        }
        told.with_context(|| format!("the demo failed; logs and states are in {}", path.display()))
    }
}

async fn on_ground(
    ground: &Ground,
    programs: &Programs,
    folder: &Path,
    exit: bool,
) -> anyhow::Result<()> {
    match ground {
        Ground::Own(binaries) => {
            step("A Kubernetes API server");
            let control_plane = ControlPlane::start(binaries, &folder.join("controlplane")).await?;
            println!(
                "etcd and kube-apiserver are up in {}",
                control_plane.folder().display()
            );
            let told = tell(
                control_plane.cluster(),
                programs,
                folder,
                "fairlead-demo",
                exit,
            )
            .await;
            let stopped = control_plane.stop().await;
            told.and(stopped)
        }
        // Whoever has a cluster has kubectl.
        Ground::Given(file) => {
            let cluster = Cluster::connect(file, "kubectl".as_ref()).await?;
            // New each time, as what an earlier demo left there would be in the way.
            let namespace = format!("fairlead-demo-{}", std::process::id());
            let told = tell(&cluster, programs, folder, &namespace, exit).await;
            let removed = Api::<Namespace>::all(cluster.client())
                .delete(&namespace, &DeleteParams::default())
                .await
                .context("remove the demo's namespace");
            told.and(removed.map(drop))
        }
    }
}

async fn tell(
    cluster: &Cluster,
    programs: &Programs,
    folder: &Path,
    namespace: &str,
    exit: bool,
) -> anyhow::Result<()> {
    let mut interrupted = pin!(interrupted()?);
    let mut story = tokio::select! {
        story = Story::begin(cluster, programs, folder, namespace) => story?,
        () = &mut interrupted => bail!("interrupted"),
    };
    let figures = tokio::select! {
        figures = story.tell() => figures?,
        () = &mut interrupted => bail!("interrupted"),
    };
    if !exit {
        story.how_to_play_on();
        interrupted.await;
        println!();
    }
    story.end().await?;
    // Last, when all has stopped cleanly: who reads this line reads the truth.
    if exit {
        println!("{figures}");
    }
    Ok(())
}

fn interrupted() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn step(title: &str) {
    println!("\n## {title}\n");
}
