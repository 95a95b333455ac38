//! Making an invocation, and waiting for its end.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::CapabilityInvocation;
use crds::v1alpha1::CapabilityInvocationStatus;
use crds::v1alpha1::capability_invocation::InvocationPhase;
use e2e::stranger::{DeviceStream, success};
use e2e::wait::until;
use kube::Api;
use kube::api::PostParams;
use proto::node::gateway_event::Event as Heard;
use serde_json::{Value, json};

use crate::fixture::Scene;

const ENDS_WITHIN: Duration = Duration::from_mins(1);

pub fn all(scene: &Scene) -> Api<CapabilityInvocation> {
    Api::namespaced(scene.client.clone(), &scene.namespace)
}

pub async fn make(scene: &Scene, name: &str, spec: Value) -> anyhow::Result<CapabilityInvocation> {
    let object = serde_json::from_value(json!({
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "CapabilityInvocation",
        "metadata": { "name": name },
        "spec": spec,
    }))?;
    all(scene)
        .create(&PostParams::default(), &object)
        .await
        .context("create the invocation")
}

pub async fn end(scene: &Scene, name: &str) -> anyhow::Result<CapabilityInvocationStatus> {
    let invocations = all(scene);
    until("the invocation ends", ENDS_WITHIN, async || {
        let status = invocations.get(name).await?.status.unwrap_or_default();
        Ok(status.phase.is_terminal().then_some(status))
    })
    .await
}

/// One from its creation to its end, with the trial in the place of the device.
pub async fn answered(
    scene: &Scene,
    device: &str,
    stream: &mut DeviceStream,
    name: &str,
) -> anyhow::Result<()> {
    let spec = json!({ "deviceRef": { "name": device }, "capability": "echo" });
    let uid = make(scene, name, spec).await?.metadata.uid;
    let uid = uid.context("no uid")?;
    let heard = stream.next().await?;
    let Heard::Dispatch(dispatch) = heard else {
        bail!("no dispatch but {heard:?}")
    };
    ensure!(dispatch.uid == uid, "{dispatch:?}");
    stream.say(success(&uid, name, &json!({}))).await?;
    let heard = stream.next().await?;
    ensure!(
        matches!(&heard, Heard::ResultAck(ack) if ack.uid == uid),
        "no ack but {heard:?}"
    );
    let status = end(scene, name).await?;
    ensure!(status.phase == InvocationPhase::Succeeded, "{status:?}");
    Ok(())
}
