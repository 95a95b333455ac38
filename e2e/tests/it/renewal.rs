//! A device's next certificate, over the stream that it holds with the one before.
//!
//! Most of it with a device that is played, whose certificate only looks old. One trial has a real agent renew by its own
//! clock, with an operator that issues certificates for minutes; it runs alone, for it takes the others' operator away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::Device;
use e2e::admin;
use e2e::cluster::Cluster;
use e2e::install::SYSTEM_NAMESPACE;
use e2e::process::{Process, Program};
use e2e::stack::{Agent, TRUST_DOMAIN, loopback};
use e2e::stranger::{DeviceStream, Shown, Stranger};
use e2e::wait::{now, until};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use pairing::bundle::SignedBundle;
use pairing::key::KeyFingerprint;
use proto::node::Renew;
use proto::node::device_event::Event as Said;
use proto::node::gateway_event::Event as Heard;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::agent::{invoke, online, succeeded};
use crate::door::pair;
use crate::fixture::{Fixture, Scene};

const SOON: Duration = Duration::from_secs(30);
/// Of a certificate that lives for a day: late enough to ask for the next.
const AGE: SignedDuration = SignedDuration::from_hours(20);

/// Read by debug builds of the operator: how long certificates of devices are valid from now on, in seconds. They also have
/// the five minutes before, so an agent renews such a one from a moment to forty seconds after it got it.
const BRIEF: (&str, &str) = ("FAIRLEAD_TEST_CERTIFICATE_SECONDS", "155");
const NEARLY: SignedDuration = SignedDuration::from_secs(2);
/// A gateway lets a device's next request take the place of one before no sooner.
const BETWEEN_REQUESTS: SignedDuration = SignedDuration::from_secs(20);
const DUE_WITHIN: Duration = Duration::from_mins(1);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial("renewal::a_certificate_is_renewed_over_the_stream", renewed),
        fixture.trial("renewal::one_for_another_key_is_not_issued", another_key),
    ]
}

/// Runs alone.
pub fn upheavals(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "renewal::an_agent_renews_though_it_and_its_gateway_are_killed_on_the_way",
        killed,
    )]
}

/// Lets the device's certificate look older, as only the operator can.
pub async fn age(scene: &Scene, device: &str) -> anyhow::Result<()> {
    let path = scene.folder.join("operator.kubeconfig");
    let cluster = scene.fixture.cluster();
    cluster
        .service_account_kubeconfig(SYSTEM_NAMESPACE, crds::names::OPERATOR, &path)
        .await?;
    let operator = Cluster::connect(&path, cluster.kubectl()).await?.client();
    let devices: Api<Device> = Api::namespaced(operator, &scene.namespace);
    until("the certificate is in the status", SOON, async || {
        let status = devices.get(device).await?.status.unwrap_or_default();
        let certificate = status.certificate.context("no certificate")?;
        let older = json!({ "status": { "certificate": {
            "notBefore": certificate.not_before.0 - AGE,
            "notAfter": certificate.not_after.0 - AGE,
        } } });
        devices
            .patch_status(device, &PatchParams::default(), &Patch::Merge(older))
            .await?;
        Ok(Some(()))
    })
    .await
}

pub async fn stream(
    scene: &Scene,
    stranger: &Stranger,
    chain: &[CertificateDer<'static>],
) -> anyhow::Result<DeviceStream> {
    let gateways = scene.gateways().await?;
    let connection = stranger
        .connect(&gateways[0], Shown::Issued(chain.to_vec()))
        .await?;
    DeviceStream::open(connection, &["echo"]).await
}

async fn renewed(scene: Scene) -> anyhow::Result<()> {
    let stranger = Stranger::new()?;
    let (chain, device) = pair(&scene, &stranger, "lasting").await?;
    age(&scene, &device).await?;
    let mut old = stream(&scene, &stranger, &chain).await?;
    let pkcs10 = stranger.pkcs10()?;
    old.say(Said::Renew(Renew { pkcs10 })).await?;
    let Heard::Renewed(renewed) = old.next().await? else {
        bail!("no certificate")
    };
    let signed = SignedBundle::from_bytes(&renewed.signed_bundle)?;
    let next: Vec<_> = renewed
        .chain
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    ensure!(
        !next.is_empty() && next.first() != chain.first(),
        "the same certificate"
    );
    let authority = next.last().context("no authority")?;
    let pin = KeyFingerprint::of_certificate(authority).ok();
    signed.verify_pinned(pin.context("no certificate")?, TRUST_DOMAIN)?;
    stream(&scene, &stranger, &next).await?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let status = devices.get(&device).await?.status.unwrap_or_default();
    let generation = status.certificate.map(|certificate| certificate.generation);
    ensure!(generation == Some(2), "generation {generation:?}");
    Ok(())
}

async fn another_key(scene: Scene) -> anyhow::Result<()> {
    let stranger = Stranger::new()?;
    let (chain, device) = pair(&scene, &stranger, "faithful").await?;
    age(&scene, &device).await?;
    let mut stream = stream(&scene, &stranger, &chain).await?;
    let pkcs10 = Stranger::new()?.pkcs10()?;
    stream.say(Said::Renew(Renew { pkcs10 })).await?;
    let cut = stream.next().await.err().context("the stream goes on")?;
    ensure!(cut.code() == tonic::Code::InvalidArgument, "{cut}");
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let status = devices.get(&device).await?.status.unwrap_or_default();
    ensure!(status.renewal.is_none(), "{:?}", status.renewal);
    Ok(())
}

async fn killed(scene: Scene) -> anyhow::Result<()> {
    let mut operator = brief_operator(&scene).await?;
    let renewed = renewed_twice(&scene, &mut operator).await;
    // Whatever became of it, the others have their programs back.
    operator.signal(Signal::CONT)?;
    operator.terminate(SOON).await?;
    let mut stack = scene.stack().await?;
    let stack = stack.as_mut().context("no stack")?;
    stack.operator().start_again().await?;
    for gateway in stack.gateways() {
        if gateway.service().process().ended()?.is_some() {
            gateway.service().start_again().await?;
        }
    }
    renewed
}

/// In place of the others' one.
async fn brief_operator(scene: &Scene) -> anyhow::Result<Process> {
    let mut stack = scene.stack().await?;
    let stack = stack.as_mut().context("no stack")?;
    stack.operator().process().terminate(SOON).await?;
    let gateway = stack.gateways()[0].address().to_owned();
    let admin_address = loopback()?;
    let operator = Program::new(
        "the brief operator",
        stack.programs().path("fairlead-operator"),
        scene.folder.join("operator.log"),
    )
    .env("KUBECONFIG", stack.folder().join("operator.kubeconfig"))
    .env(BRIEF.0, BRIEF.1)
    .args(["--namespace", SYSTEM_NAMESPACE])
    .args(["--trust-domain", TRUST_DOMAIN])
    .args(["--gateway-address", &gateway])
    .args(["--admin-address", &admin_address])
    .spawn()?;
    until("the brief operator is ready", SOON, async || {
        admin::get(&admin_address, "/ready").await.map(Some)
    })
    .await?;
    Ok(operator)
}

async fn renewed_twice(scene: &Scene, operator: &mut Process) -> anyhow::Result<()> {
    let mut agent = online(scene, "lasting").await?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);

    asked(&devices, &agent, operator).await?;
    agent.kill().await?;
    operator.signal(Signal::CONT)?;
    agent.run()?;
    has(&devices, &agent, 2).await?;
    invoke(scene, "lasting", "after-the-agent").await?;
    succeeded(scene, "after-the-agent").await?;

    asked(&devices, &agent, operator).await?;
    let status = devices.get("lasting").await?.status.unwrap_or_default();
    let gateway = status.session.context("no session")?.gateway;
    let mut stack = scene.stack().await?;
    let stack = stack.as_mut().context("no stack")?;
    stack.gateway(&gateway)?.service().kill().await?;
    operator.signal(Signal::CONT)?;
    has(&devices, &agent, 3).await?;
    invoke(scene, "lasting", "after-the-gateway").await?;
    succeeded(scene, "after-the-gateway").await?;
    agent.stop().await
}

/// Lets the agent ask for its next certificate, and leaves it without an answer: the operator stands still from then on.
async fn asked(devices: &Api<Device>, agent: &Agent, operator: &mut Process) -> anyhow::Result<()> {
    let said = agent.status().await?;
    let renews_at = said["certificate"]["renewsAt"].as_str();
    let mut due: Timestamp = renews_at.context("it does not renew")?.parse()?;
    let before = devices.get("lasting").await?.status.unwrap_or_default();
    let request = before.renewal.and_then(|renewal| renewal.requested_at);
    if let Some(request) = request {
        due = due.max(request.0 + BETWEEN_REQUESTS);
    }
    until("the certificate is nearly due", DUE_WITHIN, async || {
        Ok((now() + NEARLY >= due).then_some(()))
    })
    .await?;
    operator.signal(Signal::STOP)?;
    until("the agent asks", SOON, async || {
        let status = devices.get("lasting").await?.status.unwrap_or_default();
        let is_open = status
            .renewal
            .is_some_and(|renewal| renewal.chain.is_none());
        Ok(is_open.then_some(()))
    })
    .await
}

/// The certificate of that generation is the one on the device's disk, and the one that it shows.
async fn has(devices: &Api<Device>, agent: &Agent, generation: i64) -> anyhow::Result<()> {
    until("the device has its next certificate", SOON, async || {
        let status = devices.get("lasting").await?.status.unwrap_or_default();
        let issued = status.certificate.context("no certificate")?;
        ensure!(issued.generation == generation, "{}", issued.generation);
        let said = agent.status().await?;
        let until = said["certificate"]["notAfter"].as_str();
        let until: Timestamp = until.context("no certificate")?.parse()?;
        ensure!(until == issued.not_after.0, "it has one until {until}");
        let session = status.session.context("no session")?;
        Ok(session.ended_at.is_none().then_some(()))
    })
    .await
}
