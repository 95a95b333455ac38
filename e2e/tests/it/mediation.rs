//! What waits for the person at the device, on a real cluster: what the resource says, and what the person types.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::v1alpha1::CapabilityInvocationStatus;
use crds::v1alpha1::capability_invocation::{ErrorCode, InvocationPhase};
use e2e::capabilities::declare;
use e2e::stack::Agent;
use e2e::wait::until;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::agent::{pair, run};
use crate::fixture::{Fixture, Scene};
use crate::invocation;

const SOON: Duration = Duration::from_secs(30);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "mediation::the_person_at_the_device_allows_denies_or_says_nothing",
        decided,
    )]
}

/// A device with one command that a person must allow.
async fn device(scene: &Scene) -> anyhow::Result<Agent> {
    let config = declare(
        &scene.folder,
        "[[capability]]\nname = \"lamp.turn\"\ndescription = \"turns the lamp on or off\"\n\
          command = \"/bin/cat\"\nmediation = \"mediated\"\n",
    )?;
    let agent = scene.agent("lamp").await?.with_config(&config);
    let agent = pair(scene, "lamp", agent).await?;
    run(scene, "lamp", agent).await
}

async fn make(scene: &Scene, name: &str, seconds: u32) -> anyhow::Result<()> {
    let spec = json!({
        "deviceRef": { "name": "lamp" },
        "capability": "lamp.turn",
        "input": { "to": name },
        "timeoutSeconds": seconds,
    });
    invocation::make(scene, name, spec).await.map(drop)
}

/// Once the resource says that somebody is asked: what that person is shown.
async fn asked(scene: &Scene, agent: &Agent, name: &str) -> anyhow::Result<Value> {
    until("somebody is asked", SOON, async || {
        let cluster = scene.fixture.cluster();
        let row = cluster
            .run_kubectl(&["-n", &scene.namespace, "get", "inv", name])
            .await?;
        Ok(row.contains("AwaitingMediation").then_some(()))
    })
    .await?;
    let shown = agent.call(&["pending", "--output", "json"]).await?;
    let shown: Vec<Value> = serde_json::from_slice(&shown)?;
    let mut shown = shown.into_iter();
    let question = shown.find(|question| question["invocation"] == name);
    let question = question.context("the person is shown nothing")?;
    ensure!(
        question["capability"] == "lamp.turn"
            && question["input"]
                .as_str()
                .is_some_and(|input| input.contains(name))
            && question["requestedBy"]
                .as_str()
                .is_some_and(|who| !who.is_empty()),
        "{question}"
    );
    Ok(question)
}

fn error(status: &CapabilityInvocationStatus) -> Option<ErrorCode> {
    status.error.as_ref().map(|error| error.code)
}

async fn decided(scene: Scene) -> anyhow::Result<()> {
    let mut agent = device(&scene).await?;

    make(&scene, "on", 60).await?;
    let question = asked(&scene, &agent, "on").await?;
    let id = question["id"].as_str().context("no id")?;
    agent.call(&["allow", id]).await?;
    let status = invocation::end(&scene, "on").await?;
    let by = status
        .mediation
        .as_ref()
        .map(|mediation| mediation.by.as_str());
    ensure!(
        status.phase == InvocationPhase::Succeeded
            && status.output == Some(json!({ "to": "on" }))
            && by.is_some_and(|by| !by.is_empty()),
        "{status:?}"
    );

    make(&scene, "off", 60).await?;
    let question = asked(&scene, &agent, "off").await?;
    let id = question["id"].as_str().context("no id")?;
    agent
        .call(&["deny", id, "--reason", "I am reading"])
        .await?;
    let status = invocation::end(&scene, "off").await?;
    let mediation = status.mediation.clone().context("nobody denied it")?;
    ensure!(
        status.phase == InvocationPhase::Refused
            && error(&status) == Some(ErrorCode::Refused)
            && mediation.reason.as_deref() == Some("I am reading"),
        "{status:?}"
    );

    make(&scene, "silence", 2).await?;
    let status = invocation::end(&scene, "silence").await?;
    ensure!(
        status.phase == InvocationPhase::TimedOut && error(&status) == Some(ErrorCode::NoDecision),
        "{status:?}"
    );
    agent.stop().await
}
