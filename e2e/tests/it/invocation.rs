//! Making an invocation, and waiting for its end.

use std::time::Duration;

use anyhow::Context as _;
use crds::CapabilityInvocation;
use crds::v1alpha1::CapabilityInvocationStatus;
use e2e::wait::until;
use kube::Api;
use kube::api::PostParams;
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
