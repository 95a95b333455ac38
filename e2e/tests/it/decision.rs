//! What an approval is worth: it holds for what was shown, and for no longer than that was to be decided on.
//!
//! Some requests here are made with the gateways' own account, as by a gateway that was taken over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::v1alpha1::pairing_request::RequestPhase;
use crds::v1alpha1::{PairingRequestSpec, PairingRequestStatus};
use crds::{Device, PairingCode, PairingRequest, conditions, digest};
use e2e::cluster::Cluster;
use e2e::install::SYSTEM_NAMESPACE;
use e2e::stranger::Stranger;
use e2e::wait::until;
use jiff::SignedDuration;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use pairing::code::PairingCode as Code;
use proto::node::enroll_response::Step as Answer;
use rcgen::CertificateParams;
use serde_json::{Value, json};

use crate::door::{approve, make_code, status_of};
use crate::fixture::{Fixture, Scene};

const SOON: Duration = Duration::from_secs(30);
/// How long a request waits, from the making of its code: long enough for everything, or for a proof and little more.
const LONG: SignedDuration = SignedDuration::from_mins(15);
const BRIEF: SignedDuration = SignedDuration::from_secs(20);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "decision::a_name_that_is_no_digest_of_what_it_shows_fails_though_all_else_is_right",
            misnamed,
        ),
        fixture.trial(
            "decision::an_approval_of_another_spec_issues_nothing_and_one_of_this_spec_does",
            other_spec,
        ),
        fixture.trial(
            "decision::a_request_that_nobody_decides_on_expires_and_the_device_is_told",
            expires,
        ),
    ]
}

pub fn requests(scene: &Scene) -> Api<PairingRequest> {
    Api::namespaced(scene.client.clone(), &scene.namespace)
}

/// A stranger that proved a code and has not yet said what it asks for.
pub async fn admitted(scene: &Scene, code: &str) -> anyhow::Result<Stranger> {
    let gateways = scene.gateways().await?;
    let secret: Code = make_code(scene, code, json!({})).await?;
    let stranger = Stranger::new()?;
    let mut exchange = stranger.enroll(&gateways[0]).await?;
    exchange.prove(&secret).await?;
    // Not before: what it says last would be lost with the connection.
    until("the proof is counted", SOON, async || {
        Ok((status_of(scene, code).await?.uses == 1).then_some(()))
    })
    .await?;
    Ok(stranger)
}

/// What a gateway would write for it.
async fn spec(
    scene: &Scene,
    stranger: &Stranger,
    code: &str,
    waits: SignedDuration,
) -> anyhow::Result<PairingRequestSpec> {
    let codes: Api<PairingCode> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let made_at = codes.get(code).await?.metadata.creation_timestamp;
    let made_at = made_at.context("the code was made at no time")?.0;
    let csr = CertificateParams::default().serialize_request(stranger.key())?;
    Ok(serde_json::from_value(json!({
        "csr": csr.pem()?,
        "publicKeySha256": stranger.fingerprint().to_string(),
        "pairingCodeRef": { "name": code },
        "method": "Pin",
        "requestedName": code,
        "capabilities": [{ "name": "echo" }],
        "source": { "gateway": "gateway-0", "remoteAddress": "192.0.2.7" },
        "expiresAt": (made_at + waits).to_string(),
    }))?)
}

/// Makes a request with the gateways' account.
async fn make(scene: &Scene, name: &str, spec: PairingRequestSpec) -> anyhow::Result<()> {
    let path = scene.folder.join("gateway.kubeconfig");
    let cluster = scene.fixture.cluster();
    cluster
        .service_account_kubeconfig(SYSTEM_NAMESPACE, crds::names::GATEWAY, &path)
        .await?;
    let gateway = Cluster::connect(&path, cluster.kubectl()).await?.client();
    let request = PairingRequest {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    Api::namespaced(gateway, &scene.namespace)
        .create(&PostParams::default(), &request)
        .await
        .context("make a request as a gateway")?;
    Ok(())
}

/// A request for that stranger that is as it should be, but for its name: gives both.
pub async fn misname(
    scene: &Scene,
    stranger: &Stranger,
    code: &str,
) -> anyhow::Result<(String, PairingRequestSpec)> {
    let spec = spec(scene, stranger, code, LONG).await?;
    let right = digest::request_name(&digest::of_spec(&spec)?);
    let last = if right.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &right[..right.len() - 1]);
    make(scene, &wrong, spec.clone()).await?;
    Ok((wrong, spec))
}

/// The end of a request that gave nothing: why.
pub async fn failed(scene: &Scene, name: &str) -> anyhow::Result<String> {
    let status = ended(scene, name, RequestPhase::Failed).await?;
    let why = conditions::find(&status.conditions, conditions::READY);
    let why = why.context("no condition says why")?.reason.clone();
    no_device(scene).await?;
    Ok(why)
}

async fn ended(
    scene: &Scene,
    name: &str,
    phase: RequestPhase,
) -> anyhow::Result<PairingRequestStatus> {
    let requests = requests(scene);
    let status = until(&format!("{name} is {phase:?}"), SOON, async || {
        let status = requests.get(name).await?.status.unwrap_or_default();
        ensure!(status.phase == phase, "{:?}", status.phase);
        Ok(Some(status))
    })
    .await?;
    ensure!(
        status.certificate.is_none() && status.device_ref.is_none(),
        "{status:?}"
    );
    Ok(status)
}

async fn no_device(scene: &Scene) -> anyhow::Result<()> {
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let there = devices.list(&ListParams::default()).await?.items;
    ensure!(there.is_empty(), "{there:?}");
    Ok(())
}

/// The answer to an approval that comes too late.
async fn too_late(scene: &Scene, name: &str, phase: &str) -> anyhow::Result<()> {
    let refused = approve(scene, name).await.err();
    let refused = refused.context("a decision was taken")?.to_string();
    let expected = format!("the request is {phase} and takes no decision any more");
    ensure!(refused.contains(&expected), "{refused}");
    Ok(())
}

async fn misnamed(scene: Scene) -> anyhow::Result<()> {
    let stranger = admitted(&scene, "shown").await?;
    let (wrong, spec) = misname(&scene, &stranger, "shown").await?;
    let why = failed(&scene, &wrong).await?;
    ensure!(why == "NameIsNotDigest", "{why}");
    too_late(&scene, &wrong, "Failed").await?;

    // It was the name alone.
    let right = digest::request_name(&digest::of_spec(&spec)?);
    make(&scene, &right, spec).await?;
    approve(&scene, &right).await?;
    let requests = requests(&scene);
    until("the right name is Issued", SOON, async || {
        let status = requests.get(&right).await?.status.unwrap_or_default();
        ensure!(status.phase == RequestPhase::Issued, "{status:?}");
        Ok(status.certificate)
    })
    .await?;
    Ok(())
}

/// Approves what has this digest.
async fn approve_spec(scene: &Scene, name: &str, digest: &str) -> anyhow::Result<()> {
    let approval: Value =
        json!({ "status": { "approval": { "decision": "Approved", "specDigest": digest } } });
    requests(scene)
        .patch_status(name, &PatchParams::default(), &Patch::Merge(approval))
        .await?;
    Ok(())
}

async fn other_spec(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let ask = async |name: &str| {
        let code = make_code(&scene, name, json!({})).await?;
        let stranger = Stranger::new()?;
        let mut exchange = stranger.apply(&gateways[0], &code, name).await?;
        let Answer::Pending(pending) = exchange.next().await? else {
            bail!("not pending")
        };
        let digest = until("the request shows its digest", SOON, async || {
            let status = requests(&scene).get(&pending.request).await?.status;
            Ok(status.and_then(|status| status.spec_digest))
        })
        .await?;
        Ok((exchange, pending.request, digest))
    };
    let (mut one, first, digest_of_first) = ask("first").await?;
    let (mut other, second, digest_of_second) = ask("second").await?;

    approve_spec(&scene, &first, &digest_of_second).await?;
    let why = failed(&scene, &first).await?;
    ensure!(why == "SpecChanged", "{why}");
    let Answer::Failed(told) = one.next().await? else {
        bail!("the device is not told")
    };
    ensure!(told.reason.contains("another spec"), "{told:?}");

    let shown = requests(&scene).get(&second).await?;
    ensure!(
        digest_of_second == digest::of_spec(&shown.spec)? && digest_of_second != digest_of_first,
        "{digest_of_second} is not that of {second}"
    );
    approve_spec(&scene, &second, &digest_of_second).await?;
    other.issued().await?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let there = devices.list(&ListParams::default()).await?.items;
    let there: Vec<_> = there.iter().map(ResourceExt::name_any).collect();
    ensure!(there == ["second"], "{there:?}");
    Ok(())
}

async fn expires(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let stranger = admitted(&scene, "brief").await?;
    let spec = spec(&scene, &stranger, "brief", BRIEF).await?;
    let name = digest::request_name(&digest::of_spec(&spec)?);
    make(&scene, &name, spec).await?;
    let mut exchange = stranger.enroll(&gateways[1]).await?;
    let Answer::Pending(pending) = exchange.resume().await? else {
        bail!("not pending")
    };
    ensure!(pending.request == name, "{pending:?}");
    let told = exchange.next().await?;
    ensure!(matches!(told, Answer::Expired(_)), "{told:?}");
    ended(&scene, &name, RequestPhase::Expired).await?;
    too_late(&scene, &name, "Expired").await?;
    no_device(&scene).await
}
