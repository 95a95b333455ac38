//! A device that cannot speak gRPC: a program in Go that knows docs/node-json.md and nothing else of ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::v1alpha1::capability_invocation::InvocationPhase;
use crds::v1alpha1::device::{Presence, TrustDecision};
use crds::{Device, names};
use e2e::private;
use e2e::process::Program;
use e2e::stranger::Stranger;
use e2e::wait::until;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::door::pair;
use crate::fixture::{Fixture, Scene};
use crate::invocation;

const SOON: Duration = Duration::from_secs(30);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "node_json::a_device_that_speaks_json_is_a_device_like_any_other",
        speaks_json,
    )]
}

async fn speaks_json(scene: Scene) -> anyhow::Result<()> {
    let gateway = scene.gateways().await?.remove(0);
    let stranger = Stranger::new()?;
    let (chain, device) = pair(&scene, &stranger, "json").await?;
    let files = Files::write(&scene, &stranger, &chain).await?;
    let program = built(&scene.folder)?;
    let spawn = |log: &str| {
        Program::new("json", program.clone(), scene.folder.join(log))
            .args(["-gateway", &gateway])
            .arg("-cert")
            .arg(&files.certificate)
            .arg("-key")
            .arg(&files.key)
            .arg("-ca")
            .arg(&files.bundle)
            .spawn()
    };
    let mut process = spawn("json.log")?;

    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    until("the device is online", SOON, async || {
        let status = devices.get(&device).await?.status.unwrap_or_default();
        Ok((status.presence == Some(Presence::Online)).then_some(()))
    })
    .await
    .with_context(|| process.tail())?;
    let shown = devices.get(&device).await?.status.unwrap_or_default();
    ensure!(
        shown
            .platform
            .is_some_and(|platform| platform.agent_version == "json/1"),
        "what it said of itself is not shown"
    );

    let input = json!({ "text": "grüß dich", "number": 1 });
    invocation::make(
        &scene,
        "hello",
        json!({ "deviceRef": { "name": device }, "capability": "echo", "input": input }),
    )
    .await?;
    let end = invocation::end(&scene, "hello").await?;
    ensure!(end.phase == InvocationPhase::Succeeded, "{end:?}");
    ensure!(end.output == Some(input), "{end:?}");

    // Its stream is cut like any other, with a last line that says why, and it is not let in again.
    let suspend = json!({ "spec": { "trust": TrustDecision::Suspended } });
    devices
        .patch(&device, &PatchParams::default(), &Patch::Merge(suspend))
        .await?;
    let ended = tokio::time::timeout(SOON, process.wait())
        .await
        .context("a suspended device keeps its stream")??;
    ensure!(!ended.success(), "it ended as if all were well");
    ensure!(
        process
            .tail()
            .contains("ended: PERMISSION_DENIED: this device is suspended"),
        "{}",
        process.tail()
    );
    let mut again = spawn("again.log")?;
    tokio::time::timeout(SOON, again.wait())
        .await
        .context("a suspended device is let in")??;
    ensure!(
        again.tail().contains("refused: 403 Forbidden"),
        "{}",
        again.tail()
    );
    Ok(())
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
}

impl Files {
    async fn write(
        scene: &Scene,
        stranger: &Stranger,
        chain: &[rustls::pki_types::CertificateDer<'static>],
    ) -> anyhow::Result<Self> {
        let folder = &scene.folder;
        let files = Self {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            bundle: folder.join("ca.crt"),
        };
        private::write(&files.certificate, pem(chain).as_bytes())?;
        private::write(&files.key, stranger.key().serialize_pem().as_bytes())?;
        let published: Api<ConfigMap> =
            Api::namespaced(scene.client.clone(), e2e::install::SYSTEM_NAMESPACE);
        let bundle = published
            .get(names::TRUST_BUNDLE)
            .await?
            .data
            .and_then(|mut data| data.remove("ca.crt"))
            .context("the bundle is not published")?;
        private::write(&files.bundle, bundle.as_bytes())?;
        Ok(files)
    }
}

fn pem(chain: &[rustls::pki_types::CertificateDer<'static>]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for der in chain {
        text += "-----BEGIN CERTIFICATE-----\n";
        text += &base64::engine::general_purpose::STANDARD.encode(der);
        text += "\n-----END CERTIFICATE-----\n";
    }
    text
}

/// Go is there: the control plane was built with it. Where it was not (`KUBEBUILDER_ASSETS`), this says so.
fn built(folder: &Path) -> anyhow::Result<PathBuf> {
    let program = folder.join("node-json");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/node-json"))
        .output()
        .context("run go, which this trial needs")?;
    ensure!(
        built.status.success(),
        "go build failed: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    Ok(program)
}
