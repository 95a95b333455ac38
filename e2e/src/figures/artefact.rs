//! What a large output costs: the time until it is in the store, and the memory of the gateway that takes it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::v1alpha1::capability_invocation::InvocationPhase;
use crds::{CapabilityInvocation, Device};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::memory::peak_kib;
use crate::approval::FrontDesk;
use crate::capabilities::declare;
use crate::cluster::Cluster;
use crate::stack::Stack;
use crate::wait::{Stopwatch, until};

const NAMESPACE: &str = "artefact";
const DEVICE: &str = "writer";
const SOON: Duration = Duration::from_mins(10);
/// The second output is so much larger: were memory to grow with it, that would show.
const TIMES: u64 = 4;

/// One output of that size, and one that is larger.
pub async fn measure(cluster: &Cluster, stack: &mut Stack, mebibytes: u64) -> anyhow::Result<()> {
    let declared = "[[capability]]\nname = \"large.output\"\ncommand = \"/usr/bin/head\"\n\
         args = [\"-c\", \"{input.bytes}\", \"/dev/urandom\"]\nmax_output_bytes = 68719476736\n";
    let config = declare(&stack.folder().join("writer-config"), declared)?;
    let mut agent = stack.agent(DEVICE)?.with_config(&config);
    FrontDesk::open(cluster.client(), NAMESPACE, 1)
        .await?
        .pair(&agent)
        .await?;
    agent.run()?;
    let devices: Api<Device> = Api::namespaced(cluster.client(), NAMESPACE);
    let gateway = until("the device is connected", SOON, async || {
        let status = devices.get(DEVICE).await?.status;
        Ok(status
            .and_then(|status| status.session)
            .map(|session| session.gateway))
    })
    .await?;
    let pid = stack.gateway(&gateway)?.service().process().pid();
    let before = peak_kib(pid)?;
    let mut words = Vec::new();
    for mebibytes in [mebibytes, mebibytes * TIMES] {
        let took = store(cluster, mebibytes * 1024 * 1024).await?;
        words.push(format!(
            "{mebibytes} MiB in {:.2} s, then {} KiB",
            took.as_secs_f64(),
            peak_kib(pid)?
        ));
    }
    let [one, other] = &words[..] else {
        return Ok(());
    };
    println!(
        "artefact: created to Succeeded, and peak memory of the gateway: {before} KiB idle; {one}; {other}"
    );
    agent.stop().await
}

async fn store(cluster: &Cluster, bytes: u64) -> anyhow::Result<Duration> {
    let invocations: Api<CapabilityInvocation> = Api::namespaced(cluster.client(), NAMESPACE);
    let name = format!("large-{bytes}");
    let object = serde_json::from_value(json!({
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "CapabilityInvocation",
        "metadata": { "name": name },
        "spec": {
            "deviceRef": { "name": DEVICE },
            "capability": "large.output",
            "input": { "bytes": bytes },
            "timeoutSeconds": 600,
        },
    }))?;
    let watch = Stopwatch::start();
    invocations.create(&PostParams::default(), &object).await?;
    let status = until("the output is stored", SOON, async || {
        let status = invocations.get(&name).await?.status.unwrap_or_default();
        Ok(status.phase.is_terminal().then_some(status))
    })
    .await?;
    let took = watch.elapsed();
    ensure!(status.phase == InvocationPhase::Succeeded, "{status:?}");
    let size = status.artefact.context("no artefact")?.size_bytes;
    ensure!(u64::try_from(size) == Ok(bytes), "{size} bytes");
    Ok(took)
}
