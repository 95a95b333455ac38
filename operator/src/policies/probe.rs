//! Dry runs that a policy must refuse. Nothing of them is stored.
//!
//! Each is what somebody would try who holds the right by RBAC and not by policy, in the namespace of what is about to
//! be signed, and where it is about an object, on that object: so a binding that is narrowed, or only audits, is found.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use crds::{
    Device, PairingCode, PairingRequest,
    names::PROBE,
    v1alpha1::{
        DeviceSpec, PairingCodeSpec, PairingRequestSpec,
        pairing_code::Approval,
        pairing_request::{KeyCustody, Source},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::plan::Policy;

/// A dry run that a policy must refuse.
#[derive(Clone, Debug)]
pub struct Probe {
    pub policy: Policy,
    /// The labels of the object, by which a binding may pass it over.
    pub labels: u64,
    attempt: Attempt,
}

#[derive(Clone, Debug)]
enum Attempt {
    CreateRequest,
    CreateCode,
    CreateDevice,
    Patch { name: String, status: Value },
}

impl Probe {
    /// To claim that a request came through a gateway.
    pub fn request_origin() -> Self {
        Self::create(Policy::RequestOrigin, Attempt::CreateRequest)
    }

    /// To make a code that approves by itself.
    pub fn code_approval() -> Self {
        Self::create(Policy::CodeApproval, Attempt::CreateCode)
    }

    /// To make a Device.
    pub fn device_origin() -> Self {
        Self::create(Policy::DeviceOrigin, Attempt::CreateDevice)
    }

    /// To decide on the request; where it is decided, which the schema makes final, to change its status.
    pub fn decision(request: &PairingRequest) -> Self {
        let status = request.status.as_ref();
        let is_decided = status.is_some_and(|status| status.approval.is_some());
        let attempt = if is_decided {
            unlike(status.and_then(|status| status.observed_generation))
        } else {
            // A denial: it would let nobody in even if it were not a dry run.
            json!({ "approval": { "decision": "Denied", "reason": "a dry run that a policy must refuse" } })
        };
        Self::patch(Policy::Decision, request, attempt)
    }

    /// To change the status of a code.
    pub fn code_status(code: &PairingCode) -> Self {
        let status = code.status.as_ref();
        let status = unlike(status.and_then(|status| status.observed_generation));
        Self::patch(Policy::CodeStatus, code, status)
    }

    /// To change the status of a Device.
    pub fn device_status(device: &Device) -> Self {
        let status = device.status.as_ref();
        let status = unlike(status.and_then(|status| status.observed_generation));
        Self::patch(Policy::DeviceStatus, device, status)
    }

    fn create(policy: Policy, attempt: Attempt) -> Self {
        Self {
            policy,
            labels: 0,
            attempt,
        }
    }

    fn patch<K: Resource>(policy: Policy, object: &K, status: Value) -> Self {
        Self {
            policy,
            labels: digest(object.labels()),
            attempt: Attempt::Patch {
                name: object.name_any(),
                status,
            },
        }
    }

    /// Makes the dry run.
    pub async fn run(&self, client: Client, namespace: &str) -> kube::Result<()> {
        match &self.attempt {
            Attempt::CreateRequest => {
                let spec = PairingRequestSpec {
                    key_custody: KeyCustody::Operator,
                    requested_name: PROBE.to_owned(),
                    source: Some(Source {
                        gateway: PROBE.to_owned(),
                        remote_address: String::new(),
                    }),
                    ..PairingRequestSpec::default()
                };
                create(client, namespace, &PairingRequest::new(PROBE, spec)).await
            }
            Attempt::CreateCode => {
                let spec = PairingCodeSpec {
                    ttl_seconds: 30,
                    max_uses: 1,
                    max_attempts: 1,
                    approval: Approval::Automatic,
                    ..PairingCodeSpec::default()
                };
                create(client, namespace, &PairingCode::new(PROBE, spec)).await
            }
            Attempt::CreateDevice => {
                let spec = DeviceSpec {
                    public_key_sha256: "0".repeat(64),
                    ..DeviceSpec::default()
                };
                create(client, namespace, &Device::new(PROBE, spec)).await
            }
            Attempt::Patch { name, status } => match self.policy {
                Policy::CodeStatus | Policy::CodeApproval => {
                    patch::<PairingCode>(client, namespace, name, status).await
                }
                Policy::DeviceStatus | Policy::DeviceOrigin => {
                    patch::<Device>(client, namespace, name, status).await
                }
                Policy::Decision | Policy::RequestOrigin => {
                    patch::<PairingRequest>(client, namespace, name, status).await
                }
            },
        }
    }
}

/// A status that differs from what is there, and that the schema accepts.
fn unlike(generation: Option<i64>) -> Value {
    json!({ "observedGeneration": generation.unwrap_or(0).saturating_add(1) })
}

fn digest(labels: &BTreeMap<String, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

async fn create<K>(client: Client, namespace: &str, object: &K) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    let params = PostParams {
        dry_run: true,
        field_manager: Some(PROBE.to_owned()),
    };
    let api: Api<K> = Api::namespaced(client, namespace);
    api.create(&params, object).await.map(|_| ())
}

async fn patch<K>(client: Client, namespace: &str, name: &str, status: &Value) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let params = PatchParams {
        dry_run: true,
        field_manager: Some(PROBE.to_owned()),
        ..PatchParams::default()
    };
    let api: Api<K> = Api::namespaced(client, namespace);
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status(name, &params, &patch).await.map(|_| ())
}
