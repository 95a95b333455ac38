//! Invocations: what a gateway refuses, what it believes of a device, and what a healthy one costs.
//!
//! The devices here are strangers with certificates: they answer what the trial tells them to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::Device;
use crds::v1alpha1::capability_invocation::{ErrorCode, InvocationPhase};
use crds::v1alpha1::device::Presence;
use e2e::stranger::{DeviceStream, Shown, Stranger, success};
use e2e::wait::until;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use libtest_mimic::Trial;
use proto::node::gateway_event::Event as Heard;
use serde_json::json;

use crate::door::pair;
use crate::fixture::{Fixture, Scene};
use crate::invocation;
use crate::trust::trust;

const SOON: Duration = Duration::from_secs(30);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "commands::what_is_not_granted_or_not_declared_fails_with_its_own_code",
            not_granted,
        ),
        fixture.trial(
            "commands::an_absent_an_unknown_and_a_suspended_device_each_have_their_code",
            no_device,
        ),
        fixture.trial(
            "commands::a_short_invocation_costs_one_status_write",
            one_write,
        ),
        fixture.trial(
            "commands::a_long_invocation_costs_two_status_writes",
            two_writes,
        ),
        fixture.trial(
            "commands::a_result_from_a_device_that_was_not_asked_is_not_believed",
            not_asked,
        ),
        fixture.trial("commands::a_queued_invocation_waits_for_the_device", queued),
        fixture.trial(
            "commands::a_cancelled_invocation_never_reaches_the_device",
            cancelled_before,
        ),
        fixture.trial("commands::presence_follows_the_session", presence),
    ]
}

/// A paired device that the trial plays, with a stream at the first gateway, and Online.
pub async fn device(
    scene: &Scene,
    name: &str,
    capabilities: &[&str],
) -> anyhow::Result<(Stranger, String, DeviceStream)> {
    let stranger = Stranger::new()?;
    let (chain, device) = pair(scene, &stranger, name).await?;
    let gateways = scene.gateways().await?;
    let connection = stranger.connect(&gateways[0], Shown::Issued(chain)).await?;
    let stream = DeviceStream::open(connection, capabilities).await?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    until("the device is online", SOON, async || {
        let status = devices.get(&device).await?.status.unwrap_or_default();
        Ok((status.presence == Some(Presence::Online)).then_some(()))
    })
    .await?;
    Ok((stranger, device, stream))
}

async fn ended(scene: &Scene, name: &str) -> anyhow::Result<(InvocationPhase, Option<ErrorCode>)> {
    let status = invocation::end(scene, name).await?;
    Ok((status.phase, status.error.map(|error| error.code)))
}

async fn not_granted(scene: Scene) -> anyhow::Result<()> {
    let (_, device, _stream) = device(&scene, "granted", &["echo", "later"]).await?;
    for (capability, code) in [
        // Was not declared at approval, so nobody granted it.
        ("later", ErrorCode::CapabilityNotGranted),
        // Was granted, but the device no longer declares it.
        ("system.health", ErrorCode::CapabilityNotDeclared),
        ("system.nothing", ErrorCode::CapabilityNotDeclared),
    ] {
        let name = format!("run-{}", capability.replace('.', "-"));
        invocation::make(
            &scene,
            &name,
            json!({ "deviceRef": { "name": device }, "capability": capability }),
        )
        .await?;
        let end = ended(&scene, &name).await?;
        ensure!(
            end == (InvocationPhase::Failed, Some(code)),
            "{capability}: {end:?}"
        );
    }
    Ok(())
}

async fn no_device(scene: Scene) -> anyhow::Result<()> {
    let (_, device, stream) = device(&scene, "away", &["echo"]).await?;
    invocation::make(
        &scene,
        "unknown",
        json!({ "deviceRef": { "name": "nobody" }, "capability": "echo" }),
    )
    .await?;
    let end = ended(&scene, "unknown").await?;
    ensure!(
        end == (InvocationPhase::Failed, Some(ErrorCode::DeviceNotFound)),
        "{end:?}"
    );

    drop(stream);
    invocation::make(
        &scene,
        "away",
        json!({ "deviceRef": { "name": device }, "capability": "echo" }),
    )
    .await?;
    let end = ended(&scene, "away").await?;
    ensure!(
        end == (InvocationPhase::Failed, Some(ErrorCode::DeviceOffline)),
        "{end:?}"
    );

    trust(&scene, &device, "Suspended").await?;
    invocation::make(
        &scene,
        "suspended",
        json!({ "deviceRef": { "name": device }, "capability": "echo" }),
    )
    .await?;
    let end = ended(&scene, "suspended").await?;
    ensure!(
        end == (InvocationPhase::Failed, Some(ErrorCode::DeviceNotTrusted)),
        "{end:?}"
    );
    Ok(())
}

/// How often the status of an invocation is written while `answer` plays the device.
async fn writes(
    scene: &Scene,
    name: &str,
    device: &str,
    answer: impl AsyncFnOnce(&str) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let invocations = invocation::all(scene);
    let created = invocation::make(
        scene,
        name,
        json!({ "deviceRef": { "name": device }, "capability": "echo" }),
    )
    .await?;
    let version = created
        .metadata
        .resource_version
        .context("no resourceVersion")?;
    let uid = created.metadata.uid.context("no uid")?;
    let params = WatchParams::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(60);
    let mut watch = invocations.watch(&params, &version).await?.boxed();
    answer(&uid).await?;
    let mut writes = 0;
    while let Some(event) = tokio::time::timeout(SOON, watch.next())
        .await
        .context("no more events")?
    {
        if let WatchEvent::Modified(invocation) = event? {
            writes += 1;
            let status = invocation.status.unwrap_or_default();
            if status.phase.is_terminal() {
                ensure!(
                    status.phase == InvocationPhase::Succeeded,
                    "{:?}",
                    status.error
                );
                ensure!(
                    status.output == Some(json!({ "hello": "world" })),
                    "{:?}",
                    status.output
                );
                return Ok(writes);
            }
        }
    }
    bail!("the watch ended after {writes} writes")
}

/// Waits until this second is over, by the API server's clock: it stamps whole seconds. What was made in the second in
/// which the Device came to show its session may be from before that, and is marked before it is sent.
async fn next_second(scene: &Scene) -> anyhow::Result<()> {
    let moments: Api<ConfigMap> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let moment = ConfigMap {
        metadata: ObjectMeta {
            name: Some("moment".to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let now = async || -> anyhow::Result<i64> {
        let made = moments.create(&dry_run, &moment).await?.metadata;
        let made_at = made.creation_timestamp.context("made at no time")?;
        Ok(made_at.0.as_second())
    };
    let this = now().await?;
    until("the next second", SOON, async || {
        Ok((now().await? > this).then_some(()))
    })
    .await
}

async fn one_write(scene: Scene) -> anyhow::Result<()> {
    let (_, device, mut stream) = device(&scene, "quick", &["echo"]).await?;
    next_second(&scene).await?;
    let writes = writes(&scene, "quick", &device, async |uid| {
        let Heard::Dispatch(dispatch) = stream.next().await? else {
            bail!("no dispatch")
        };
        ensure!(
            dispatch.uid == uid && !dispatch.requested_by.is_empty(),
            "{dispatch:?}"
        );
        stream
            .say(success(uid, &dispatch.name, &json!({ "hello": "world" })))
            .await?;
        ensure!(matches!(stream.next().await?, Heard::ResultAck(ack) if ack.uid == uid));
        Ok(())
    })
    .await?;
    ensure!(writes == 1, "{writes} writes");
    Ok(())
}

async fn two_writes(scene: Scene) -> anyhow::Result<()> {
    let (_, device, mut stream) = device(&scene, "slow", &["echo"]).await?;
    let invocations = invocation::all(&scene);
    let writes = writes(&scene, "slow", &device, async |uid| {
        let Heard::Dispatch(dispatch) = stream.next().await? else {
            bail!("no dispatch")
        };
        until("it is Dispatched", SOON, async || {
            let status = invocations.get("slow").await?.status.unwrap_or_default();
            Ok((status.phase == InvocationPhase::Dispatched).then_some(()))
        })
        .await?;
        stream
            .say(success(uid, &dispatch.name, &json!({ "hello": "world" })))
            .await
    })
    .await?;
    ensure!(writes == 2, "{writes} writes");
    Ok(())
}

async fn not_asked(scene: Scene) -> anyhow::Result<()> {
    let (_, asked, mut honest) = device(&scene, "asked", &["echo"]).await?;
    let (_, _, mut liar) = device(&scene, "liar", &["echo"]).await?;
    let writes = writes(&scene, "asked", &asked, async |uid| {
        let Heard::Dispatch(dispatch) = honest.next().await? else {
            bail!("no dispatch")
        };
        liar.say(success(uid, &dispatch.name, &json!({ "a": "lie" })))
            .await?;
        // So that the liar forgets it; nothing was written.
        ensure!(matches!(liar.next().await?, Heard::ResultAck(ack) if ack.uid == uid));
        honest
            .say(success(uid, &dispatch.name, &json!({ "hello": "world" })))
            .await
    })
    .await?;
    ensure!(writes <= 2, "{writes} writes");
    Ok(())
}

async fn queued(scene: Scene) -> anyhow::Result<()> {
    let stranger = Stranger::new()?;
    let (chain, device) = pair(&scene, &stranger, "late").await?;
    let spec = json!({ "deviceRef": { "name": device }, "capability": "echo", "whenOffline": "Queue", "queueSeconds": 60 });
    let uid = invocation::make(&scene, "late", spec)
        .await?
        .metadata
        .uid
        .context("no uid")?;
    let gateways = scene.gateways().await?;
    let connection = stranger.connect(&gateways[1], Shown::Issued(chain)).await?;
    let mut stream = DeviceStream::open(connection, &["echo"]).await?;
    let Heard::Dispatch(dispatch) = stream.next().await? else {
        bail!("no dispatch")
    };
    ensure!(
        dispatch.uid == uid && dispatch.remaining_ms <= 30_000,
        "{dispatch:?}"
    );
    stream.say(success(&uid, "late", &json!({}))).await?;
    let end = ended(&scene, "late").await?;
    ensure!(end == (InvocationPhase::Succeeded, None), "{end:?}");
    Ok(())
}

async fn cancelled_before(scene: Scene) -> anyhow::Result<()> {
    let stranger = Stranger::new()?;
    let (_, device) = pair(&scene, &stranger, "never").await?;
    let spec =
        json!({ "deviceRef": { "name": device }, "capability": "echo", "whenOffline": "Queue" });
    invocation::make(&scene, "never", spec).await?;
    let invocations = invocation::all(&scene);
    let patch = json!({ "spec": { "cancel": "Requested" } });
    invocations
        .patch("never", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let end = ended(&scene, "never").await?;
    ensure!(
        end == (InvocationPhase::Cancelled, Some(ErrorCode::Cancelled)),
        "{end:?}"
    );
    Ok(())
}

async fn presence(scene: Scene) -> anyhow::Result<()> {
    let (_, device, stream) = device(&scene, "present", &["echo"]).await?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let status = devices.get(&device).await?.status.unwrap_or_default();
    let session = status.session.context("no session")?;
    ensure!(
        session.epoch == 1 && session.ended_at.is_none() && session.gateway == "gateway-0",
        "{session:?}"
    );
    drop(stream);
    until("the session ends", SOON, async || {
        let status = devices.get(&device).await?.status.unwrap_or_default();
        let ended = status
            .session
            .as_ref()
            .is_some_and(|session| session.ended_at.is_some());
        Ok((ended && status.presence == Some(Presence::Degraded)).then_some(()))
    })
    .await
}
