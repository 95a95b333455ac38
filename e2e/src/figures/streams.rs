//! What an idle stream costs a gateway in memory.

use anyhow::ensure;

use super::crowd::Crowd;
use super::memory::resident_kib;
use crate::cluster::Cluster;
use crate::stack::Stack;
use crate::wait::Stopwatch;

/// Streams before the first look at the memory, so that what is there once does not count.
const WARM_UP: usize = 50;

pub async fn measure(cluster: &Cluster, stack: &mut Stack, devices: usize) -> anyhow::Result<()> {
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
