//! How long it takes from an approval to the certificate on the device's disk, over many real agents.

use super::percentile;
use crate::approval::FrontDesk;
use crate::cluster::Cluster;
use crate::stack::Stack;

/// One device after another, so that nothing waits but for its own approval.
pub async fn measure(cluster: &Cluster, stack: &Stack, count: usize) -> anyhow::Result<()> {
    let desk = FrontDesk::open(cluster.client(), "pairings", count).await?;
    let mut took = Vec::with_capacity(count);
    for number in 0..count {
        took.push(
            desk.pair(&stack.agent(&format!("device-{number}"))?)
                .await?,
        );
    }
    took.sort_by(f64::total_cmp);
    let at = |percent| percentile(&took, percent);
    println!(
        "pairings: {count} one after another, approval patched to certificate on disk: p50 {:.1} ms, p90 {:.1} ms, longest {:.1} ms",
        at(50),
        at(90),
        at(100)
    );
    Ok(())
}
