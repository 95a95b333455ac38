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
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use libtest_mimic::Trial;
use serde_json::json;

use crate::fixture::{Fixture, Scene};

const NAMESPACE: &str = "home";
const SOON: Duration = Duration::from_secs(30);
/// A Lease that nobody renews is free after fifteen seconds.
const TAKES_OVER_WITHIN: Duration = Duration::from_mins(1);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "standby::two_operators_make_one_authority_and_when_the_leader_is_killed_the_other_issues",
            takes_over,
        ),
        fixture.trial(
            "standby::an_operator_leads_though_somebody_made_its_lease_before_with_a_duration_of_decades",
            leads_all_the_same,
        ),
    ]
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

/// With a control plane of its own, too: it has the Lease before the operator is there.
async fn leads_all_the_same(scene: Scene) -> anyhow::Result<()> {
    let plane = ControlPlane::start(&Binaries::find()?, &scene.folder.join("own")).await?;
    let client = plane.client();
    // Before there are policies: the policy of the election lets nobody but the operator make it.
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(SYSTEM_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let held: Lease = serde_json::from_value(json!({
        "metadata": { "name": names::OPERATOR_LEASE, "labels": { names::COMPONENT_LABEL: names::COMPONENT_GATEWAY } },
        "spec": {
            "holderIdentity": "gateway-0",
            "leaseDurationSeconds": i32::MAX,
            "acquireTime": "2090-01-01T00:00:00.000000Z",
            "renewTime": "2090-01-01T00:00:00.000000Z",
        },
    }))?;
    leases.create(&PostParams::default(), &held).await?;
    install(&client).await?;

    let mut stack = start_one(&scene, &plane, &scene.folder.join("stack")).await?;
    let desk = FrontDesk::open(client.clone(), NAMESPACE, 1).await?;
    desk.pair(&stack.agent("kiosk")?).await?;
    let lease = leases.get(names::OPERATOR_LEASE).await?;
    let spec = lease.spec.unwrap_or_default();
    ensure!(
        spec.holder_identity
            .as_deref()
            .is_some_and(names::is_operator_identity)
            && spec.lease_duration_seconds == Some(15)
            && lease.metadata.labels.is_none(),
        "{:?} {spec:?}",
        lease.metadata
    );
    let events: Api<Event> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let events = events.list(&ListParams::default()).await?.items;
    let reason = "ElectionLeaseHeldByStranger";
    ensure!(
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some(reason)),
        "{events:?}"
    );
    let metrics = stack.operator().metrics().await?;
    ensure!(metrics.contains(reason), "{metrics}");

    // Once more while it leads: it makes the Lease again, and goes on.
    leases
        .delete(names::OPERATOR_LEASE, &DeleteParams::default())
        .await?;
    until("the Lease is there again", SOON, async || {
        let lease = leases.get_opt(names::OPERATOR_LEASE).await?;
        Ok(lease.and_then(|lease| lease.spec?.holder_identity))
    })
    .await?;
    let metrics = stack.operator().metrics().await?;
    ensure!(metrics.contains("ElectionLeaseGone"), "{metrics}");
    ensure!(
        metrics
            .lines()
            .any(|line| line == "fairlead_operator_leading 1"),
        "{metrics}"
    );
    let stopped = stack.stop().await;
    stopped.and(plane.stop().await)
}

async fn start_one(scene: &Scene, plane: &ControlPlane, folder: &Path) -> anyhow::Result<Stack> {
    let programs = scene.fixture.programs();
    let places = [Place::on_loopback()?];
    Stack::start_with(plane.cluster(), programs, folder, 1, &places).await
}

async fn start(scene: &Scene, plane: &ControlPlane, folder: &Path) -> anyhow::Result<Stack> {
    let programs = scene.fixture.programs();
    let places = [Place::on_loopback()?];
    Stack::start_with(plane.cluster(), programs, folder, 2, &places).await
}
