//! The examples of the client, as whoever learns from them runs them: against the consoles of real gateways, with the rights
//! of an account, to the end that they promise.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use e2e::private;
use e2e::process::Program;
use e2e::wait::until;
use libtest_mimic::Trial;

use crate::agent::run;
use crate::console::{EVERYTHING, consoles, may_reveal, token};
use crate::fixture::{Fixture, Scene};
use crate::plugin::person::{Running, Said};

const SOON: Duration = Duration::from_secs(30);
/// What its trials begin with.
pub const TOPIC: &str = "client_examples::";

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "client_examples::each_runs_to_the_end_that_it_promises",
        learned_from,
    )]
}

/// Somebody with a token in a file, who asks one console.
struct Learner<'a> {
    scene: &'a Scene,
    console: String,
    ca: PathBuf,
    token: PathBuf,
}

impl Learner<'_> {
    fn start(&self, example: &str, arguments: &[&str]) -> anyhow::Result<Running> {
        let folder = &self.scene.folder;
        let number = std::fs::read_dir(folder)?.count();
        let out = folder.join(format!("{example}-{number}.out"));
        let program = Program::new(
            example,
            self.scene.fixture.programs().example(example),
            folder.join(format!("{example}-{number}.err")),
        )
        .output(&out)
        .env("FAIRLEAD_CONSOLE", &self.console)
        .env("FAIRLEAD_CONSOLE_CA", &self.ca)
        .env("FAIRLEAD_TOKEN_FILE", &self.token)
        .args(arguments);
        Running::of(&program, out)
    }

    async fn says(&self, example: &str, arguments: &[&str]) -> anyhow::Result<Said> {
        self.start(example, arguments)?.ends().await
    }
}

async fn learned_from(scene: Scene) -> anyhow::Result<()> {
    let (urls, pem) = consoles(&scene).await?;
    let [one, other] = urls.as_slice() else {
        bail!("not two gateways: {urls:?}")
    };
    let (ca, path) = (scene.folder.join("ca.crt"), scene.folder.join("token"));
    private::write(&ca, &pem)?;
    let token = token(&scene, "ada", &EVERYTHING).await?;
    may_reveal(&scene, "ada").await?;
    private::write(&path, token.as_bytes())?;
    let learner = |console: &str| Learner {
        scene: &scene,
        console: console.to_owned(),
        ca: ca.clone(),
        token: path.clone(),
    };
    let ada = learner(one);
    let agent = pairs(&ada).await?;
    let mut agent = run(&scene, "lamp", agent).await?;
    invokes_and_watches(&ada, &learner(other)).await?;
    lists(&ada).await?;
    agent.stop().await
}

async fn pairs(ada: &Learner<'_>) -> anyhow::Result<e2e::stack::Agent> {
    let scene = ada.scene;
    let namespace = scene.namespace.as_str();
    let line = [
        "--namespace",
        namespace,
        "--name",
        "lamp",
        "--yes",
        "--timeout",
        "60",
    ];
    let mut pair = ada.start("pair", &line)?;
    let shown = pair.shows("\nURI ").await?;
    let uri = shown
        .lines()
        .find_map(|line| line.strip_prefix("URI "))
        .context("no URI")?;
    let agent = scene.agent("kiosk").await?;
    let mut pairing = agent.pair(uri, None)?;
    let said = pair.ends().await?.with(0, &[])?;
    pairing.paired(SOON).await?;
    let words = agent.status().await?["publicKeyWords"].clone();
    let words = words.as_str().context("no words")?;
    for part in [
        "asks to be kiosk\n".to_owned(),
        format!("its key: {words}\n"),
        format!("approved {namespace}."),
        format!("device {namespace}.lamp\n"),
    ] {
        ensure!(said.out()?.contains(&part), "{part} is not said: {said:?}");
    }
    Ok(agent)
}

async fn invokes_and_watches(ada: &Learner<'_>, elsewhere: &Learner<'_>) -> anyhow::Result<()> {
    let namespace = ada.scene.namespace.as_str();
    let device = format!("{namespace}.lamp");
    // The keys of sessions come a moment after the gateway.
    until("logins are taken", SOON, async || {
        let login = ["--namespace", namespace, "--session"];
        ada.says("inventory", &login).await?.with(0, &[]).map(Some)
    })
    .await?;
    let mut watch = elsewhere.start("watch", &["--namespace", namespace, "--count", "3"])?;
    watch.shows(" hello ").await?;
    let echo = [device.as_str(), "echo", "--input", "{\"a\":1}", "--session"];
    // How many events one makes depends on how fast the device is; two make more than it waits for.
    for _ in 0..2 {
        let said = ada.says("invoke", &echo).await?.with(0, &[])?;
        let (first, output) = said.out()?.split_once('\n').context("not two lines")?;
        ensure!(
            first.starts_with(&format!("{namespace}.")) && first.ends_with(" Succeeded"),
            "{said:?}"
        );
        ensure!(output == "{\"a\":1}\n", "{said:?}");
    }
    let watched = watch.ends().await?.with(0, &[])?;
    let events: Vec<Vec<&str>> = watched
        .out()?
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    ensure!(
        events.len() == 3
            && events
                .iter()
                .any(|event| event[1].starts_with("invocation")),
        "{watched:?}"
    );
    // From there it goes on at another gateway, with what came next.
    let after = [
        "--namespace",
        namespace,
        "--after",
        events[1][0],
        "--count",
        "2",
    ];
    let resumed = ada.says("watch", &after).await?.with(0, &[])?;
    ensure!(
        resumed.out()?.contains(&events[2][1..].join(" ")),
        "{resumed:?} after {watched:?}"
    );

    let unknown = [device.as_str(), "lamp.dance"];
    let said = ada.says("invoke", &unknown).await?.with(1, &[])?;
    ensure!(
        said.out()?.contains(" Failed\nCapabilityNotDeclared: "),
        "{said:?}"
    );
    Ok(())
}

/// With what kubectl would use, where there is no token.
async fn lists(ada: &Learner<'_>) -> anyhow::Result<()> {
    let scene = ada.scene;
    let kubeconfig = scene.folder.join("ada.kubeconfig");
    let cluster = scene.fixture.cluster();
    cluster
        .service_account_kubeconfig(&scene.namespace, "ada", &kubeconfig)
        .await?;
    let out = scene.folder.join("inventory.out");
    let program = Program::new(
        "inventory",
        scene.fixture.programs().example("inventory"),
        scene.folder.join("inventory.err"),
    )
    .output(&out)
    .env("KUBECONFIG", &kubeconfig)
    .args(["--console", &ada.console, "--namespace", &scene.namespace])
    .arg("--ca")
    .arg(&ada.ca);
    let said = Running::of(&program, out)?.ends().await?.with(0, &[])?;
    let lamp = format!("{}.lamp Online\n", scene.namespace);
    ensure!(
        said.out()?.starts_with("1 devices, 1 online\n") && said.out()?.ends_with(&lamp),
        "{said:?}"
    );
    // Of all namespaces is for who may see all.
    let said = ada.says("inventory", &[]).await?;
    said.with(1, &["Error: "])?;
    Ok(())
}
