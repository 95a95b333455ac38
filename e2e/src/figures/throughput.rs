//! How many short invocations per second get through, and how many rounds of a bare client.

use std::time::Duration;

use super::fleet::Fleet;
use super::load::{Amount, race};
use crate::cluster::Cluster;
use crate::floor::Floor;
use crate::stack::Stack;

const DEVICES: usize = 10;
const CREATORS: usize = 16;

pub async fn measure(cluster: &Cluster, stack: &mut Stack, seconds: u64) -> anyhow::Result<()> {
    let mut fleet = Fleet::played(cluster, stack, DEVICES).await?;
    let floor = Floor::install(cluster, stack.folder()).await?;
    let amount = Amount::Time(Duration::from_secs(seconds));
    let race = race(cluster, &floor, &mut fleet, CREATORS, amount).await;
    let stopped = fleet.stop().await;
    let race = race?;
    stopped?;
    let (ours, floor) = (race.invocations.rate(), race.floor.rate());
    #[expect(clippy::cast_precision_loss, reason = "counts below a million")]
    let requests = race.requests as f64 / race.invocations.took.len() as f64;
    println!(
        "throughput: devices={DEVICES} played, creators={CREATORS}, seconds={seconds}, invocations_per_s={ours:.1}, floor_per_s={floor:.1}, ratio={:.2}, status_writes_per_invocation={:.2}, api_requests_per_invocation={requests:.2}",
        ours / floor,
        race.invocations.writes_each(),
    );
    Ok(())
}
