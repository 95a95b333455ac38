//! How long an invocation takes, how many writes it costs, and what the same costs a bare client.
//!
//! Both are measured in turns, round by round, so that whatever else the machine does falls on both alike.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{Stream, StreamExt as _};
use kube::api::{
    DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::floor::Floor;
use crate::wait::Stopwatch;

const ROUND_WITHIN: Duration = Duration::from_mins(1);
const WARM_UP_ROUNDS: usize = 5;

/// What was measured, in milliseconds.
#[derive(Debug)]
pub struct Measured {
    /// Create to Succeeded, seen by a watching client; the median.
    pub invoke_p50_ms: f64,
    /// The same by a bare client: create, watch, as many status writes, watch; the median.
    pub floor_p50_ms: f64,
    /// Writes to an invocation after its creation, counted from the watch.
    pub status_writes_per_invocation: f64,
}

/// Runs `system.health` on a device `rounds` times, one after another, in turns with the bare client.
///
/// # Errors
/// When an invocation ends otherwise than Succeeded, or not within a minute.
pub async fn measure(
    cluster: &Cluster,
    folder: &Path,
    namespace: &str,
    device: &str,
    rounds: usize,
) -> anyhow::Result<Measured> {
    let floor = Floor::install(cluster, folder).await?;
    let measured = in_turns(&cluster.client(), &floor, namespace, device, rounds).await;
    let removed = floor.remove().await;
    let measured = measured?;
    removed.map(|()| measured)
}

async fn in_turns(
    client: &Client,
    floor: &Floor,
    namespace: &str,
    device: &str,
    rounds: usize,
) -> anyhow::Result<Measured> {
    let kind = ApiResource::erase::<crds::CapabilityInvocation>(&());
    let mut invocations = Track::start(client, namespace, &kind, device).await?;
    let mut bare = Track::start(client, namespace, floor.kind(), device).await?;
    let gateway = Api::<DynamicObject>::namespaced_with(floor.writer(), namespace, floor.kind());

    let mut status = Value::Null;
    for _ in 0..WARM_UP_ROUNDS {
        status = invocations.invoke().await?.1;
    }
    // Rounded up: the floor never gets away with fewer writes than Fairlead.
    let mut writes = invocations.writes().await?.div_ceil(WARM_UP_ROUNDS);
    for _ in 0..WARM_UP_ROUNDS {
        bare.write(&gateway, &status, writes).await?;
    }

    let (mut invoke, mut floor) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    let before = invocations.writes().await?;
    for _ in 0..rounds {
        let (took, status) = invocations.invoke().await?;
        invoke.push(took);
        floor.push(bare.write(&gateway, &status, writes).await?);
    }
    writes = invocations.writes().await? - before;
    Ok(Measured {
        invoke_p50_ms: median(invoke),
        floor_p50_ms: median(floor),
        status_writes_per_invocation: ratio(writes, rounds),
    })
}

type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<DynamicObject>>> + Send>>;

/// A kind, seen by one watch from now on.
struct Track<'a> {
    api: Api<DynamicObject>,
    kind: &'a ApiResource,
    device: &'a str,
    prefix: String,
    made: usize,
    events: Events,
    /// Changes after creation, by name.
    modified: HashMap<String, usize>,
}

impl<'a> Track<'a> {
    async fn start(
        client: &Client,
        namespace: &str,
        kind: &'a ApiResource,
        device: &'a str,
    ) -> anyhow::Result<Self> {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, kind);
        let list = api
            .list(&ListParams::default())
            .await
            .context("list invocations")?;
        let version = list
            .metadata
            .resource_version
            .context("the list has no resourceVersion")?;
        let events = api
            .watch(&WatchParams::default(), &version)
            .await
            .context("watch invocations")?
            .boxed();
        // Unique among the runs in one namespace, as nothing is created between the list and the first object.
        let prefix = format!("measure-{version}");
        Ok(Self {
            api,
            kind,
            device,
            prefix,
            made: 0,
            events,
            modified: HashMap::new(),
        })
    }

    /// One invocation: how long it took in milliseconds, and its status.
    async fn invoke(&mut self) -> anyhow::Result<(f64, Value)> {
        let object = self.next();
        let watch = Stopwatch::start();
        self.api
            .create(&PostParams::default(), &object)
            .await
            .context("create an invocation")?;
        let object = self
            .until(&object.name_any(), |object| terminal(object).is_some())
            .await?;
        let took = watch.millis();
        let status = &object.data["status"];
        if terminal(&object) != Some("Succeeded") {
            bail!("an invocation did not succeed: {status}");
        }
        Ok((took, status.clone()))
    }

    /// What a bare client needs for the same: create, see it, write the status, see that.
    async fn write(
        &mut self,
        gateway: &Api<DynamicObject>,
        status: &Value,
        writes: usize,
    ) -> anyhow::Result<f64> {
        let object = self.next();
        let name = object.name_any();
        let watch = Stopwatch::start();
        self.api
            .create(&PostParams::default(), &object)
            .await
            .context("create an object")?;
        self.until(&name, |_| true).await?;
        for write in 1..=writes {
            let last = write == writes;
            let status = if last {
                status.clone()
            } else {
                json!({ "phase": "Dispatched" })
            };
            let patch = Patch::Merge(json!({ "status": status }));
            gateway
                .patch_status(&name, &PatchParams::default(), &patch)
                .await
                .context("write a status")?;
        }
        self.until(&name, |object| terminal(object).is_some())
            .await?;
        Ok(watch.millis())
    }

    /// Changes that all objects have seen. Everything that was written before this call is counted.
    async fn writes(&mut self) -> anyhow::Result<usize> {
        // A watch gives events in the order of the writes, so what follows an object's end has arrived with this one.
        let mut marker = self.next();
        marker.metadata.name = Some(format!("{}-seen-{}", self.prefix, self.made));
        self.api
            .create(&PostParams::default(), &marker)
            .await
            .context("create a marker")?;
        self.until(&marker.name_any(), |_| true).await?;
        Ok(self
            .modified
            .iter()
            .filter(|(name, _)| !name.contains("-seen-"))
            .map(|(_, count)| count)
            .sum())
    }

    fn next(&mut self) -> DynamicObject {
        self.made += 1;
        let mut object = DynamicObject::new(&format!("{}-{}", self.prefix, self.made), self.kind);
        object.data = json!({ "spec": { "deviceRef": { "name": self.device }, "capability": "system.health" } });
        object
    }

    async fn until(
        &mut self,
        name: &str,
        wanted: impl Fn(&DynamicObject) -> bool,
    ) -> anyhow::Result<DynamicObject> {
        let seen = async {
            loop {
                let object = match self
                    .events
                    .next()
                    .await
                    .context("the watch has ended")?
                    .context("watch")?
                {
                    WatchEvent::Added(object) => object,
                    WatchEvent::Modified(object) => {
                        *self.modified.entry(object.name_any()).or_default() += 1;
                        object
                    }
                    WatchEvent::Error(status) => bail!("watch: {}", status.message),
                    WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => continue,
                };
                if object.metadata.name.as_deref() == Some(name) && wanted(&object) {
                    return Ok(object);
                }
            }
        };
        tokio::time::timeout(ROUND_WITHIN, seen)
            .await
            .with_context(|| format!("{name} was not done in a minute"))?
    }
}

/// The phase, if nothing follows it.
pub(crate) fn terminal(object: &DynamicObject) -> Option<&str> {
    let phase = object.data["status"]["phase"].as_str()?;
    (!matches!(phase, "Queued" | "Dispatched" | "AwaitingMediation")).then_some(phase)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few hundred")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_values() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![9.0, 1.0, 2.0, 4.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(vec![]).is_nan());
    }
}
