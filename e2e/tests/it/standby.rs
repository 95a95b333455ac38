//! Several operators: one leads, and another takes over when it dies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::v1alpha1::device::Presence;
use crds::{Device, names};
use e2e::admin;
use e2e::approval::FrontDesk;
use e2e::controlplane::{Binaries, ControlPlane};
use e2e::install::{SYSTEM_NAMESPACE, install};
use e2e::stack::{Agent, Place, Stack};
use e2e::wait::until;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use libtest_mimic::Trial;

use crate::fixture::{Fixture, Scene};

const NAMESPACE: &str = "home";
const SOON: Duration = Duration::from_secs(30);
/// A Lease that nobody renews is free after fifteen seconds.
const TAKES_OVER_WITHIN: Duration = Duration::from_mins(1);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "standby::two_operators_make_one_authority_and_when_the_leader_is_killed_the_other_issues",
        takes_over,
    )]
}

/// Which operator leads, by what each says of itself on its admin port. Of those that run, exactly one may.
async fn leader(admin_ports: &[String]) -> anyhow::Result<usize> {
    let mut leading = Vec::new();
    for (number, address) in admin_ports.iter().enumerate() {
        // One that was killed says nothing.
        let metrics = admin::get(address, "/metrics").await.unwrap_or_default();
        if metrics
            .lines()
            .any(|line| line == "fairlead_operator_leading 1")
        {
            leading.push(number);
        }
    }
    match leading[..] {
        [leader] => Ok(leader),
        _ => bail!("operators {leading:?} lead"),
    }
}

/// The authority's certificate, which everything that was published names.
async fn authority(client: &Client) -> anyhow::Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let bundles: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let of = async |secret: &str, key: &str| {
        let ByteString(pem) = secrets
            .get(secret)
            .await?
            .data
            .and_then(|mut data| data.remove(key))
            .with_context(|| format!("Secret {secret} has no {key}"))?;
        anyhow::Ok(String::from_utf8(pem)?)
    };
    let authority = of(names::CA_SECRET, "tls.crt").await?;
    let of_gateways = of(names::GATEWAY_TLS_SECRET, "ca.crt").await?;
    let of_devices = bundles
        .get(names::TRUST_BUNDLE)
        .await?
        .data
        .and_then(|mut data| data.remove("ca.crt"))
        .context("the trust bundle is empty")?;
    for published in [of_gateways, of_devices] {
        ensure!(
            published.trim() == authority.trim(),
            "another authority was published:\n{published}\nis not\n{authority}"
        );
    }
    Ok(authority)
}

/// Is let in with the certificate that it has.
async fn connects(client: &Client, name: &str, agent: &mut Agent) -> anyhow::Result<()> {
    agent.run()?;
    let devices: Api<Device> = Api::namespaced(client.clone(), NAMESPACE);
    until(&format!("{name} is online"), SOON, async || {
        let status = devices.get(name).await?.status.unwrap_or_default();
        Ok((status.presence == Some(Presence::Online)).then_some(()))
    })
    .await?;
    agent.stop().await
}

/// With a control plane of its own, on which no operator ever was.
async fn takes_over(scene: Scene) -> anyhow::Result<()> {
    let plane = ControlPlane::start(&Binaries::find()?, &scene.folder.join("own")).await?;
    let client = plane.client();
    install(&client).await?;
    let mut stack = start(&scene, &plane, &scene.folder.join("stack")).await?;
    let operators = stack.operators().iter();
    let admin_ports: Vec<_> = operators.map(|one| one.admin().to_owned()).collect();
    let leads = async || leader(&admin_ports).await.map(Some);
    let first = until("one of them leads", SOON, leads).await?;
    let before = authority(&client).await?;
    let desk = FrontDesk::open(client.clone(), NAMESPACE, 2).await?;
    let mut old = stack.agent("paired-before")?;
    desk.pair(&old).await?;

    stack.operators()[first].kill().await?;
    let second = until("the other one leads", TAKES_OVER_WITHIN, leads).await?;
    ensure!(second != first, "the dead one leads");
    let mut new = stack.agent("paired-after")?;
    desk.pair(&new).await?;
    ensure!(
        authority(&client).await? == before,
        "another authority was made"
    );
    connects(&client, "paired-before", &mut old).await?;
    connects(&client, "paired-after", &mut new).await?;

    // The one that comes back stands by.
    stack.operators()[first].start_again().await?;
    let still = leader(&admin_ports).await?;
    ensure!(still == second, "{still} leads, not {second}");
    let stopped = stack.stop().await;
    stopped.and(plane.stop().await)
}

async fn start(scene: &Scene, plane: &ControlPlane, folder: &Path) -> anyhow::Result<Stack> {
    let programs = scene.fixture.programs();
    let places = [Place::on_loopback()?];
    Stack::start_with(plane.cluster(), programs, folder, 2, &places).await
}
