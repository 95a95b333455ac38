//! The floor: what an invocation would cost if Fairlead cost nothing.
//!
//! A copy of the CapabilityInvocation kind that no program of ours watches, under the same schema and the same
//! admission policies, so that the API server does the same work for it. The bare client of [`crate::measure`] then
//! makes the same writes on it as Fairlead makes on the original, and as the same user: the policies let nobody but
//! operator and gateways write a status.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, pinned_kind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::install::{SYSTEM_NAMESPACE, apply_all};
use crate::wait::until;

const IN_FORCE_WITHIN: Duration = Duration::from_secs(30);
const ORIGINAL: &str = "capabilityinvocations";
const PLURAL: &str = "floorinvocations";
const KIND: &str = "FloorInvocation";
const SUFFIX: &str = "-floor";

const ADMISSION: &str = "admissionregistration.k8s.io";
const POLICY_KINDS: [&str; 2] = ["MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"];

/// The copied kind and what belongs to it, as long as they are installed.
pub struct Floor {
    client: Client,
    writer: Client,
    kind: ApiResource,
    /// Everything installed, in that order: kind and name.
    installed: Vec<(ApiResource, String)>,
}

impl Floor {
    /// Copies the kind and every policy on it, and lets the gateways' account write its status. Needs the rights of a
    /// cluster administrator; `folder` is for that account's kubeconfig.
    pub async fn install(cluster: &Cluster, folder: &Path) -> anyhow::Result<Self> {
        let client = cluster.client();
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        let original = crds
            .get(&format!("{ORIGINAL}.{}", crds::names::GROUP))
            .await
            .context("get the original kind")?;
        let original = serde_json::to_value(original).context("read the original kind")?;
        let version = original["spec"]["versions"][0]["name"]
            .as_str()
            .context("the original kind has no version")?;
        let kind = GroupVersionKind::gvk(crds::names::GROUP, version, KIND);

        let mut objects = vec![copy_of_kind(&original)];
        objects.extend(role_of_writer());
        for kind in POLICY_KINDS {
            objects.extend(copies_of_policies(&client, kind).await?);
        }
        let installed = objects
            .iter()
            .map(identify)
            .collect::<Option<_>>()
            .context("an object has no name")?;
        apply_all(&client, objects)
            .await
            .context("install the floor")?;

        let kubeconfig = folder.join("floor.kubeconfig");
        cluster
            .service_account_kubeconfig(SYSTEM_NAMESPACE, crds::names::GATEWAY, &kubeconfig)
            .await?;
        let writer = Cluster::connect(&kubeconfig, cluster.kubectl())
            .await?
            .client();
        may_write(&writer).await?;
        Ok(Self {
            client,
            writer,
            kind: ApiResource::from_gvk_with_plural(&kind, PLURAL),
            installed,
        })
    }

    /// The copied kind.
    pub fn kind(&self) -> &ApiResource {
        &self.kind
    }

    /// A client that may write the status of the copied kind.
    pub fn writer(&self) -> Client {
        self.writer.clone()
    }

    /// Removes everything again, with all objects of the kind.
    pub async fn remove(self) -> anyhow::Result<()> {
        for (kind, name) in self.installed.iter().rev() {
            Api::<DynamicObject>::all_with(self.client.clone(), kind)
                .delete(name, &DeleteParams::default())
                .await
                .with_context(|| format!("remove {} {name}", kind.kind))?;
        }
        Ok(())
    }
}

/// Kind and name of an object whose kind is one of those that are made here.
fn identify(object: &Value) -> Option<(ApiResource, String)> {
    let (group, version) = object["apiVersion"].as_str()?.split_once('/')?;
    let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str()?);
    Some((
        ApiResource::from_gvk(&kind),
        object["metadata"]["name"].as_str()?.to_owned(),
    ))
}

async fn may_write(writer: &Client) -> anyhow::Result<()> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "group": crds::names::GROUP, "resource": PLURAL, "subresource": "status", "verb": "patch",
        } },
    });
    let review: SelfSubjectAccessReview =
        serde_json::from_value(review).context("read a review")?;
    until(
        "the floor's status may be written",
        IN_FORCE_WITHIN,
        async || {
            let answer = Api::all(writer.clone())
                .create(&PostParams::default(), &review)
                .await?;
            Ok(answer
                .status
                .is_some_and(|status| status.allowed)
                .then_some(()))
        },
    )
    .await
}

async fn copies_of_policies(client: &Client, kind: &str) -> anyhow::Result<Vec<Value>> {
    // Not served: there is nothing to copy.
    let Some((policy_kind, binding_kind)) = policy_kinds(client, kind).await else {
        return Ok(Vec::new());
    };
    let parameters = ListParams::default();
    let all = Api::<DynamicObject>::all_with(client.clone(), &policy_kind)
        .list(&parameters)
        .await;
    let bindings = Api::<DynamicObject>::all_with(client.clone(), &binding_kind)
        .list(&parameters)
        .await;
    let bindings = bindings.context("list the bindings of policies")?.items;
    let mut copies = Vec::new();
    for policy in all.context("list policies")?.items {
        let Some(copy) = copy_of_policy(&policy.data["spec"]) else {
            continue;
        };
        let name = policy.name_any();
        copies.push(named(&policy_kind, &name, &copy));
        for binding in bindings
            .iter()
            .filter(|binding| binding.data["spec"]["policyName"] == json!(name))
        {
            let mut spec = binding.data["spec"].clone();
            spec["policyName"] = json!(format!("{name}{SUFFIX}"));
            copies.push(named(&binding_kind, &binding.name_any(), &spec));
        }
    }
    Ok(copies)
}

/// The gateways' account may write the status of the copy, as it may that of the original.
fn role_of_writer() -> [Value; 2] {
    let name = format!("{}{SUFFIX}", crds::names::GATEWAY);
    let group = "rbac.authorization.k8s.io";
    [
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": { "name": name },
            "rules": [{
                "apiGroups": [crds::names::GROUP], "resources": [format!("{PLURAL}/status")], "verbs": ["patch"],
            }],
        }),
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": name },
            "subjects": [{
                "kind": "ServiceAccount", "name": crds::names::GATEWAY, "namespace": SYSTEM_NAMESPACE,
            }],
        }),
    ]
}

async fn policy_kinds(client: &Client, kind: &str) -> Option<(ApiResource, ApiResource)> {
    let policy = pinned_kind(client, &GroupVersionKind::gvk(ADMISSION, "v1", kind))
        .await
        .ok()?;
    let binding = format!("{kind}Binding");
    let binding = pinned_kind(client, &GroupVersionKind::gvk(ADMISSION, "v1", &binding))
        .await
        .ok()?;
    Some((policy.0, binding.0))
}

fn named(kind: &ApiResource, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": kind.api_version, "kind": kind.kind,
        "metadata": { "name": format!("{name}{SUFFIX}") },
        "spec": spec,
    })
}

/// The same schema in the same group under another name, without the short names that belong to the original.
fn copy_of_kind(original: &Value) -> Value {
    let mut spec = original["spec"].clone();
    spec["names"] = json!({
        "plural": PLURAL, "singular": KIND.to_lowercase(), "kind": KIND, "listKind": format!("{KIND}List"),
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{PLURAL}.{}", crds::names::GROUP) },
        "spec": spec,
    })
}

/// The policy on the copied kind; `None` where it is not on the original.
fn copy_of_policy(spec: &Value) -> Option<Value> {
    let mut spec = spec.clone();
    let rules = spec["matchConstraints"]["resourceRules"].as_array_mut()?;
    for rule in rules.iter_mut() {
        let resources = rule["resources"].as_array_mut()?;
        *resources = resources
            .iter()
            .filter_map(|resource| {
                let (name, subresource) = split(resource.as_str()?);
                (name == ORIGINAL).then(|| json!(format!("{PLURAL}{subresource}")))
            })
            .collect();
    }
    rules.retain(|rule| {
        rule["resources"]
            .as_array()
            .is_some_and(|resources| !resources.is_empty())
    });
    (!rules.is_empty()).then_some(spec)
}

fn split(resource: &str) -> (&str, &str) {
    resource.split_at(resource.find('/').unwrap_or(resource.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(resources: &[&str]) -> Value {
        json!({ "matchConstraints": { "resourceRules": [
            { "apiGroups": ["fairlead.dev"], "resources": resources },
        ] } })
    }

    #[test]
    fn a_policy_on_invocations_is_copied_for_these_alone() {
        let copy = copy_of_policy(&spec(&[
            "devices",
            "capabilityinvocations",
            "capabilityinvocations/status",
        ]))
        .unwrap();
        let resources = &copy["matchConstraints"]["resourceRules"][0]["resources"];
        assert_eq!(
            resources,
            &json!(["floorinvocations", "floorinvocations/status"])
        );
    }

    #[test]
    fn a_policy_on_something_else_is_not_copied() {
        assert_eq!(
            copy_of_policy(&spec(&["devices", "pairingrequests/status"])),
            None
        );
        assert_eq!(copy_of_policy(&json!({})), None);
    }
}
