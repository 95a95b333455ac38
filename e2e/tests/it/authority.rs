//! The authority's Secret is gone: nobody makes another one, devices stay, and the Secret heals it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::names;
use e2e::admin;
use e2e::install::SYSTEM_NAMESPACE;
use e2e::process::{Process, Program};
use e2e::stack::{TRUST_DOMAIN, loopback};
use e2e::wait::until;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use libtest_mimic::Trial;

use crate::agent::{invoke, online, run, succeeded};
use crate::fixture::{Fixture, Scene};

const SOON: Duration = Duration::from_secs(30);
/// The operator looks after its Secret twice a minute.
const WRITTEN_BACK_WITHIN: Duration = Duration::from_mins(1);

/// Runs alone.
pub fn upheavals(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "authority::a_deleted_secret_changes_nothing_that_devices_trust_and_heals_when_it_is_restored",
        deleted,
    )]
}

/// Everything that devices and gateways verify each other with.
#[derive(Debug, PartialEq)]
struct Published {
    bundle: ConfigMap,
    gateways: Secret,
}

struct System {
    secrets: Api<Secret>,
    bundles: Api<ConfigMap>,
    events: Api<Event>,
}

impl System {
    fn of(client: &Client) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), SYSTEM_NAMESPACE),
            bundles: Api::namespaced(client.clone(), SYSTEM_NAMESPACE),
            events: Api::namespaced(client.clone(), SYSTEM_NAMESPACE),
        }
    }

    async fn published(&self) -> anyhow::Result<Published> {
        Ok(Published {
            bundle: self.bundles.get(names::TRUST_BUNDLE).await?,
            gateways: self.secrets.get(names::GATEWAY_TLS_SECRET).await?,
        })
    }

    /// Deletes the authority's Secret and returns what was in it, as a backup has it.
    async fn delete(&self) -> anyhow::Result<Secret> {
        let secret = self.secrets.get(names::CA_SECRET).await?;
        self.secrets
            .delete(names::CA_SECRET, &DeleteParams::default())
            .await?;
        Ok(Secret {
            metadata: ObjectMeta {
                name: secret.metadata.name,
                namespace: secret.metadata.namespace,
                ..ObjectMeta::default()
            },
            ..secret
        })
    }

    /// Whether an event on the Secret has that reason.
    async fn tells(&self, reason: &str) -> anyhow::Result<bool> {
        let events = self.events.list(&ListParams::default()).await?.items;
        Ok(events.iter().any(|event| {
            let object = event.regarding.as_ref();
            event.reason.as_deref() == Some(reason)
                && object.is_some_and(|object| object.name.as_deref() == Some(names::CA_SECRET))
        }))
    }
}

async fn refuses(admin_address: &str) -> anyhow::Result<bool> {
    let metrics = admin::get(admin_address, "/metrics").await?;
    Ok(metrics
        .lines()
        .any(|line| line == "fairlead_operator_authority_refused 1"))
}

async fn deleted(scene: Scene) -> anyhow::Result<()> {
    let mut agent = online(&scene, "kept").await?;
    let system = System::of(&scene.client);
    let before = system.published().await?;
    {
        let mut stack = scene.stack().await?;
        let stack = stack.as_mut().context("no stack")?;
        stack.operator().process().terminate(SOON).await?;
    }
    let backup = system.delete().await?;
    let tried = async {
        let (mut operator, admin_address) = another_operator(&scene).await?;
        let tried = refused(&scene, &system, &before, &admin_address).await;
        let tried = match tried {
            Ok(()) => {
                agent.stop().await?;
                agent = run(&scene, "kept", agent).await?;
                healed(&scene, &system, &backup, &before, &admin_address).await
            }
            Err(error) => Err(error),
        };
        operator.terminate(SOON).await?;
        agent.stop().await?;
        tried
    }
    .await;
    // Whatever became of it, the others have their authority and their operator back.
    if system.secrets.get_opt(names::CA_SECRET).await?.is_none() {
        system
            .secrets
            .create(&PostParams::default(), &backup)
            .await?;
    }
    let mut stack = scene.stack().await?;
    let stack = stack.as_mut().context("no stack")?;
    stack.operator().start_again().await?;
    tried
}

/// Not waited for until it is ready: it must not be.
async fn another_operator(scene: &Scene) -> anyhow::Result<(Process, String)> {
    let mut stack = scene.stack().await?;
    let stack = stack.as_mut().context("no stack")?;
    let gateway = stack.gateways()[0].address().to_owned();
    let admin_address = loopback()?;
    let operator = Program::new(
        "an operator without its authority",
        stack.programs().path("fairlead-operator"),
        scene.folder.join("operator.log"),
    )
    .env("KUBECONFIG", stack.folder().join("operator.kubeconfig"))
    .args(["--namespace", SYSTEM_NAMESPACE])
    .args(["--trust-domain", TRUST_DOMAIN])
    .args(["--gateway-address", &gateway])
    .args(["--admin-address", &admin_address])
    .spawn()?;
    Ok((operator, admin_address))
}

async fn refused(
    scene: &Scene,
    system: &System,
    before: &Published,
    admin_address: &str,
) -> anyhow::Result<()> {
    until("the operator refuses", SOON, async || {
        Ok(refuses(admin_address).await?.then_some(()))
    })
    .await?;
    until("an event says so", SOON, async || {
        Ok(system.tells("AuthorityMissing").await?.then_some(()))
    })
    .await?;
    ensure!(
        admin::get(admin_address, "/ready").await.is_err(),
        "it is ready without its authority"
    );
    ensure!(
        system.secrets.get_opt(names::CA_SECRET).await?.is_none(),
        "another authority was made"
    );
    let after = system.published().await?;
    ensure!(after == *before, "{after:?} is not {before:?}");
    let log = std::fs::read_to_string(scene.folder.join("operator.log"))?;
    ensure!(
        log.contains("ERROR") && log.contains("--replace-authority"),
        "{log}"
    );
    Ok(())
}

async fn healed(
    scene: &Scene,
    system: &System,
    backup: &Secret,
    before: &Published,
    admin_address: &str,
) -> anyhow::Result<()> {
    invoke(scene, "kept", "without-an-authority").await?;
    succeeded(scene, "without-an-authority").await?;
    system
        .secrets
        .create(&PostParams::default(), backup)
        .await?;
    until("the operator is ready", SOON, async || {
        admin::get(admin_address, "/ready").await.map(Some)
    })
    .await?;
    ensure!(!refuses(admin_address).await?, "it still refuses");
    let after = system.published().await?;
    ensure!(after == *before, "{after:?} is not {before:?}");

    // Deleted under the operator that uses it.
    let lost = system.delete().await?;
    let back = until("it is written back", WRITTEN_BACK_WITHIN, async || {
        Ok(system.secrets.get_opt(names::CA_SECRET).await?)
    })
    .await?;
    ensure!(back.data == lost.data, "something else was written back");
    Ok(())
}
