//! Time of a device's handshake while others flood the port, and what the flood costs the gateway.
//!
//! Quiet and flooded windows take turns, so that whatever else the machine does falls on both alike. The flood is a
//! process of its own with the lowest priority: real attackers would not use the processors of the gateway.

mod attack;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum as _;
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::attack::Flood;
pub use self::attack::{Attack, Force, flood};
use super::crowd::Crowd;
use super::memory::{peak_kib, resident_kib};
use super::percentile;
use crate::cluster::Cluster;
use crate::stack::Stack;
use crate::stranger::{Shown, Stranger};
use crate::wait::Stopwatch;

/// Devices that come again and again, each from an address of its own in the network of the attackers.
const DEVICES: usize = 16;
/// Between two handshakes, so that no device connects more often than one that is broken would.
const EVERY: Duration = Duration::from_millis(40);
/// A handshake that takes longer has failed, and counts as long.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Windows of each kind.
const ROUNDS: usize = 5;
/// From the begin or the end of a flood to the first handshake that counts.
const SETTLE: Duration = Duration::from_secs(2);

/// What is done, and how hard.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// `None`: all kinds.
    pub attack: Option<Attack>,
    /// Of each window.
    pub seconds: u64,
    pub force: Force,
}

/// Floods the first gateway.
pub async fn measure(
    cluster: &Cluster,
    stack: &mut Stack,
    measurement: Measurement,
) -> anyhow::Result<()> {
    let crowd = Crowd::gather(cluster, stack, DEVICES).await?;
    let gateway = &mut stack.gateways()[0];
    let target = Target {
        address: gateway.address().to_owned(),
        pid: gateway.service().process().pid(),
    };
    let all = Attack::value_variants();
    for attack in measurement
        .attack
        .as_ref()
        .map_or(all, std::slice::from_ref)
    {
        one_kind(&crowd, &target, *attack, measurement).await?;
    }
    Ok(())
}

struct Target {
    address: String,
    pid: i32,
}

async fn one_kind(
    crowd: &Crowd,
    target: &Target,
    attack: Attack,
    measurement: Measurement,
) -> anyhow::Result<()> {
    let address: SocketAddr = target.address.parse().context("read an address")?;
    let window = Duration::from_secs(measurement.seconds);
    let (mut quiet, mut flooded) = (Times::default(), Times::default());
    let memory = resident_kib(target.pid)?;
    let (mut memory_flooded, mut files, mut opened) = (0, 0, 0);
    for _ in 0..ROUNDS {
        quiet.add(crowd, &target.address, window).await?;
        let flood = Flood::start(attack, address, measurement.force)?;
        sleep(SETTLE).await;
        flooded.add(crowd, &target.address, window).await?;
        memory_flooded = memory_flooded.max(resident_kib(target.pid)?);
        files = files.max(open_files(target.pid)?);
        opened += flood.stop().await?;
        sleep(SETTLE).await;
    }
    let (quiet, flooded) = (quiet.summary(), flooded.summary());
    println!(
        "door: {attack:?}: handshake quiet {quiet}; flooded {flooded}; p99 ratio {:.2}; gateway {memory} KiB before, {memory_flooded} KiB flooded, {} KiB peak, {files} files; {opened} connections opened by {} addresses",
        flooded.p99 / quiet.p99,
        peak_kib(target.pid)?,
        attack::SOURCES,
    );
    Ok(())
}

/// Milliseconds of handshakes.
#[derive(Default)]
struct Times {
    millis: Vec<f64>,
    failed: usize,
}

struct Summary {
    p50: f64,
    p99: f64,
    failed: usize,
    count: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            p50,
            p99,
            failed,
            count,
        } = self;
        write!(
            f,
            "p50 {p50:.1} ms, p99 {p99:.1} ms, {failed} of {count} failed"
        )
    }
}

impl Times {
    /// Shakes hands again and again for that long. A handshake that takes long does not keep the next one waiting.
    async fn add(&mut self, crowd: &Crowd, gateway: &str, window: Duration) -> anyhow::Result<()> {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Stopwatch::start();
        let mut running = JoinSet::new();
        let mut members = crowd.members().iter().cycle();
        while watch.elapsed() < window {
            tick.tick().await;
            let (stranger, chain) = members.next().context("there are no devices")?;
            let (stranger, chain) = (stranger.clone(), chain.clone());
            let gateway = gateway.to_owned();
            running.spawn(async move { shake_hands(&stranger, chain, &gateway).await });
        }
        while let Some(took) = running.join_next().await {
            let took = took?;
            self.failed += usize::from(took.is_none());
            let took = took.unwrap_or(GIVE_UP);
            self.millis.push(took.as_secs_f64() * 1000.0);
        }
        Ok(())
    }

    fn summary(mut self) -> Summary {
        self.millis.sort_by(f64::total_cmp);
        Summary {
            p50: percentile(&self.millis, 50),
            p99: percentile(&self.millis, 99),
            failed: self.failed,
            count: self.millis.len(),
        }
    }
}

/// From the first packet to the first byte of HTTP/2, which the gateway sends once it has let the device in. `None`
/// where that did not happen.
async fn shake_hands(
    stranger: &Stranger,
    chain: Vec<CertificateDer<'static>>,
    gateway: &str,
) -> Option<Duration> {
    let watch = Stopwatch::start();
    let shaken = timeout(GIVE_UP, async {
        let mut connection = stranger.connect(gateway, Shown::Issued(chain)).await?;
        connection.read_u8().await
    });
    match shaken.await {
        Ok(Ok(_)) => Some(watch.elapsed()),
        Ok(Err(_)) | Err(_) => None,
    }
}

fn open_files(pid: i32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))
        .context("count the files of the gateway")?
        .count())
}
