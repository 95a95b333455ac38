//! How long a change in Kubernetes takes to the subscriber of a console, beside a bare watch of the same.

use std::time::Duration;

use anyhow::{Context as _, bail};
use client::api::event::ConsoleEvent;
use client::api::query::ScopeQuery;
use client::{ControlPlaneClient, Credentials, Roots};
use crds::CapabilityInvocation;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::timeout;

use super::crowd::{Crowd, NAMESPACE};
use super::percentile;
use crate::cluster::{Cluster, service_account_token};
use crate::stack::Stack;
use crate::wait::Stopwatch;

const SUBSCRIBER: &str = "subscriber";
const TOKEN_SECONDS: i64 = 3600;
const SOON: Duration = Duration::from_secs(30);

/// Invocations are made, one after another, for a device that is away: each is one event.
pub async fn measure(cluster: &Cluster, stack: &mut Stack, rounds: u16) -> anyhow::Result<()> {
    Crowd::gather(cluster, stack, 1).await?;
    let client = cluster.client();
    let all: Api<CapabilityInvocation> = Api::namespaced(client.clone(), NAMESPACE);
    let subscriber = subscriber(&client, stack).await?;
    let scope = ScopeQuery {
        namespace: Some(NAMESPACE.to_owned()),
    };
    let mut told = subscriber.events(&scope);
    let hello = timeout(SOON, told.try_next()).await??;
    if hello.map(|received| received.event) != Some(ConsoleEvent::Hello) {
        bail!("the console does not begin with Hello");
    }
    let mut seen = all
        .watch(&WatchParams::default().timeout(290), "0")
        .await?
        .boxed();
    let (mut by_console, mut by_watch) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        let name = format!("n{number}");
        let invocation = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "CapabilityInvocation",
            "metadata": { "name": name },
            "spec": {
                "deviceRef": { "name": "device-0" }, "capability": "echo",
                "whenOffline": "Queue", "queueSeconds": 3600,
            },
        }))?;
        let watch = Stopwatch::start();
        let made = async {
            all.create(&PostParams::default(), &invocation).await?;
            anyhow::Ok(())
        };
        let at_console = async {
            loop {
                let received = told.try_next().await?.context("the events ended")?;
                if matches!(received.event, ConsoleEvent::InvocationChanged(it) if it.id.name() == name)
                {
                    return anyhow::Ok(watch.millis());
                }
            }
        };
        let at_watch = async {
            loop {
                let event = seen.try_next().await?.context("the watch ended")?;
                if matches!(event, WatchEvent::Added(it) if it.name_any() == name) {
                    return anyhow::Ok(watch.millis());
                }
            }
        };
        let all_three = futures::future::try_join3(made, at_console, at_watch);
        let ((), console, bare) = timeout(SOON, all_three)
            .await
            .with_context(|| format!("nobody told of {name}"))??;
        by_console.push(console);
        by_watch.push(bare);
    }
    for sorted in [&mut by_console, &mut by_watch] {
        sorted.sort_by(f64::total_cmp);
    }
    let at = |of: &[f64], percent| percentile(of, percent);
    println!(
        "events: {rounds} creations, begun to told by the console p50 {:.1} ms, p99 {:.1} ms; by a bare watch p50 {:.1} ms, p99 {:.1} ms",
        at(&by_console, 50),
        at(&by_console, 99),
        at(&by_watch, 50),
        at(&by_watch, 99),
    );
    Ok(())
}

/// Somebody who may look, at the first console.
async fn subscriber(client: &Client, stack: &mut Stack) -> anyhow::Result<ControlPlaneClient> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let account = serde_json::from_value(json!({ "metadata": { "name": SUBSCRIBER } }))?;
    accounts.create(&PostParams::default(), &account).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), NAMESPACE);
    let binding = serde_json::from_value(json!({
        "metadata": { "name": SUBSCRIBER },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "fairlead-viewer" },
        "subjects": [{ "kind": "ServiceAccount", "name": SUBSCRIBER, "namespace": NAMESPACE }],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    let token = service_account_token(client, NAMESPACE, SUBSCRIBER, TOKEN_SECONDS).await?;
    let ca = stack.console_ca()?;
    let gateway = stack.gateways().first().context("there is no gateway")?;
    Ok(
        ControlPlaneClient::builder(format!("https://{}", gateway.console()))
            .roots(Roots::Only(ca))
            .credentials(Credentials::token(token)?)
            .build()?,
    )
}
