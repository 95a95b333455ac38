//! The story, step by step. Each step shows what a person would type, and does just that.
#![expect(clippy::print_stdout, reason = "what is printed is the demo")]

use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use crds::v1alpha1::capability_invocation::InvocationPhase;
use crds::v1alpha1::device::Presence;
use crds::v1alpha1::pairing_request::RequestPhase;
use crds::{CapabilityInvocation, Device, PairingRequest};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::step;
use crate::cluster::Cluster;
use crate::install::install;
use crate::measure::{Measured, measure};
use crate::private;
use crate::stack::{Agent, Programs, Stack};
use crate::wait::{Stopwatch, until};

const CODE: &str = "front-desk";
const GATEWAYS: usize = 2;
const ROUNDS: usize = 200;
const SOON: Duration = Duration::from_secs(30);
/// For what waits on a device that has to find another gateway.
const AFTER_LOSS: Duration = Duration::from_mins(1);

/// What was measured.
pub struct Figures {
    approval_to_certificate_ms: f64,
    measured: Measured,
}

impl Display for Figures {
    /// The line that others read: its form is a contract.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let Measured {
            invoke_p50_ms,
            floor_p50_ms,
            status_writes_per_invocation,
        } = &self.measured;
        write!(
            formatter,
            "demo ok: approval_to_certificate_ms={:.1} invoke_p50_ms={invoke_p50_ms:.1} floor_p50_ms={floor_p50_ms:.1} status_writes_per_invocation={status_writes_per_invocation:.2}",
            self.approval_to_certificate_ms
        )
    }
}

/// The cast.
pub struct Story {
    cluster: Cluster,
    folder: PathBuf,
    stack: Stack,
    agent: Agent,
    namespace: String,
}

impl Story {
    /// Installs everything, and starts operator and gateways. `namespace` is the device's, made where it is not there.
    pub async fn begin(
        cluster: &Cluster,
        programs: &Programs,
        folder: &Path,
        namespace: &str,
    ) -> anyhow::Result<Self> {
        step("CRDs, policies and roles");
        let installed = install(&cluster.client()).await?;
        println!("{} objects are applied and in force", installed.objects);
        for skipped in installed.skipped {
            println!("left out, as this cluster does not serve it: {skipped}");
        }
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
        });
        Api::<Namespace>::all(cluster.client())
            .patch(
                namespace,
                &PatchParams::apply("fairlead-demo"),
                &Patch::Apply(object),
            )
            .await
            .context("make the demo's namespace")?;

        step("One operator and two gateways");
        let mut stack = Stack::start(cluster, programs, &folder.join("stack"), GATEWAYS).await?;
        println!(
            "fairlead-operator   process {}",
            stack.operator().process().pid()
        );
        for gateway in stack.gateways() {
            let (name, address) = (gateway.name().to_owned(), gateway.address().to_owned());
            println!(
                "{name:<19} process {}, devices connect to {address}",
                gateway.service().process().pid()
            );
        }
        let agent = stack.agent("kiosk-7")?;
        Ok(Self {
            cluster: cluster.clone(),
            folder: folder.to_owned(),
            stack,
            agent,
            namespace: namespace.to_owned(),
        })
    }

    /// Everything from the pairing code to the figures.
    pub async fn tell(&mut self) -> anyhow::Result<Figures> {
        let uri = self.make_code().await?;
        let (device, approval_to_certificate_ms) = self.pair(&uri).await?;
        drop(uri);
        self.connect(&device).await?;
        step("It runs a capability");
        self.invoke("health-1", &device, SOON).await?;
        self.kubectl(&["get", "dev,preq,inv"]).await?;
        self.lose_gateway(&device).await?;
        step("What it costs");
        println!(
            "{ROUNDS} invocations, one after another, in turns with a bare client that makes the same writes"
        );
        let measured = measure(
            &self.cluster,
            &self.folder,
            &self.namespace,
            &device,
            ROUNDS,
        )
        .await?;
        let figures = Figures {
            approval_to_certificate_ms,
            measured,
        };
        println!(
            "approval to certificate on the device   {:>6.1} ms",
            figures.approval_to_certificate_ms
        );
        println!(
            "create to Succeeded, median             {:>6.1} ms",
            figures.measured.invoke_p50_ms
        );
        println!(
            "the floor: a bare client, median        {:>6.1} ms",
            figures.measured.floor_p50_ms
        );
        println!(
            "status writes per invocation            {:>7.2}",
            figures.measured.status_writes_per_invocation
        );
        Ok(figures)
    }

    /// What to type while it stays up.
    pub fn how_to_play_on(&self) {
        step("Your turn");
        println!("All of it stays up until ctrl-C. In another terminal:\n");
        println!(
            "  export KUBECONFIG={}",
            self.cluster.kubeconfig().display()
        );
        if let Some(folder) = self
            .cluster
            .kubectl()
            .parent()
            .filter(|folder| folder.is_absolute())
        {
            println!("  export PATH={}:\"$PATH\"", folder.display());
        }
        println!(
            "  kubectl config set-context --current --namespace={}",
            self.namespace
        );
        println!("  kubectl get fairlead");
        println!("  kubectl explain inv.spec");
        println!("  kubectl get dev -o wide --watch");
        println!("\nLogs and states are in {}", self.folder.display());
    }

    /// Stops the agent, the gateways and the operator, in that order.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let agent = self.agent.stop().await;
        let stack = self.stack.stop().await;
        agent.and(stack)
    }

    /// Gives the URI, which holds the code.
    async fn make_code(&self) -> anyhow::Result<String> {
        step("A pairing code");
        self.apply(json!({
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "PairingCode",
            "metadata": { "name": CODE },
            "spec": { "delivery": "Qr", "ttlSeconds": 600 },
        }))
        .await?;
        let secrets = Api::<Secret>::namespaced(self.cluster.client(), &self.namespace);
        let name = crds::names::code_secret(CODE);
        let secret = until("the operator draws the code", SOON, async || {
            Ok(secrets.get_opt(&name).await?)
        })
        .await?;
        let mut data = secret.data.unwrap_or_default();
        let mut key = |key: &str| -> anyhow::Result<String> {
            let value = data
                .remove(key)
                .with_context(|| format!("Secret {name} has no key {key}"))?;
            String::from_utf8(value.0)
                .with_context(|| format!("key {key} of Secret {name} is not text"))
        };
        println!(
            "\nFor the person at the device, out of Secret {name}:\n\n  PIN  {}\n",
            key("pin")?.trim()
        );
        println!("{}", key("qr.txt")?.trim_end_matches('\n'));
        Ok(key("uri")?.trim().to_owned())
    }

    /// Gives the device's name and the time from approval to certificate.
    async fn pair(&mut self, uri: &str) -> anyhow::Result<(String, f64)> {
        step("A device asks to be let in");
        println!("$ fairlead-agent pair - <<< URI");
        let mut pairing = self.agent.pair(uri, None)?;
        let requests = Api::<PairingRequest>::namespaced(self.cluster.client(), &self.namespace);
        let pending = ListParams::default().fields("status.phase=Pending");
        let asked = until("the device's request", SOON, async || {
            Ok(requests.list(&pending).await?.items.into_iter().next())
        });
        let request = tokio::select! {
            asked = asked => asked,
            ended = pairing.process().wait() => {
                ended.and_then(|status| bail!("fairlead-agent pair ended before it was approved ({status})"))
            }
        };
        let request = request
            .with_context(|| crate::process::tail(&self.agent.log()))?
            .name_any();
        self.kubectl(&["get", "preq"]).await?;

        step("Somebody decides");
        let watch = Stopwatch::start();
        let approval = r#"{"status":{"approval":{"decision":"Approved"}}}"#;
        let approve = async {
            self.kubectl(&[
                "patch",
                "preq",
                &request,
                "--subresource=status",
                "--type=merge",
                "-p",
                approval,
            ])
            .await?;
            anyhow::Ok(watch.millis())
        };
        // kubectl takes a moment to end after its patch is done: whichever shows the approval first starts the clock.
        let approved = async {
            let mut changes = std::pin::pin!(watch_object(requests.clone(), &request));
            while let Some(change) = changes.try_next().await.context("watch the request")? {
                if change
                    .and_then(|request| request.status)
                    .is_some_and(|status| status.approval.is_some())
                {
                    return Ok(watch.millis());
                }
            }
            bail!("the watch on the request has ended")
        };
        let stored = async {
            let identity = self.agent.identity();
            while !identity.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(watch.millis())
        };
        let all = async { tokio::try_join!(approve, approved, stored) };
        let (patched, seen, stored) =
            tokio::time::timeout(SOON, all).await.with_context(|| {
                format!(
                    "no certificate after an approval\n{}",
                    crate::process::tail(&self.agent.log())
                )
            })??;
        pairing.paired(SOON).await?;

        let issued = until("the request is Issued", SOON, async || {
            let status = requests.get(&request).await?.status.unwrap_or_default();
            Ok((status.phase == RequestPhase::Issued).then_some(status))
        })
        .await?;
        let device = issued
            .device_ref
            .context("an issued request names no device")?
            .name;
        let took = stored - patched.min(seen);
        println!("{took:.1} ms later the certificate was on the device's disk");
        Ok((device, took))
    }

    async fn connect(&mut self, device: &str) -> anyhow::Result<()> {
        step("The device connects");
        println!("$ fairlead-agent run");
        let pid = self.agent.run()?.pid();
        self.online(device, SOON, |_| true).await?;
        println!("process {pid}\n");
        self.kubectl(&["get", "dev", "-o", "wide"]).await
    }

    async fn invoke(&mut self, name: &str, device: &str, within: Duration) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        self.apply(json!({
            "apiVersion": "fairlead.dev/v1alpha1",
            "kind": "CapabilityInvocation",
            "metadata": { "name": name },
            "spec": { "deviceRef": { "name": device }, "capability": "system.health", "timeoutSeconds": within.as_secs() },
        }))
        .await?;
        let invocations =
            Api::<CapabilityInvocation>::namespaced(self.cluster.client(), &self.namespace);
        let ended = until("the invocation ends", within, async || {
            let status = invocations.get(name).await?.status.unwrap_or_default();
            Ok(status.phase.is_terminal().then_some(status))
        });
        let status = ended
            .await
            .with_context(|| crate::process::tail(&self.agent.log()))?;
        if status.phase != InvocationPhase::Succeeded {
            bail!(
                "the invocation did not succeed: {}",
                serde_json::to_string(&status)?
            );
        }
        println!(
            "Succeeded within {:.1} s, through {}",
            watch.elapsed().as_secs_f64(),
            status.gateway.unwrap_or_default()
        );
        self.kubectl(&["get", "inv", name, "-o", "jsonpath={.status.output}"])
            .await?;
        println!();
        Ok(())
    }

    async fn lose_gateway(&mut self, device: &str) -> anyhow::Result<()> {
        step("The gateway that holds its stream is killed");
        let held = self.online(device, SOON, |_| true).await?;
        let gateway = self.stack.gateway(&held)?.service();
        println!("$ kill -KILL {}    # {held}\n", gateway.process().pid());
        gateway.kill().await?;
        self.invoke("health-2", device, AFTER_LOSS).await?;
        let now = self
            .online(device, AFTER_LOSS, |gateway| gateway != held)
            .await?;
        self.stack.gateway(&held)?.service().start_again().await?;
        println!("The device is with {now} now; {held} was started again\n");
        self.kubectl(&["get", "dev,preq,inv", "-o", "wide"]).await
    }

    /// Waits until the device is Online at a gateway of the wanted name, and gives that name.
    async fn online(
        &mut self,
        device: &str,
        within: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let devices = Api::<Device>::namespaced(self.cluster.client(), &self.namespace);
        let online = until("the device is Online", within, async || {
            let status = devices.get(device).await?.status.unwrap_or_default();
            let open = status
                .session
                .filter(|session| session.ended_at.is_none() && wanted(&session.gateway));
            Ok(open
                .filter(|_| status.presence == Some(Presence::Online))
                .map(|session| session.gateway))
        });
        online
            .await
            .with_context(|| crate::process::tail(&self.agent.log()))
    }

    /// Shows a manifest and applies it with kubectl.
    async fn apply(&self, manifest: serde_json::Value) -> anyhow::Result<()> {
        let yaml = serde_saphyr::to_string(&manifest).context("render a manifest")?;
        let path = self.folder.join("manifest.yaml");
        private::write(&path, yaml.as_bytes())?;
        println!(
            "$ kubectl -n {} apply -f - <<EOF\n{}\nEOF",
            self.namespace,
            yaml.trim_end()
        );
        let path = path.to_str().context("the folder's name is not text")?;
        self.run(&["apply", "-f", path]).await
    }

    /// Shows a kubectl command, runs it, and shows what it says.
    async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let words: Vec<_> = arguments.iter().map(|word| shown(word)).collect();
        println!("$ kubectl -n {} {}", self.namespace, words.join(" "));
        self.run(arguments).await
    }

    async fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let printed = self
            .cluster
            .run_kubectl(&[&["-n", &self.namespace], arguments].concat())
            .await?;
        println!("{}", printed.trim_end());
        Ok(())
    }
}

/// A word as one would type it.
fn shown(word: &str) -> String {
    if word.contains(['{', '"', ' ', '$', '*']) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_the_form_that_others_read() {
        let figures = Figures {
            approval_to_certificate_ms: 61.26,
            measured: Measured {
                invoke_p50_ms: 20.04,
                floor_p50_ms: 18.0,
                status_writes_per_invocation: 1.0,
            },
        };
        assert_eq!(
            figures.to_string(),
            "demo ok: approval_to_certificate_ms=61.3 invoke_p50_ms=20.0 floor_p50_ms=18.0 status_writes_per_invocation=1.00"
        );
    }

    #[test]
    fn json_is_quoted_for_the_shell_and_plain_words_are_not() {
        assert_eq!(shown("preq"), "preq");
        assert_eq!(shown(r#"{"a":1}"#), r#"'{"a":1}'"#);
    }
}
