//! The harness itself: what the other topics take for granted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::admin;
use e2e::cluster::Cluster;
use e2e::controlplane::{Binaries, ControlPlane};
use e2e::floor::Floor;
use e2e::secret_mount::SecretMount;
use e2e::stack::Service;
use e2e::wait::until;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use libtest_mimic::Trial;

use crate::fixture::{Fixture, Scene};

const SOON: Duration = Duration::from_secs(20);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "smoke::kubectl_and_server_are_of_one_version",
            versions_agree,
        ),
        fixture.trial(
            "smoke::a_service_accounts_kubeconfig_has_its_identity_and_no_more",
            service_account,
        ),
        fixture.trial(
            "smoke::a_user_is_known_by_certificate_and_has_no_rights",
            user,
        ),
        fixture.trial("smoke::a_mounted_secret_follows_the_secret", mounted_secret),
        fixture.trial(
            "smoke::an_api_server_comes_back_on_its_port_with_its_data",
            restarted,
        ),
        fixture.trial("smoke::the_floor_is_installed_and_leaves_nothing", floor),
        fixture.trial(
            "smoke::every_program_says_on_its_admin_port_that_it_lives_and_what_it_counts",
            admin_ports,
        ),
    ]
}

async fn versions_agree(scene: Scene) -> anyhow::Result<()> {
    let printed = scene
        .fixture
        .cluster()
        .run_kubectl(&["version", "-o", "json"])
        .await?;
    let versions: serde_json::Value = serde_json::from_str(&printed)?;
    let version = |side: &str| versions[side]["gitVersion"].as_str().map(str::to_owned);
    ensure!(
        version("serverVersion") == version("clientVersion"),
        "{printed}"
    );
    ensure!(
        version("serverVersion").is_some_and(|version| version.starts_with("v1.")),
        "{printed}"
    );
    Ok(())
}

async fn service_account(scene: Scene) -> anyhow::Result<()> {
    let account = ServiceAccount {
        metadata: named("worker"),
        ..ServiceAccount::default()
    };
    Api::namespaced(scene.client.clone(), &scene.namespace)
        .create(&PostParams::default(), &account)
        .await?;
    let path = scene.folder.join("worker.kubeconfig");
    let cluster = scene.fixture.cluster();
    cluster
        .service_account_kubeconfig(&scene.namespace, "worker", &path)
        .await?;
    let client = Cluster::connect(&path, cluster.kubectl()).await?.client();
    let expected = format!("system:serviceaccount:{}:worker", scene.namespace);
    ensure!(who_am_i(&client).await? == expected);
    refused(&client, &scene.namespace).await
}

async fn user(scene: Scene) -> anyhow::Result<()> {
    let client = scene.fixture.user(&scene, "ada", &["crew"]).await?;
    ensure!(who_am_i(&client).await? == "ada");
    refused(&client, &scene.namespace).await
}

async fn mounted_secret(scene: Scene) -> anyhow::Result<()> {
    let folder = scene.folder.join("mount");
    let mut mount = SecretMount::start(scene.client.clone(), &scene.namespace, "keys", &folder)?;
    ensure!(
        mount.mounted(Duration::from_millis(50)).await.is_err(),
        "there is no Secret yet"
    );
    let secrets = Api::<Secret>::namespaced(scene.client.clone(), &scene.namespace);
    let secret = Secret {
        metadata: named("keys"),
        string_data: Some(BTreeMap::from([("tls.crt".to_owned(), "one".to_owned())])),
        ..Secret::default()
    };
    secrets.create(&PostParams::default(), &secret).await?;
    mount.mounted(SOON).await?;
    ensure!(std::fs::read_to_string(folder.join("tls.crt"))? == "one");

    let patch = serde_json::json!({ "stringData": { "tls.crt": "two" } });
    secrets
        .patch("keys", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    until("the file follows", SOON, async || {
        Ok((std::fs::read_to_string(folder.join("tls.crt"))? == "two").then_some(()))
    })
    .await?;
    secrets.delete("keys", &DeleteParams::default()).await?;
    ensure!(
        std::fs::read_to_string(folder.join("tls.crt"))? == "two",
        "a container keeps what it has mounted"
    );
    Ok(())
}

/// With a control plane of its own, as the others would miss theirs.
async fn restarted(scene: Scene) -> anyhow::Result<()> {
    let mut control_plane =
        ControlPlane::start(&Binaries::find()?, &scene.folder.join("own")).await?;
    let accounts = Api::<ServiceAccount>::namespaced(control_plane.client(), "default");
    let account = ServiceAccount {
        metadata: named("kept"),
        ..ServiceAccount::default()
    };
    accounts.create(&PostParams::default(), &account).await?;

    control_plane.kill_api_server().await?;
    ensure!(
        accounts.get("kept").await.is_err(),
        "the API server answers after SIGKILL"
    );
    control_plane.start_api_server().await?;
    accounts.get("kept").await.context("after a kill")?;

    control_plane.restart_api_server().await?;
    accounts.get("kept").await.context("after a restart")?;
    control_plane.stop().await
}

/// Slow for a smoke test, as policies have to come into force; it is the only one that shows that a copy is possible.
async fn floor(scene: Scene) -> anyhow::Result<()> {
    let floor = Floor::install(scene.fixture.cluster(), &scene.folder).await?;
    let api =
        Api::<DynamicObject>::namespaced_with(scene.client.clone(), &scene.namespace, floor.kind());
    let mut object = DynamicObject::new("one", floor.kind());
    object.data = serde_json::json!({
        "spec": { "deviceRef": { "name": "d" }, "capability": "echo" },
    });
    let made = api.create(&PostParams::default(), &object).await?;
    ensure!(
        made.data["status"]["phase"] == "Queued",
        "not the schema of the original: {}",
        made.data
    );
    let patch = Patch::Merge(serde_json::json!({ "status": { "phase": "Succeeded" } }));
    let writer =
        Api::<DynamicObject>::namespaced_with(floor.writer(), &scene.namespace, floor.kind());
    writer
        .patch_status("one", &PatchParams::default(), &patch)
        .await?;
    let other = Patch::Merge(serde_json::json!({ "status": { "phase": "Failed" } }));
    let refused = api
        .patch_status("one", &PatchParams::default(), &other)
        .await;
    ensure!(
        refused.is_err(),
        "the policies of the original are not on the copy"
    );
    floor.remove().await?;
    let policies = Api::<ValidatingAdmissionPolicy>::all(scene.client.clone());
    let left = policies.list(&kube::api::ListParams::default()).await?;
    ensure!(
        left.iter()
            .all(|policy| !policy.name_any().ends_with("-floor"))
    );
    Ok(())
}

async fn admin_ports(scene: Scene) -> anyhow::Result<()> {
    let mut stack = scene.stack().await?;
    let stack = stack.as_mut().context("there is no stack")?;
    answers(stack.operator(), "fairlead_operator_leading 1").await?;
    for gateway in stack.gateways() {
        answers(gateway.service(), "# TYPE fairlead_gateway_streams gauge").await?;
    }
    Ok(())
}

async fn answers(service: &Service, counts: &str) -> anyhow::Result<()> {
    for (path, expected) in [("/live", "live"), ("/ready", "ready")] {
        let told = admin::get(service.admin(), path).await?;
        ensure!(told.trim() == expected, "{path}: {told}");
    }
    let metrics = service.metrics().await?;
    ensure!(
        metrics.lines().any(|line| line == counts) && metrics.trim_end().ends_with("# EOF"),
        "no {counts}\n{metrics}"
    );
    let elsewhere = admin::get(service.admin(), "/").await.err();
    let elsewhere = elsewhere.context("everything is answered")?.to_string();
    ensure!(elsewhere.contains("404"), "{elsewhere}");
    Ok(())
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

async fn who_am_i(client: &Client) -> anyhow::Result<String> {
    let review = Api::<SelfSubjectReview>::all(client.clone())
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    review
        .status
        .and_then(|status| status.user_info)
        .and_then(|user| user.username)
        .context("no user name")
}

async fn refused(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let listed = Api::<Secret>::namespaced(client.clone(), namespace)
        .list(&kube::api::ListParams::default())
        .await;
    match listed {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        other => anyhow::bail!("Secrets could be listed: {other:?}"),
    }
}
