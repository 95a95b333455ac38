//! The ways in that README.md names, as somebody takes them who has nothing yet: an API server to try things on, the
//! installation by kubectl, and the demo on a cluster that is there already.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::cluster::Cluster;
use e2e::controlplane::{Binaries, ControlPlane};
use e2e::install::install;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use tokio::process::Command;

use crate::fixture::{Fixture, Scene};

const CONTROLPLANE: &str = env!("CARGO_BIN_EXE_controlplane");
const DEMO: &str = env!("CARGO_BIN_EXE_demo");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The demo has Cargo look whether the programs are built, which may wait for another Cargo.
const DEMO_WITHIN: Duration = Duration::from_mins(10);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial_within(
            DEMO_WITHIN,
            "entry::a_control_plane_goes_up_is_installed_on_by_kubectl_shows_the_demo_and_goes_down",
            up_and_down,
        ),
        fixture.trial(
            "entry::kubernetes_1_34_is_served_without_what_it_does_not_know",
            oldest,
        ),
    ]
}

/// A control plane that was put up in the background: it goes down with this, or it would stay after a trial that failed.
struct Up(PathBuf);

impl Drop for Up {
    fn drop(&mut self) {
        let down = std::process::Command::new(CONTROLPLANE)
            .args(["down", "--dir"])
            .arg(&self.0)
            .output();
        if let Err(error) = down {
            eprintln!("cargo controlplane down: {error}");
        }
    }
}

/// Runs a program, and gives what it printed.
///
/// # Errors
/// When it fails, with what it said.
async fn run(program: &mut Command) -> anyhow::Result<String> {
    let output = program
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run it")?;
    ensure!(
        output.status.success(),
        "{} ended with {}: {}",
        program.as_std().get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout).context("read what it printed")
}

/// `cargo controlplane`, for somebody who has neither Go nor a cache: everything comes from `assets`.
fn controlplane(command: &str, folder: &Path, assets: &Path) -> Command {
    let mut controlplane = Command::new(CONTROLPLANE);
    controlplane
        .args([OsStr::new(command), OsStr::new("--dir"), folder.as_os_str()])
        .env_clear()
        .env("KUBEBUILDER_ASSETS", assets);
    controlplane
}

/// A line in a shell that was told where the control plane is, in the root of the checkout.
fn with_env(folder: &Path, line: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    let script = format!("eval \"$(\"$0\" env --dir \"$1\")\"\n{line}");
    shell
        .arg("-ec")
        .args([
            OsStr::new(&script),
            OsStr::new(CONTROLPLANE),
            folder.as_os_str(),
        ])
        .current_dir(ROOT);
    shell
}

/// The command by which README.md says that one installs on a cluster.
fn installation() -> anyhow::Result<String> {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md"))?;
    let (_, command) = readme
        .split_once("`kubectl apply ")
        .context("README.md says no more how to install")?;
    let (arguments, _) = command.split_once('`').context("it has no end")?;
    Ok(format!("kubectl apply {arguments}"))
}

async fn up_and_down(scene: Scene) -> anyhow::Result<()> {
    let folder = scene.folder.join("own");
    let assets = scene.folder.join("assets");
    e2e::private::folder(&assets)?;

    let refused = run(&mut controlplane("up", &folder, &assets)).await;
    let refused = refused.err().context("it came up out of nothing")?;
    let told = refused.to_string();
    ensure!(
        told.contains("KUBEBUILDER_ASSETS is set, so nothing is built")
            && told.contains("must hold etcd, kube-apiserver and kubectl"),
        "{told}"
    );

    let binaries = Binaries::find()?;
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        symlink(binaries.folder().join(name), assets.join(name))?;
    }
    let up = Up(folder.clone());
    let printed = run(&mut controlplane("up", &folder, &assets)).await?;
    ensure!(
        printed.contains(&format!("export PATH='{}'", assets.display())),
        "not the named programs: {printed}"
    );
    for command in ["up", "env"] {
        let again = run(&mut controlplane(command, &folder, &assets)).await?;
        ensure!(again == printed, "{command}: {again}");
    }

    let applied = run(&mut with_env(&folder, &installation()?)).await?;
    for object in [
        "customresourcedefinition.apiextensions.k8s.io/devices.fairlead.dev created",
        "mutatingadmissionpolicy.admissionregistration.k8s.io/pairing-decision.fairlead.dev created",
        "serviceaccount/fairlead-gateway created",
    ] {
        ensure!(applied.contains(object), "no {object}\n{applied}");
    }

    let demo = format!("exec '{DEMO}' --exit --kubeconfig \"$KUBECONFIG\"");
    let told = run(&mut with_env(&folder, &demo)).await?;
    let last = told.lines().last().unwrap_or_default();
    let names: Vec<_> = last
        .strip_prefix("demo ok: ")
        .with_context(|| format!("it did not end well: {last}"))?
        .split(' ')
        .filter_map(|figure| figure.split_once('='))
        .filter(|(_, value)| value.parse::<f64>().is_ok_and(|value| value > 0.0))
        .map(|(name, _)| name)
        .collect();
    ensure!(
        names
            == [
                "approval_to_certificate_ms",
                "invoke_p50_ms",
                "floor_p50_ms",
                "status_writes_per_invocation"
            ],
        "{last}"
    );
    let left = "kubectl get namespaces -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{\"\\n\"}{end}'";
    let left = run(&mut with_env(&folder, left)).await?;
    let of_demo = left.lines().find(|line| line.starts_with("fairlead-demo-"));
    // Nobody here removes a namespace once it is deleted.
    ensure!(
        of_demo.is_none_or(|line| line.contains('T')),
        "the demo's namespace stays: {left}"
    );

    run(&mut controlplane("down", &folder, &assets)).await?;
    let gone = run(&mut controlplane("env", &folder, &assets)).await;
    let told = gone.err().context("it is still up")?.to_string();
    ensure!(told.contains("no control plane is up"), "{told}");
    drop(up);
    Ok(())
}

/// The oldest Kubernetes that is promised. It serves no mutating policies.
async fn oldest(scene: Scene) -> anyhow::Result<()> {
    let binaries = Binaries::find()?;
    let folder = scene.folder.join("own");
    let plane = ControlPlane::start_with(&binaries, &folder, &["--emulated-version=1.34"]).await?;
    let cluster = plane.cluster();

    // As README.md says: kubectl complains of what is not known, and applies the rest.
    let complaint = run(Command::new("/bin/sh")
        .args(["-ec", &installation()?])
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("PATH", binaries.folder())
        .current_dir(ROOT))
    .await;
    let complaint = complaint.err().context("kubectl knows all")?.to_string();
    ensure!(
        complaint.contains("no matches for kind \"MutatingAdmissionPolicy\""),
        "{complaint}"
    );
    let by_kubectl = names(cluster).await?;

    let installed = install(&cluster.client()).await?;
    let mutating = |object: &String| object.starts_with("MutatingAdmissionPolicy");
    ensure!(
        !installed.skipped.is_empty() && installed.skipped.iter().all(mutating),
        "{:?}",
        installed.skipped
    );
    let by_us = names(cluster).await?;
    ensure!(
        by_kubectl == by_us && by_us.len() > 4,
        "{by_kubectl:?} is not {by_us:?}"
    );
    plane.stop().await
}

/// What was installed of the kinds that were there in 1.34 already, without what was there before.
async fn names(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let (all, client) = (ListParams::default(), cluster.client());
    let kinds = Api::<CustomResourceDefinition>::all(client.clone());
    let policies = Api::<ValidatingAdmissionPolicy>::all(client);
    let (kinds, policies) = (kinds.list(&all).await?, policies.list(&all).await?);
    let mut names: Vec<_> = kinds.iter().map(ResourceExt::name_any).collect();
    names.extend(policies.iter().map(ResourceExt::name_any));
    names.sort();
    Ok(names)
}
