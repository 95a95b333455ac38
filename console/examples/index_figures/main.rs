//! What the console's index costs: time of a page and of a device's detail, memory of devices and of subscribers.
//!
//! `cargo run --release -p console --example index_figures [DEVICES]`. The index is fed by its own watches from an API
//! server that is played in this process, so that all of it is measured but the network. Memory is that of processes of
//! their own, one with twice as many devices as the other: what is fixed, and what reading leaves behind, falls out.
#![expect(clippy::print_stdout, reason = "what is printed is the figure")]

mod played;

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::Context as _;
use console::{
    changes::Kind,
    index::{self, Index},
    inventory::{Filter, Page, See},
};
use console_api::{ObjectId, inventory::Presence};
use jiff::Timestamp;
use played::{Cluster, NAMESPACE};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// Of each figure.
const ROUNDS: usize = 2000;
const SUBSCRIBERS: usize = 1000;
const CHANGES: usize = 200;
const PATIENCE: Duration = Duration::from_mins(2);
/// Has this program print its own memory with that many devices.
const MEMORY: &str = "--memory";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut tasks = JoinSet::new();
    let first = arguments.next();
    if first.as_deref() == Some(MEMORY) {
        let devices = arguments.next().context("how many devices")?.parse()?;
        let surroundings = arguments
            .next()
            .context("with what is around them or without")?
            .parse()?;
        let _index = fed(Cluster::new(devices, surroundings), &mut tasks).await?;
        println!("{}", resident_kib()?);
        return Ok(());
    }
    let devices = first.map_or(Ok(10_000), |devices| devices.parse())?;
    memory(devices)?;
    let cluster = Cluster::new(devices, true);
    let index = fed(cluster.clone(), &mut tasks).await?;
    times(&index, devices)?;
    subscribers(&index, &cluster, &mut tasks).await
}

/// An index that has read the cluster, and follows it.
async fn fed(cluster: Cluster, tasks: &mut JoinSet<()>) -> anyhow::Result<Arc<Index>> {
    let (expected, stop) = (cluster.devices(), CancellationToken::new());
    let (index, feeding) = index::start(cluster.client(), "fairlead-system", stop);
    tasks.spawn(feeding);
    let filled = async {
        while !(index.is_synced() && index.count_devices() == expected) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Events are not waited for by the index.
        let last = played::id(expected - 1);
        while cluster.has_surroundings() && shown_events(&index, &last) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, filled).await.context("fill the index")?;
    Ok(index)
}

fn shown_events(index: &Index, id: &ObjectId) -> usize {
    let detail = index.detail(id, See::ALL, Vec::new(), Timestamp::UNIX_EPOCH);
    detail.map_or(0, |detail| detail.events.len())
}

fn memory(devices: usize) -> anyhow::Result<()> {
    for (surroundings, what) in [
        (false, "devices"),
        (
            true,
            "devices with 2 invocations, 2 events and a request each",
        ),
    ] {
        let of = |devices: usize| -> anyhow::Result<u64> {
            let output = Command::new(std::env::current_exe()?)
                .args([MEMORY, &devices.to_string(), &surroundings.to_string()])
                .output()?;
            Ok(String::from_utf8(output.stdout)?.trim().parse()?)
        };
        let (once, twice) = (of(devices)?, of(2 * devices)?);
        println!(
            "memory: {} KiB for each 1,000 {what} ({once} KiB with {devices}, {twice} KiB with {})",
            twice.saturating_sub(once) * 1000 / u64::try_from(devices)?,
            2 * devices
        );
    }
    Ok(())
}

fn times(index: &Index, devices: usize) -> anyhow::Result<()> {
    let now = Timestamp::UNIX_EPOCH;
    let filter = |text: Option<&str>, labels: Option<&str>, presence| -> anyhow::Result<Filter> {
        Ok(Filter {
            text: text.map(str::parse).transpose()?,
            labels: labels.map(str::parse).transpose()?,
            presence,
            ..Filter::default()
        })
    };
    let most = Page {
        limit: console_api::inventory::MAX_PAGE,
        cursor: None,
    };
    for (what, filter, page) in [
        ("first page of 50", Filter::default(), Page::default()),
        ("first page of 200", Filter::default(), most),
        (
            "first page, text",
            filter(Some("host-77"), None, None)?,
            Page::default(),
        ),
        (
            "first page, text that nothing has",
            filter(Some("no such text"), None, None)?,
            Page::default(),
        ),
        (
            "first page, labels",
            filter(None, Some("room in (3,4),tier!=none"), None)?,
            Page::default(),
        ),
        (
            "first page, presence",
            filter(None, None, Some(Presence::Stale))?,
            Page::default(),
        ),
    ] {
        report(what, devices, || {
            let inventory = index.inventory(None, &filter, &page, See::ALL, now)?;
            Ok(serde_json::to_vec(&inventory)?.len())
        })?;
    }
    let mut nth = 0;
    report("detail", devices, || {
        nth = (nth + 7919) % devices;
        let detail = index.detail(&played::id(nth), See::ALL, Vec::new(), now);
        Ok(serde_json::to_vec(&detail.context("the device is known")?)?.len())
    })
}

/// Times it many times. It answers with the bytes that go to the client.
fn report(
    what: &str,
    devices: usize,
    mut run: impl FnMut() -> anyhow::Result<usize>,
) -> anyhow::Result<()> {
    let mut bytes = run()?;
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        bytes = run()?;
        took.push(started.elapsed());
    }
    let (half, most) = percentiles(took);
    println!(
        "{what}: p50 {half:.3} ms, p99 {most:.3} ms, JSON included ({bytes} bytes, {devices} devices)"
    );
    Ok(())
}

fn percentiles(mut took: Vec<Duration>) -> (f64, f64) {
    took.sort_unstable();
    let at = |part: usize| {
        took.get(took.len() * part / 100)
            .map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    };
    (at(50), at(99))
}

async fn subscribers(
    index: &Arc<Index>,
    cluster: &Cluster,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let before = resident_kib()?;
    let (heard, mut all_heard) = tokio::sync::mpsc::channel(SUBSCRIBERS);
    for _ in 0..SUBSCRIBERS {
        let mut subscriber = index.changes().subscribe(None, None, See::ALL);
        let heard = heard.clone();
        tasks.spawn(async move {
            loop {
                let told = subscriber.next().await;
                if heard.send(told.id.of(Kind::Device)).await.is_err() {
                    return;
                }
            }
        });
    }
    // Each of them says hello.
    hear(&mut all_heard).await?;
    let after = resident_kib()?;
    println!(
        "subscribers: {} KiB for {SUBSCRIBERS} that wait, their tasks included; {} bytes of each are the console's",
        after.saturating_sub(before),
        size_of::<console::changes::Subscriber>()
    );
    let mut took = Vec::with_capacity(CHANGES);
    for nth in 0..CHANGES {
        let started = Instant::now();
        cluster.change(nth).await?;
        hear(&mut all_heard).await?;
        took.push(started.elapsed());
    }
    let (half, most) = percentiles(took);
    println!(
        "change: p50 {half:.3} ms, p99 {most:.3} ms from the watch to the last of {SUBSCRIBERS} subscribers"
    );
    // One that reads nothing while a fleet changes.
    let _slow = index.changes().subscribe(None, None, See::ALL);
    let before = resident_kib()?;
    for nth in 0..10 * CHANGES {
        cluster.change(nth).await?;
        hear(&mut all_heard).await?;
    }
    println!(
        "subscribers: {} KiB more after {} changes, one subscriber reading none of them",
        resident_kib()?.saturating_sub(before),
        10 * CHANGES
    );
    println!(
        "namespace: {NAMESPACE}, requests to the API server since the index was filled: {}",
        cluster.asked_since_filled()
    );
    Ok(())
}

/// Until every subscriber has heard one thing.
async fn hear(all: &mut tokio::sync::mpsc::Receiver<u64>) -> anyhow::Result<()> {
    for _ in 0..SUBSCRIBERS {
        timeout(PATIENCE, all.recv())
            .await
            .context("await a subscriber")?;
    }
    Ok(())
}

/// Memory of this process that is in use, in KiB.
fn resident_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(resident.context("the kernel tells no VmRSS")?.parse()?)
}
