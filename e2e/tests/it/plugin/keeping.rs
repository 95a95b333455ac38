//! Devices: how they are shown to people and to programs, what changes while somebody watches, and who decides about them.

use anyhow::{Context as _, ensure};
use crds::Device;
use crds::v1alpha1::device::TrustDecision;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::Value;

use super::person::Person;
use crate::agent::online;
use crate::console::EVERYTHING;
use crate::fixture::Scene;

pub async fn keeps(scene: Scene) -> anyhow::Result<()> {
    // Kept until the end, when it is cut off.
    let _agent = online(&scene, "lamp").await?;
    let ada = Person::account(&scene, "ada", &EVERYTHING).await?;
    for_programs(&scene, &ada).await?;
    for_people(&scene, &ada).await?;
    through_kubectl(&scene, &ada).await?;
    is_completed_by_kubectl(&scene, &ada).await?;
    by_labels(&scene, &ada).await?;
    is_decided_about(&scene, &ada).await
}

async fn for_programs(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let named = ada.gets(&["devices", "-o", "name"]).await?;
    ensure!(named == "device.fairlead.dev/lamp\n", "{named}");
    let list = ada
        .says(&["devices", "-o", "json"])
        .await?
        .with(0, &[])?
        .json()?;
    ensure!(
        list["kind"] == "List" && list["items"][0]["metadata"]["name"] == "lamp",
        "{list}"
    );
    let yaml = ada.gets(&["describe", "lamp", "-o", "yaml"]).await?;
    let device: Value = serde_saphyr::from_str(&yaml).with_context(|| yaml.clone())?;
    ensure!(
        device["kind"] == "Device" && device["status"]["presence"] == "Online",
        "{yaml}"
    );
    ensure!(!yaml.contains("managedFields"), "{yaml}");
    let whole = ["describe", "lamp", "-o", "yaml", "--show-managed-fields"];
    let whole = ada.gets(&whole).await?;
    ensure!(whole.contains("managedFields"), "{whole}");
    // As kubectl says it, so that one can be put in the place of the other.
    let namespace = scene.namespace.as_str();
    let same = ["-n", namespace, "get", "dev", "-o", "name"];
    let same = scene.fixture.cluster().run_kubectl(&same).await?;
    ensure!(same == named, "{same}");
    Ok(())
}

async fn for_people(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let table = ada.gets(&["devices"]).await?;
    ensure!(
        table.starts_with("NAME") && table.contains("Online") && !table.contains('\u{1b}'),
        "{table:?}"
    );
    let admin = Person::new(scene, "admin", scene.fixture.cluster().kubeconfig())?;
    let wide = admin.gets(&["devices", "-A", "-o", "wide"]).await?;
    let row = wide
        .lines()
        .find(|line| line.starts_with(&format!("{} ", scene.namespace)))
        .with_context(|| format!("not of all namespaces:\n{wide}"))?;
    let described = ada.gets(&["describe", "lamp"]).await?;
    let words = described
        .lines()
        .find_map(|line| line.strip_prefix("Key words:"))
        .with_context(|| format!("no words:\n{described}"))?;
    ensure!(row.contains(words.trim()), "{words} are not in {row}");
    for part in ["Trusted", "gateway-", "echo", "Issued", "not shown: events"] {
        ensure!(described.contains(part), "{part} is missing:\n{described}");
    }
    let events = admin
        .gets(&["describe", "lamp", "-n", &scene.namespace])
        .await?;
    ensure!(!events.contains("not shown"), "{events}");
    let said = ada
        .says(&["devices", "-o", "wide", "--context", "nowhere"])
        .await?;
    said.with(1, &["nowhere"])?;

    let (_, coloured) = ada.sits_at(&["devices"], &[])?.ends().await?;
    ensure!(coloured.contains("\u{1b}[32mlamp"), "{coloured:?}");
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (code, plain) = ada.sits_at(&["devices"], &[variable])?.ends().await?;
        ensure!(
            code == Some(0) && plain.contains("lamp") && !plain.contains('\u{1b}'),
            "{variable:?}: {plain:?}"
        );
    }
    Ok(())
}

/// As people type it: kubectl finds it in PATH.
async fn through_kubectl(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let programs = scene.fixture.programs();
    let output = tokio::process::Command::new(scene.fixture.cluster().kubectl())
        .args(["fairlead", "devices", "-o", "name", "-n", &scene.namespace])
        .env("KUBECONFIG", ada.kubeconfig())
        .env("PATH", programs.path(""))
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run kubectl")?;
    ensure!(
        output.status.success() && output.stdout == b"device.fairlead.dev/lamp\n",
        "{output:?}"
    );
    Ok(())
}

/// kubectl asks the program beside the plugin, and that one asks the cluster.
async fn is_completed_by_kubectl(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let folder = scene.folder.join("bin");
    std::fs::create_dir_all(&folder)?;
    let to = folder.to_str().context("a path that is text")?;
    ada.gets(&["completions", "kubectl", "--to", to]).await?;
    let programs = scene.fixture.programs();
    let path = format!("{to}:{}:/usr/bin:/bin", programs.path("").display());
    for (words, expected) in [
        (["describe", "la"], "lamp\n:4"),
        (["invoke", "l"], "lamp\n:4"),
    ] {
        let output = tokio::process::Command::new(scene.fixture.cluster().kubectl())
            .args(["__complete", "fairlead", "-n", &scene.namespace])
            .args(words)
            .env("KUBECONFIG", ada.kubeconfig())
            .env("PATH", &path)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("run kubectl")?;
        let completed = String::from_utf8_lossy(&output.stdout);
        ensure!(completed.trim() == expected, "{words:?}: {output:?}");
    }
    Ok(())
}

/// Several devices at once: those that are named, and those with a label.
async fn by_labels(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let label = serde_json::json!({ "metadata": { "labels": { "site": "harbour" } } });
    devices
        .patch("lamp", &PatchParams::default(), &Patch::Merge(&label))
        .await?;
    let named = ada.gets(&["devices", "-l", "site=harbour", "-o", "name"]);
    ensure!(named.await? == "device.fairlead.dev/lamp\n");
    let none = ada.gets(&["devices", "-l", "site=hill", "-o", "name"]);
    ensure!(none.await?.is_empty());
    let said = ada
        .says(&["grant", "-l", "site=harbour", "echo"])
        .await?
        .with(0, &[])?;
    ensure!(said.out()?.starts_with("lamp may run "), "{said:?}");
    let said = ada
        .says(&["grant", "lamp,lmap", "echo"])
        .await?
        .with(1, &[])?;
    let out = said.out()?;
    ensure!(
        out.contains("lamp may run ")
            && out.contains("lmap not granted: no device lmap in namespace"),
        "{said:?}"
    );
    ada.says(&["grant", "-l", "site=hill", "echo"])
        .await?
        .with(1, &["no device in namespace", "site=hill"])?;
    Ok(())
}

async fn is_decided_about(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let mut watch = ada.start(&["devices", "--watch"])?;
    watch.shows("Online").await?;

    ada.says(&["suspend", "lamp"])
        .await?
        .with(0, &["Suspended"])?;
    let managers = devices.get("lamp").await?.metadata.managed_fields;
    let by_us = managers
        .unwrap_or_default()
        .into_iter()
        .any(|entry| entry.manager.as_deref() == Some("kubectl-fairlead"));
    ensure!(by_us, "no field is managed by kubectl-fairlead");
    watch.shows("suspended").await?;
    ada.says(&["resume", "lamp"]).await?.with(0, &["Active"])?;

    ada.says(&["grant", "lamp", "--take", "echo"])
        .await?
        .with(0, &["lamp may run system.health, system.identity"])?;
    let grants = devices.get("lamp").await?.spec.grants;
    ensure!(
        !grants.capabilities.contains(&"echo".to_owned()) && !grants.surfaces.contains_key("echo"),
        "{grants:?}"
    );
    ada.says(&["grant", "lamp", "echo"])
        .await?
        .with(0, &["echo"])?;
    ada.says(&["grant", "lamp", "disk.clean"])
        .await?
        .with(1, &["does not declare disk.clean", "--undeclared"])?;
    ada.says(&["grant", "lamp"])
        .await?
        .with(1, &["--pending"])?;

    ada.says_to(&["revoke", "lamp"], "\n")
        .await?
        .with(8, &["not revoked"])?;
    ensure!(devices.get("lamp").await?.spec.trust == TrustDecision::Active);
    ada.says(&["revoke", "lamp", "--yes"])
        .await?
        .with(0, &["Revoked"])?;
    watch.shows("revoked").await?;
    ada.says(&["resume", "lamp"]).await?.with(1, &["lamp"])?;
    watch.interrupt()?;
    let said = watch.ends().await?.with(130, &[])?;
    // Rows that came later stand below the first.
    let lines: Vec<_> = said.out()?.lines().collect();
    ensure!(
        lines.iter().filter(|line| line.starts_with("NAME")).count() == 1 && lines.len() > 3,
        "{said:?}"
    );
    Ok(())
}
