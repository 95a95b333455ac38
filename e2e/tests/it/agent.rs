//! The agent as a person uses it, and as it survives what happens around it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::v1alpha1::capability_invocation::InvocationPhase;
use crds::v1alpha1::device::Presence;
use crds::v1alpha1::pairing_request::RequestPhase;
use crds::{Device, PairingCode, PairingRequest};
use e2e::capabilities::declare;
use e2e::private;
use e2e::stack::Agent;
use e2e::wait::until;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use libtest_mimic::Trial;
use serde_json::json;

use crate::door::{approve, make_code};
use crate::fixture::{Fixture, Scene};
use crate::invocation;

const SOON: Duration = Duration::from_secs(30);

/// What `fairlead-agent` ends with when the code was not proved, and when the request was denied.
const CODE_NOT_PROVED: i32 = 5;
const DENIED: i32 = 6;

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "agent::a_typed_pin_pairs_and_shows_the_key_to_compare",
            typed,
        ),
        fixture.trial("agent::a_wrong_pin_is_never_tried_twice", wrong_pin),
        fixture.trial(
            "agent::a_stop_in_the_middle_goes_on_with_the_same_request",
            stopped,
        ),
        fixture.trial("agent::a_denial_is_told_with_its_reason", denied),
        fixture.trial("agent::what_is_unpaired_is_gone", unpaired),
        fixture.trial(
            "agent::a_declared_command_answers_and_a_cancelled_one_goes_with_its_children",
            commanded,
        ),
    ]
}

async fn requests(scene: &Scene) -> anyhow::Result<Vec<PairingRequest>> {
    let requests: Api<PairingRequest> = Api::namespaced(scene.client.clone(), &scene.namespace);
    Ok(requests.list(&ListParams::default()).await?.items)
}

/// The one request of the trial, once it is there.
async fn request(scene: &Scene) -> anyhow::Result<PairingRequest> {
    until("the request is there", SOON, async || {
        let mut found = requests(scene).await?;
        ensure!(found.len() <= 1, "{} requests", found.len());
        Ok(found.pop())
    })
    .await
}

async fn uri(scene: &Scene, code: &str) -> anyhow::Result<String> {
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let data = secrets
        .get(&crds::names::code_secret(code))
        .await?
        .data
        .unwrap_or_default();
    Ok(String::from_utf8(
        data.get("uri").context("no uri")?.0.clone(),
    )?)
}

async fn paired(scene: &Scene, name: &str) -> anyhow::Result<Agent> {
    let agent = scene.agent(name).await?;
    pair(scene, name, agent).await
}

/// Pairs `agent`.
pub async fn pair(scene: &Scene, name: &str, agent: Agent) -> anyhow::Result<Agent> {
    make_code(scene, name, json!({})).await?;
    let mut pairing = agent.pair(&uri(scene, name).await?, None)?;
    approve(scene, &request(scene).await?.name_any()).await?;
    pairing.paired(SOON).await?;
    Ok(agent)
}

async fn typed(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "typed", json!({ "format": "Numeric" })).await?;
    let agent = scene.agent("typed").await?;
    let mut pairing = agent.pair(&code.expose(), Some(&gateways[1]))?;
    let request = request(&scene).await?;
    let key = request.spec.public_key_sha256.clone().context("no key")?;
    let shown = until("the agent shows its key", SOON, async || {
        let log = std::fs::read_to_string(agent.log())?;
        let digits: String = log
            .chars()
            .filter(|character| !character.is_whitespace())
            .collect();
        Ok(digits.contains(&key).then_some(log))
    })
    .await?;
    let (_, secret) = code
        .expose()
        .split_once('-')
        .map(|(id, secret)| (id.to_owned(), secret.to_owned()))
        .context("no dash")?;
    ensure!(
        !shown.contains(&secret),
        "the code is in the agent's output"
    );
    approve(&scene, &request.name_any()).await?;
    pairing.paired(SOON).await?;
    let status = agent.status().await?;
    ensure!(status.to_string().contains("typed"), "{status}");
    Ok(())
}

async fn wrong_pin(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let code = make_code(&scene, "wrong", json!({ "format": "Numeric" })).await?;
    let exposed = code.expose();
    let last = if exposed.ends_with('0') { "1" } else { "0" };
    let typo = format!("{}{last}", &exposed[..exposed.len() - 1]);
    let agent = scene.agent("wrong").await?;
    let mut pairing = agent.pair(&typo, Some(&gateways[0]))?;
    let status = tokio::time::timeout(SOON, pairing.process().wait())
        .await
        .context("the agent goes on")??;
    ensure!(
        status.code() == Some(CODE_NOT_PROVED),
        "{status}\n{}",
        pairing.process().tail()
    );
    let codes: Api<PairingCode> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let attempts = codes
        .get("wrong")
        .await?
        .status
        .unwrap_or_default()
        .attempts;
    ensure!(attempts == 1, "{attempts} attempts");
    ensure!(requests(&scene).await?.is_empty());
    Ok(())
}

async fn stopped(scene: Scene) -> anyhow::Result<()> {
    make_code(&scene, "stopped", json!({})).await?;
    let agent = scene.agent("stopped").await?;
    let mut pairing = agent.pair(&uri(&scene, "stopped").await?, None)?;
    let first = request(&scene).await?;
    pairing.process().kill().await?;
    drop(pairing);

    let mut pairing = agent.pair_on()?;
    approve(&scene, &first.name_any()).await?;
    pairing.paired(SOON).await?;
    let only = request(&scene).await?;
    ensure!(
        only.name_any() == first.name_any(),
        "another request was made"
    );
    ensure!(
        only.status
            .is_some_and(|status| status.phase == RequestPhase::Issued)
    );
    Ok(())
}

async fn denied(scene: Scene) -> anyhow::Result<()> {
    make_code(&scene, "denied", json!({})).await?;
    let agent = scene.agent("denied").await?;
    let mut pairing = agent.pair(&uri(&scene, "denied").await?, None)?;
    let name = request(&scene).await?.name_any();
    let api: Api<PairingRequest> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let patch =
        json!({ "status": { "approval": { "decision": "Denied", "reason": "not one of ours" } } });
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let status = tokio::time::timeout(SOON, pairing.process().wait())
        .await
        .context("the agent goes on")??;
    let told = pairing.process().tail();
    ensure!(
        status.code() == Some(DENIED) && told.contains("not one of ours"),
        "{status}\n{told}"
    );
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    ensure!(
        devices.list(&ListParams::default()).await?.items.is_empty(),
        "a denied device is there"
    );
    Ok(())
}

async fn unpaired(scene: Scene) -> anyhow::Result<()> {
    let agent = paired(&scene, "gone").await?;
    ensure!(agent.status().await?["standing"] == "Paired");
    agent.unpair().await?;
    let status = agent.status().await?;
    ensure!(
        status["standing"] == "Unpaired"
            && status["device"].is_null()
            && status["publicKeySha256"].is_null(),
        "{status}"
    );
    let left: Vec<_> = std::fs::read_dir(agent.state())
        .map(|entries| {
            entries
                .filter_map(Result::ok)
                .map(|entry| entry.file_name())
                .collect()
        })
        .unwrap_or_default();
    ensure!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().contains("key")),
        "{left:?}"
    );
    Ok(())
}

/// A running agent whose device is Online.
pub async fn online(scene: &Scene, name: &str) -> anyhow::Result<Agent> {
    let agent = paired(scene, name).await?;
    run(scene, name, agent).await
}

/// Starts `agent`, and waits until its device is Online.
pub async fn run(scene: &Scene, name: &str, mut agent: Agent) -> anyhow::Result<Agent> {
    agent.run()?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    until("the device is online", SOON, async || {
        let status = devices.get(name).await?.status.unwrap_or_default();
        Ok((status.presence == Some(Presence::Online)).then_some(()))
    })
    .await?;
    Ok(agent)
}

pub async fn invoke(scene: &Scene, device: &str, name: &str) -> anyhow::Result<()> {
    let spec =
        json!({ "deviceRef": { "name": device }, "capability": "echo", "input": { "name": name } });
    invocation::make(scene, name, spec).await.map(drop)
}

pub async fn succeeded(scene: &Scene, name: &str) -> anyhow::Result<()> {
    let status = invocation::end(scene, name).await?;
    let output = status.output.as_ref();
    ensure!(
        status.phase == InvocationPhase::Succeeded
            && output.is_some_and(|output| output.to_string().contains(name)),
        "{name}: {:?} {:?} {output:?}",
        status.phase,
        status.error
    );
    Ok(())
}

/// Says who its child is, and waits.
const PATIENT: &str = "#!/bin/sh\nsleep 300 &\necho $! > \"$1\"\nwait\n";

async fn commanded(scene: Scene) -> anyhow::Result<()> {
    let script = scene.folder.join("patient");
    private::write(&script, PATIENT.as_bytes())?;
    std::fs::set_permissions(&script, Permissions::from_mode(0o700))?;
    let declared = format!(
        "[[capability]]\nname = \"lamp.greet\"\ncommand = \"/bin/cat\"\n\n\
         [[capability]]\nname = \"lamp.wait\"\ncommand = \"{}\"\nargs = [\"{{input.file}}\"]\n",
        script.display()
    );
    let config = declare(&scene.folder, &declared)?;
    let agent = scene.agent("lamp").await?.with_config(&config);
    let agent = pair(&scene, "lamp", agent).await?;
    let mut agent = run(&scene, "lamp", agent).await?;

    let greet = json!({ "deviceRef": { "name": "lamp" }, "capability": "lamp.greet", "input": { "hello": "lamp" }, "idempotencyKey": "once" });
    for (name, duplicate_of) in [("greet", None), ("greet-again", Some("greet"))] {
        invocation::make(&scene, name, greet.clone()).await?;
        let status = invocation::end(&scene, name).await?;
        ensure!(
            status.phase == InvocationPhase::Succeeded
                && status.output == Some(json!({ "hello": "lamp" }))
                && status.duplicate_of.as_deref() == duplicate_of,
            "{name}: {status:?}"
        );
    }

    let told = scene.folder.join("child");
    let wait = json!({ "deviceRef": { "name": "lamp" }, "capability": "lamp.wait", "input": { "file": told }, "timeoutSeconds": 60 });
    invocation::make(&scene, "wait", wait).await?;
    let child: i32 = until("the command runs", SOON, async || {
        Ok(std::fs::read_to_string(&told)?.trim().parse().ok())
    })
    .await?;
    let patch = json!({ "spec": { "cancel": "Requested" } });
    invocation::all(&scene)
        .patch("wait", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let status = invocation::end(&scene, "wait").await?;
    ensure!(status.phase == InvocationPhase::Cancelled, "{status:?}");
    // It was killed before the answer; who reaps it may take a moment.
    let child = std::path::Path::new("/proc").join(child.to_string());
    until("the command's child is gone", SOON, async || {
        Ok((!child.exists()).then_some(()))
    })
    .await?;
    agent.stop().await
}
