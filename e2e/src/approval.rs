//! A code for many devices, and agents that pair with it and are approved at once, in a namespace of their own.

use std::time::Duration;

use anyhow::Context as _;
use crds::{PairingCode, PairingRequest, names};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::stack::Agent;
use crate::wait::{Stopwatch, until};

const CODE: &str = "all";
const SOON: Duration = Duration::from_secs(30);

/// A namespace with a code in it.
pub struct FrontDesk {
    client: Client,
    namespace: String,
    uri: String,
}

impl FrontDesk {
    /// Makes the namespace and a code for `devices` devices.
    ///
    /// # Errors
    /// When the operator does not draw the code.
    pub async fn open(client: Client, namespace: &str, devices: usize) -> anyhow::Result<Self> {
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await?;
        let codes: Api<PairingCode> = Api::namespaced(client.clone(), namespace);
        let code = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "PairingCode",
            "metadata": { "name": CODE },
            "spec": { "ttlSeconds": 3600, "maxUses": devices },
        }))?;
        codes.create(&PostParams::default(), &code).await?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let uri = until("the code is drawn", SOON, async || {
            let secret = secrets.get_opt(&names::code_secret(CODE)).await?;
            Ok(secret.and_then(|secret| secret.data?.remove("uri")))
        })
        .await?;
        Ok(Self {
            client,
            namespace: namespace.to_owned(),
            uri: String::from_utf8(uri.0).context("the URI is not text")?,
        })
    }

    /// Pairs one device; no other may ask meanwhile. Gives the milliseconds from the answer to the approving patch to
    /// the certificate on the device's disk.
    ///
    /// # Errors
    /// When it is not paired in time.
    pub async fn pair(&self, agent: &Agent) -> anyhow::Result<f64> {
        let requests: Api<PairingRequest> = Api::namespaced(self.client.clone(), &self.namespace);
        let pending = ListParams::default().fields("status.phase=Pending");
        let mut pairing = agent.pair(&self.uri, None)?;
        let asked = async {
            loop {
                let request = until("the device's request", SOON, async || {
                    Ok(requests.list(&pending).await?.items.pop())
                });
                // From one address, a gateway hears one try a second.
                tokio::select! {
                    request = request => return request,
                    ended = pairing.process().wait() => {
                        ended?;
                        pairing = agent.pair(&self.uri, None)?;
                    }
                }
            }
        };
        let request = tokio::time::timeout(SOON, asked)
            .await
            .context("the device does not come to ask")
            .flatten()
            .with_context(|| crate::process::tail(&agent.log()))?;
        let approval = json!({ "status": { "approval": { "decision": "Approved" } } });
        let identity = agent.identity();
        let patched = async {
            let patch = Patch::Merge(approval);
            requests
                .patch_status(&request.name_any(), &PatchParams::default(), &patch)
                .await
                .context("approve")?;
            anyhow::Ok(Stopwatch::start())
        };
        let stored = async {
            while !identity.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            anyhow::Ok(Stopwatch::start())
        };
        let both = async { tokio::try_join!(patched, stored) };
        let (patched, stored) = tokio::time::timeout(SOON, both)
            .await
            .context("no certificate after an approval")??;
        pairing.paired(SOON).await?;
        // Where the file came before the answer to the patch, no time passed that anybody waited for.
        Ok(patched.until(&stored))
    }
}
