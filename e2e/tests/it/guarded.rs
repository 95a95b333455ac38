//! What the operator signs while an admission policy is missing on which the signature rests: nothing, and it says so.
//!
//! Policies are everybody's, so these trials run alone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::v1alpha1::pairing_request::RequestPhase;
use crds::v1alpha1::{DeviceSpec, PairingRequestStatus};
use crds::{Device, PairingRequest, conditions, policies};
use e2e::stranger::{Exchange, Stranger};
use e2e::wait::{now, until};
use jiff::SignedDuration;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding as Binding;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use libtest_mimic::Trial;
use proto::node::Renew;
use proto::node::device_event::Event as Said;
use proto::node::enroll_response::Step as Answer;
use proto::node::gateway_event::Event as Heard;
use serde_json::{Value, json};

use crate::door::{approve, make_code, pair};
use crate::fixture::{Fixture, Scene};
use crate::renewal::{age, stream};

const SOON: Duration = Duration::from_secs(30);
const TRIAL_WITHIN: Duration = Duration::from_mins(5);
/// Longer than what the operator takes for the time in which an API server takes a policy in.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);

pub fn upheavals(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial_within(
            TRIAL_WITHIN,
            "guarded::nothing_is_signed_while_a_policy_is_not_bound_only_audits_or_is_narrowed",
            withheld,
        ),
        fixture.trial_within(
            TRIAL_WITHIN,
            "guarded::what_a_user_without_approve_decided_without_the_policy_is_never_signed",
            never_signed,
        ),
        fixture.trial_within(
            TRIAL_WITHIN,
            "guarded::nothing_is_renewed_while_a_policy_is_not_bound",
            not_renewed,
        ),
    ]
}

/// What is done to a binding.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Deleted,
    OnlyAudits,
    Narrowed,
}

fn bindings(scene: &Scene) -> Api<Binding> {
    Api::all(scene.client.clone())
}

impl Harm {
    /// Gives what was there.
    async fn do_to(self, scene: &Scene, policy: &str) -> anyhow::Result<Binding> {
        let bindings = bindings(scene);
        let before = bindings.get(policy).await?;
        let elsewhere = json!({ "matchLabels": { "kubernetes.io/metadata.name": "elsewhere" } });
        let patch = match self {
            Self::Deleted => {
                bindings.delete(policy, &DeleteParams::default()).await?;
                return Ok(before);
            }
            Self::OnlyAudits => json!({ "spec": { "validationActions": ["Audit"] } }),
            Self::Narrowed => {
                json!({ "spec": { "matchResources": { "namespaceSelector": elsewhere } } })
            }
        };
        let params = PatchParams::default();
        bindings
            .patch(policy, &params, &Patch::Merge(patch))
            .await?;
        Ok(before)
    }
}

/// Puts the binding back, and waits until the API server has it and what is decided counts as guarded.
async fn restore(scene: &Scene, before: &Binding) -> anyhow::Result<()> {
    let bindings = bindings(scene);
    let name = before.metadata.name.as_deref().context("no name")?;
    let _ = bindings.delete(name, &DeleteParams::default()).await;
    let again = Binding {
        metadata: ObjectMeta {
            name: before.metadata.name.clone(),
            ..ObjectMeta::default()
        },
        spec: before.spec.clone(),
    };
    let made = bindings.create(&PostParams::default(), &again).await?;
    let made_at = made.metadata.creation_timestamp.context("no time")?.0;
    until("the policy has settled", SOON, async || {
        Ok((now() > made_at + SETTLED).then_some(()))
    })
    .await
}

/// A device that waits for a decision.
async fn asks(scene: &Scene, name: &str) -> anyhow::Result<(Exchange, String)> {
    let gateways = scene.gateways().await?;
    let code = make_code(scene, name, json!({})).await?;
    let mut exchange = Stranger::new()?.apply(&gateways[0], &code, name).await?;
    let Answer::Pending(pending) = exchange.next().await? else {
        bail!("not pending")
    };
    Ok((exchange, pending.request))
}

async fn status(scene: &Scene, request: &str) -> anyhow::Result<PairingRequestStatus> {
    let requests: Api<PairingRequest> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let status = requests.get(request).await?.status;
    status.context("the request has no status")
}

/// The reason and the message of its condition.
fn said(status: &PairingRequestStatus) -> (String, String) {
    let ready = conditions::find(&status.conditions, conditions::READY);
    ready.map_or_else(Default::default, |ready| {
        (ready.reason.clone(), ready.message.clone())
    })
}

/// An Event about that object says so, and the operator counts it.
async fn told(scene: &Scene, object: &str, reason: &str, policy: &str) -> anyhow::Result<()> {
    let events: Api<Event> = Api::namespaced(scene.client.clone(), &scene.namespace);
    until(&format!("an event says {reason}"), SOON, async || {
        let events = events.list(&ListParams::default()).await?.items;
        let found = events.into_iter().any(|event| {
            let regarding = event.regarding.and_then(|regarding| regarding.name);
            event.reason.as_deref() == Some(reason) && regarding.as_deref() == Some(object)
        });
        Ok(found.then_some(()))
    })
    .await?;
    let mut stack = scene.stack().await?;
    let metrics = stack.as_mut().context("no stack")?.operator().metrics();
    let metrics = metrics.await?;
    let counts = format!(
        "fairlead_operator_policy_checks_total{{policy=\"{policy}\",result=\"not_in_force\"}}"
    );
    ensure!(metrics.contains(&counts), "no {counts} in:\n{metrics}");
    Ok(())
}

/// Waits until the API server lets a Device pass that only the operator may make.
async fn device_origin_is_open(scene: &Scene) -> anyhow::Result<()> {
    let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let spec = DeviceSpec {
        public_key_sha256: "0".repeat(64),
        ..DeviceSpec::default()
    };
    let device = Device::new("nobody", spec);
    until("the policy has gone", SOON, async || {
        devices.create(&params, &device).await?;
        Ok(Some(()))
    })
    .await
}

async fn withheld(scene: Scene) -> anyhow::Result<()> {
    for (number, (policy, harm)) in [
        (policies::PAIRING_REQUEST_ORIGIN, Harm::Deleted),
        (policies::PAIRING_CODE_APPROVAL, Harm::Deleted),
        (policies::PAIRING_CODE_STATUS, Harm::Deleted),
        (policies::DEVICE_ORIGIN, Harm::Deleted),
        (policies::DEVICE_ORIGIN, Harm::OnlyAudits),
        (policies::DEVICE_ORIGIN, Harm::Narrowed),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("held-{number}");
        let (mut exchange, request) = asks(&scene, &name).await?;
        let before = harm.do_to(&scene, policy).await?;
        let held = async {
            if matches!(harm, Harm::Narrowed) {
                device_origin_is_open(&scene).await?;
            }
            approve(&scene, &request).await?;
            until(&format!("{harm:?} {policy} is noticed"), SOON, async || {
                let status = status(&scene, &request).await?;
                ensure!(status.certificate.is_none(), "signed");
                let (reason, message) = said(&status);
                ensure!(reason == "PoliciesNotInForce", "{reason}: {message}");
                ensure!(message.contains(policy), "{message}");
                Ok(Some(()))
            })
            .await?;
            told(&scene, &request, "PoliciesNotInForce", policy).await
        }
        .await;
        // Whatever was found: the others need it.
        restore(&scene, &before).await?;
        held.with_context(|| format!("{harm:?} {policy}"))?;
        // By the same process, and without another decision.
        exchange
            .issued()
            .await
            .with_context(|| format!("after {harm:?} {policy}"))?;
    }
    Ok(())
}

/// May write decisions by RBAC, and does not hold the verb that the policy asks for.
async fn mallory(scene: &Scene) -> anyhow::Result<Client> {
    let metadata = || ObjectMeta {
        name: Some("mallory".to_owned()),
        ..ObjectMeta::default()
    };
    let role: Role = serde_json::from_value(json!({
        "metadata": metadata(),
        "rules": [{ "apiGroups": ["fairlead.dev"], "resources": ["pairingrequests/status"], "verbs": ["get", "patch"] }],
    }))?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": metadata(),
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mallory" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory" }],
    }))?;
    let params = PostParams::default();
    Api::namespaced(scene.client.clone(), &scene.namespace)
        .create(&params, &role)
        .await?;
    Api::namespaced(scene.client.clone(), &scene.namespace)
        .create(&params, &binding)
        .await?;
    scene.fixture.user(scene, "mallory", &[]).await
}

async fn never_signed(scene: Scene) -> anyhow::Result<()> {
    let policy = policies::PAIRING_DECISION;
    let mallory = mallory(&scene).await?;
    let requests: Api<PairingRequest> = Api::namespaced(mallory, &scene.namespace);
    let approval: Value = json!({ "status": { "approval": { "decision": "Approved" } } });
    let decides = async |request: &str| {
        let patch = Patch::Merge(&approval);
        requests
            .patch_status(request, &PatchParams::default(), &patch)
            .await
    };
    let (_exchange, request) = asks(&scene, "decided").await?;
    let refused = decides(&request).await.err().context("mallory decides")?;
    ensure!(refused.to_string().contains("approve"), "{refused}");

    let before = Harm::Deleted.do_to(&scene, policy).await?;
    let failed = async {
        until("mallory's decision is stored", SOON, async || {
            decides(&request).await?;
            Ok(Some(()))
        })
        .await?;
        until("the decision is not believed", SOON, async || {
            let status = status(&scene, &request).await?;
            ensure!(status.certificate.is_none(), "signed");
            let (reason, message) = said(&status);
            ensure!(reason == "DecidedWithoutPolicies", "{reason}: {message}");
            Ok((status.phase == RequestPhase::Failed).then_some(()))
        })
        .await?;
        told(&scene, &request, "DecidedWithoutPolicies", policy).await
    }
    .await;
    restore(&scene, &before).await?;
    failed?;
    // A decision under the policy is signed, by the same process.
    pair(&scene, &Stranger::new()?, "after").await?;
    let status = status(&scene, &request).await?;
    ensure!(
        status.phase == RequestPhase::Failed && status.certificate.is_none(),
        "{status:?}"
    );
    Ok(())
}

async fn not_renewed(scene: Scene) -> anyhow::Result<()> {
    let stranger = Stranger::new()?;
    let (chain, device) = pair(&scene, &stranger, "lasting").await?;
    age(&scene, &device).await?;
    let mut stream = stream(&scene, &stranger, &chain).await?;
    let before = Harm::Deleted.do_to(&scene, policies::DEVICE_STATUS).await?;
    let held = async {
        let pkcs10 = stranger.pkcs10()?;
        stream.say(Said::Renew(Renew { pkcs10 })).await?;
        let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
        until("the renewal waits", SOON, async || {
            let status = devices.get(&device).await?.status.unwrap_or_default();
            let valid = conditions::find(&status.conditions, conditions::CERTIFICATE_VALID);
            let valid = valid.context("no condition")?;
            ensure!(valid.reason == "RenewalWithheld", "{valid:?}");
            Ok((valid.status == "True").then_some(()))
        })
        .await?;
        told(&scene, &device, "RenewalWithheld", policies::DEVICE_STATUS).await
    }
    .await;
    restore(&scene, &before).await?;
    held?;
    let Heard::Renewed(_) = stream.next().await? else {
        bail!("no certificate")
    };
    Ok(())
}
