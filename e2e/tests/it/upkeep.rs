//! What the operator sees to by itself: what others read of it, what nobody should have to hold, and what is over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::names::{self, MAX_OPEN_PER_DEVICE};
use crds::v1alpha1::capability_invocation::{ErrorCode, InvocationPhase};
use e2e::install::SYSTEM_NAMESPACE;
use e2e::stranger::Stranger;
use e2e::wait::until;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use libtest_mimic::Trial;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use crate::door::pair;
use crate::fixture::{Fixture, Scene};
use crate::invocation;

const SOON: Duration = Duration::from_secs(30);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "upkeep::what_programs_and_devices_verify_with_is_published",
            published,
        ),
        fixture.trial(
            "upkeep::the_newest_of_too_many_that_wait_ends_and_says_why",
            too_many,
        ),
        fixture.trial(
            "upkeep::an_invocation_that_has_ended_is_deleted_in_its_time",
            expired,
        ),
    ]
}

fn text(secret: &Secret, key: &str) -> anyhow::Result<String> {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let data = data.with_context(|| format!("the Secret has no {key}"))?;
    Ok(String::from_utf8(data.0.clone())?)
}

async fn published(scene: Scene) -> anyhow::Result<()> {
    let (chain, device) = pair(&scene, &Stranger::new()?, "mounted").await?;
    let system: Api<Secret> = Api::namespaced(scene.client.clone(), SYSTEM_NAMESPACE);
    let authority = text(&system.get(names::CA_SECRET).await?, "tls.crt")?;
    let bundles: Api<ConfigMap> = Api::namespaced(scene.client.clone(), SYSTEM_NAMESPACE);
    let bundle = bundles.get(names::TRUST_BUNDLE).await?.data;
    let bundle = bundle.and_then(|mut data| data.remove("ca.crt"));
    ensure!(
        bundle.as_deref() == Some(&*authority),
        "the bundle is not the authority's certificate"
    );

    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let secret = until("the Secret of the device is there", SOON, async || {
        Ok(secrets.get_opt(&names::device_secret(&device)).await?)
    })
    .await?;
    let leaf = CertificateDer::from_pem_slice(text(&secret, "tls.crt")?.as_bytes())?;
    ensure!(chain.first() == Some(&leaf), "another certificate");
    ensure!(text(&secret, "ca.crt")? == authority, "another bundle");
    ensure!(
        text(&secret, "tls.key").is_err(),
        "the device keeps its own key"
    );

    let keys = until("the console has keys", SOON, async || {
        Ok(system.get_opt(names::CONSOLE_KEYS_SECRET).await?)
    })
    .await?;
    let keys = keys.data.unwrap_or_default();
    let lengths: Vec<(&str, usize)> = keys
        .iter()
        .map(|(name, key)| (&**name, key.0.len()))
        .collect();
    ensure!(
        lengths == [(names::CONSOLE_KEY_CURRENT, names::CONSOLE_KEY_BYTES)],
        "{lengths:?}"
    );
    Ok(())
}

/// Of a device that was never there.
async fn too_many(scene: Scene) -> anyhow::Result<()> {
    let (_, device) = pair(&scene, &Stranger::new()?, "crowded").await?;
    let spec = json!({
        "deviceRef": { "name": device }, "capability": "echo",
        "whenOffline": "Queue", "queueSeconds": 600,
    });
    for number in 0..=MAX_OPEN_PER_DEVICE {
        invocation::make(&scene, &format!("n{number:03}"), spec.clone()).await?;
    }
    let last = format!("n{MAX_OPEN_PER_DEVICE:03}");
    let status = invocation::end(&scene, &last).await?;
    let error = status.error.context("no error")?;
    ensure!(
        (status.phase, error.code) == (InvocationPhase::Failed, ErrorCode::QueueFull),
        "{:?} {error:?}",
        status.phase
    );
    let told = format!("Device {device} has {MAX_OPEN_PER_DEVICE} older open invocations");
    ensure!(error.message.contains(&told), "{}", error.message);
    let all = invocation::all(&scene);
    let queued = ListParams::default().fields("status.phase=Queued");
    let waiting = all.list(&queued).await?.items.len();
    ensure!(waiting == MAX_OPEN_PER_DEVICE, "{waiting} wait");
    all.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    Ok(())
}

async fn expired(scene: Scene) -> anyhow::Result<()> {
    // Somebody has to end and to delete it.
    drop(scene.stack().await?);
    let spec = |ttl: i64| {
        json!({
            "deviceRef": { "name": "nobody" }, "capability": "echo",
            "ttlSecondsAfterFinished": ttl,
        })
    };
    invocation::make(&scene, "brief", spec(1)).await?;
    invocation::make(&scene, "lasting", spec(3600)).await?;
    let status = invocation::end(&scene, "lasting").await?;
    let code = status.error.map(|error| error.code);
    ensure!(code == Some(ErrorCode::DeviceNotFound), "{code:?}");
    let all = invocation::all(&scene);
    until("the brief one is deleted", SOON, async || {
        Ok(all.get_opt("brief").await?.is_none().then_some(()))
    })
    .await?;
    all.get("lasting").await.context("it was to stay")?;
    Ok(())
}
