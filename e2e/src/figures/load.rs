//! Many invocations at once, in turns with as many of the bare client's rounds on the [`Floor`]: the same number open
//! at any time, the same control plane, the same client, and whatever else the machine does falls on both alike.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use kube::api::{
    DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::fleet::Fleet;
use super::rest::{difference, requests};
use crate::cluster::Cluster;
use crate::floor::Floor;
use crate::measure::terminal;
use crate::wait::Stopwatch;

const EACH_WITHIN: Duration = Duration::from_mins(1);
/// Each side has so many turns.
const TURNS: u16 = 4;

/// When a side's part ends.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// After so many, all turns together.
    Count(usize),
    /// No further one is begun after this time, all turns together.
    Time(Duration),
}

/// What both sides did.
#[derive(Debug, Default)]
pub struct Race {
    /// Invocations of `echo`.
    pub invocations: Side,
    /// A bare client: create, see it, as many status writes, see the last.
    pub floor: Side,
    /// Requests that Fairlead's programs made for all invocations together; those of the measuring client, which
    /// creates and watches, are left out.
    pub requests: u64,
}

/// What one side did.
#[derive(Debug, Default)]
pub struct Side {
    /// From the creation to the end that a watching client sees, each in milliseconds.
    pub took: Vec<f64>,
    /// All turns together, from the first creation to the last end.
    pub seconds: f64,
    /// Writes between creation and end.
    pub writes: usize,
}

impl Side {
    /// How many ended per second.
    pub fn rate(&self) -> f64 {
        count(self.took.len()) / self.seconds
    }

    /// Writes between creation and end, of one in the mean.
    pub fn writes_each(&self) -> f64 {
        count(self.writes) / count(self.took.len())
    }

    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.seconds += other.seconds;
        self.writes += other.writes;
    }
}

/// Lets both sides have their turns with `open` at once, over all devices of the fleet.
///
/// # Errors
/// When one ends otherwise than Succeeded or not within a minute, or a played device ends.
pub async fn race(
    cluster: &Cluster,
    floor: &Floor,
    fleet: &mut Fleet,
    open: usize,
    amount: Amount,
) -> anyhow::Result<Race> {
    let (namespace, names) = (fleet.namespace(), fleet.names().to_vec());
    tokio::select! {
        race = in_turns(cluster, floor, namespace, &names, open, amount) => race,
        failed = fleet.failed() => Err(failed),
    }
}

async fn in_turns(
    cluster: &Cluster,
    floor: &Floor,
    namespace: &str,
    devices: &[String],
    open: usize,
    amount: Amount,
) -> anyhow::Result<Race> {
    let kind = ApiResource::erase::<crds::CapabilityInvocation>(&());
    let begin = async |kind| Turn::begin(cluster, namespace, kind, devices).await;
    let gateway = Api::<DynamicObject>::namespaced_with(floor.writer(), namespace, floor.kind());

    let warm_up = Amount::Count(2 * devices.len().max(open));
    let turn = begin(&kind).await?;
    let (side, status) = turn.run(open, warm_up, None).await?;
    let mut bare = Bare {
        gateway,
        status: status.context("nothing ran")?,
        // Rounded up: the floor never gets away with fewer writes than Fairlead.
        writes: side.writes.div_ceil(side.took.len()),
    };
    begin(floor.kind())
        .await?
        .run(open, warm_up, Some(&bare))
        .await?;

    let amount = amount.part();
    let mut race = Race::default();
    for _ in 0..TURNS {
        let turn = begin(&kind).await?;
        let before = requests(cluster).await?;
        let (side, status) = turn.run(open, amount, None).await?;
        race.requests += of_fairlead(&difference(&before, &requests(cluster).await?));
        bare.status = status.context("nothing ran")?;
        race.invocations.add(side);
        let turn = begin(floor.kind()).await?;
        race.floor.add(turn.run(open, amount, Some(&bare)).await?.0);
    }
    Ok(race)
}

impl Amount {
    /// Of one turn.
    fn part(self) -> Self {
        match self {
            Self::Count(count) => Self::Count(count.div_ceil(usize::from(TURNS))),
            Self::Time(time) => Self::Time(time / u32::from(TURNS)),
        }
    }

    fn goes_on(self, begun: usize, watch: Stopwatch) -> bool {
        match self {
            Self::Count(count) => begun < count,
            Self::Time(time) => watch.elapsed() < time,
        }
    }
}

/// What somebody has to write where no Fairlead does.
struct Bare {
    gateway: Api<DynamicObject>,
    status: Value,
    writes: usize,
}

impl Bare {
    async fn write(&self, name: &str) -> anyhow::Result<()> {
        for write in 1..=self.writes {
            let status = if write == self.writes {
                self.status.clone()
            } else {
                json!({ "phase": "Dispatched" })
            };
            self.gateway
                .patch_status(
                    name,
                    &PatchParams::default(),
                    &Patch::Merge(json!({ "status": status })),
                )
                .await
                .context("write a status")?;
        }
        Ok(())
    }
}

type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<DynamicObject>>> + Send>>;

/// One side, from now on, seen by one watch.
struct Turn<'a> {
    api: Api<DynamicObject>,
    kind: &'a ApiResource,
    devices: &'a [String],
    prefix: String,
    events: Events,
}

/// Who waits for what the watch tells, by name.
#[derive(Default)]
struct Waiting(Mutex<HashMap<String, Waiter>>);

struct Waiter {
    seen: Option<oneshot::Sender<()>>,
    ended: oneshot::Sender<(Stopwatch, DynamicObject)>,
}

impl<'a> Turn<'a> {
    async fn begin(
        cluster: &Cluster,
        namespace: &str,
        kind: &'a ApiResource,
        devices: &'a [String],
    ) -> anyhow::Result<Self> {
        let api = Api::<DynamicObject>::namespaced_with(cluster.client(), namespace, kind);
        let version = api
            .list(&ListParams::default().limit(1))
            .await
            .context("list invocations")?
            .metadata
            .resource_version
            .context("the list has no resourceVersion")?;
        let events = api
            .watch(&WatchParams::default(), &version)
            .await
            .context("watch invocations")?
            .boxed();
        Ok(Self {
            api,
            kind,
            devices,
            prefix: format!("load-{version}"),
            events,
        })
    }

    /// Gives the last one's status, too. `bare` writes where nobody else does.
    async fn run(
        self,
        open: usize,
        amount: Amount,
        bare: Option<&Bare>,
    ) -> anyhow::Result<(Side, Option<Value>)> {
        let Self {
            api,
            kind,
            devices,
            prefix,
            events,
        } = self;
        let (waiting, writes) = (Waiting::default(), AtomicUsize::new(0));
        let watch = Stopwatch::start();
        let one = async |number: usize| {
            let device = devices
                .get(number % devices.len().max(1))
                .context("no device")?;
            let mut object = DynamicObject::new(&format!("{prefix}-{number}"), kind);
            object.data = json!({ "spec": {
                "deviceRef": { "name": device }, "capability": "echo", "input": { "hello": "world" },
            } });
            one(&api, &object, &waiting, bare).await
        };
        let all = stream::iter(0..)
            .take_while(|begun| std::future::ready(amount.goes_on(*begun, watch)))
            .map(one)
            .buffer_unordered(open)
            .try_collect::<Vec<_>>();
        let ended = tokio::select! {
            ended = all => ended?,
            never = waiting.served_by(events, &writes) => match never? {},
        };
        let seconds = watch.elapsed().as_secs_f64();
        let status = ended.last().map(|(_, status)| status.clone());
        let side = Side {
            took: ended.into_iter().map(|(took, _)| took).collect(),
            seconds,
            writes: writes.into_inner(),
        };
        Ok((side, status))
    }
}

/// How long it took in milliseconds, and its status.
async fn one(
    api: &Api<DynamicObject>,
    object: &DynamicObject,
    waiting: &Waiting,
    bare: Option<&Bare>,
) -> anyhow::Result<(f64, Value)> {
    let name = object.name_any();
    let (see, seen) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let waiter = Waiter {
        seen: Some(see),
        ended: end,
    };
    waiting.lock().insert(name.clone(), waiter);
    let watch = Stopwatch::start();
    let all = async {
        api.create(&PostParams::default(), object)
            .await
            .context("create an invocation")?;
        if let Some(bare) = bare {
            seen.await.context("the watch has ended")?;
            bare.write(&name).await?;
        }
        anyhow::Ok(ended.await.context("the watch has ended")?)
    };
    let (at, object) = tokio::time::timeout(EACH_WITHIN, all)
        .await
        .with_context(|| format!("{name} was not done in a minute"))??;
    let status = &object.data["status"];
    ensure!(
        terminal(&object) == Some("Succeeded"),
        "an invocation did not succeed: {status}"
    );
    Ok((watch.until(&at), status.clone()))
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn served_by(
        &self,
        mut events: Events,
        writes: &AtomicUsize,
    ) -> anyhow::Result<Infallible> {
        loop {
            let event = events.next().await.context("the watch has ended")?;
            let (object, written) = match event.context("watch")? {
                WatchEvent::Added(object) => (object, false),
                WatchEvent::Modified(object) => (object, true),
                WatchEvent::Error(status) => bail!("watch: {}", status.message),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => continue,
            };
            let mut waiting = self.lock();
            let Some(waiter) = waiting.get_mut(&object.name_any()) else {
                continue;
            };
            writes.fetch_add(usize::from(written), Ordering::Relaxed);
            // Nobody waits any more where the receiver is gone.
            if let Some(see) = waiter.seen.take() {
                let _ = see.send(());
            }
            if terminal(&object).is_some()
                && let Some(waiter) = waiting.remove(&object.name_any())
            {
                let _ = waiter.ended.send((Stopwatch::start(), object));
            }
        }
    }
}

/// All but what the measuring client asked for: it creates, and the floor is all its own.
fn of_fairlead(made: &BTreeMap<String, u64>) -> u64 {
    made.iter()
        .filter(|(what, _)| {
            *what != "POST capabilityinvocations" && !what.ends_with(" floorinvocations")
        })
        .map(|(_, count)| count)
        .sum()
}

#[expect(clippy::cast_precision_loss, reason = "counts below a million")]
fn count(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_measuring_client_asks_for_is_not_counted() {
        let made = [
            ("POST capabilityinvocations", 100),
            ("PATCH capabilityinvocations", 20),
            ("PATCH floorinvocations", 100),
            ("PATCH devices", 3),
        ];
        let made = made.map(|(what, count)| (what.to_owned(), count)).into();
        assert_eq!(of_fairlead(&made), 23);
    }

    #[test]
    fn the_turns_together_are_no_less_than_what_was_asked_for() {
        assert!(matches!(Amount::Count(10).part(), Amount::Count(3)));
        let second = Duration::from_secs(1);
        let Amount::Time(part) = Amount::Time(second).part() else {
            panic!("a time became a count")
        };
        assert_eq!(part * u32::from(TURNS), second);
    }
}
