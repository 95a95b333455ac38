//! Devices by the hundred that are in this process, so that a gateway's memory is its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use crds::Device;
use crds::v1alpha1::DeviceSpec;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use proto::node::device_event::Event as Said;
use proto::node::gateway_event::Event as Heard;
use proto::node::{Dispatch, Heartbeat};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;

use crate::authority::Authority;
use crate::cluster::Cluster;
use crate::install::SYSTEM_NAMESPACE;
use crate::stack::Stack;
use crate::stranger::{DeviceStream, Shown, Stranger, success};

/// Where their Devices are.
pub(super) const NAMESPACE: &str = "crowd";
/// More often than a gateway asks for.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// How many devices connect between two heartbeats of those that did.
const BATCH: usize = 50;
/// How many devices connect at the same time.
const AT_ONCE: usize = 16;

/// Devices that exist and have certificates, without the trouble of pairing each.
pub struct Crowd {
    devices: Vec<(Arc<Stranger>, Vec<CertificateDer<'static>>)>,
    streams: Vec<DeviceStream>,
}

impl Crowd {
    pub async fn gather(cluster: &Cluster, stack: &Stack, count: usize) -> anyhow::Result<Self> {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(cluster.client())
            .create(&PostParams::default(), &namespace)
            .await?;
        let authority = Authority::of_cluster(&cluster.client()).await?;
        // Only the operator may make Devices.
        let operator = operator_client(cluster, stack.folder()).await?;
        let api: Api<Device> = Api::namespaced(operator, NAMESPACE);
        let devices: Vec<_> = (0..count)
            .map(|number| {
                let (stranger, name) = (Stranger::new()?, format!("device-{number}"));
                let chain = authority.certify(&stranger, NAMESPACE, &name)?;
                Ok((stranger, chain, name))
            })
            .collect::<anyhow::Result<_>>()?;
        stream::iter(&devices)
            .map(|(stranger, _, name)| {
                let mut spec = DeviceSpec {
                    public_key_sha256: stranger.fingerprint().to_string(),
                    ..DeviceSpec::default()
                };
                spec.grants.capabilities = vec!["echo".to_owned()];
                let device = Device::new(name, spec);
                let api = api.clone();
                async move { api.create(&PostParams::default(), &device).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await
            .context("make the devices")?;
        let devices = devices
            .into_iter()
            .map(|(stranger, chain, _)| (Arc::new(stranger), chain))
            .collect();
        Ok(Self {
            devices,
            streams: Vec::new(),
        })
    }

    /// Connects devices until `count` of them hold a stream. Those that do beat meanwhile, or the gateway would think
    /// them gone.
    pub async fn connect(&mut self, gateway: &str, count: usize) -> anyhow::Result<()> {
        while self.streams.len() < count {
            let until = count.min(self.streams.len() + BATCH);
            let new = self
                .devices
                .get(self.streams.len()..until)
                .context("there are not so many devices")?;
            let connected: Vec<DeviceStream> = stream::iter(new)
                .map(|(stranger, chain)| open(stranger, chain, gateway))
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
            self.streams.extend(connected);
            self.beat().await?;
        }
        Ok(())
    }

    /// Connects devices until `count` of them hold a stream, half of them with each of the two gateways.
    pub async fn spread(&mut self, stack: &mut Stack, count: usize) -> anyhow::Result<()> {
        let [first, second] = stack.gateways() else {
            bail!("a crowd is spread over two gateways");
        };
        let (first, second) = (first.address().to_owned(), second.address().to_owned());
        self.connect(&first, count / 2).await?;
        self.connect(&second, count).await
    }

    /// From now on each that is connected beats by itself, and answers `echo`. What is returned gives why one ended.
    pub fn play(self) -> JoinSet<anyhow::Error> {
        self.streams.into_iter().map(play).collect()
    }

    /// All devices, with their certificates.
    pub fn members(&self) -> &[(Arc<Stranger>, Vec<CertificateDer<'static>>)] {
        &self.devices
    }

    /// One heartbeat of each.
    pub async fn beat(&self) -> anyhow::Result<()> {
        for stream in &self.streams {
            stream.say(Said::Heartbeat(Heartbeat {})).await?;
        }
        Ok(())
    }

    pub async fn pause(&self, pause: Duration) -> anyhow::Result<()> {
        self.beat().await?;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// The index of the gateway follows the API server at its own pace, and it admits handshakes at its own, too.
async fn open(
    stranger: &Stranger,
    chain: &[CertificateDer<'static>],
    gateway: &str,
) -> anyhow::Result<DeviceStream> {
    crate::wait::until("a device is let in", Duration::from_mins(1), async || {
        let connection = stranger
            .connect(gateway, Shown::Issued(chain.to_vec()))
            .await?;
        Ok(Some(DeviceStream::open(connection, &["echo"]).await?))
    })
    .await
}

async fn play(mut stream: DeviceStream) -> anyhow::Error {
    let mut beat = tokio::time::interval(HEARTBEAT_EVERY);
    loop {
        let going_on = tokio::select! {
            _ = beat.tick() => stream.say(Said::Heartbeat(Heartbeat {})).await,
            heard = stream.next() => match heard {
                Ok(Heard::Dispatch(dispatch)) => echo(&stream, &dispatch).await,
                Ok(_) => Ok(()),
                Err(status) => Err(status.into()),
            },
        };
        if let Err(error) = going_on {
            return error;
        }
    }
}

async fn echo(stream: &DeviceStream, dispatch: &Dispatch) -> anyhow::Result<()> {
    let output = serde_json::from_slice(&dispatch.input).context("read an input")?;
    stream
        .say(success(&dispatch.uid, &dispatch.name, &output))
        .await
}

async fn operator_client(cluster: &Cluster, folder: &Path) -> anyhow::Result<Client> {
    let path = folder.join("crowd.kubeconfig");
    cluster
        .service_account_kubeconfig(SYSTEM_NAMESPACE, crds::names::OPERATOR, &path)
        .await?;
    Ok(Cluster::connect(&path, cluster.kubectl()).await?.client())
}
