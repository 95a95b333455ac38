//! etcd and kube-apiserver on loopback, with certificates of their own, in one folder.
//!
//! ```text
//! <folder>/admin.kubeconfig   who holds it may do everything
//!          pki/               what the API server reads
//!          etcd/  etcd.sock   data; the socket is in a folder for its owner alone, as etcd asks nobody who they are
//!          etcd.log  kube-apiserver.log
//! ```
//!
//! There is no controller manager: nothing collects garbage, a deleted namespace stays, and service accounts are not
//! made by themselves. Tests use a namespace each and delete none.

pub mod background;
pub mod binaries;
mod pki;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

pub use binaries::Binaries;
use pki::Pki;

use crate::cluster::{Cluster, Identity};
use crate::process::{Process, Program};
use crate::wait::until;
use crate::{ports, private};

const READY_WITHIN: Duration = Duration::from_secs(90);
const STOP_WITHIN: Duration = Duration::from_secs(20);
const PORT_TRIES: usize = 5;

/// A running control plane. Dropping it kills it; [`ControlPlane::stop`] stops it in order.
pub struct ControlPlane {
    folder: PathBuf,
    pki: Pki,
    url: String,
    cluster: Cluster,
    api_server_program: Program,
    api_server: Process,
    etcd: Process,
}

impl ControlPlane {
    /// Starts one in `folder`, empty: what an earlier one left there is removed. Returns when it serves.
    ///
    /// # Errors
    /// When a program does not start or does not become ready, with the end of its log.
    pub async fn start(binaries: &Binaries, folder: &Path) -> anyhow::Result<Self> {
        Self::start_with(binaries, folder, &[]).await
    }

    /// The same, with further flags for the API server.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_with(
        binaries: &Binaries,
        folder: &Path,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        private::folder(folder)?;
        let folder = folder
            .canonicalize()
            .context("find the control plane's folder")?;
        clear(&folder)?;
        let pki = Pki::create(&folder.join("pki"))?;
        let mut etcd = etcd(binaries, &folder).spawn()?;

        for _ in 0..PORT_TRIES {
            let port = ports::free()?;
            let url = format!("https://127.0.0.1:{port}");
            let kubeconfig = folder.join("admin.kubeconfig");
            identity(&pki, "admin", Some("system:masters"))?
                .write_kubeconfig(&server(&pki, &url), &kubeconfig)?;
            let cluster = Cluster::connect(&kubeconfig, &binaries.kubectl()).await?;
            let api_server_program =
                api_server(binaries, &folder, port).args(flags.iter().copied());
            let mut api_server = api_server_program.spawn()?;
            match ready(&cluster, &mut api_server, &mut etcd).await? {
                Started::Ready => {
                    return Ok(Self {
                        folder,
                        pki,
                        url,
                        cluster,
                        api_server_program,
                        api_server,
                        etcd,
                    });
                }
                Started::PortTaken => {
                    std::fs::remove_file(api_server.log()).context("remove a log")?;
                }
            }
        }
        bail!("kube-apiserver found its port taken {PORT_TRIES} times in a row")
    }

    /// How to reach it, as administrator.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A client of the administrator.
    pub fn client(&self) -> kube::Client {
        self.cluster.client()
    }

    /// The folder with its kubeconfig, logs and data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the kubeconfig of an ordinary user, known by a client certificate.
    ///
    /// # Errors
    /// With more than one group: the certificate's subject is made by a library that keeps one value of a kind.
    pub fn user_kubeconfig(&self, user: &str, groups: &[&str], path: &Path) -> anyhow::Result<()> {
        ensure!(
            groups.len() <= 1,
            "a user of this harness is in one group at most"
        );
        identity(&self.pki, user, groups.first().copied())?
            .write_kubeconfig(&server(&self.pki, &self.url), path)
    }

    /// SIGKILLs the API server. [`ControlPlane::start_api_server`] brings it back on the same port.
    pub async fn kill_api_server(&mut self) -> anyhow::Result<()> {
        self.api_server.kill().await
    }

    /// Starts the API server again after a kill, and waits until it serves.
    pub async fn start_api_server(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.api_server.ended()?.is_some(),
            "the API server is running"
        );
        self.api_server = self.api_server_program.spawn()?;
        match ready(&self.cluster, &mut self.api_server, &mut self.etcd).await? {
            Started::Ready => Ok(()),
            Started::PortTaken => bail!("kube-apiserver found its old port {} taken", self.url),
        }
    }

    /// Stops the API server and starts it again, on the same port.
    pub async fn restart_api_server(&mut self) -> anyhow::Result<()> {
        self.api_server.terminate(STOP_WITHIN).await?;
        self.start_api_server().await
    }

    /// Returns when one of its programs has ended by itself, with the end of that program's log.
    pub async fn failed(&mut self) -> anyhow::Error {
        let (name, tail) = tokio::select! {
            _ = self.api_server.wait() => (self.api_server.name(), self.api_server.tail()),
            _ = self.etcd.wait() => (self.etcd.name(), self.etcd.tail()),
        };
        anyhow::anyhow!("{name} ended by itself\n{tail}")
    }

    /// Stops the API server, then etcd.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let api_server = self.api_server.terminate(STOP_WITHIN).await;
        let etcd = self.etcd.terminate(STOP_WITHIN).await;
        api_server.and(etcd).map(drop)
    }
}

enum Started {
    Ready,
    PortTaken,
}

/// Removes what a control plane leaves, and nothing else: the folder is named by a person.
fn clear(folder: &Path) -> anyhow::Result<()> {
    for name in ["etcd", "pki"] {
        let path = folder.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    for name in ["etcd.sock", "peer.sock", "etcd.log", "kube-apiserver.log"] {
        let path = folder.join(name);
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Sockets in the folder, not ports: no other user of the machine reaches them, and none can be taken. They are named
/// relative to the working folder, as the path of a socket may not be longer than a hundred bytes.
fn etcd(binaries: &Binaries, folder: &Path) -> Program {
    Program::new("etcd", binaries.etcd(), folder.join("etcd.log"))
        .directory(folder)
        .args([
            "--name=default",
            "--data-dir=etcd",
            "--listen-client-urls=unix://etcd.sock",
            "--advertise-client-urls=unix://etcd.sock",
            "--listen-peer-urls=unix://peer.sock",
            "--initial-advertise-peer-urls=unix://peer.sock",
            "--initial-cluster=default=unix://peer.sock",
            // A power cut may cost the data, which nobody will miss.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ])
}

fn api_server(binaries: &Binaries, folder: &Path, port: u16) -> Program {
    Program::new(
        "kube-apiserver",
        binaries.api_server(),
        folder.join("kube-apiserver.log"),
    )
    .directory(folder)
    .args([
        "--etcd-servers=unix://etcd.sock",
        "--bind-address=127.0.0.1",
        "--tls-cert-file=pki/apiserver.crt",
        "--tls-private-key-file=pki/apiserver.key",
        "--client-ca-file=pki/ca.crt",
        "--service-account-key-file=pki/service-account.pub",
        "--service-account-signing-key-file=pki/service-account.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        // 127.0.0.1 is no address that an Endpoints object may hold, and nothing here asks for it.
        "--endpoint-reconciler-type=none",
        "--profiling=false",
    ])
    .arg(format!("--secure-port={port}"))
}

async fn ready(
    cluster: &Cluster,
    api_server: &mut Process,
    etcd: &mut Process,
) -> anyhow::Result<Started> {
    let client = cluster.client();
    let serving = until("kube-apiserver is ready", READY_WITHIN, async || {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        client.request_text(request).await?;
        // Made by the server itself, a moment after it calls itself ready.
        let default = http::Request::get("/api/v1/namespaces/default").body(Vec::new())?;
        client.request_text(default).await?;
        Ok(Some(()))
    });
    tokio::select! {
        serving = serving => match serving {
            Ok(()) => Ok(Started::Ready),
            Err(error) => Err(error.context(format!("{}\n{}", etcd.tail(), api_server.tail()))),
        },
        _ = api_server.wait() => {
            let tail = api_server.tail();
            if tail.contains("address already in use") {
                return Ok(Started::PortTaken);
            }
            bail!("kube-apiserver ended as it started\n{tail}")
        }
        _ = etcd.wait() => bail!("etcd ended as it started\n{}", etcd.tail()),
    }
}

fn identity(pki: &Pki, user: &str, group: Option<&str>) -> anyhow::Result<Identity> {
    let credentials = pki.client(user, group)?;
    Ok(Identity::Certificate {
        name: user.to_owned(),
        chain: credentials.certificate,
        key: credentials.key,
    })
}

fn server(pki: &Pki, url: &str) -> kube::config::Cluster {
    kube::config::Cluster {
        server: Some(url.to_owned()),
        certificate_authority_data: Some(crate::cluster::base64(pki.ca_certificate().as_bytes())),
        ..Default::default()
    }
}
