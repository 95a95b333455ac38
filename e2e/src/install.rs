//! Applies what the checkout ships – CRDs, roles, policies – and waits until all of it is in force.
//!
//! An API server takes what is applied at its own pace: a CRD may be Established before it is served, and a policy is
//! enforced a moment after it is stored. Whoever creates objects in that moment gets past the policies, so this
//! returns only when it has seen the API server act on them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::policies::{self, PAIRING_DECISION};
use jiff::SignedDuration;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::wait::{now, until};

/// The namespace of operator and gateways, as `crds/rbac` names it.
pub const SYSTEM_NAMESPACE: &str = "fairlead-system";

const FOLDERS: [&str; 3] = ["generated", "rbac", "policies"];
const FIELD_MANAGER: &str = "fairlead-install";
const IN_FORCE_WITHIN: Duration = Duration::from_mins(1);
const CANARY: &str = "fairlead-install-canary";

/// What was done.
#[derive(Debug)]
pub struct Installed {
    /// Objects applied.
    pub objects: usize,
    /// Kind and name of what this cluster is too old for: MutatingAdmissionPolicies before Kubernetes 1.36.
    pub skipped: Vec<String>,
}

/// Applies everything, with the rights of a cluster administrator. Can be repeated.
///
/// # Errors
/// When a file cannot be read, the API server refuses an object, or something is not in force within a minute.
pub async fn install(client: &Client) -> anyhow::Result<Installed> {
    let mut objects = Vec::new();
    for folder in FOLDERS {
        objects.extend(read_folder(&crds_folder().join(folder))?);
    }
    apply_all(client, objects).await
}

/// Applies objects in their order and waits until they are in force, as [`install`] does.
pub async fn apply_all(client: &Client, objects: Vec<Value>) -> anyhow::Result<Installed> {
    let mut cluster = Applier {
        client: client.clone(),
        kinds: HashMap::new(),
    };
    let mut installed = Installed {
        objects: 0,
        skipped: Vec::new(),
    };
    let mut served = Vec::new();
    for object in objects {
        let object: DynamicObject = serde_json::from_value(object).context("read an object")?;
        let title = title(&object);
        if cluster
            .apply(&object)
            .await
            .with_context(|| format!("apply {title}"))?
        {
            installed.objects += 1;
        } else {
            installed.skipped.push(title);
            continue;
        }
        if object
            .types
            .as_ref()
            .is_some_and(|types| types.kind == "CustomResourceDefinition")
        {
            let name = object.name_any();
            served.push(established(client, &name).await?);
        }
    }
    policies_in_force(&mut cluster).await?;
    decisions_count(client).await?;
    for kind in &served {
        accepts_objects(client, kind).await?;
    }
    Ok(installed)
}

fn crds_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds")
}

fn read_folder(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let mut paths = std::fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<Vec<_>>>()
        })
        .with_context(|| format!("list {}", folder.display()))?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    // A settled order makes a failure repeatable.
    paths.sort();
    let mut objects = Vec::new();
    for path in paths {
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        objects.extend(documents(&text).with_context(|| format!("parse {}", path.display()))?);
    }
    Ok(objects)
}

/// The documents of a YAML file that hold something, with Lists taken apart.
fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .flat_map(|mut document| match document["kind"].as_str() {
            Some("List") => match document["items"].take() {
                Value::Array(items) => items,
                other @ (Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Object(_)) => vec![other],
            },
            _ => vec![document],
        })
        .collect())
}

struct Applier {
    client: Client,
    /// What the API server serves under a kind; asked once each.
    kinds: HashMap<GroupVersionKind, Option<(ApiResource, ApiCapabilities)>>,
}

impl Applier {
    /// `false` where the API server does not serve this kind and need not.
    async fn apply(&mut self, object: &DynamicObject) -> anyhow::Result<bool> {
        let Some(api) = self.api(object).await? else {
            return Ok(false);
        };
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&object.name_any(), &parameters, &Patch::Apply(object))
            .await?;
        Ok(true)
    }

    async fn delete(&mut self, object: &DynamicObject) -> anyhow::Result<()> {
        if let Some(api) = self.api(object).await? {
            api.delete(&object.name_any(), &DeleteParams::default())
                .await?;
        }
        Ok(())
    }

    async fn api(&mut self, object: &DynamicObject) -> anyhow::Result<Option<Api<DynamicObject>>> {
        let types = object
            .types
            .as_ref()
            .context("it has no apiVersion or kind")?;
        let kind = GroupVersionKind::try_from(types).context("read its apiVersion")?;
        let optional = kind.kind.starts_with("MutatingAdmissionPolicy");
        if !self.kinds.contains_key(&kind) {
            let found = match pinned_kind(&self.client, &kind).await {
                Ok(found) => Some(found),
                Err(error) if optional && is_unknown_kind(&error) => None,
                Err(error) => {
                    return Err(error).context("ask whether the API server serves its kind");
                }
            };
            self.kinds.insert(kind.clone(), found);
        }
        let known = self.kinds.get(&kind).cloned().flatten();
        let client = self.client.clone();
        Ok(known.map(
            |(resource, capabilities)| match (capabilities.scope, object.namespace()) {
                (Scope::Namespaced, Some(namespace)) => {
                    Api::namespaced_with(client, &namespace, &resource)
                }
                (Scope::Namespaced, None) => Api::default_namespaced_with(client, &resource),
                (Scope::Cluster, _) => Api::all_with(client, &resource),
            },
        ))
    }
}

fn is_unknown_kind(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Discovery(_)) || code(error) == Some(404)
}

fn code(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(status) = error {
        Some(status.code)
    } else {
        None
    }
}

fn title(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| &types.kind);
    format!("{kind} {}", object.name_any())
}

/// Waits until a CRD is Established, and gives what it serves.
async fn established(client: &Client, name: &str) -> anyhow::Result<ApiResource> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let crd = until(
        &format!("CRD {name} is Established"),
        IN_FORCE_WITHIN,
        async || {
            let crd = api.get(name).await?;
            let conditions = crd
                .status
                .as_ref()
                .and_then(|status| status.conditions.as_deref())
                .unwrap_or_default();
            let is = |kind: &str| {
                conditions
                    .iter()
                    .any(|condition| condition.type_ == kind && condition.status == "True")
            };
            ensure!(is("NamesAccepted"), "{conditions:?}");
            Ok(is("Established").then_some(crd))
        },
    )
    .await?;
    let version = crd
        .spec
        .versions
        .iter()
        .find(|version| version.served)
        .with_context(|| format!("CRD {name} serves no version"))?;
    Ok(ApiResource {
        api_version: format!("{}/{}", crd.spec.group, version.name),
        group: crd.spec.group,
        version: version.name.clone(),
        kind: crd.spec.names.kind,
        plural: crd.spec.names.plural,
    })
}

/// Waits until an object of this kind gets as far as the validation of its schema.
///
/// The object has no spec, so it is refused where a spec is required (422): by then it has passed routing and every
/// mutating policy, which answer 404 or 500 as long as they do not know the kind. Nothing is stored.
async fn accepts_objects(client: &Client, kind: &ApiResource) -> anyhow::Result<()> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), SYSTEM_NAMESPACE, kind);
    let mut probe = DynamicObject::new(CANARY, kind);
    probe.data = json!({ "spec": {} });
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    until(
        &format!("{} are served", kind.plural),
        IN_FORCE_WITHIN,
        async || {
            match api.create(&parameters, &probe).await {
                Ok(_) => Ok(Some(())),
                Err(error) if code(&error) == Some(422) => Ok(Some(())),
                // A policy of ours refuses it; the machinery's own 403 speaks of the delay.
                Err(error)
                    if code(&error) == Some(403) && !error.to_string().contains("not found") =>
                {
                    Ok(Some(()))
                }
                Err(error) => Err(error.into()),
            }
        },
    )
    .await
}

/// Waits until the API server enforces every policy that was applied before.
///
/// A last pair of policies is applied: one that changes a certain ConfigMap, one that refuses it when it was changed.
/// The API server learns of policies and of bindings in the order in which they were stored, so once it refuses that
/// ConfigMap it has all the others, too. (Of several API servers behind one address only one was seen.)
async fn policies_in_force(cluster: &mut Applier) -> anyhow::Result<()> {
    let canaries: Vec<DynamicObject> = canary_policies()
        .into_iter()
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()?;
    let mut mutates = false;
    for canary in &canaries {
        let applied = cluster
            .apply(canary)
            .await
            .with_context(|| format!("apply {}", title(canary)))?;
        mutates |= applied
            && canary
                .types
                .as_ref()
                .is_some_and(|types| types.kind.starts_with("Mutating"));
    }
    let mut config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": CANARY, "namespace": SYSTEM_NAMESPACE },
    });
    if !mutates {
        config_map["data"] = json!({ "seen": "yes" });
    }
    let config_map: k8s_openapi::api::core::v1::ConfigMap = serde_json::from_value(config_map)?;
    let api = Api::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    until("policies are in force", IN_FORCE_WITHIN, async || match api
        .create(&parameters, &config_map)
        .await
    {
        Ok(_) => Ok(None),
        Err(error) if error.to_string().contains(CANARY_SEEN) => Ok(Some(())),
        Err(error) => Err(error.into()),
    })
    .await?;
    for canary in canaries.iter().rev() {
        cluster
            .delete(canary)
            .await
            .with_context(|| format!("remove {}", title(canary)))?;
    }
    Ok(())
}

/// Waits until the operator signs what is decided from now on: a decision that is hardly younger than the policy may have
/// been made without it.
async fn decisions_count(client: &Client) -> anyhow::Result<()> {
    let all = ListParams::default();
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone())
        .list(&all)
        .await
        .context("list the bindings of policies")?;
    let policy = Api::<ValidatingAdmissionPolicy>::all(client.clone())
        .get(PAIRING_DECISION)
        .await
        .with_context(|| format!("get the policy {PAIRING_DECISION}"))?;
    let changed = policies::last_changed(PAIRING_DECISION, &policy, &bindings.items);
    // Times of the API server are whole seconds.
    let from = changed + policies::SETTLES + SignedDuration::from_secs(1);
    until("decisions count", IN_FORCE_WITHIN, async || {
        Ok((now() >= from).then_some(()))
    })
    .await
}

const CANARY_SEEN: &str = "the canary was seen";

/// The mutating policy's changes are seen by the validating one, as on every request.
fn canary_policies() -> [Value; 4] {
    let matches = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": SYSTEM_NAMESPACE } },
        "resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
        }],
    });
    let only_the_canary =
        json!([{ "name": "canary", "expression": format!("object.metadata.name == '{CANARY}'") }]);
    let api = "admissionregistration.k8s.io/v1";
    [
        json!({
            "apiVersion": api, "kind": "MutatingAdmissionPolicy", "metadata": { "name": CANARY },
            "spec": {
                "failurePolicy": "Ignore",
                "reinvocationPolicy": "Never",
                "matchConstraints": matches,
                "matchConditions": only_the_canary,
                "mutations": [{
                    "patchType": "JSONPatch",
                    "jsonPatch": { "expression": "[JSONPatch{op: 'add', path: '/data', value: {'seen': 'yes'}}]" },
                }],
            },
        }),
        json!({
            "apiVersion": api, "kind": "MutatingAdmissionPolicyBinding", "metadata": { "name": CANARY },
            "spec": { "policyName": CANARY },
        }),
        json!({
            "apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": { "name": CANARY },
            "spec": {
                "failurePolicy": "Ignore",
                "matchConstraints": matches,
                "matchConditions": only_the_canary,
                "validations": [{
                    "expression": "!has(object.data) || !('seen' in object.data)",
                    "message": CANARY_SEEN,
                }],
            },
        }),
        json!({
            "apiVersion": api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": CANARY },
            "spec": { "policyName": CANARY, "validationActions": ["Deny"] },
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_documents_of_a_file_are_taken_and_lists_are_taken_apart() {
        let text = "# licence\n---\nkind: A\n---\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n";
        let kinds: Vec<_> = documents(text)
            .unwrap()
            .iter()
            .map(|object| object["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
    }

    #[test]
    fn text_that_looks_like_another_type_stays_text() {
        let object = &documents("data: {a: 'on', b: \"1\", c: 0x}\nn: 5\n").unwrap()[0];
        assert_eq!(object["data"], json!({ "a": "on", "b": "1", "c": "0x" }));
        assert_eq!(object["n"], json!(5));
    }
}
