//! Outputs that are too large for a resource: a real command, a real store, and a gateway that dies in the middle.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::Device;
use crds::v1alpha1::capability_invocation::{Artefact, InvocationPhase};
use e2e::capabilities::declare;
use e2e::private;
use e2e::stack::Agent;
use e2e::wait::until;
use kube::Api;
use libtest_mimic::Trial;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::agent::{pair, run};
use crate::fixture::{Fixture, Scene};
use crate::invocation;

const SOON: Duration = Duration::from_secs(30);
/// Larger than what is kept at once: some parts are there when the gateway dies.
const BYTES: usize = 48 * 1024 * 1024;
const JSON_BYTES: usize = 3 * 1024 * 1024;

/// They kill a gateway: alone, and last.
pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "artefacts::a_large_output_is_stored_whole_though_its_gateway_is_killed_meanwhile",
        survives_its_gateway,
    )]
}

/// A device with commands that write much, and keep a copy of what they wrote.
async fn device(scene: &Scene, name: &str) -> anyhow::Result<Agent> {
    let mut declared = Vec::new();
    for (capability, script) in [
        ("lamp.bytes", format!("head -c {BYTES} /dev/urandom")),
        (
            "lamp.json",
            format!("printf '[\"'; head -c {JSON_BYTES} /dev/zero | tr '\\0' x; printf '\"]'"),
        ),
    ] {
        let path = scene.folder.join(capability);
        let copy = scene.folder.join(format!("{capability}.copy"));
        let script = format!("({script}) | tee {}\n", copy.display());
        private::write(&path, script.as_bytes())?;
        declared.push(format!(
            "[[capability]]\nname = \"{capability}\"\ncommand = \"/bin/sh\"\nargs = [\"{}\"]\nmax_output_bytes = {}\n\
             env = [\"PATH\"]\n\n",
            path.display(),
            BYTES * 2
        ));
    }
    let config = declare(&scene.folder, &declared.concat())?;
    let agent = scene.agent(name).await?.with_config(&config);
    let agent = pair(scene, name, agent).await?;
    run(scene, name, agent).await
}

/// What the status says of an output that is stored, once the store has it as the command wrote it.
async fn stored(scene: &Scene, name: &str, capability: &str) -> anyhow::Result<Artefact> {
    let status = invocation::end(scene, name).await?;
    ensure!(status.phase == InvocationPhase::Succeeded, "{status:?}");
    let artefact = status.artefact.clone().context("no artefact")?;
    ensure!(
        status.output.is_none() && status.output_sha256.as_ref() == Some(&artefact.sha256),
        "{status:?}"
    );
    let store = store(scene).await?;
    let kept = std::fs::read(store.join(&artefact.key)).context("read the artefact")?;
    let written = std::fs::read(scene.folder.join(format!("{capability}.copy")))?;
    ensure!(kept == written, "{} bytes of {}", kept.len(), written.len());
    ensure!(
        artefact.sha256 == hex::encode(Sha256::digest(&kept)),
        "{artefact:?}"
    );
    ensure!(
        usize::try_from(artefact.size_bytes)? == kept.len(),
        "{artefact:?}"
    );
    Ok(artefact)
}

async fn store(scene: &Scene) -> anyhow::Result<std::path::PathBuf> {
    let stack = scene.stack().await?;
    Ok(stack.as_ref().context("no stack")?.store())
}

async fn survives_its_gateway(scene: Scene) -> anyhow::Result<()> {
    let mut agent = device(&scene, "writer").await?;
    let spec = |capability: &str| json!({ "deviceRef": { "name": "writer" }, "capability": capability, "timeoutSeconds": 60 });
    invocation::make(&scene, "json", spec("lamp.json")).await?;
    let artefact = stored(&scene, "json", "lamp.json").await?;
    ensure!(
        artefact.media_type.as_deref() == Some("application/json"),
        "{artefact:?}"
    );

    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let session = devices
        .get("writer")
        .await?
        .status
        .and_then(|status| status.session);
    let gateway = session.context("no session")?.gateway;
    invocation::make(&scene, "bytes", spec("lamp.bytes")).await?;
    let parts = store(&scene).await?.join("parts").join(&scene.namespace);
    until("a part is kept", SOON, async || {
        Ok(holds_a_file(&parts).then_some(()))
    })
    .await?;
    {
        let mut stack = scene.stack().await?;
        let stack = stack.as_mut().context("no stack")?;
        stack.gateway(&gateway)?.service().kill().await?;
    }
    let ended = invocation::all(&scene)
        .get("bytes")
        .await?
        .status
        .unwrap_or_default();
    ensure!(
        !ended.phase.is_terminal(),
        "it was not killed in the middle: {ended:?}"
    );
    let artefact = stored(&scene, "bytes", "lamp.bytes").await?;
    ensure!(
        artefact.media_type.as_deref() == Some("application/octet-stream"),
        "{artefact:?}"
    );
    until("the parts are gone", SOON, async || {
        Ok((!holds_a_file(&parts)).then_some(()))
    })
    .await?;
    {
        let mut stack = scene.stack().await?;
        let stack = stack.as_mut().context("no stack")?;
        stack.gateway(&gateway)?.service().start_again().await?;
    }
    agent.stop().await
}

/// Whether there is a file somewhere below, and not only a folder.
fn holds_a_file(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let path = entry.path();
        // One that is being written has a number behind a #.
        path.is_file() && !path.to_string_lossy().contains('#') || holds_a_file(&path)
    })
}
