//! What kills the programs that others use: these trials run alone, one after another, and last.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::Device;
use e2e::wait::until;
use kube::Api;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::agent::{invoke, online, succeeded};
use crate::decision::{admitted, failed, misname};
use crate::door::approve;
use crate::fixture::{Fixture, Scene};

const SOON: Duration = Duration::from_secs(30);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "upheaval::killing_the_gateway_loses_no_invocation",
            gateway_killed,
        ),
        fixture.trial(
            "upheaval::invocations_go_on_without_the_operator",
            operator_killed,
        ),
        fixture.trial(
            "upheaval::a_name_that_is_no_digest_and_was_approved_before_anybody_looked_issues_nothing",
            approved_unseen,
        ),
        fixture.trial(
            "upheaval::streams_survive_a_restart_of_the_api_server",
            api_server_killed,
        ),
        fixture.trial(
            "upheaval::an_input_nested_as_deep_as_can_be_stops_nobody",
            nested,
        ),
    ]
}

async fn gateway_killed(scene: Scene) -> anyhow::Result<()> {
    let mut agent = online(&scene, "wanderer").await?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    for round in 0..3 {
        let session = devices
            .get("wanderer")
            .await?
            .status
            .and_then(|status| status.session)
            .context("no session")?;
        invoke(&scene, "wanderer", &format!("before-{round}")).await?;
        {
            let mut stack = scene.stack().await?;
            let gateway = stack
                .as_mut()
                .context("no stack")?
                .gateway(&session.gateway)?;
            gateway.service().kill().await?;
        }
        invoke(&scene, "wanderer", &format!("after-{round}")).await?;
        succeeded(&scene, &format!("before-{round}")).await?;
        succeeded(&scene, &format!("after-{round}")).await?;
        let mut stack = scene.stack().await?;
        stack
            .as_mut()
            .context("no stack")?
            .gateway(&session.gateway)?
            .service()
            .start_again()
            .await?;
    }
    agent.stop().await
}

async fn operator_killed(scene: Scene) -> anyhow::Result<()> {
    let mut agent = online(&scene, "orphan").await?;
    scene
        .stack()
        .await?
        .as_mut()
        .context("no stack")?
        .operator()
        .kill()
        .await?;
    for number in 0..3 {
        let name = format!("orphan-{number}");
        invoke(&scene, "orphan", &name).await?;
        succeeded(&scene, &name).await?;
    }
    agent.stop().await?;
    scene
        .stack()
        .await?
        .as_mut()
        .context("no stack")?
        .operator()
        .start_again()
        .await?;
    // The operator that comes back makes no other authority: what it issued before is still good.
    agent.run()?;
    invoke(&scene, "orphan", "orphan-back").await?;
    succeeded(&scene, "orphan-back").await?;
    agent.stop().await
}

/// The operator fails such a request on sight: here a person is quicker.
async fn approved_unseen(scene: Scene) -> anyhow::Result<()> {
    let stranger = admitted(&scene, "unseen").await?;
    let (wrong, _) = {
        let mut stack = scene.stack().await?;
        let operator = stack.as_mut().context("no stack")?.operator();
        operator.kill().await?;
        let made = misname(&scene, &stranger, "unseen").await;
        let approved = match &made {
            Ok((wrong, _)) => approve(&scene, wrong).await,
            Err(_) => Ok(()),
        };
        // Whatever came of it: the others need it.
        operator.start_again().await?;
        approved?;
        made?
    };
    let why = failed(&scene, &wrong).await?;
    ensure!(why == "NameIsNotDigest", "{why}");
    Ok(())
}

async fn api_server_killed(scene: Scene) -> anyhow::Result<()> {
    let mut agent = online(&scene, "steady").await?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let epoch = async || -> anyhow::Result<i64> {
        let status = devices.get("steady").await?.status.unwrap_or_default();
        Ok(status.session.context("no session")?.epoch)
    };
    let before = epoch().await?;
    scene.fixture.restart_api_server().await?;
    until("an invocation can be made", SOON, async || {
        invoke(&scene, "steady", "steady-after").await?;
        Ok(Some(()))
    })
    .await?;
    succeeded(&scene, "steady-after").await?;
    ensure!(
        epoch().await? == before,
        "the stream was lost with the API server"
    );
    agent.stop().await
}

/// A reader that gives up at some depth, and with it the whole list, would never be ready again.
async fn nested(scene: Scene) -> anyhow::Result<()> {
    const DEPTH: usize = 200;
    let mut agent = online(&scene, "shallow").await?;
    let input = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let object = format!(
        r#"{{"apiVersion":"fairlead.dev/v1alpha1","kind":"CapabilityInvocation","metadata":{{"name":"deep"}},"spec":{{"deviceRef":{{"name":"shallow"}},"capability":"echo","whenOffline":"Queue","input":{input}}}}}"#
    );
    let invocations = format!(
        "/apis/fairlead.dev/v1alpha1/namespaces/{}/capabilityinvocations",
        scene.namespace
    );
    let request = http::Request::post(&invocations)
        .header("Content-Type", "application/json")
        .body(object.into_bytes())?;
    scene
        .client
        .request_text(request)
        .await
        .context("make a deep invocation")?;
    {
        let mut stack = scene.stack().await?;
        let stack = stack.as_mut().context("no stack")?;
        for service in [0, 1] {
            let gateway = stack.gateways().get_mut(service).context("no gateway")?;
            gateway.service().kill().await?;
            gateway.service().start_again().await?;
        }
        stack.operator().kill().await?;
        stack.operator().start_again().await?;
    }
    invoke(&scene, "shallow", "flat").await?;
    succeeded(&scene, "flat").await?;
    until("the deep one ends", SOON, async || {
        let request = http::Request::get(format!("{invocations}/deep")).body(Vec::new())?;
        let text = scene.client.request_text(request).await?;
        // What follows the input is shallow.
        let status = text.split_once(r#""status":"#).context("no status")?.1;
        let status: Value = serde_json::Deserializer::from_str(status)
            .into_iter()
            .next()
            .context("an empty status")??;
        let told = (&status["phase"], &status["error"]["code"]);
        Ok((told == (&json!("Failed"), &json!("InvalidInput"))).then_some(()))
    })
    .await?;
    ensure!(agent.running().is_some());
    agent.stop().await
}
