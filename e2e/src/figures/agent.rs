//! What an agent costs its device: the program as it is installed there, its memory when it only waits, and after it has
//! run something many times.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::v1alpha1::capability_invocation::InvocationPhase;
use crds::{CapabilityInvocation, Device};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::memory::{peak_kib, resident_kib};
use crate::approval::FrontDesk;
use crate::cluster::Cluster;
use crate::process::Program;
use crate::stack::Stack;
use crate::wait::until;

const NAMESPACE: &str = "agent";
const DEVICE: &str = "device";
const SOON: Duration = Duration::from_mins(1);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const OPEN: usize = 16;

pub async fn measure(cluster: &Cluster, stack: &Stack, count: u32) -> anyhow::Result<()> {
    // Beside the programs of this profile.
    let path = stack.programs().path("../agent/fairlead-agent");
    build()?;
    let bytes = std::fs::metadata(&path)?.len();
    let paired = stack.agent(DEVICE)?;
    FrontDesk::open(cluster.client(), NAMESPACE, 1)
        .await?
        .pair(&paired)
        .await?;
    let mut agent = Program::new(DEVICE, path, paired.log())
        .arg("--state-dir")
        .arg(paired.state())
        .arg("run")
        .spawn()?;
    let devices: Api<Device> = Api::namespaced(cluster.client(), NAMESPACE);
    until("the device is connected", SOON, async || {
        let status = devices.get(DEVICE).await?.status.unwrap_or_default();
        Ok(status.session.map(drop))
    })
    .await?;
    let pid = agent.pid();
    let idle = resident_kib(pid)?;
    futures::stream::iter(0..count)
        .map(|number| echo(cluster, number))
        .buffer_unordered(OPEN)
        .try_collect::<()>()
        .await?;
    let (after, peak) = (resident_kib(pid)?, peak_kib(pid)?);
    println!(
        "agent: binary_bytes={bytes}, idle_kib={idle}, invocations={count}, then_kib={after}, peak_kib={peak}"
    );
    let status = agent.terminate(STOP_WITHIN).await?;
    ensure!(status.success(), "the agent ended with {status}");
    Ok(())
}

/// With the profile and the features of what is installed on devices.
fn build() -> anyhow::Result<()> {
    eprintln!("Building the agent with the profile `agent`, which takes minutes");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--profile=agent"])
        .args(["--package=node-agent", "--bin=fairlead-agent"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .status()
        .context("run cargo build")?;
    ensure!(status.success(), "cargo build failed ({status})");
    Ok(())
}

async fn echo(cluster: &Cluster, number: u32) -> anyhow::Result<()> {
    let invocations: Api<CapabilityInvocation> = Api::namespaced(cluster.client(), NAMESPACE);
    let name = format!("echo-{number}");
    let object = serde_json::from_value(json!({
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "CapabilityInvocation",
        "metadata": { "name": name },
        "spec": { "deviceRef": { "name": DEVICE }, "capability": "echo", "input": { "number": number } },
    }))?;
    invocations.create(&PostParams::default(), &object).await?;
    until("the device answers", SOON, async || {
        let status = invocations.get(&name).await?.status.unwrap_or_default();
        let is_over = status.phase.is_terminal();
        ensure!(
            !is_over || status.phase == InvocationPhase::Succeeded,
            "{status:?}"
        );
        Ok(is_over.then_some(()))
    })
    .await
}
