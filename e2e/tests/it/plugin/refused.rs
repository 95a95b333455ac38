//! Who lacks a right is told which, and nobody is told a secret. Nothing here takes a device.

use std::path::Path;

use anyhow::{Context as _, ensure};
use crds::PairingCode;
use e2e::private;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use super::person::Person;
use crate::fixture::Scene;

pub async fn refused(scene: Scene) -> anyhow::Result<()> {
    // Somebody must draw codes and end what nobody can run.
    drop(scene.stack().await?);
    without_rights(&scene).await?;
    without_one_right(&scene).await?;
    who_can(&scene).await?;
    with_a_token_that_is_none(&scene).await?;
    without_a_cluster(&scene).await?;
    completes(&scene).await
}

/// The namespace, the verb and the resource are in what the API server says, and that is what is told.
async fn without_rights(scene: &Scene) -> anyhow::Result<()> {
    let nobody = Person::account(scene, "nobody", &[]).await?;
    let token = token_of(&nobody)?;
    for (line, lacks) in [
        ("devices", "list resource \"devices\""),
        ("devices -A", "list resource \"devices\""),
        ("pending", "list resource \"pairingrequests\""),
        ("describe lamp", "get resource \"devices\""),
        ("pair", "create resource \"pairingcodes\""),
        ("approve preq-1 --yes", "get resource \"pairingrequests\""),
        ("deny preq-1", "get resource \"pairingrequests\""),
        (
            "invoke lamp echo",
            "create resource \"capabilityinvocations\"",
        ),
        ("suspend lamp", "patch resource \"devices\""),
        ("grant lamp echo", "get resource \"devices\""),
        ("revoke lamp", "get resource \"devices\""),
        ("artifact get inv-1", "list resource \"leases\""),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let said = nobody.says(&words).await?;
        let said = said
            .with(1, &["error: ", lacks, "nobody"])
            .with_context(|| line.to_owned())?;
        ensure!(said.out.is_empty(), "{line}: {said:?}");
        ensure!(!said.err.contains(&token), "{line}: the token is told");
    }
    // Neither is a fault of the installation.
    let said = nobody.says(&["doctor"]).await?.with(0, &[])?;
    ensure!(
        said.out()?.contains("you may not see it") && !said.out()?.contains("Failed"),
        "{said:?}"
    );
    nobody
        .says(&["who-can", "invoke", "lamp", "echo"])
        .await?
        .with(1, &["you may not list rolebindings"])?;
    // The usage is no matter of rights.
    nobody
        .says(&["devices", "-o", "xml"])
        .await?
        .with(2, &["xml"])?;
    Ok(())
}

fn token_of(person: &Person) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(person.kubeconfig())?;
    let kubeconfig: Value = serde_saphyr::from_str(&text)?;
    let token = kubeconfig["users"][0]["user"]["token"].as_str();
    token
        .map(str::to_owned)
        .context("no token in the kubeconfig")
}

async fn without_one_right(scene: &Scene) -> anyhow::Result<()> {
    // Makes codes, and may not read what is in them: then nobody can use it, and it is not left.
    let maker = Person::account(scene, "maker", &["fairlead-device-administrator"]).await?;
    let said = maker.says(&["pair"]).await?;
    said.with(1, &["right to get the Secret pair-", "was taken back"])?;
    let codes: Api<PairingCode> = Api::namespaced(scene.client.clone(), &scene.namespace);
    ensure!(codes.list(&ListParams::default()).await?.items.is_empty());

    // A device that does not exist is reported before an invocation is made.
    let healer = Person::account(scene, "healer", &["fairlead-health-invoker"]).await?;
    healer
        .says(&["invoke", "nothing", "system.health"])
        .await?
        .with(1, &["no device nothing in namespace"])?;
    let made = crate::invocation::all(scene)
        .list(&ListParams::default())
        .await?;
    ensure!(made.items.is_empty(), "one was made");
    Ok(())
}

async fn who_can(scene: &Scene) -> anyhow::Result<()> {
    Person::account(scene, "runner", &["fairlead-invoker"]).await?;
    let admin = Person::new(scene, "admin", scene.fixture.cluster().kubeconfig())?;
    for (capability, healer) in [("echo", false), ("system.health", true)] {
        let table = admin
            .gets(&["who-can", "invoke", "lamp", capability])
            .await?;
        let names: Vec<&str> = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        ensure!(
            names.contains(&"runner")
                && names.contains(&"system:masters")
                && !names.contains(&"maker")
                && names.contains(&"healer") == healer,
            "{capability}:\n{table}"
        );
        ensure!(
            table.contains("RoleBinding runner-fairlead-invoker of ClusterRole fairlead-invoker"),
            "{table}"
        );
    }
    Ok(())
}

async fn with_a_token_that_is_none(scene: &Scene) -> anyhow::Result<()> {
    let runner = scene.folder.join("runner.kubeconfig");
    let text = std::fs::read_to_string(&runner)?;
    let token = token_of(&Person::new(scene, "runner", &runner)?)?;
    let path = scene.folder.join("stranger.kubeconfig");
    private::write(&path, text.replace(&token, "made-up-token").as_bytes())?;
    let stranger = Person::new(scene, "stranger", &path)?;
    let said = stranger
        .says(&["devices"])
        .await?
        .with(1, &["nauthorized"])?;
    ensure!(!said.err.contains("made-up-token"), "{said:?}");
    let nothing = Person::new(scene, "nothing", Path::new("/nowhere/kubeconfig"))?;
    nothing
        .says(&["devices"])
        .await?
        .with(1, &["kubeconfig", "/nowhere"])?;
    Ok(())
}

/// An API server that is not there is named with its address.
async fn without_a_cluster(scene: &Scene) -> anyhow::Result<()> {
    let runner = scene.folder.join("runner.kubeconfig");
    let text = std::fs::read_to_string(&runner)?;
    let kubeconfig: Value = serde_saphyr::from_str(&text)?;
    let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str();
    let server = server.context("no server in the kubeconfig")?;
    let path = scene.folder.join("gone.kubeconfig");
    let gone = "https://127.0.0.1:1";
    private::write(&path, text.replace(server, gone).as_bytes())?;
    let lost = Person::new(scene, "lost", &path)?;
    lost.says(&["devices"]).await?.with(
        1,
        &[
            "cannot reach the API server at https://127.0.0.1:1: ",
            "refused",
        ],
    )?;
    // What is known without a cluster is shown all the same.
    let said = lost.says(&["version"]).await?.with(1, &[gone])?;
    ensure!(said.out()?.starts_with("Client:"), "{said:?}");
    lost.says(&["version", "--client"]).await?.with(0, &[])?;
    Ok(())
}

/// What bash is given completes what is typed there. It takes no cluster.
async fn completes(scene: &Scene) -> anyhow::Result<()> {
    let nothing = Person::new(scene, "nothing", Path::new("/nowhere/kubeconfig"))?;
    let script = scene.folder.join("completions");
    let text = nothing.gets(&["completions", "bash"]).await?;
    private::write(&script, text.as_bytes())?;
    for (line, expected) in [
        ("kubectl-fairlead de", "deny describe devices"),
        ("kubectl-fairlead artifact g", "get"),
        ("kubectl-fairlead devices --all", "--all-namespaces"),
    ] {
        let ask = format!(
            "source '{}'; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             complete=$(complete -p kubectl-fairlead | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $complete kubectl-fairlead \"${{COMP_WORDS[COMP_CWORD]}}\" kubectl-fairlead; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\" | sort | paste -sd ' '",
            script.display()
        );
        let output = bash(&ask).await?;
        let completed = String::from_utf8_lossy(&output.stdout);
        ensure!(completed.trim() == expected, "{line}: {output:?}");
    }
    // Who has seen enough of it hears no complaint.
    let program = scene.fixture.programs().path("kubectl-fairlead");
    let output = bash(&format!(
        "'{}' completions fish | head -n 1",
        program.display()
    ))
    .await?;
    ensure!(
        output.stdout.starts_with(b"# ") && output.stderr.is_empty(),
        "{output:?}"
    );
    Ok(())
}

async fn bash(script: &str) -> anyhow::Result<std::process::Output> {
    tokio::process::Command::new("bash")
        .args(["--norc", "-c", script])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run bash")
}
