//! The floor: what an invocation would cost if Fairlead cost nothing.
//!
//! A copy of the CapabilityInvocation kind that no program of ours watches, under the same schema and the same
//! admission policies, so that the API server does the same work for it. The bare client of [`crate::measure`] then
//! makes the same writes on it as Fairlead makes on the original.

use anyhow::Context as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, pinned_kind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::install::apply_all;

const ORIGINAL: &str = "capabilityinvocations";
const PLURAL: &str = "floorinvocations";
const KIND: &str = "FloorInvocation";
const SUFFIX: &str = "-floor";

const ADMISSION: &str = "admissionregistration.k8s.io";
const POLICY_KINDS: [&str; 2] = ["MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"];

/// The copied kind and its policies, as long as they are installed.
pub struct Floor {
    client: Client,
    kind: ApiResource,
    policies: Vec<(ApiResource, String)>,
}

impl Floor {
    /// Copies the kind and every policy on it. Needs the rights of a cluster administrator.
    pub async fn install(client: &Client) -> anyhow::Result<Self> {
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        let original = crds
            .get(&format!("{ORIGINAL}.{}", crds::names::GROUP))
            .await
            .context("get the original kind")?;
        let original = serde_json::to_value(original).context("read the original kind")?;
        let mut objects = vec![copy_of_kind(&original)];
        let mut policies = Vec::new();
        for kind in POLICY_KINDS {
            // Not served: there is nothing to copy.
            let Some((policy_kind, binding_kind)) = policy_kinds(client, kind).await else {
                continue;
            };
            let parameters = ListParams::default();
            let all = Api::<DynamicObject>::all_with(client.clone(), &policy_kind)
                .list(&parameters)
                .await;
            let bindings = Api::<DynamicObject>::all_with(client.clone(), &binding_kind)
                .list(&parameters)
                .await;
            let bindings = bindings.context("list bindings of policies")?.items;
            for policy in all.context("list policies")?.items {
                let Some(copy) = copy_of_policy(&policy.data["spec"]) else {
                    continue;
                };
                let copied = named(&policy_kind, &policy.name_any(), &copy);
                policies.push((
                    policy_kind.clone(),
                    copied["metadata"]["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                ));
                objects.push(copied);
                for binding in bindings.iter().filter(|binding| {
                    binding.data["spec"]["policyName"] == json!(policy.name_any())
                }) {
                    let mut spec = binding.data["spec"].clone();
                    spec["policyName"] = json!(format!("{}{SUFFIX}", policy.name_any()));
                    let copied = named(&binding_kind, &binding.name_any(), &spec);
                    policies.push((
                        binding_kind.clone(),
                        copied["metadata"]["name"]
                            .as_str()
                            .unwrap_or_default()
                            .to_owned(),
                    ));
                    objects.push(copied);
                }
            }
        }
        apply_all(client, objects)
            .await
            .context("install the floor")?;
        let version = original["spec"]["versions"][0]["name"]
            .as_str()
            .context("the original kind has no version")?;
        let kind = GroupVersionKind::gvk(crds::names::GROUP, version, KIND);
        Ok(Self {
            client: client.clone(),
            kind: ApiResource::from_gvk_with_plural(&kind, PLURAL),
            policies,
        })
    }

    /// The copied kind.
    pub fn kind(&self) -> &ApiResource {
        &self.kind
    }

    /// Removes everything again, with all objects of the kind.
    pub async fn remove(self) -> anyhow::Result<()> {
        let parameters = DeleteParams::default();
        for (kind, name) in self.policies.iter().rev() {
            let api = Api::<DynamicObject>::all_with(self.client.clone(), kind);
            api.delete(name, &parameters)
                .await
                .with_context(|| format!("remove {name}"))?;
        }
        Api::<CustomResourceDefinition>::all(self.client)
            .delete(&format!("{PLURAL}.{}", crds::names::GROUP), &parameters)
            .await
            .context("remove the floor's kind")
            .map(drop)
    }
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
