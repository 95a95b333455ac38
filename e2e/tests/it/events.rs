//! What happens to an object is told where people look for it, `kubectl get events`, and no secret is told with it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::Device;
use crds::v1alpha1::device::Presence;
use e2e::stranger::{DeviceStream, Shown, Stranger};
use e2e::wait::until;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use libtest_mimic::Trial;
use proto::node::enroll_response::Step as Answer;
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::decision::requests;
use crate::door::{approve, make_code};
use crate::fixture::{Fixture, Scene};
use crate::trust::trust;

const SOON: Duration = Duration::from_secs(30);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "events::pairing_denial_and_suspension_are_told_of_and_presence_is_not",
        told,
    )]
}

async fn all(scene: &Scene) -> anyhow::Result<Vec<Event>> {
    let events: Api<Event> = Api::namespaced(scene.client.clone(), &scene.namespace);
    Ok(events.list(&ListParams::default()).await?.items)
}

fn is_about(event: &Event, kind: &str, name: &str) -> bool {
    event.regarding.as_ref().is_some_and(|regarding| {
        regarding.kind.as_deref() == Some(kind) && regarding.name.as_deref() == Some(name)
    })
}

/// Waits for an event by the operator, and gives its type and its note.
async fn event(
    scene: &Scene,
    (kind, name): (&str, &str),
    reason: &str,
) -> anyhow::Result<(String, String)> {
    let told = until(
        &format!("{reason} is told of {kind} {name}"),
        SOON,
        async || {
            let mut events = all(scene).await?.into_iter();
            Ok(events.find(|event| {
                is_about(event, kind, name) && event.reason.as_deref() == Some(reason)
            }))
        },
    )
    .await?;
    ensure!(
        told.reporting_controller.as_deref() == Some(crds::names::OPERATOR)
            && told
                .action
                .as_ref()
                .is_some_and(|action| !action.is_empty()),
        "{told:?}"
    );
    Ok((
        told.type_.unwrap_or_default(),
        told.note.unwrap_or_default(),
    ))
}

async fn told(scene: Scene) -> anyhow::Result<()> {
    let gateways = scene.gateways().await?;
    let mut secrets = Vec::new();
    let mut ask = async |name: &str| {
        let code = make_code(&scene, name, json!({})).await?;
        let exposed = code.expose();
        let secret = exposed.split_once('-').context("a code has a dash")?.1;
        secrets.push(secret.to_owned());
        let stranger = Stranger::new()?;
        let mut exchange = stranger.apply(&gateways[0], &code, name).await?;
        let Answer::Pending(pending) = exchange.next().await? else {
            bail!("not pending")
        };
        anyhow::Ok((stranger, exchange, pending.request))
    };
    let (stranger, mut exchange, request) = ask("welcome").await?;
    let (_, _, unwanted) = ask("unwanted").await?;

    approve(&scene, &request).await?;
    let issued = exchange.issued().await?;
    let device = issued.device;
    for (of, reason) in [
        (("PairingCode", "welcome"), "CodeActive"),
        (("PairingCode", "welcome"), "CodeUsed"),
        (("PairingRequest", request.as_str()), "PairingRequested"),
        (("PairingRequest", request.as_str()), "CertificateIssued"),
        (("Device", device.as_str()), "DeviceTrusted"),
    ] {
        let (type_, note) = event(&scene, of, reason).await?;
        ensure!(
            type_ == "Normal" && !note.is_empty(),
            "{reason}: {type_} {note:?}"
        );
    }

    let denial =
        json!({ "status": { "approval": { "decision": "Denied", "reason": "not one of ours" } } });
    requests(&scene)
        .patch_status(&unwanted, &PatchParams::default(), &Patch::Merge(denial))
        .await?;
    let (type_, note) = event(&scene, ("PairingRequest", &unwanted), "PairingDenied").await?;
    ensure!(
        type_ == "Normal" && note.starts_with("denied by ") && note.ends_with("not one of ours"),
        "{type_} {note}"
    );

    // It comes and goes before it is suspended.
    let chain = issued.chain.into_iter().map(CertificateDer::from).collect();
    let connection = stranger.connect(&gateways[0], Shown::Issued(chain)).await?;
    let stream = DeviceStream::open(connection, &["echo"]).await?;
    present(&scene, &device, Presence::Online).await?;
    drop(stream);
    present(&scene, &device, Presence::Degraded).await?;
    trust(&scene, &device, "Suspended").await?;
    let (type_, note) = event(&scene, ("Device", &device), "DeviceSuspended").await?;
    ensure!(
        type_ == "Warning" && note.contains("suspended"),
        "{type_} {note}"
    );

    let events = all(&scene).await?;
    let mut of_device: Vec<_> = events
        .iter()
        .filter(|event| is_about(event, "Device", &device))
        .map(|event| event.reason.clone().unwrap_or_default())
        .collect();
    of_device.sort();
    ensure!(
        of_device == ["DeviceSuspended", "DeviceTrusted"],
        "{of_device:?}"
    );
    for event in &events {
        let text = serde_json::to_string(event)?;
        ensure!(
            secrets.iter().all(|secret| !text.contains(secret.as_str())),
            "an event of {:?} holds a code",
            event.reason
        );
    }
    Ok(())
}

async fn present(scene: &Scene, device: &str, presence: Presence) -> anyhow::Result<()> {
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    until(&format!("the device is {presence:?}"), SOON, async || {
        let status = devices.get(device).await?.status.unwrap_or_default();
        Ok((status.presence == Some(presence)).then_some(()))
    })
    .await
}
