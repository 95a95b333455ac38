//! Codes and decisions: what is shown, what is asked, and what stopping in each moment leaves behind.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::v1alpha1::pairing_code::CodePhase;
use crds::v1alpha1::pairing_request::RequestPhase;
use crds::{Device, PairingCode, PairingRequest, names};
use e2e::stack::{Agent, Pairing};
use e2e::wait::until;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::person::Person;
use crate::console::{EVERYTHING, may_reveal};
use crate::door::make_code;
use crate::fixture::Scene;

const SOON: Duration = Duration::from_secs(30);
/// What `fairlead-agent pair` ends with when the request was denied.
const DENIED: i32 = 6;
const QUESTION: &str = "Approve? [y/N]";

pub async fn pairs(scene: Scene) -> anyhow::Result<()> {
    // Somebody must draw codes.
    drop(scene.stack().await?);
    let ada = Person::account(&scene, "ada", &EVERYTHING).await?;
    may_reveal(&scene, "ada").await?;
    takes_a_code_back(&scene, &ada).await?;
    at_a_terminal(&scene, &ada).await?;
    let (request, pairing) = leaves_it_to_others(&scene, &ada).await?;
    denies(&ada, &request, pairing).await?;
    approves_later(&scene, &ada).await
}

/// Ctrl-C before anybody came.
async fn takes_a_code_back(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let mut pair = ada.start(&["pair", "--ttl", "300"])?;
    pair.says("waiting for the device").await?;
    let codes: Api<PairingCode> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let made = codes.list(&ListParams::default()).await?.items;
    let [code] = made.as_slice() else {
        anyhow::bail!("{} codes", made.len())
    };
    ensure!(code.spec.ttl_seconds == 300, "{:?}", code.spec);
    pair.interrupt()?;
    let said = pair.ends().await?.with(130, &["was taken back"])?;
    ensure!(codes.list(&ListParams::default()).await?.items.is_empty());
    // The code is on standard output, and there alone.
    let pin = said
        .out()?
        .lines()
        .find_map(|line| line.strip_prefix("PIN  "))
        .with_context(|| format!("no PIN: {said:?}"))?;
    ensure!(!said.err.contains(pin), "the PIN is on standard error");
    Ok(())
}

/// The URI of the one code that is good, as the administrator of the cluster reads it.
async fn uri(scene: &Scene) -> anyhow::Result<String> {
    let codes: Api<PairingCode> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let code = until("one code is good", SOON, async || {
        let mut codes = codes.list(&ListParams::default()).await?.items;
        codes.retain(|code| {
            let status = code.status.as_ref();
            status.and_then(|status| status.phase) == Some(CodePhase::Active)
        });
        ensure!(codes.len() == 1, "{} codes are", codes.len());
        Ok(codes.pop())
    })
    .await?
    .name_any();
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let data = secrets.get(&names::code_secret(&code)).await?.data;
    let uri = data.and_then(|mut data| data.remove("uri"));
    String::from_utf8(uri.context("no URI")?.0).context("the URI is not text")
}

/// What is asked is about what the device shows, too; y ends with a device that is there, and as was typed.
async fn at_a_terminal(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    let typed = [
        "pair",
        "--name",
        "lamp-1",
        "--grants",
        "echo,system.health",
        "--labels",
        "site=harbour",
    ];
    let mut pair = ada.sits_at(&typed, &[])?;
    let shown = pair.sees("waiting for the device").await?;
    let uri = uri(scene).await?;
    ensure!(
        shown.contains(&format!("URI  {uri}\n")),
        "another URI is shown"
    );
    ensure!(
        shown.contains('\u{2588}') || shown.contains('\u{2580}'),
        "no QR code"
    );
    let mut agent = scene.agent("lamp").await?;
    let mut pairing = agent.pair(&uri, None)?;
    let shown = pair.sees(QUESTION).await?;
    let words = words(&agent).await?;
    for part in [
        words.as_str(),
        "127.0.0.1",
        "asks to be    lamp",
        "echo (Automatic)",
    ] {
        ensure!(shown.contains(part), "{part} is not shown:\n{shown}");
    }
    pair.types("y")?;
    pairing.paired(SOON).await?;
    pair.sees("waiting for it to be there").await?;
    agent.run()?;
    let (code, shown) = pair.ends().await?;
    ensure!(
        code == Some(0) && shown.contains("lamp-1 is Online\ndevice.fairlead.dev/lamp-1\n"),
        "{code:?}\n{shown}"
    );
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let device = devices.get("lamp-1").await?;
    ensure!(
        device.spec.grants.capabilities == ["echo", "system.health"]
            && device
                .labels()
                .get("site")
                .is_some_and(|site| site == "harbour"),
        "{device:?}"
    );
    agent.stop().await
}

/// The words of its key, as the device says them.
async fn words(agent: &Agent) -> anyhow::Result<String> {
    let status = agent.status().await?;
    let words = status["publicKeyWords"].as_str();
    words
        .map(str::to_owned)
        .with_context(|| format!("no words: {status}"))
}

/// Ctrl-C in the place of an answer decides nothing: it waits, and everybody who decides sees it.
async fn leaves_it_to_others(scene: &Scene, ada: &Person) -> anyhow::Result<(String, Pairing)> {
    let mut pair = ada.sits_at(&["pair"], &[])?;
    pair.sees("waiting for the device").await?;
    let agent = scene.agent("kiosk").await?;
    let pairing = agent.pair(&uri(scene).await?, None)?;
    pair.sees(QUESTION).await?;
    pair.interrupt()?;
    let (code, shown) = pair.ends().await?;
    ensure!(
        code == Some(130) && shown.contains("not approved; it waits"),
        "{code:?}\n{shown}"
    );
    let named = ada.gets(&["pending", "-o", "name"]).await?;
    let request = named
        .trim()
        .strip_prefix("pairingrequest.fairlead.dev/")
        .with_context(|| format!("not one request: {named}"))?
        .to_owned();
    let words = words(&agent).await?;
    for all in [false, true] {
        let shown = if all {
            // All namespaces are for who may see them.
            let admin = Person::new(scene, "admin", scene.fixture.cluster().kubeconfig())?;
            admin.gets(&["pending", "-A", "-o", "wide"]).await?
        } else {
            ada.gets(&["pending"]).await?
        };
        let row = shown
            .lines()
            .find(|line| line.contains(&request))
            .with_context(|| format!("it is not there:\n{shown}"))?;
        ensure!(row.contains(&words) && row.contains("kiosk"), "{shown}");
        ensure!(all == row.starts_with(&scene.namespace), "{shown}");
    }
    Ok((request, pairing))
}

async fn denies(ada: &Person, request: &str, mut pairing: Pairing) -> anyhow::Result<()> {
    let deny = ["deny", request, "--reason", "not one of ours"];
    ada.says(&deny).await?.with(0, &["denied"])?;
    let status = tokio::time::timeout(SOON, pairing.process().wait())
        .await
        .context("the agent goes on")??;
    ensure!(status.code() == Some(DENIED), "{status}");
    ensure!(pairing.process().tail().contains("not one of ours"));
    ada.says(&["approve", request, "--yes"])
        .await?
        .with(1, &["is Denied", "must ask again"])?;
    let said = ada.says(&["pending"]).await?.with(0, &["nothing waits"])?;
    ensure!(said.out.is_empty(), "{said:?}");
    Ok(())
}

/// Of a code that somebody else made; what is no y is no yes.
async fn approves_later(scene: &Scene, ada: &Person) -> anyhow::Result<()> {
    make_code(scene, "later", json!({})).await?;
    let agent = scene.agent("late").await?;
    let mut pairing = agent.pair(&uri(scene).await?, None)?;
    let requests: Api<PairingRequest> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let request = until("the request is there", SOON, async || {
        let pending = ListParams::default().fields("status.phase=Pending");
        Ok(requests.list(&pending).await?.items.pop())
    })
    .await?
    .name_any();
    let said = ada.says_to(&["approve", &request], "yep\n").await?;
    let said = said.with(8, &["not approved", &words(&agent).await?])?;
    ensure!(said.out.is_empty(), "{said:?}");
    let undecided = requests.get(&request).await?.status.unwrap_or_default();
    ensure!(undecided.approval.is_none(), "{undecided:?}");
    let approve = ["approve", &request, "--name", "late-1", "--grants", "none"];
    ada.says_to(&approve, "y\n").await?.with(0, &["approved"])?;
    pairing.paired(SOON).await?;
    let issued = requests.get(&request).await?.status.unwrap_or_default();
    ensure!(
        issued.phase == RequestPhase::Issued
            && issued
                .device_ref
                .is_some_and(|device| device.name == "late-1"),
        "it was not named so"
    );
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let grants = devices.get("late-1").await?.spec.grants;
    ensure!(grants.capabilities.is_empty(), "{grants:?}");
    Ok(())
}
