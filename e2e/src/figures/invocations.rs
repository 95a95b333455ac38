//! How long a short invocation takes while others are open, and what the same costs a bare client.

use super::fleet::Fleet;
use super::load::{Amount, Side, race};
use super::percentile;
use crate::cluster::Cluster;
use crate::floor::Floor;
use crate::stack::Stack;

/// More agents than that would measure how this machine runs agents.
const MOST_REAL: usize = 4;
const MOST_OPEN: usize = 16;

pub async fn measure(
    cluster: &Cluster,
    stack: &mut Stack,
    devices: usize,
    count: usize,
) -> anyhow::Result<()> {
    let mut fleet = if devices <= MOST_REAL {
        Fleet::real(cluster, stack, devices).await?
    } else {
        Fleet::played(cluster, stack, devices).await?
    };
    let kind = fleet.kind();
    let open = devices.min(MOST_OPEN);
    let floor = Floor::install(cluster, stack.folder()).await?;
    let race = race(cluster, &floor, &mut fleet, open, Amount::Count(count)).await;
    let stopped = fleet.stop().await;
    let race = race?;
    stopped?;
    let [p50, p99] = percentiles(&race.invocations);
    let [floor_p50, floor_p99] = percentiles(&race.floor);
    println!(
        "invocations: devices={devices} {kind}, open={open}, count={}, p50_ms={p50:.1}, p99_ms={p99:.1}, floor_p50_ms={floor_p50:.1}, floor_p99_ms={floor_p99:.1}, ratio_p50={:.2}, ratio_p99={:.2}, status_writes_per_invocation={:.2}",
        race.invocations.took.len(),
        p50 / floor_p50,
        p99 / floor_p99,
        race.invocations.writes_each(),
    );
    Ok(())
}

fn percentiles(side: &Side) -> [f64; 2] {
    let mut took = side.took.clone();
    took.sort_by(f64::total_cmp);
    [50, 99].map(|percent| percentile(&took, percent))
}
