//! Many schedules of what can go wrong between a device, its gateway and the API server, and one question at the end of
//! each: is every phase true?
//!
//! The device keeps a journal, as agents do. Streams break at any moment, the API server is away, silent, slow or
//! overtaken, people cancel, and an operator ends what is queued for a device that is gone, or what it gives up. What
//! the gateway does between two of its own steps is not chosen here, so a seed says what was tried, not what happened.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proto::node::{self, Outcome, device_event, gateway_event::Event};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{
    cluster::Fault,
    truth::a_minute_ago,
    world::{FakeDevice, World, invocation, settings, succeeded},
};

const SCHEDULES: u64 = 20;
const INVOCATIONS: usize = 8;
/// How long everything goes wrong.
const STORM: Duration = Duration::from_secs(90);
/// How long everything may take after that.
const CALM: Duration = Duration::from_mins(3);

/// SplitMix64: small, and the same everywhere.
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, cases: u64) -> bool {
        self.below(cases) == 0
    }

    fn up_to(&mut self, bound: Duration) -> Duration {
        let millis = u64::try_from(bound.as_millis()).unwrap();
        Duration::from_millis(self.below(millis + 1))
    }
}

/// What the device remembers of one invocation.
struct Record {
    name: String,
    /// When it is done.
    done_at: Instant,
    result: Option<node::Result>,
    acked: bool,
}

#[derive(Default)]
struct Journal {
    records: BTreeMap<String, Record>,
    /// The capability's effects, outside of the system.
    effects: Vec<String>,
}

impl Journal {
    fn end(&mut self, uid: &str, outcome: Outcome) -> node::Result {
        let record = self.records.get_mut(uid).unwrap();
        let dispatch = node::Dispatch {
            uid: uid.to_owned(),
            name: record.name.clone(),
            ..node::Dispatch::default()
        };
        let mut result = succeeded(&dispatch, "1");
        result.set_outcome(outcome);
        record.result = Some(result.clone());
        if outcome == Outcome::Succeeded {
            self.effects.push(uid.to_owned());
        }
        result
    }

    /// What it answers to an event of the gateway.
    fn hear(&mut self, event: Event, chance: &mut Chance) -> Option<node::Result> {
        match event {
            Event::Dispatch(node::Dispatch { uid, name, .. }) => {
                if let Some(known) = self.records.get(&uid) {
                    return known.result.clone();
                }
                let takes = chance.up_to(Duration::from_millis(400));
                let record = Record {
                    name,
                    done_at: Instant::now() + takes,
                    result: None,
                    acked: false,
                };
                self.records.insert(uid.clone(), record);
                // Some are over at once.
                chance.one_in(2).then(|| self.end(&uid, Outcome::Succeeded))
            }
            Event::Cancel(node::Cancel { uid, name }) => {
                if let Some(known) = self.records.get(&uid)
                    && known.result.is_some()
                {
                    return known.result.clone();
                }
                self.records.entry(uid.clone()).or_insert(Record {
                    name,
                    done_at: Instant::now(),
                    result: None,
                    acked: false,
                });
                Some(self.end(&uid, Outcome::Cancelled))
            }
            Event::ResultAck(node::ResultAck { uid }) => {
                if let Some(record) = self.records.get_mut(&uid) {
                    record.acked = true;
                }
                None
            }
            Event::Welcome(_)
            | Event::Drain(_)
            | Event::HeartbeatAck(_)
            | Event::Renewed(_)
            | Event::ArtefactWanted(_)
            | Event::ArtefactStored(_)
            | Event::ArtefactRefused(_) => None,
        }
    }

    /// What was done meanwhile.
    fn done(&mut self) -> Vec<node::Result> {
        let now = Instant::now();
        let done: Vec<String> = self
            .records
            .iter()
            .filter(|(_, record)| record.result.is_none() && record.done_at <= now)
            .map(|(uid, _)| uid.clone())
            .collect();
        done.iter()
            .map(|uid| self.end(uid, Outcome::Succeeded))
            .collect()
    }

    fn unacked(&self) -> Vec<node::Result> {
        self.records
            .values()
            .filter(|record| !record.acked)
            .filter_map(|record| record.result.clone())
            .collect()
    }
}

/// A device that comes and goes until the storm is over, and stays then.
async fn device(world: &World, journal: &RefCell<Journal>, mut chance: Chance, storm: Instant) {
    loop {
        let mut stream = world.welcomed("lamp-1").await;
        let goes = Instant::now() + chance.up_to(Duration::from_secs(12));
        let unacked = journal.borrow().unacked();
        for result in unacked {
            stream.result(result).await;
        }
        while Instant::now() < goes || Instant::now() >= storm {
            if !turn(&mut stream, journal, &mut chance).await {
                break;
            }
        }
        drop(stream);
        if Instant::now() < storm {
            sleep(chance.up_to(Duration::from_secs(12))).await;
        }
    }
}

/// Hears one event, or goes on with its work. False: the stream has ended.
async fn turn(stream: &mut FakeDevice, journal: &RefCell<Journal>, chance: &mut Chance) -> bool {
    let answers = match timeout(Duration::from_millis(100), stream.events.message()).await {
        Ok(Ok(Some(message))) => {
            let answer = journal.borrow_mut().hear(message.event.unwrap(), chance);
            answer.into_iter().collect()
        }
        Ok(_) => return false,
        Err(_) => {
            stream
                .send(device_event::Event::Heartbeat(node::Heartbeat {}))
                .await;
            journal.borrow_mut().done()
        }
    };
    for answer in answers {
        stream.result(answer).await;
    }
    true
}

/// The API server, people and the operator.
async fn others(world: &World, mut chance: Chance, storm: Instant) {
    let cluster = &world.cluster;
    let (mut gone_since, mut calm_at) = (None, Instant::now());
    loop {
        sleep(Duration::from_millis(250)).await;
        let now = Instant::now();
        if now >= storm {
            cluster.set_fault(None);
        } else if now >= calm_at {
            let faults = [
                None,
                None,
                Some(Fault::Down),
                Some(Fault::Silent),
                Some(Fault::Late),
                Some(Fault::Overtaken),
            ];
            let which = usize::try_from(chance.below(6)).unwrap();
            cluster.set_fault(faults[which]);
            calm_at = now + chance.up_to(Duration::from_secs(4));
        }
        let ended = !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null();
        gone_since = ended.then(|| gone_since.unwrap_or(now));
        let is_gone = gone_since.is_some_and(|since| now - since >= Duration::from_secs(5));
        for object in cluster.invocations() {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let edit = |change: &dyn Fn(&mut Value)| {
                cluster.edit("capabilityinvocations", &name, |object| change(object));
            };
            let fail = |phase: &str, code: &str| {
                edit(&|object| {
                    object["status"]["phase"] = json!(phase);
                    object["status"]["error"] = json!({"code": code, "message": "by the operator"});
                });
            };
            match object["status"]["phase"].as_str().unwrap_or("Queued") {
                "Queued" if is_gone => fail("Failed", "DeviceOffline"),
                "Dispatched" if now < storm && chance.one_in(120) => fail("Unknown", "NoAnswer"),
                "Queued" | "Dispatched" if now < storm && chance.one_in(120) => {
                    edit(&|object| object["spec"]["cancel"] = json!("Requested"));
                }
                _ => {}
            }
        }
    }
}

fn is_over(world: &World, journal: &Journal) -> bool {
    let open = ["Queued", "Dispatched", "AwaitingMediation"];
    journal.unacked().is_empty()
        && world.cluster.invocations().iter().all(|object| {
            let phase = object["status"]["phase"].as_str().unwrap_or("Queued");
            !open.contains(&phase)
        })
}

/// Whether the phase of an invocation says what was so.
fn is_true(object: &Value, journal: &Journal) -> bool {
    let status = &object["status"];
    let effect = journal
        .effects
        .iter()
        .any(|effect| object["metadata"]["uid"] == **effect);
    let none = Vec::new();
    let late = status["conditions"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .find(|condition| condition["type"] == "AnsweredLate");
    match status["phase"].as_str() {
        Some("Succeeded") => effect,
        // Nobody knew, until the device told.
        Some("Unknown") => !effect || late.is_some_and(|late| late["reason"] == "Succeeded"),
        Some("Failed" | "Cancelled") => !effect,
        _ => false,
    }
}

async fn schedule(seed: u64) -> BTreeSet<String> {
    // On some devices what comes later waits for what came before.
    let mut settings = settings();
    if seed % 2 == 1 {
        settings.in_flight = 1;
    }
    let world = World::with(settings).await;
    let mut chance = Chance(seed);
    let journal = RefCell::default();
    let start = Instant::now();
    let storm = start + STORM;
    let (of_device, of_others) = (Chance(chance.next()), Chance(chance.next()));
    let people = async {
        for number in 0..INVOCATIONS {
            sleep(chance.up_to(Duration::from_secs(10))).await;
            let made = invocation(&format!("inv-{number}"), "lamp-1");
            world.cluster.add_invocation(&a_minute_ago(&made));
        }
        while Instant::now() < storm || !is_over(&world, &journal.borrow()) {
            assert!(
                start.elapsed() < STORM + CALM,
                "seed {seed} is stuck: {:#?}\n{:#?}",
                world.cluster.invocations(),
                world.cluster.log()
            );
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = people => {}
        () = device(&world, &journal, of_device, storm) => {}
        () = others(&world, of_others, storm) => {}
    }
    let journal = journal.into_inner();
    let mut effects = journal.effects.clone();
    effects.sort();
    effects.dedup();
    assert_eq!(effects.len(), journal.effects.len(), "seed {seed}: twice");
    let mut phases = BTreeSet::new();
    for object in world.cluster.invocations() {
        assert!(
            is_true(&object, &journal),
            "seed {seed}: {object:#}\neffects: {:?}\n{:#?}",
            journal.effects,
            world.cluster.log()
        );
        phases.insert(object["status"]["phase"].as_str().unwrap().to_owned());
    }
    phases
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_no_phase_is_untrue() {
    let mut phases = BTreeSet::new();
    for seed in 0..SCHEDULES {
        phases.extend(schedule(seed).await);
    }
    assert!(phases.len() >= 3, "too little goes wrong: {phases:?}");
}
