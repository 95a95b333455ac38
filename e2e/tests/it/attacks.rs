//! Attacks with credentials of the installation, on the running stack: what a stolen gateway token and an ordinary
//! user cannot do. The admission trials hold single rules against one API server; these hold roles and policies
//! together, as they are installed, against real tokens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use crds::names::{GATEWAY as GATEWAY_ACCOUNT, OPERATOR as OPERATOR_ACCOUNT};
use crds::{CapabilityInvocation, Device, PairingCode, PairingRequest};
use e2e::cluster::Cluster;
use e2e::install::SYSTEM_NAMESPACE;
use e2e::stranger::Stranger;
use e2e::wait::until;
use http::{Method, Request};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use libtest_mimic::Trial;
use proto::node::enroll_response::Step as Answer;
use serde_json::{Value, json};

use crate::commands::device;
use crate::door::make_code;
use crate::fixture::{Fixture, Scene};
use crate::invocation;

const SOON: Duration = Duration::from_secs(30);
const FAIRLEAD: &str = "/apis/fairlead.dev/v1alpha1/namespaces";
const MERGE: &str = "application/merge-patch+json";

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "attacks::a_stolen_gateway_token_opens_nothing_beyond_the_gateways_work",
            stolen_token,
        ),
        fixture.trial(
            "attacks::a_stolen_gateway_token_forges_no_status",
            forged_status,
        ),
        fixture.trial(
            "attacks::a_viewer_and_a_user_without_roles_change_nothing",
            people,
        ),
    ]
}

/// The objects under attack: a connected device, its invocation, a code and a request that waits.
struct Target {
    namespace: String,
    device: String,
    code: String,
    request: String,
}

const INVOCATION: &str = "under-way";

impl Target {
    /// Makes them. What comes with them keeps the device connected and the request waiting until it is dropped.
    async fn new(scene: &Scene) -> anyhow::Result<(Self, impl Send)> {
        let held_device = device(scene, "target", &["echo"]).await?;
        let device = held_device.1.clone();
        let devices: Api<Device> = Api::namespaced(scene.client.clone(), &scene.namespace);
        until(
            "the operator has written trust and certificate",
            SOON,
            async || {
                let status = devices.get(&device).await?.status.unwrap_or_default();
                Ok((status.trust.is_some() && status.certificate.is_some()).then_some(()))
            },
        )
        .await?;
        let spec =
            json!({ "deviceRef": { "name": device }, "capability": "echo", "timeoutSeconds": 600 });
        invocation::make(scene, INVOCATION, spec).await?;
        let gateways = scene.gateways().await?;
        let code = make_code(scene, "lobby", json!({ "maxUses": 3 })).await?;
        let stranger = Stranger::new()?;
        let mut exchange = stranger.apply(&gateways[0], &code, "newcomer").await?;
        let Answer::Pending(pending) = exchange.next().await? else {
            bail!("the newcomer's request does not wait")
        };
        let target = Self {
            namespace: scene.namespace.clone(),
            device,
            code: "lobby".to_owned(),
            request: pending.request,
        };
        Ok((target, (held_device, exchange)))
    }

    fn path(&self, rest: &str) -> String {
        format!("{FAIRLEAD}/{}/{rest}", self.namespace)
    }

    /// Everything that no attack may change.
    async fn guarded(&self, client: &Client) -> anyhow::Result<Value> {
        let namespace = &self.namespace;
        let device = Api::<Device>::namespaced(client.clone(), namespace)
            .get(&self.device)
            .await?;
        let request = Api::<PairingRequest>::namespaced(client.clone(), namespace)
            .get(&self.request)
            .await?;
        let code = Api::<PairingCode>::namespaced(client.clone(), namespace)
            .get(&self.code)
            .await?;
        let invocation = Api::<CapabilityInvocation>::namespaced(client.clone(), namespace)
            .get(INVOCATION)
            .await?;
        let status = device.status.unwrap_or_default();
        Ok(json!({
            "device": device.spec,
            "trust": status.trust,
            "certificate": status.certificate,
            "session": status.session,
            "meta": [device.metadata.finalizers, device.metadata.owner_references],
            "request": [json!(request.spec), json!(request.status)],
            "code": [json!(code.spec), json!(code.status)],
            "invocation": invocation.spec,
            "invocationMeta": [invocation.metadata.finalizers, invocation.metadata.owner_references],
        }))
    }

    /// Makes every attempt. Each must be refused, and nothing guarded may change.
    async fn withstands(
        &self,
        scene: &Scene,
        attacker: &Client,
        attempts: Vec<Attempt>,
    ) -> anyhow::Result<()> {
        let before = self.guarded(&scene.client).await?;
        let mut succeeded = Vec::new();
        for attempt in attempts {
            let name = format!("{} {} {}", attempt.method, attempt.path, attempt.body);
            match attempt.make(attacker).await? {
                Ok(_) => succeeded.push(name),
                // 403: no right or a policy; 422: a rule of the schema; 405: no such verb.
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 405 | 422) => {}
                Err(other) => return Err(other).context(name),
            }
        }
        ensure!(succeeded.is_empty(), "not refused: {succeeded:#?}");
        let after = self.guarded(&scene.client).await?;
        ensure!(
            after == before,
            "changed: before {before:#}, after {after:#}"
        );
        Ok(())
    }
}

/// One request to the API server.
struct Attempt {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Value,
    impersonate: Option<String>,
}

impl Attempt {
    fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, Value::Null)
    }

    fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, Value::Null)
    }

    fn post(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::POST, path, body)
    }

    fn patch(path: impl Into<String>, body: Value) -> Self {
        Self {
            content_type: MERGE,
            ..Self::new(Method::PATCH, path, body)
        }
    }

    fn new(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self {
            method,
            path: path.into(),
            content_type: "application/json",
            body,
            impersonate: None,
        }
    }

    fn by_user(self, user: String) -> Self {
        Self {
            impersonate: Some(user),
            ..self
        }
    }

    async fn make(self, attacker: &Client) -> anyhow::Result<kube::Result<Value>> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header("Content-Type", self.content_type);
        if let Some(user) = self.impersonate {
            request = request.header("Impersonate-User", user);
        }
        let body = if self.body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(&self.body)?
        };
        Ok(attacker.request(request.body(body)?).await)
    }
}

/// A client with the token of a service account of the installation.
async fn with_token_of(scene: &Scene, account: &str) -> anyhow::Result<Client> {
    let cluster = scene.fixture.cluster();
    let path = scene.folder.join(format!("{account}.kubeconfig"));
    cluster
        .service_account_kubeconfig(SYSTEM_NAMESPACE, account, &path)
        .await?;
    Ok(Cluster::connect(&path, cluster.kubectl()).await?.client())
}

/// Reading secrets, becoming somebody else, deciding, and weakening the installation.
fn beyond_its_work(target: &Target) -> Vec<Attempt> {
    let system = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}");
    let own = format!("/api/v1/namespaces/{}", target.namespace);
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases");
    let policies = "/apis/admissionregistration.k8s.io/v1";
    let operator = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{OPERATOR_ACCOUNT}");
    let approved = || json!({ "status": { "approval": { "decision": "Approved" } } });
    let request = target.path(&format!("pairingrequests/{}", target.request));
    let device = target.path(&format!("devices/{}", target.device));
    let code = target.path(&format!("pairingcodes/{}", target.code));
    let invocation = target.path(&format!("capabilityinvocations/{INVOCATION}"));
    let api = "fairlead.dev/v1alpha1";
    vec![
        Attempt::get(format!("{system}/secrets/{}", crds::names::CA_SECRET)),
        Attempt::get(format!("{system}/secrets")),
        Attempt::get(format!(
            "{own}/secrets/{}",
            crds::names::code_secret(&target.code)
        )),
        Attempt::post(
            format!("{system}/serviceaccounts/{OPERATOR_ACCOUNT}/token"),
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} }),
        ),
        Attempt::get(format!("{system}/pods")).by_user(operator),
        Attempt::get(format!("{own}/configmaps")),
        Attempt::patch(
            format!("{system}/configmaps/{}", crds::names::TRUST_BUNDLE),
            json!({ "data": { "ca.crt": "none" } }),
        ),
        Attempt::patch(format!("{request}/status"), approved()),
        Attempt::patch(
            format!("{request}/status"),
            json!({ "status": { "approval": { "decision": "Approved", "decidedBy": "admin" } } }),
        ),
        Attempt::patch(request.clone(), json!({ "spec": { "requestedName": "x" } })),
        Attempt::delete(request),
        Attempt::post(
            target.path("devices"),
            json!({
                "apiVersion": api, "kind": "Device", "metadata": { "name": "mine" },
                "spec": { "publicKeySha256": "ab".repeat(32) },
            }),
        ),
        Attempt::patch(device.clone(), json!({ "spec": { "trust": "Suspended" } })),
        Attempt::patch(
            device.clone(),
            json!({ "spec": { "grants": { "capabilities": ["shell"] } } }),
        ),
        Attempt::patch(
            device.clone(),
            json!({ "metadata": { "finalizers": ["example.com/keep"] } }),
        ),
        Attempt::delete(device),
        Attempt::post(
            target.path("pairingcodes"),
            json!({
                "apiVersion": api, "kind": "PairingCode", "metadata": { "name": "mine" },
                "spec": { "approval": "Automatic" },
            }),
        ),
        Attempt::delete(code),
        Attempt::post(
            target.path("capabilityinvocations"),
            json!({
                "apiVersion": api, "kind": "CapabilityInvocation", "metadata": { "name": "mine" },
                "spec": { "deviceRef": { "name": target.device }, "capability": "echo" },
            }),
        ),
        Attempt::patch(
            invocation.clone(),
            json!({ "spec": { "cancel": "Requested" } }),
        ),
        Attempt::patch(invocation.clone(), json!({ "spec": { "input": "other" } })),
        Attempt::delete(invocation),
        Attempt::delete(format!(
            "{policies}/validatingadmissionpolicybindings/pairing-decision.fairlead.dev"
        )),
        Attempt::patch(
            format!("{policies}/validatingadmissionpolicies/pairing-decision.fairlead.dev"),
            json!({ "spec": { "failurePolicy": "Ignore" } }),
        ),
        Attempt::patch(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/devices.fairlead.dev",
            json!({ "metadata": { "labels": { "a": "b" } } }),
        ),
        Attempt::post(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": { "name": "mine" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
                "subjects": [{ "kind": "ServiceAccount", "name": GATEWAY_ACCOUNT, "namespace": SYSTEM_NAMESPACE }],
            }),
        ),
        Attempt::patch(
            format!("{leases}/{}", crds::names::OPERATOR),
            json!({ "spec": { "holderIdentity": "gateway" } }),
        ),
        Attempt::delete(format!("{leases}/{}", crds::names::OPERATOR)),
    ]
}

async fn stolen_token(scene: Scene) -> anyhow::Result<()> {
    let (target, _held) = Target::new(&scene).await?;
    let attacker = with_token_of(&scene, GATEWAY_ACCOUNT).await?;
    let attempts = beyond_its_work(&target);
    target.withstands(&scene, &attacker, attempts).await
}

/// Every status that a gateway may patch, with what is not a gateway's to say.
fn forgeries(target: &Target) -> Vec<Attempt> {
    let status = |object: String, status: Value| {
        Attempt::patch(
            target.path(&format!("{object}/status")),
            json!({ "status": status }),
        )
    };
    let device = |value| status(format!("devices/{}", target.device), value);
    let code = |value| status(format!("pairingcodes/{}", target.code), value);
    let request = |value| status(format!("pairingrequests/{}", target.request), value);
    let moment = "2030-01-01T00:00:00Z";
    let certificate = json!({
        "serial": "42", "fingerprint": "ab".repeat(32), "generation": 2,
        "notBefore": moment, "notAfter": moment,
    });
    vec![
        device(json!({ "trust": "Revoked" })),
        device(json!({ "certificate": certificate })),
        device(json!({ "certificate": null })),
        device(json!({ "certificateHistory": [certificate] })),
        device(json!({ "renewal": { "csr": "x", "chain": "y", "generation": 2 } })),
        device(json!({ "renewal": { "csr": "x", "refused": "y" } })),
        device(json!({ "observedGeneration": 77 })),
        device(json!({ "conditions": [{
            "type": "Ready", "status": "False", "reason": "Forged", "message": "",
            "lastTransitionTime": moment,
        }] })),
        device(json!({ "session": { "gateway": "evil", "epoch": 9_007_199_254_740_991_i64 } })),
        device(json!({ "session": null })),
        device(json!({ "session": { "epoch": 0 } })),
        device(
            json!({ "capabilities": [{ "name": "shell", "execution": "Automatic", "granted": "Granted" }] }),
        ),
        device(
            json!({ "undeclared": [{ "name": "shell", "accepted": { "execution": "Automatic" } }] }),
        ),
        code(json!({ "phase": "Expired" })),
        code(json!({ "codeId": "AAAA" })),
        code(json!({ "passwordFile": "AAAA" })),
        code(json!({ "expiresAt": moment })),
        code(json!({ "uses": 0 })),
        code(json!({ "uses": 3 })),
        code(json!({ "attempts": 4 })),
        code(json!({ "attempts": -1 })),
        code(json!({ "admitted": [] })),
        request(json!({ "phase": "Issued" })),
        request(
            json!({ "certificate": { "chain": "x", "serial": "42", "notBefore": moment, "notAfter": moment } }),
        ),
        request(json!({ "caBundle": "x" })),
        request(json!({ "deviceRef": { "name": "mine" } })),
        request(json!({ "approval": { "decision": "Denied" } })),
    ]
}

async fn forged_status(scene: Scene) -> anyhow::Result<()> {
    let (target, _held) = Target::new(&scene).await?;
    let attacker = with_token_of(&scene, GATEWAY_ACCOUNT).await?;
    let attempts = forgeries(&target);
    target.withstands(&scene, &attacker, attempts).await
}

async fn people(scene: Scene) -> anyhow::Result<()> {
    let (target, _held) = Target::new(&scene).await?;
    let viewer = format!("viewer-of-{}", scene.namespace);
    let binding = ClusterRoleBinding {
        metadata: ObjectMeta {
            name: Some(viewer.clone()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: "fairlead-viewer".to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "User".to_owned(),
            name: viewer.clone(),
            namespace: None,
        }]),
    };
    Api::all(scene.client.clone())
        .create(&PostParams::default(), &binding)
        .await?;
    for user in [viewer.as_str(), "nobody-at-all"] {
        let attacker = scene.fixture.user(&scene, user, &[]).await?;
        for attempts in [beyond_its_work(&target), forgeries(&target)] {
            target.withstands(&scene, &attacker, attempts).await?;
        }
    }
    Ok(())
}
