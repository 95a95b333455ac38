//! `doctor` on the real thing: nothing where nothing is wrong, and a remedy that can be typed where something is.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::wait::until;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::Value;

use super::person::Person;
use crate::fixture::Scene;

const SOON: Duration = Duration::from_secs(30);
/// A Lease ends, and is looked at twice.
const LEASE_ENDS: Duration = Duration::from_secs(90);
const BINDING: &str = "gateway-limits.fairlead.dev";

pub async fn finds(scene: Scene) -> anyhow::Result<()> {
    drop(scene.stack().await?);
    let admin = Person::new(&scene, "admin", scene.fixture.cluster().kubeconfig())?;
    let report = admin.gets(&["doctor"]).await?;
    ensure!(
        !report.contains("Failed") && !report.contains("What to do"),
        "{report}"
    );
    ensure!(
        report.matches("from here").count() == 2,
        "not two gateways:\n{report}"
    );

    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(scene.client.clone());
    bindings.delete(BINDING, &DeleteParams::default()).await?;
    let remedy = unbound(&admin).await;
    // Whatever was found: the next trial needs it.
    let helped = helps(
        &scene,
        remedy
            .as_deref()
            .unwrap_or("kubectl apply -f crds/policies"),
    )
    .await;
    remedy?;
    helped?;
    admin.gets(&["doctor"]).await.context("after the remedy")?;
    unreachable_gateway(&scene, &admin).await
}

fn findings(report: &Value) -> anyhow::Result<Vec<&Value>> {
    let checks = report.as_array().context("no list")?;
    Ok(checks
        .iter()
        .filter(|check| check["result"] != "Ok")
        .collect())
}

/// Just that is found; gives what to type.
async fn unbound(admin: &Person) -> anyhow::Result<String> {
    let said = admin.says(&["doctor", "-o", "json"]).await?.with(1, &[])?;
    let report = said.json()?;
    let found = findings(&report)?;
    let [check] = found.as_slice() else {
        anyhow::bail!("not one finding: {report}")
    };
    ensure!(
        check["result"] == "Failed"
            && check["name"] == "policies bound"
            && check["found"]
                .as_str()
                .is_some_and(|found| found.contains(BINDING)),
        "{check}"
    );
    let remedy = check["remedy"].as_str().context("no remedy")?;
    let table = admin.says(&["doctor"]).await?.with(1, &[])?;
    ensure!(table.out()?.contains(remedy), "{table:?}");
    let (command, _) = remedy.split_once(": ").unwrap_or((remedy, ""));
    Ok(command.to_owned())
}

/// Types it, in the checkout.
async fn helps(scene: &Scene, command: &str) -> anyhow::Result<()> {
    let cluster = scene.fixture.cluster();
    let arguments = command
        .strip_prefix("kubectl ")
        .with_context(|| format!("nothing for kubectl: {command}"))?;
    let output = tokio::process::Command::new(cluster.kubectl())
        .args(arguments.split(' '))
        .env("KUBECONFIG", cluster.kubeconfig())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run kubectl")?;
    ensure!(output.status.success(), "{output:?}");
    // As it was, to be in force when the next trial needs it.
    e2e::install::install(&scene.client).await.map(drop)
}

/// One of two is down: that is told at once, before its Lease has ended, and is no failure of the whole.
async fn unreachable_gateway(scene: &Scene, admin: &Person) -> anyhow::Result<()> {
    let mut stack = scene.stack().await?;
    let gateway = stack.as_mut().context("no stack")?.gateway("gateway-1")?;
    let address = gateway.address().to_owned();
    gateway.service().kill().await?;
    let said = admin.says(&["doctor", "-o", "json"]).await;
    let ended = lease_ended(admin).await;
    gateway.service().start_again().await?;
    ended?;
    let report = said?.with(0, &[])?.json()?;
    let found = findings(&report)?;
    ensure!(
        found.len() == 1
            && found[0]["name"] == "gateway reachable"
            && found[0]["found"]
                .as_str()
                .is_some_and(|found| found.contains(&address)),
        "{report}"
    );
    drop(stack);
    until("all is well", SOON, async || {
        admin.gets(&["doctor"]).await.map(Some)
    })
    .await
    .map(drop)
}

/// Once the Lease of the dead gateway has ended, that one has failed, the other one is well, and no clock is blamed.
async fn lease_ended(admin: &Person) -> anyhow::Result<()> {
    let report = until("the Lease has ended", LEASE_ENDS, async || {
        let report = admin.says(&["doctor", "-o", "json"]).await?.json()?;
        let has_failed = findings(&report)?
            .iter()
            .any(|check| check["result"] == "Failed");
        Ok(has_failed.then_some(report))
    })
    .await?;
    let found = findings(&report)?;
    let failed: Vec<_> = found
        .iter()
        .filter(|check| check["name"] == "gateway")
        .collect();
    ensure!(
        found.len() == 2
            && failed.len() == 1
            && failed[0]["found"]
                .as_str()
                .is_some_and(|found| found.starts_with("gateway-1, renewed ")),
        "{report}"
    );
    ensure!(!report.to_string().contains("clock"), "{report}");
    Ok(())
}
