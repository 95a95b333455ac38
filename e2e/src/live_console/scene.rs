//! What there is to be asked for: in the namespace `live`, under names that do not change from run to run.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use crds::v1alpha1::capability_invocation::InvocationPhase;
use crds::v1alpha1::device::Presence;
use crds::{CapabilityInvocation, Device, PairingCode, PairingRequest, digest};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::approval::FrontDesk;
use crate::capabilities::declare;
use crate::cluster::{Cluster, service_account_token};
use crate::private;
use crate::stack::{Agent, Stack};
use crate::wait::until;

const NAMESPACE: &str = "live";
/// A device that is there.
const DEVICE: &str = "kiosk";
const TESTER: &str = "tester";
/// Of what can be done once to each: devices that are only objects, codes that nobody uses, requests that wait, and
/// invocations that wait for one of those devices.
const SPARES: usize = 8;
/// More than what `maxOutputBytes` is where nobody says.
const LARGE_BYTES: usize = 200_000;
const TOKEN_SECONDS: i64 = 7200;
const SOON: Duration = Duration::from_mins(1);

/// All of it, and how to ask.
pub struct Scene {
    url: String,
    ca: PathBuf,
    token: PathBuf,
    spec_digest: String,
    agent: Agent,
}

impl Scene {
    /// Pairs a device, runs it, and makes everything.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn set(stack: &mut Stack) -> anyhow::Result<Self> {
        let folder = stack.folder().to_owned();
        let gateway = stack.gateways().first().context("there is no gateway")?;
        let url = format!("https://{}", gateway.console());
        let ca = folder.join("console-ca.crt");
        private::write(&ca, &stack.console_ca()?)?;
        let client = stack.cluster().client();
        let agent = device(stack, &client, &folder).await?;
        let tester = tester(stack.cluster(), &folder).await?;
        let maker = Maker { client, tester };
        maker.spares().await?;
        maker.invocations().await?;
        let token = folder.join("token");
        let secret = service_account_token(&maker.client, NAMESPACE, TESTER, TOKEN_SECONDS).await?;
        private::write(&token, secret.as_bytes())?;
        Ok(Self {
            url,
            ca,
            token,
            spec_digest: maker.waiting_digest().await?,
            agent,
        })
    }

    /// What a command is told.
    pub fn environment(&self) -> [(&'static str, &std::ffi::OsStr); 4] {
        [
            ("FAIRLEAD_CONSOLE_URL", self.url.as_ref()),
            ("FAIRLEAD_CONSOLE_CA", self.ca.as_ref()),
            ("FAIRLEAD_CONSOLE_TOKEN_FILE", self.token.as_ref()),
            ("FAIRLEAD_CONSOLE_SPEC_DIGEST", self.spec_digest.as_ref()),
        ]
    }

    /// Stops the device.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.agent.stop().await
    }
}

/// A device that is paired and online. `live.report` puts out more than a resource holds.
async fn device(stack: &Stack, client: &Client, folder: &Path) -> anyhow::Result<Agent> {
    let script = folder.join("report");
    let text =
        format!("printf '[\"'; head -c {LARGE_BYTES} /dev/zero | tr '\\0' x; printf '\"]'\n");
    private::write(&script, text.as_bytes())?;
    let declared = format!(
        "[[capability]]\nname = \"live.report\"\ncommand = \"/bin/sh\"\nargs = [\"{}\"]\nmax_output_bytes = {}\nenv = [\"PATH\"]\n",
        script.display(),
        LARGE_BYTES * 2
    );
    let config = declare(folder, &declared)?;
    let mut agent = stack.agent(DEVICE)?.with_config(&config);
    FrontDesk::open(client.clone(), NAMESPACE, 1)
        .await?
        .pair(&agent)
        .await?;
    agent.run()?;
    let devices: Api<Device> = Api::namespaced(client.clone(), NAMESPACE);
    until("the device is online", SOON, async || {
        let status = devices.get(DEVICE).await?.status.unwrap_or_default();
        Ok((status.presence == Some(Presence::Online)).then_some(()))
    })
    .await?;
    Ok(agent)
}

/// Somebody with every right.
async fn tester(cluster: &Cluster, folder: &Path) -> anyhow::Result<Client> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), NAMESPACE);
    let account = serde_json::from_value(json!({ "metadata": { "name": TESTER } }))?;
    accounts.create(&PostParams::default(), &account).await?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": { "name": format!("{NAMESPACE}-{TESTER}") },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "name": TESTER, "namespace": NAMESPACE }],
    }))?;
    Api::all(cluster.client())
        .create(&PostParams::default(), &binding)
        .await?;
    let kubeconfig = folder.join("tester.kubeconfig");
    cluster
        .service_account_kubeconfig(NAMESPACE, TESTER, &kubeconfig)
        .await?;
    let cluster = Cluster::connect(&kubeconfig, cluster.kubectl()).await?;
    Ok(cluster.client())
}

/// Makes objects, as administrator.
struct Maker {
    client: Client,
    /// Nobody decides on what they asked for themselves.
    tester: Client,
}

impl Maker {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn make<K>(&self, name: &str, spec: Value) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + DeserializeOwned
            + Serialize
            + Clone
            + Debug,
    {
        let object = serde_json::from_value(json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": name },
            "spec": spec,
        }))?;
        let made = self
            .api::<K>()
            .create(&PostParams::default(), &object)
            .await;
        made.with_context(|| format!("make {} {name}", K::kind(&())))?;
        Ok(())
    }

    /// A device that nobody has: its key is the operator's, for a pod that would mount it.
    async fn device(&self, name: &str) -> anyhow::Result<()> {
        let spec = json!({ "requestedName": name, "keyCustody": "Operator" });
        self.make::<PairingRequest>(name, spec).await?;
        // What nobody but the person who asked has looked at is approved by what it says.
        let request = self.api::<PairingRequest>().get(name).await?;
        let digest = digest::of_spec(&request.spec)?;
        let approval = json!({ "decision": "Approved", "specDigest": digest });
        let approval = json!({ "status": { "approval": approval } });
        Api::<PairingRequest>::namespaced(self.tester.clone(), NAMESPACE)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(approval))
            .await
            .with_context(|| format!("approve {name}"))?;
        until("a spare device is there", SOON, async || {
            Ok(self.api::<Device>().get_opt(name).await?.map(drop))
        })
        .await
    }

    /// What can be used up.
    async fn spares(&self) -> anyhow::Result<()> {
        for number in 0..SPARES {
            self.device(&format!("spare-{number}")).await?;
            let spec = json!({ "ttlSeconds": 86_400 });
            self.make::<PairingCode>(&format!("code-{number}"), spec)
                .await?;
            // All of one spec, so of one digest.
            let spec = json!({ "requestedName": "guest", "keyCustody": "Operator" });
            self.make::<PairingRequest>(&format!("waiting-{number}"), spec)
                .await?;
        }
        Ok(())
    }

    /// `echoed` has an output, `large` an artefact, and `queued-N` wait for a device that does not come.
    async fn invocations(&self) -> anyhow::Result<()> {
        let of = |device: &str, capability: &str| {
            json!({
                "deviceRef": { "name": device }, "capability": capability, "timeoutSeconds": 60,
                "ttlSecondsAfterFinished": 86_400,
            })
        };
        let mut echo = of(DEVICE, "echo");
        echo["input"] = json!({ "text": "grüß dich", "number": 1 });
        self.make::<CapabilityInvocation>("echoed", echo).await?;
        self.make::<CapabilityInvocation>("large", of(DEVICE, "live.report"))
            .await?;
        for number in 0..SPARES {
            let mut queued = of("spare-7", "echo");
            queued["whenOffline"] = "Queue".into();
            queued["queueSeconds"] = 86_400.into();
            self.make::<CapabilityInvocation>(&format!("queued-{number}"), queued)
                .await?;
        }
        for name in ["echoed", "large"] {
            let status = until("an invocation has ended", SOON, async || {
                let status = self.api::<CapabilityInvocation>().get(name).await?.status;
                Ok(status.filter(|status| status.phase.is_terminal()))
            })
            .await?;
            ensure!(
                status.phase == InvocationPhase::Succeeded
                    && status.artefact.is_some() == (name == "large"),
                "{name}: {status:?}"
            );
        }
        Ok(())
    }

    /// The digest of what the requests that wait ask for.
    async fn waiting_digest(&self) -> anyhow::Result<String> {
        let request = self.api::<PairingRequest>().get("waiting-0").await?;
        Ok(digest::of_spec(&request.spec)?)
    }
}
