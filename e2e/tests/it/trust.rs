//! What suspending and revoking do to devices that are connected, wherever they are, and to those that come back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::Device;
use crds::v1alpha1::capability_invocation::{ErrorCode, InvocationPhase};
use crds::v1alpha1::device::Trust;
use e2e::stranger::{DeviceStream, Shown, Stranger, channel, register};
use e2e::wait::until;
use kube::Api;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::door::pair;
use crate::fixture::{Fixture, Scene};
use crate::invocation;

const SOON: Duration = Duration::from_secs(30);
/// The aim is two seconds; a machine that runs all trials at once may take a little longer.
const CUT_WITHIN: Duration = Duration::from_secs(5);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "trust::suspending_cuts_the_stream_at_each_gateway_and_keeps_the_device_out_until_it_is_undone",
            suspended,
        ),
        fixture.trial(
            "trust::revoking_cuts_the_stream_at_each_gateway_and_is_final",
            revoked,
        ),
    ]
}

/// Says whether a device is trusted, as an administrator.
pub async fn trust(scene: &Scene, device: &str, trust: &str) -> anyhow::Result<()> {
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let patch = json!({ "spec": { "trust": trust } });
    devices
        .patch(device, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// A paired device with a stream.
struct Connected {
    stranger: Stranger,
    chain: Vec<CertificateDer<'static>>,
    name: String,
    stream: DeviceStream,
}

impl Connected {
    async fn to(scene: &Scene, gateway: &str, name: &str) -> anyhow::Result<Self> {
        let stranger = Stranger::new()?;
        let (chain, name) = pair(scene, &stranger, name).await?;
        let shown = Shown::Issued(chain.clone());
        let connection = stranger.connect(gateway, shown).await?;
        let stream = DeviceStream::open(connection, &["echo"]).await?;
        Ok(Self {
            stranger,
            chain,
            name,
            stream,
        })
    }

    /// Comes back to a gateway.
    async fn open(&mut self, gateway: &str) -> anyhow::Result<()> {
        let shown = Shown::Issued(self.chain.clone());
        let connection = self.stranger.connect(gateway, shown).await?;
        self.stream = DeviceStream::open(connection, &["echo"]).await?;
        Ok(())
    }

    /// Comes back to a gateway as far as its registration.
    async fn register(&self, gateway: &str) -> anyhow::Result<Result<String, tonic::Status>> {
        let shown = Shown::Issued(self.chain.clone());
        let connection = self.stranger.connect(gateway, shown).await?;
        Ok(register(channel(connection).await?, &["echo"]).await)
    }

    /// Loses its stream in time, and finds no gateway that lets it in.
    async fn is_cut(&mut self, gateways: &[String], word: &str) -> anyhow::Result<()> {
        let cut = tokio::time::timeout(CUT_WITHIN, self.stream.next())
            .await
            .context("the stream is not cut in time")?
            .err()
            .context("the stream goes on")?;
        ensure!(
            cut.code() == tonic::Code::PermissionDenied && cut.message().contains(word),
            "{cut}"
        );
        for gateway in gateways {
            until("the gateway keeps the device out", CUT_WITHIN, async || {
                let refused = self.register(gateway).await?.err();
                let refused = refused.context("it may register")?;
                ensure!(
                    refused.code() == tonic::Code::PermissionDenied
                        && refused.message().contains(word),
                    "{refused}"
                );
                Ok(Some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// One at each gateway.
async fn one_each(scene: &Scene, gateways: &[String]) -> anyhow::Result<Vec<Connected>> {
    let mut devices = Vec::new();
    for (number, gateway) in gateways.iter().enumerate() {
        devices.push(Connected::to(scene, gateway, &format!("edge-{number}")).await?);
    }
    Ok(devices)
}

async fn not_trusted(scene: &Scene, device: &str) -> anyhow::Result<()> {
    let name = format!("run-{device}");
    let spec = json!({ "deviceRef": { "name": device }, "capability": "echo" });
    invocation::make(scene, &name, spec).await?;
    let status = invocation::end(scene, &name).await?;
    let code = status.error.map(|error| error.code);
    ensure!(
        (status.phase, code) == (InvocationPhase::Failed, Some(ErrorCode::DeviceNotTrusted)),
        "{:?} {code:?}",
        status.phase
    );
    Ok(())
}

async fn suspended(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    for mut device in one_each(&scene, &gateways).await? {
        trust(&scene, &device.name, "Suspended").await?;
        device.is_cut(&gateways, "suspended").await?;
        not_trusted(&scene, &device.name).await?;
        trust(&scene, &device.name, "Active").await?;
        for gateway in &gateways {
            until("the gateway lets the device in again", SOON, async || {
                device.register(gateway).await??;
                Ok(Some(()))
            })
            .await?;
            device.open(gateway).await?;
        }
    }
    Ok(())
}

async fn revoked(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    for mut device in one_each(&scene, &gateways).await? {
        trust(&scene, &device.name, "Revoked").await?;
        device.is_cut(&gateways, "revoked").await?;
        not_trusted(&scene, &device.name).await?;
        until("the status says so", SOON, async || {
            let status = devices.get(&device.name).await?.status.unwrap_or_default();
            ensure!(status.trust == Some(Trust::Revoked), "{:?}", status.trust);
            Ok(Some(()))
        })
        .await?;
        let undone = trust(&scene, &device.name, "Active").await.err();
        let undone = undone.context("it was undone")?.to_string();
        ensure!(
            undone.contains("a revoked device stays revoked"),
            "{undone}"
        );
    }
    Ok(())
}
