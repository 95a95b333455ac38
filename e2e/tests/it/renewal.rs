//! A device's next certificate, over the stream that it holds with the one before.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::Device;
use e2e::cluster::Cluster;
use e2e::install::SYSTEM_NAMESPACE;
use e2e::stranger::{DeviceStream, Shown, Stranger};
use e2e::wait::until;
use jiff::SignedDuration;
use kube::Api;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use proto::node::Renew;
use proto::node::device_event::Event as Said;
use proto::node::gateway_event::Event as Heard;
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::door::pair;
use crate::fixture::{Fixture, Scene};

const SOON: Duration = Duration::from_secs(30);
/// Of a certificate that lives for a day: late enough to ask for the next.
const AGE: SignedDuration = SignedDuration::from_hours(20);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial("renewal::a_certificate_is_renewed_over_the_stream", renewed),
        fixture.trial("renewal::one_for_another_key_is_not_issued", another_key),
    ]
}

/// Lets the device's certificate look older, as only the operator can.
async fn age(scene: &Scene, device: &str) -> anyhow::Result<()> {
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

async fn stream(
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
    let next: Vec<_> = renewed
        .chain
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    ensure!(
        !next.is_empty() && next.first() != chain.first(),
        "the same certificate"
    );
    ensure!(!renewed.bundle.is_empty(), "no bundle");
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
