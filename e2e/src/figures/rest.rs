//! What all of it asks of the API server when nothing happens.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;

use super::crowd::{Crowd, HEARTBEAT_EVERY};
use crate::cluster::Cluster;
use crate::stack::Stack;
use crate::wait::Stopwatch;

pub async fn measure(
    cluster: &Cluster,
    stack: &mut Stack,
    devices: usize,
    seconds: u64,
) -> anyhow::Result<()> {
    let mut crowd = Crowd::gather(cluster, stack, devices).await?;
    crowd.spread(stack, devices).await?;
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
pub(super) async fn requests(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, u64>> {
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

/// What came in between, without what did not change.
pub(super) fn difference(
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
