//! Invocations: one device with a capability for each way to end, and what the process ends with then.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::v1alpha1::capability_invocation::InvocationPhase;
use e2e::capabilities::declare;
use e2e::private;
use e2e::stack::Agent;
use e2e::wait::until;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use super::person::{Person, Said};
use crate::agent::{pair, run};
use crate::console::EVERYTHING;
use crate::fixture::Scene;
use crate::invocation;

const SOON: Duration = Duration::from_secs(30);
/// More than a resource takes.
const BYTES: usize = 300_000;
/// Says how far it is for as long as it is let.
const PATIENT: &str = "while :; do echo 'fairlead-progress 40 warming up' >&2; sleep 0.2; done\n";

pub async fn invokes(scene: Scene) -> anyhow::Result<()> {
    let mut agent = device(&scene).await?;
    let ada = Person::account(&scene, "ada", &EVERYTHING).await?;
    takes_inputs(&scene, &ada).await?;
    shows_what_was_made(&scene, &ada).await?;
    fails(&scene, &ada).await?;
    mistypes(&scene, &ada).await?;
    on_several(&ada).await?;
    waits_for_a_person(&agent, &ada).await?;
    is_cancelled(&scene, &ada).await?;
    fetches(&scene, &ada).await?;
    agent.stop().await
}

async fn device(scene: &Scene) -> anyhow::Result<Agent> {
    let large = format!(
        "head -c {BYTES} /dev/urandom | tee {}\n",
        copy(scene).display()
    );
    let mut declared = String::from(
        "[[capability]]\nname = \"lamp.ask\"\ncommand = \"/bin/cat\"\nmediation = \"mediated\"\n\n",
    );
    for (name, script) in [
        ("lamp.fail", "echo 'the bulb is gone' >&2; exit 1\n"),
        ("lamp.wait", PATIENT),
        ("lamp.large", large.as_str()),
    ] {
        let path = scene.folder.join(name);
        private::write(&path, script.as_bytes())?;
        // A string takes everything.
        let _ = write!(
            declared,
            "[[capability]]\nname = \"{name}\"\ncommand = \"/bin/sh\"\nargs = [\"{}\"]\nenv = [\"PATH\"]\n\
             max_output_bytes = 1048576\n\n",
            path.display()
        );
    }
    let config = declare(&scene.folder, &declared)?;
    let agent = scene.agent("lamp").await?.with_config(&config);
    let agent = pair(scene, "lamp", agent).await?;
    run(scene, "lamp", agent).await
}

fn copy(scene: &Scene) -> PathBuf {
    scene.folder.join("large.copy")
}

/// An argument, a file, standard input; and the output alone, for the next program.
async fn takes_inputs(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let input = scene.folder.join("input.json");
    private::write(&input, b" {\"a\": [1, \"\xc3\xa4\"]} ")?;
    let path = input.to_str().context("a path that is text")?;
    let raw = ["invoke", "lamp", "echo", "-o", "raw"];
    let echo = |more: &[&'static str]| [raw.as_slice(), more].concat();
    let file: Vec<&str> = [raw.as_slice(), &["-f", path]].concat();
    for said in [
        ada.says(&file).await?,
        ada.says(&echo(&["--input", "{\"a\":[1,\"ä\"]}"])).await?,
        ada.says_to(&echo(&["-f", "-"]), "{\"a\":[1,\"ä\"]}")
            .await?,
        ada.says_to(&echo(&["--input", "-"]), "{\"a\":[1,\"ä\"]}")
            .await?,
    ] {
        let said = said.with(0, &["is made", "Succeeded"])?;
        ensure!(said.out()? == "{\"a\":[1,\"ä\"]}\n", "{said:?}");
    }
    let before = invocation::all(scene).list(&ListParams::default()).await?;
    ada.says(&echo(&["--input", "{"]))
        .await?
        .with(1, &["not valid JSON"])?;
    ada.says(&echo(&["-f", "/nowhere"]))
        .await?
        .with(1, &["/nowhere"])?;
    let after = invocation::all(scene).list(&ListParams::default()).await?;
    ensure!(before.items.len() == after.items.len(), "one was made");
    Ok(())
}

fn name_of(said: &Said) -> anyhow::Result<String> {
    let name = said.err.split_whitespace().next();
    name.filter(|name| name.starts_with("inv-"))
        .map(str::to_owned)
        .with_context(|| format!("no name: {said:?}"))
}

async fn shows_what_was_made(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let once = [
        "invoke",
        "lamp",
        "echo",
        "--input",
        "{\"b\":2}",
        "--key",
        "once",
    ];
    let said = ada
        .says(&[once.as_slice(), &["-o", "json"]].concat())
        .await?;
    let said = said.with(0, &[])?;
    let (first, object) = (name_of(&said)?, said.json()?);
    ensure!(
        object["kind"] == "CapabilityInvocation"
            && object["metadata"]["name"] == first.as_str()
            && object["status"]["output"] == json!({ "b": 2 }),
        "{object}"
    );
    let by = format!("system:serviceaccount:{}:ada", scene.namespace);
    ensure!(object["spec"]["requestedBy"] == by.as_str(), "{object}");
    let again = format!("the same key was used before, by {first}");
    let said = ada.says(&once).await?.with(0, &[&again])?;
    ensure!(said.out()? == "{\n  \"b\": 2\n}\n", "{said:?}");

    let said = ada
        .says(&["invoke", "lamp", "echo", "--wait=false"])
        .await?;
    let said = said.with(0, &["is made"])?;
    let name = name_of(&said)?;
    ensure!(
        said.out()? == format!("capabilityinvocation.fairlead.dev/{name}\n"),
        "{said:?}"
    );
    let status = invocation::end(scene, &name).await?;
    ensure!(status.phase == InvocationPhase::Succeeded, "{status:?}");
    Ok(())
}

async fn fails(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let said = ada.says(&["invoke", "lamp", "lamp.fail"]).await?;
    let said = said.with(3, &["Failed", "CapabilityFailed", "the bulb is gone"])?;
    ensure!(said.out.is_empty(), "{said:?}");
    // kubectl waits for any end, and no longer.
    let name = name_of(&said)?;
    let finished = ["wait", "--for=condition=Finished", "--timeout=20s", "-n"];
    let inv = format!("inv/{name}");
    let waits = [finished.as_slice(), &[scene.namespace.as_str(), &inv]].concat();
    scene.fixture.cluster().run_kubectl(&waits).await?;
    is_told(scene, &name).await?;
    let described = ada.gets(&["describe", "lamp"]).await?;
    ensure!(
        described.contains("CapabilityFailed") && described.contains(&scene.namespace),
        "{described}"
    );
    Ok(())
}

/// An end that is no success has an Event, and one alone.
async fn is_told(scene: &Scene, name: &str) -> anyhow::Result<()> {
    let events: Api<Event> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let about = ListParams::default().fields(&format!("regarding.name={name}"));
    let told = until("the end is told", SOON, async || {
        let told = events.list(&about).await?.items;
        Ok((!told.is_empty()).then_some(told))
    })
    .await?;
    let [event] = told.as_slice() else {
        anyhow::bail!("{} events: {told:?}", told.len())
    };
    let note = event.note.as_deref().unwrap_or_default();
    ensure!(
        event.reason.as_deref() == Some("Failed") && note.starts_with("CapabilityFailed: "),
        "{event:?}"
    );
    Ok(())
}

/// What does not exist is an error before anything is made, with the name that is meant.
async fn mistypes(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let number = async || {
        let all = invocation::all(scene).list(&ListParams::default()).await;
        anyhow::Ok(all?.items.len())
    };
    let before = number().await?;
    ada.says(&["invoke", "lmap", "echo"])
        .await?
        .with(1, &["no device lmap in namespace", "did you mean lamp?"])?;
    ada.says(&["invoke", "lamp", "ehco"])
        .await?
        .with(1, &["lamp does not declare ehco; did you mean echo?"])?;
    ada.says(&["describe", "lmap"])
        .await?
        .with(1, &["did you mean lamp?"])?;
    ada.says(&["invoke", "lamp"])
        .await?
        .with(2, &["CAPABILITY"])?;
    ensure!(number().await? == before, "one was made");
    // The gateway says the same to everybody else: what is not declared is not a matter of grants.
    let said = ada
        .says(&["invoke", "lamp", "ehco", "--queue", "60"])
        .await?;
    said.with(3, &["CapabilityNotDeclared", "did you mean echo?"])?;

    // Health and no more, as the policies know and RBAC alone does not.
    let healer = Person::account(scene, "healer", &["fairlead-health-invoker"]).await?;
    let said = healer.says(&["invoke", "lamp", "echo"]).await?;
    said.with(
        1,
        &[
            "run echo on lamp",
            "verbs: [invoke]",
            "resourceNames: [echo]",
        ],
    )?;
    Ok(())
}

/// A line for each device, and the code of the worst.
async fn on_several(ada: &Person) -> anyhow::Result<()> {
    let both = ["invoke", "lamp,oven", "echo", "--input", "{\"c\":3}"];
    let said = ada.says(&both).await?.with(1, &[])?;
    let lines: Vec<&str> = said.out()?.lines().collect();
    ensure!(
        lines.len() == 2
            && lines
                .iter()
                .any(|line| line.starts_with("lamp   Succeeded   inv-")
                    && line.ends_with("   {\"c\":3}"))
            && lines
                .iter()
                .any(|line| line.starts_with("oven   NotMade     -")
                    && line.contains("no device oven")),
        "{said:?}"
    );
    let said = ada.says(&["invoke", "lamp,", "lamp.fail", "-o", "json"]);
    let said = said.await?.with(3, &["CapabilityFailed"])?;
    let list = said.json()?;
    ensure!(
        list["kind"] == "List" && list["items"][0]["status"]["phase"] == "Failed",
        "{list}"
    );
    ada.says(&["invoke", "lamp,oven", "echo", "-o", "raw"])
        .await?
        .with(2, &["-o raw"])?;

    // They are listed, and what runs can be stopped by another process.
    let mut waiting = ada.start(&["invoke", "lamp", "lamp.wait", "--timeout", "120"])?;
    waiting.says("40% warming up").await?;
    let open = ada.gets(&["invocations", "lamp", "--open"]).await?;
    ensure!(
        open.lines().count() == 2 && open.contains("lamp.wait") && open.contains("40%"),
        "{open}"
    );
    let said = ada
        .says(&["cancel", "--device", "lamp"])
        .await?
        .with(0, &[])?;
    ensure!(said.out()?.contains(" Cancelled"), "{said:?}");
    let said = waiting.ends().await?.with(6, &["Cancelled"])?;
    let again = ada.gets(&["cancel", &name_of(&said)?]).await?;
    ensure!(again.contains("had ended before: Cancelled"), "{again}");
    let all = ada.gets(&["invocations"]).await?;
    ensure!(
        all.contains("CapabilityFailed") && all.contains("Succeeded"),
        "{all}"
    );
    let version = ada.gets(&["version"]).await?;
    ensure!(
        version.contains("fairlead.dev/v1alpha1") && version.contains("on 1 devices"),
        "{version}"
    );
    Ok(())
}

async fn waits_for_a_person(agent: &Agent, ada: &Person) -> anyhow::Result<()> {
    let mut asking = ada.start(&["invoke", "lamp", "lamp.ask", "--input", "{}"])?;
    asking.says("waiting for the person at the device").await?;
    let id = until("the person is asked", SOON, async || {
        let shown = agent.call(&["pending", "--output", "json"]).await?;
        let shown: Vec<Value> = serde_json::from_slice(&shown)?;
        Ok(shown
            .first()
            .and_then(|question| question["id"].as_str())
            .map(str::to_owned))
    })
    .await?;
    agent
        .call(&["deny", &id, "--reason", "I am reading"])
        .await?;
    let said = asking.ends().await?.with(4, &["Refused", "I am reading"])?;
    ensure!(said.out.is_empty(), "{said:?}");
    ada.says(&["invoke", "lamp", "lamp.ask", "--timeout", "2"])
        .await?
        .with(5, &["TimedOut", "NoDecision"])?;
    Ok(())
}

async fn is_cancelled(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let mut waiting = ada.start(&["invoke", "lamp", "lamp.wait", "--timeout", "120"])?;
    waiting.says("40% warming up").await?;
    waiting.interrupt()?;
    let said = waiting
        .ends()
        .await?
        .with(6, &["cancelling", "Cancelled"])?;
    let status = invocation::all(scene)
        .get(&name_of(&said)?)
        .await?
        .status
        .unwrap_or_default();
    ensure!(status.phase == InvocationPhase::Cancelled, "{status:?}");

    // As soon as it is made, before anything is heard of it.
    let mut waiting = ada.start(&["invoke", "lamp", "lamp.wait", "--timeout", "120"])?;
    waiting.says("is made").await?;
    waiting.interrupt()?;
    waiting.ends().await?.with(6, &["Cancelled"])?;
    Ok(())
}

/// The console that the Leases name, for who may see them; in a file that is whole or not there, or to the next program.
async fn fetches(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    // Nothing on standard output must not look like an answer.
    ada.says(&["invoke", "lamp", "lamp.large", "-o", "raw"])
        .await?
        .with(1, &["could not be fetched", "leases"])?;
    let said = ada.says(&["invoke", "lamp", "lamp.large"]).await?;
    let said = said.with(0, &["artifact get"])?;
    let name = name_of(&said)?;
    let path = scene.folder.join("large");
    let to = path.to_str().context("a path that is text")?;
    let ca = scene.folder.join("console-ca.crt");
    let (consoles, pem) = crate::console::consoles(scene).await?;
    private::write(&ca, &pem)?;
    let ca = ca.to_str().context("a path that is text")?;
    let get = ["artifact", "get", &name, "--to", to];
    let by_lease = [get.as_slice(), &["--console-ca", ca]].concat();

    ada.says(&by_lease)
        .await?
        .with(1, &["leases", "--console URL"])?;
    sees_leases(scene, "ada").await?;
    // Before anybody is told whom to believe but the cluster's own authority: this console has another.
    let console = consoles.first().context("no console")?.as_str();
    ada.says(&[get.as_slice(), &["--console", console]].concat())
        .await?
        .with(1, &["cannot be reached"])?;
    ensure!(!path.exists(), "a part of it is there");

    let size = format!("{BYTES} bytes in {to}");
    ada.says(&by_lease).await?.with(0, &[&size])?;
    let written = std::fs::read(copy(scene))?;
    ensure!(written.len() == BYTES && std::fs::read(&path)? == written);
    let piped = ["artifact", "get", &name, "--to", "-", "--console-ca", ca];
    let said = ada.says(&piped).await?.with(0, &[])?;
    ensure!(said.out == written, "{} bytes", said.out.len());

    // A link stays a link.
    let link = scene.folder.join("link");
    std::os::unix::fs::symlink(&path, &link)?;
    std::fs::write(&path, "old")?;
    let through = link.to_str().context("a path that is text")?;
    let linked = [
        "artifact",
        "get",
        &name,
        "--to",
        through,
        "--console-ca",
        ca,
    ];
    ada.says(&linked).await?.with(0, &[])?;
    ensure!(std::fs::symlink_metadata(&link)?.is_symlink() && std::fs::read(&path)? == written);
    let raw = [
        "invoke",
        "lamp",
        "lamp.large",
        "-o",
        "raw",
        "--console-ca",
        ca,
    ];
    let said = ada.says(&raw).await?.with(0, &["Succeeded"])?;
    ensure!(
        said.out == std::fs::read(copy(scene))?,
        "{} bytes",
        said.out.len()
    );

    let none = name_of(&ada.says(&["invoke", "lamp", "echo"]).await?)?;
    ada.says(&["artifact", "get", &none, "--to", to, "--console-ca", ca])
        .await?
        .with(1, &["no artefact"])?;
    with_a_certificate(scene, &get, ca, console).await
}

/// Consoles take tokens: who has another credential is told what to do.
async fn with_a_certificate(
    scene: &Scene,
    get: &[&str],
    ca: &str,
    console: &str,
) -> anyhow::Result<()> {
    let kubeconfig = scene.folder.join("carl.kubeconfig");
    scene.fixture.user_kubeconfig("carl", &[], &kubeconfig)?;
    let carl = Person::new(scene, "carl", Path::new(&kubeconfig))?;
    let more = ["--console-ca", ca, "--console", console];
    carl.says(&[get, &more].concat())
        .await?
        .with(1, &["kubectl create token"])?;
    Ok(())
}

/// Where the consoles are is of the system namespace.
async fn sees_leases(scene: &Scene, account: &str) -> anyhow::Result<()> {
    let name = format!("{}-{account}", scene.namespace);
    let system = e2e::install::SYSTEM_NAMESPACE;
    let roles: Api<Role> = Api::namespaced(scene.client.clone(), system);
    let role = serde_json::from_value(json!({
        "metadata": { "name": name },
        "rules": [
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"] },
            { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"],
              "resourceNames": [crds::names::TRUST_BUNDLE] },
        ],
    }))?;
    roles.create(&PostParams::default(), &role).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(scene.client.clone(), system);
    let binding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": scene.namespace }],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    Ok(())
}
