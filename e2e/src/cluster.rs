//! A Kubernetes cluster as the rest of the harness sees it: a client, kubeconfigs for others, and kubectl.
//! Ours or somebody's: this file knows no difference.

use std::fmt::{Debug, Formatter};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use runtime::kubeconfig::{self, Choice};
use serde_json::json;

use crate::private;

/// Twelve hours: longer than a demo, shorter than what is forgotten on a disk and found.
const TOKEN_SECONDS: i64 = 12 * 3600;

/// How to reach a cluster, with the rights of one kubeconfig.
#[derive(Clone)]
pub struct Cluster {
    kubeconfig: PathBuf,
    server: kube::config::Cluster,
    client: Client,
    kubectl: PathBuf,
}

impl Cluster {
    /// Reads a kubeconfig and takes its current context. Does not talk to the cluster yet.
    pub async fn connect(kubeconfig: &Path, kubectl: &Path) -> anyhow::Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
        let current = read
            .current_context
            .as_deref()
            .with_context(|| format!("{} has no current context", kubeconfig.display()))?;
        let server = read
            .contexts
            .iter()
            .find(|context| context.name == current)
            .and_then(|context| context.context.as_ref())
            .and_then(|context| {
                read.clusters
                    .iter()
                    .find(|cluster| cluster.name == context.cluster)
            })
            .and_then(|cluster| cluster.cluster.clone())
            .with_context(|| {
                format!(
                    "context {current} of {} names no cluster",
                    kubeconfig.display()
                )
            })?;
        // Reads the files that it names.
        let config = tokio::task::spawn_blocking(move || kubeconfig::of(read, &Choice::default()))
            .await?
            .context("load the kubeconfig")?;
        Ok(Self {
            kubeconfig: std::path::absolute(kubeconfig).context("find the kubeconfig")?,
            server,
            client: Client::try_from(config).context("make a client")?,
            kubectl: kubectl.to_owned(),
        })
    }

    /// A client with the kubeconfig's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig's absolute path.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Path of kubectl.
    pub fn kubectl(&self) -> &Path {
        &self.kubectl
    }

    /// Runs kubectl with the kubeconfig's rights and gives what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn run_kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(&self.kubectl)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("run {}", self.kubectl.display()))?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).context("read what kubectl printed")
    }

    /// Writes a kubeconfig that has the rights of a service account, by a token of some hours.
    ///
    /// # Errors
    /// When the service account is not there, or the token is not given.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        path: &Path,
    ) -> anyhow::Result<()> {
        let token = service_account_token(&self.client(), namespace, name, TOKEN_SECONDS).await?;
        Identity::Token {
            name: name.to_owned(),
            token,
        }
        .write_kubeconfig(&self.server, path)
    }
}

/// A token of a service account, for so many seconds.
///
/// # Errors
/// When the API server gives none.
pub async fn service_account_token(
    client: &Client,
    namespace: &str,
    name: &str,
    seconds: i64,
) -> anyhow::Result<String> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(seconds),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let answer = Api::<ServiceAccount>::namespaced(client.clone(), namespace)
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .with_context(|| format!("ask for a token of service account {namespace}/{name}"))?;
    let status = answer
        .status
        .context("read the token: the answer has none")?;
    Ok(status.token)
}

/// Who a kubeconfig speaks as. `Debug` shows no secret.
pub enum Identity {
    /// By a client certificate, PEM.
    Certificate {
        name: String,
        chain: String,
        key: String,
    },
    /// By a bearer token.
    Token { name: String, token: String },
}

impl Debug for Identity {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let (Self::Certificate { name, .. } | Self::Token { name, .. }) = self;
        formatter
            .debug_struct("Identity")
            .field("name", name)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Writes a kubeconfig for this identity at a server, mode 0600.
    pub fn write_kubeconfig(
        &self,
        server: &kube::config::Cluster,
        path: &Path,
    ) -> anyhow::Result<()> {
        let (name, user) = match self {
            Self::Certificate { name, chain, key } => (
                name,
                json!({
                    "client-certificate-data": base64(chain.as_bytes()),
                    "client-key-data": base64(key.as_bytes()),
                }),
            ),
            Self::Token { name, token } => (name, json!({ "token": token })),
        };
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "fairlead", "cluster": server }],
            "users": [{ "name": name, "user": user }],
            "contexts": [{ "name": "fairlead", "context": { "cluster": "fairlead", "user": name } }],
            "current-context": "fairlead",
        });
        let yaml = serde_saphyr::to_string(&kubeconfig).context("render a kubeconfig")?;
        private::write(path, yaml.as_bytes())
    }
}

/// Standard base64, as kubeconfigs hold it.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
