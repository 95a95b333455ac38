//! `artifact get`: the one thing that Kubernetes does not show, from a gateway's console.
//!
//! Which consoles there are is on the Leases of the gateways, and whom to believe is in the trust bundle: both of the
//! system namespace. Who may not read them gives `--console` and `--console-ca`.

mod destination;

use std::{io, path::PathBuf};

use anyhow::{Context as _, bail};
use client::{Category, ControlPlaneClient, Credentials, Roots, api::ObjectId};
use crds::names::{COMPONENT_GATEWAY, COMPONENT_LABEL, CONSOLE_ANNOTATION, TRUST_BUNDLE};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{Api, ResourceExt as _, api::ListParams};
use tokio::io::AsyncWriteExt as _;

use destination::Destination;

use crate::{
    cluster::{Cluster, SYSTEM_NAMESPACE, told},
    exit::Exit,
    show::note,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Get {
    /// Name of the invocation.
    invocation: String,
    /// Where it goes; `-` is standard output [default: a file named after the invocation].
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    console: Console,
}

/// Which console is asked, and whom its certificate is believed for.
#[derive(Clone, Debug, clap::Args)]
pub struct Console {
    /// The console to ask for an artifact, `https://HOST:PORT` [default: those of the gateways].
    #[arg(long, env = "FAIRLEAD_CONSOLE", value_name = "URL")]
    console: Option<String>,
    /// The authority of the console's certificate, PEM [default: the cluster's trust bundle].
    #[arg(long, env = "FAIRLEAD_CONSOLE_CA", value_name = "FILE")]
    console_ca: Option<PathBuf>,
}

impl Get {
    pub async fn run(self, cluster: &Cluster) -> anyhow::Result<Exit> {
        if self
            .to
            .as_deref()
            .is_some_and(|path| path.as_os_str() == "-")
        {
            self.console.to_stdout(cluster, &self.invocation).await?;
            return Ok(Exit::Done);
        }
        let default = || PathBuf::from(format!("{}.out", self.invocation));
        let path = self.to.clone().unwrap_or_else(default);
        // Before anything is fetched: a path that cannot be written costs nothing then.
        let destination =
            Destination::of(&path).with_context(|| format!("write to {}", path.display()))?;
        let bytes = self
            .console
            .ask(cluster, &self.invocation, async |client, id| {
                into(client, id, &destination).await
            })
            .await?;
        note(&format!("{bytes} bytes in {}", path.display()));
        Ok(Exit::Done)
    }
}

impl Console {
    /// Writes the artifact of an invocation to standard output.
    pub async fn to_stdout(&self, cluster: &Cluster, invocation: &str) -> anyhow::Result<()> {
        self.ask(cluster, invocation, async |client, id| {
            let mut out = tokio::io::stdout();
            let record = client.artefact(id, &mut out).await.map_err(Fetch::Client)?;
            out.flush()
                .await
                .map_err(|error| Fetch::Local(error.into()))?;
            Ok(record.size_bytes)
        })
        .await
        .map(drop)
    }

    /// Asks one console after another until one can be reached.
    async fn ask(
        &self,
        cluster: &Cluster,
        invocation: &str,
        fetch: impl AsyncFn(&ControlPlaneClient, &ObjectId) -> Result<u64, Fetch>,
    ) -> anyhow::Result<u64> {
        let id = ObjectId::new(&cluster.namespace, invocation)?;
        let consoles = match &self.console {
            Some(url) => vec![url.clone()],
            None => found(cluster).await?,
        };
        let roots = self.roots(cluster).await?;
        let credentials = Credentials::kube(cluster.config.clone()).await?;
        let mut last = None;
        for console in consoles {
            let client = ControlPlaneClient::builder(&console)
                .roots(roots.clone())
                .credentials(credentials.clone())
                .build()?;
            match fetch(&client, &id).await {
                Ok(bytes) => return Ok(bytes),
                // Another one may be reached.
                Err(Fetch::Client(error)) if error.category() == Category::Transport => {
                    note(&format!("{console} cannot be reached"));
                    last = Some(error);
                }
                Err(Fetch::Client(error)) => return Err(explained(error)),
                Err(Fetch::Local(error)) => return Err(error),
            }
        }
        match last {
            Some(error) => Err(anyhow::Error::from(error)),
            None => bail!("no gateway says where its console is: give --console URL"),
        }
    }

    async fn roots(&self, cluster: &Cluster) -> anyhow::Result<Roots> {
        if let Some(path) = &self.console_ca {
            let pem = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            return Ok(Roots::Only(pem));
        }
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
        match maps.get(TRUST_BUNDLE).await {
            Ok(map) => {
                let pem = map
                    .data
                    .and_then(|data| data.get("ca.crt").cloned())
                    .with_context(|| format!("the ConfigMap {TRUST_BUNDLE} has no ca.crt"))?;
                // A console may have a certificate that everybody believes, in the place of the cluster's own.
                Ok(Roots::PlatformAnd(pem.into_bytes()))
            }
            // With a console of the caller's own choice, this machine may know its authority.
            Err(_) if self.console.is_some() => Ok(Roots::Platform),
            Err(error) => {
                Err(told(error)).context("read the trust bundle; or give --console-ca FILE")
            }
        }
    }
}

enum Fetch {
    Client(client::Error),
    Local(anyhow::Error),
}

/// Fetches to the destination; returns the number of bytes.
async fn into(
    client: &ControlPlaneClient,
    id: &ObjectId,
    destination: &Destination,
) -> Result<u64, Fetch> {
    let local = |error: io::Error| {
        let path = destination.path().display();
        Fetch::Local(anyhow::Error::from(error).context(format!("write {path}")))
    };
    let opened = destination.open().map_err(local)?;
    let file = opened.file().map_err(local)?;
    let mut file = tokio::fs::File::from_std(file);
    let record = client
        .artefact(id, &mut file)
        .await
        .map_err(Fetch::Client)?;
    file.flush().await.map_err(local)?;
    opened.done(&file.into_std().await).map_err(local)?;
    Ok(record.size_bytes)
}

/// What the console says, with what to do.
fn explained(error: client::Error) -> anyhow::Error {
    let rule = error.problem().and_then(|problem| problem.rule.clone());
    let error = anyhow::Error::from(error);
    match rule {
        None => error,
        Some(rule) => error.context(format!(
            "ask for a role with apiGroups: [{}], resources: [{}], verbs: [{}]",
            rule.api_groups.join(", "),
            rule.resources.join(", "),
            rule.verbs.join(", ")
        )),
    }
}

/// The consoles of the gateways, those first that renewed their Lease last.
async fn found(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), SYSTEM_NAMESPACE);
    let gateways = ListParams::default().labels(&format!("{COMPONENT_LABEL}={COMPONENT_GATEWAY}"));
    let list = leases
        .list(&gateways)
        .await
        .map_err(told)
        .context("look for gateways; or give --console URL")?;
    Ok(consoles(list.items))
}

/// Pure.
fn consoles(mut leases: Vec<Lease>) -> Vec<String> {
    let renewed = |lease: &Lease| {
        lease
            .spec
            .as_ref()
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0)
    };
    leases.sort_by_key(|lease| std::cmp::Reverse(renewed(lease)));
    let mut consoles = Vec::new();
    for lease in leases {
        if let Some(address) = lease.annotations().get(CONSOLE_ANNOTATION) {
            let url = format!("https://{address}");
            if !consoles.contains(&url) {
                consoles.push(url);
            }
        }
    }
    consoles
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_renewed_last_is_asked_first_and_nobody_twice() {
        let lease = |name: &str, console: Option<&str>, renewed: &str| -> Lease {
            serde_json::from_value(json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {
                    "name": name,
                    "annotations": console.map_or(json!({}), |console| json!({CONSOLE_ANNOTATION: console})),
                },
                "spec": {"renewTime": renewed},
            }))
            .unwrap()
        };
        let leases = vec![
            lease("a", Some("a:8443"), "2030-01-01T00:00:01.000000Z"),
            lease("b", Some("b:8443"), "2030-01-01T00:00:09.000000Z"),
            lease("c", None, "2030-01-01T00:00:10.000000Z"),
            lease("d", Some("b:8443"), "2030-01-01T00:00:02.000000Z"),
        ];
        assert_eq!(consoles(leases), ["https://b:8443", "https://a:8443"]);
    }
}
