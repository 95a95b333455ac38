//! Figures that need a crowd of devices: what an idle stream costs a gateway, and what all of it asks of the API server
//! when nothing happens.
//!
//! The devices are in this process, the gateway in another: only the gateway's memory is measured.
#![expect(clippy::print_stdout, reason = "what is printed is the figure")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use crds::Device;
use crds::v1alpha1::DeviceSpec;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use proto::node::Heartbeat;
use proto::node::device_event::Event as Said;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;

use crate::cluster::Cluster;
use crate::controlplane::{Binaries, ControlPlane};
use crate::install::{SYSTEM_NAMESPACE, install};
use crate::stack::{Programs, Stack, TRUST_DOMAIN};
use crate::stranger::{DeviceStream, Shown, Stranger};
use crate::wait::Stopwatch;

const NAMESPACE: &str = "crowd";
/// Streams before the first look at the memory, so that what is there once does not count.
const WARM_UP: usize = 50;
/// How many devices connect at the same time.
const AT_ONCE: usize = 16;
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// Measure what a crowd of devices costs.
#[derive(Debug, Parser)]
#[command(name = "figures", bin_name = "cargo figures")]
pub struct Arguments {
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Debug, Subcommand)]
enum Figure {
    /// Memory of a gateway for each idle stream
    Streams {
        /// How many devices
        #[arg(long, default_value_t = 1000)]
        devices: usize,
    },
    /// Requests to the API server when nothing happens
    Rest {
        /// How many devices
        #[arg(long, default_value_t = 10)]
        devices: usize,
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

impl Arguments {
    /// Runs a control plane, an operator and two gateways, and measures.
    ///
    /// # Errors
    /// When something does not start, or a device is not let in.
    pub async fn run(self) -> anyhow::Result<()> {
        let programs = Programs::build()?;
        let binaries = Binaries::find()?;
        let folder = tempfile::Builder::new()
            .prefix("fairlead-figures-")
            .tempdir()?;
        let control_plane =
            ControlPlane::start(&binaries, &folder.path().join("controlplane")).await?;
        let cluster = control_plane.cluster().clone();
        install(&cluster.client()).await?;
        let mut stack = Stack::start(&cluster, &programs, folder.path(), 2).await?;
        let measured = match self.figure {
            Figure::Streams { devices } => streams(&cluster, &mut stack, devices).await,
            Figure::Rest { devices, seconds } => rest(&cluster, &mut stack, devices, seconds).await,
        };
        let stopped = stack.stop().await;
        let ended = control_plane.stop().await;
        measured.and(stopped).and(ended)
    }
}

async fn streams(cluster: &Cluster, stack: &mut Stack, devices: usize) -> anyhow::Result<()> {
    ensure!(devices > WARM_UP, "more than {WARM_UP} devices are needed");
    let mut crowd = Crowd::gather(cluster, stack, devices).await?;
    let gateway = &mut stack.gateways()[0];
    let (address, pid) = (
        gateway.address().to_owned(),
        gateway.service().process().pid(),
    );
    crowd.connect(&address, WARM_UP).await?;
    let before = resident_kib(pid)?;
    let watch = Stopwatch::start();
    crowd.connect(&address, devices).await?;
    let took = watch.elapsed();
    crowd.beat().await?;
    let after = resident_kib(pid)?;
    let added = devices - WARM_UP;
    #[expect(clippy::cast_precision_loss, reason = "kibibytes of one process")]
    let each = after.saturating_sub(before) as f64 / added as f64;
    println!(
        "streams: {devices} idle, {each:.1} KiB each in the gateway ({before} KiB with {WARM_UP}, {after} KiB with all), {added} connected in {:.1} s",
        took.as_secs_f64()
    );
    Ok(())
}

async fn rest(
    cluster: &Cluster,
    stack: &mut Stack,
    devices: usize,
    seconds: u64,
) -> anyhow::Result<()> {
    let mut crowd = Crowd::gather(cluster, stack, devices).await?;
    let addresses: Vec<String> = stack
        .gateways()
        .iter()
        .map(|gateway| gateway.address().to_owned())
        .collect();
    crowd.connect(&addresses[0], devices / 2).await?;
    crowd.connect(&addresses[1], devices).await?;
    // What followed from connecting has to settle first: two looks with the same counts.
    let mut before = requests(cluster).await?;
    loop {
        crowd.pause(Duration::from_secs(15)).await?;
        let now = requests(cluster).await?;
        if difference(&before, &now).is_empty() {
            break;
        }
        before = now;
    }
    let before = requests(cluster).await?;
    let watch = Stopwatch::start();
    while watch.elapsed() < Duration::from_secs(seconds) {
        crowd.pause(HEARTBEAT_EVERY).await?;
    }
    let after = requests(cluster).await?;
    let made = difference(&before, &after);
    println!(
        "rest: {devices} devices, {} requests in {seconds} s, Leases and watches that go on aside",
        made.values().sum::<u64>()
    );
    for (what, count) in made {
        println!("  {count} {what}");
    }
    Ok(())
}

/// Requests that the API server answered for our programs, by verb and resource. Leases are left out: they are the one
/// thing that is renewed. So is a watch that is renewed because the API server ends it after some minutes.
async fn requests(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, u64>> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = cluster
        .client()
        .request_text(request)
        .await
        .context("read the API server's metrics")?;
    let mut counts = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"))
    {
        let label = |name: &str| {
            let start = line.find(&format!("{name}=\""))? + name.len() + 2;
            line.get(start..)?.split('"').next()
        };
        let (group, resource, verb) = (label("group"), label("resource"), label("verb"));
        let ours = group == Some("fairlead.dev")
            || matches!(resource, Some("secrets" | "configmaps" | "events"));
        let Some(count) = line
            .rsplit(' ')
            .next()
            .and_then(|count| count.parse::<f64>().ok())
        else {
            continue;
        };
        // Secrets are watched by the harness that plays the kubelet, and by the API server itself.
        if ours && verb != Some("WATCH") {
            let what = format!(
                "{} {}",
                verb.unwrap_or_default(),
                resource.unwrap_or_default()
            );
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count"
            )]
            let count = count as u64;
            *counts.entry(what).or_default() += count;
        }
    }
    Ok(counts)
}

fn difference(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(what, count)| {
            (
                what.clone(),
                count - before.get(what).copied().unwrap_or_default().min(*count),
            )
        })
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Devices that exist and have certificates, without the trouble of pairing each.
struct Crowd {
    devices: Vec<(Stranger, Vec<CertificateDer<'static>>)>,
    streams: Vec<DeviceStream>,
}

impl Crowd {
    async fn gather(cluster: &Cluster, stack: &Stack, count: usize) -> anyhow::Result<Self> {
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
        let authority = authority(&cluster.client()).await?;
        // Only the operator may make Devices.
        let operator = operator_client(cluster, stack.folder()).await?;
        let api: Api<Device> = Api::namespaced(operator, NAMESPACE);
        let devices: Vec<_> = (0..count)
            .map(|number| {
                let (stranger, name) = (Stranger::new()?, format!("device-{number}"));
                let chain = certify(&stranger, &name, &authority)?;
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
            .map(|(stranger, chain, _)| (stranger, chain))
            .collect();
        Ok(Self {
            devices,
            streams: Vec::new(),
        })
    }

    /// Connects devices until `count` of them hold a stream. Those that do beat meanwhile, or the gateway would think
    /// them gone.
    async fn connect(&mut self, gateway: &str, count: usize) -> anyhow::Result<()> {
        while self.streams.len() < count {
            let until = count.min(self.streams.len() + WARM_UP);
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

    /// One heartbeat of each.
    async fn beat(&self) -> anyhow::Result<()> {
        for stream in &self.streams {
            stream.say(Said::Heartbeat(Heartbeat {})).await?;
        }
        Ok(())
    }

    async fn pause(&self, pause: Duration) -> anyhow::Result<()> {
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

async fn authority(client: &Client) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let data = secrets
        .get(crds::names::CA_SECRET)
        .await?
        .data
        .unwrap_or_default();
    let (Some(certificate), Some(key)) = (data.get("tls.crt"), data.get("tls.key")) else {
        bail!("the authority's Secret is incomplete")
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
    Ok(Issuer::from_ca_cert_pem(
        &text(&certificate.0)?,
        KeyPair::from_pem(&text(&key.0)?)?,
    )?)
}

fn certify(
    stranger: &Stranger,
    name: &str,
    authority: &Issuer<'_, KeyPair>,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let mut params = CertificateParams::default();
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/device/{name}");
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(vec![
        params.signed_by(stranger.key(), authority)?.der().clone(),
    ])
}

async fn operator_client(cluster: &Cluster, folder: &Path) -> anyhow::Result<Client> {
    let path = folder.join("crowd.kubeconfig");
    cluster
        .service_account_kubeconfig(SYSTEM_NAMESPACE, crds::names::OPERATOR, &path)
        .await?;
    Ok(Cluster::connect(&path, cluster.kubectl()).await?.client())
}

/// Memory of a process that is in use, in KiB.
fn resident_kib(pid: i32) -> anyhow::Result<u64> {
    std::fs::read_to_string(format!("/proc/{pid}/status"))?
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .context("the kernel tells no VmRSS")
}
