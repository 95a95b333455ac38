//! The world: programs, connections and an API server, and one queue of what happens next.
//!
//! One thread and one clock, which jumps from one happening to the next. All chance comes from the seed, so a seed is a
//! history, and can be looked at again.
//!
//! - here: the queue, people, and the API server's answers;
//! - [`faults`]: what goes wrong;
//! - [`gateways`]: gateways and the operator, and what they see;
//! - [`network`]: the connections of devices;
//! - [`devices`]: agents, and what their capabilities do to the world.

/// Notes a line, where somebody reads along.
macro_rules! tell {
    ($world:expr, $($said:tt)*) => {
        if $world.trace.is_some() {
            let line = format!($($said)*);
            $world.note(&line);
        }
    };
}

mod devices;
mod faults;
mod gateways;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gateway::node::played::{Carried, Gateway};
use jiff::{SignedDuration, Timestamp};
use node_agent::agent::order::{Order, Why};
use node_agent::host::clock::Moment;
use pairing::key::KeyFingerprint;
use proto::node::{DeviceEvent, GatewayEvent};
use serde_json::json;
use tokio::time::Instant;

use super::agent::{CAPABILITY, Life};
use super::api::{Answer, Api, Kind, NAMESPACE, Object, unavailable};
use super::chance::Chance;
use super::link::Link;
use super::operator::{Operator, Write};
use super::script::{CALM, Deed, Fault, GATEWAYS, STORM, Sabotage, Script};
use crate::faults::effects::Effect;
use crate::faults::verdict::Case;

/// When the world begins.
const BEGIN: i64 = 1_767_225_600;

/// What happens at a moment.
enum Happening {
    Deed(Deed),
    Fault(Fault),
    /// A gateway, the operator or an agent starts again.
    StartGateway(usize),
    StartOperator,
    StartAgent(usize),
    /// The API server does what it was asked, and answers.
    Perform(u64, usize),
    Answer(u64, Option<Answer>),
    /// A watch brings the next change.
    SeeGateway(usize, u32),
    SeeOperator(u32),
    Relist(usize, u32),
    /// The operator's write arrives.
    End(u32, Box<Write>),
    Lease(usize, u32),
    SeeLease(usize, u32, Box<serde_json::Value>),
    Dial(usize, u32),
    Arrive(u64),
    GiveUp(u64),
    Up(u64),
    Down(u64),
    /// A message that was there before arrives once more.
    UpAgain(u64, Box<DeviceEvent>),
    DownAgain(u64, Box<GatewayEvent>),
    Beat(u64),
    BrokenAtAgent(u64),
    BrokenAtGateway(u64),
    Turn(usize, u32),
    /// A capability comes to its end, if that is still its moment.
    Ends(usize, u64),
    DiskIsFree(usize),
    ApiIsBack,
    /// The operator lists anew, as its watch was broken.
    OperatorLists(u32),
    /// It sees a renewal that it missed.
    Renewed(u32, usize),
    /// A device is trusted again.
    Trust(usize),
    Reconnect,
    Wake,
}

struct Host {
    life: u32,
    running: Option<Running>,
    /// It sees no change before.
    slow_until: u64,
    /// It misses what happens until then.
    gap_until: u64,
    /// It does nothing before.
    frozen_until: u64,
}

struct Running {
    gateway: Gateway,
    streams: BTreeMap<u64, Carried>,
    orphans: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Changes that it has seen.
    seen: usize,
    watch_is_due: bool,
    asked: BTreeSet<u64>,
    dirty: bool,
}

struct Device {
    lives: u32,
    life: Option<Life>,
    disk: Vec<u8>,
    disk_is_full: bool,
    /// The link that it dials or has.
    link: Option<u64>,
    runs: BTreeMap<u64, Run>,
    /// When its agents were told to end, or ended.
    ends: Vec<Timestamp>,
    /// Its agent does nothing before.
    frozen_until: u64,
}

/// A capability that runs.
struct Run {
    life: u32,
    order: Arc<Order>,
    id: String,
    ends_at: u64,
    fails: bool,
    stopped: Option<Why>,
}

/// What a history came to.
pub struct Outcome {
    pub steps: u64,
    pub ended: Vec<Case>,
    /// What must never be.
    pub wrong: Vec<String>,
    pub trace: Vec<String>,
}

/// By so much two clocks differ here at most, and the API server's whole seconds.
const CLOCKS: SignedDuration = SignedDuration::from_secs(7);

pub struct World {
    now: u64,
    start: Instant,
    queue: BTreeMap<(u64, u64), Happening>,
    count: u64,
    chance: Chance,
    script: Script,
    api: Api,
    api_away_until: u64,
    api_is_silent: bool,
    hosts: Vec<Host>,
    devices: Vec<Device>,
    links: BTreeMap<u64, Link>,
    operator: Option<Operator>,
    operators: u32,
    operator_is_due: bool,
    /// Until when it does nothing, sees nothing, or misses what happens.
    operator_frozen_until: u64,
    operator_slow_until: u64,
    effects: BTreeMap<String, Effect>,
    of_ids: BTreeMap<String, Effect>,
    /// When ends were written.
    written: BTreeMap<String, Timestamp>,
    judged: usize,
    wrong: Vec<String>,
    trace: Option<Vec<String>>,
    steps: u64,
}

pub fn name_of(number: usize) -> String {
    format!("inv-{number}")
}

fn device_name(number: usize) -> String {
    format!("device-{number}")
}

fn gateway_name(number: usize) -> String {
    format!("gateway-{number}")
}

fn key_of(number: usize) -> KeyFingerprint {
    KeyFingerprint::of_spki(device_name(number).as_bytes())
}

fn moment(millis: i64) -> Timestamp {
    Timestamp::from_second(BEGIN).unwrap_or_default() + SignedDuration::from_millis(millis)
}

impl World {
    pub fn new(seed: u64, script: Script, traced: bool) -> Self {
        let mut world = Self {
            now: 0,
            start: instant(),
            queue: BTreeMap::new(),
            count: 0,
            chance: Chance::of(seed ^ 0x5eed),
            api: Api::default(),
            api_away_until: 0,
            api_is_silent: false,
            hosts: Vec::new(),
            devices: Vec::new(),
            links: BTreeMap::new(),
            operator: None,
            operators: 0,
            operator_is_due: false,
            operator_frozen_until: 0,
            operator_slow_until: 0,
            effects: BTreeMap::new(),
            of_ids: BTreeMap::new(),
            written: BTreeMap::new(),
            judged: 0,
            wrong: Vec::new(),
            trace: traced.then(Vec::new),
            steps: 0,
            script,
        };
        if world.script.sabotage == Sabotage::EndsUnknown {
            world.api.forget_ends();
        }
        for number in 0..GATEWAYS {
            world.hosts.push(Host {
                life: 0,
                running: None,
                slow_until: 0,
                gap_until: 0,
                frozen_until: 0,
            });
            world.at(0, Happening::StartGateway(number));
        }
        for number in 0..world.script.makes.len() {
            let object = json!({
                "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
                "metadata": {
                    "namespace": NAMESPACE, "name": device_name(number), "uid": format!("d{number}"),
                    "generation": 1, "creationTimestamp": moment(-60_000),
                },
                "spec": {
                    "publicKeySha256": key_of(number).to_string(),
                    "grants": { "capabilities": [CAPABILITY] },
                },
            });
            world.api.put(&(Kind::Device, device_name(number)), object);
            world.devices.push(Device {
                lives: 0,
                life: None,
                disk: Vec::new(),
                disk_is_full: false,
                link: None,
                runs: BTreeMap::new(),
                ends: Vec::new(),
                frozen_until: 0,
            });
            world.at(5, Happening::StartAgent(number));
        }
        world.at(0, Happening::StartOperator);
        let deeds = std::mem::take(&mut world.script.deeds);
        for (at, deed) in deeds {
            world.at(at, Happening::Deed(deed));
        }
        // An ack that found no room on the disk is asked for again on the next stream.
        world.at(STORM + 15_000, Happening::Reconnect);
        for (at, fault) in std::mem::take(&mut world.script.faults) {
            world.at(at, Happening::Fault(fault));
        }
        world
    }

    /// Lives it through.
    pub async fn live(mut self) -> Outcome {
        self.start = instant();
        loop {
            let due = self.hosts.iter().filter_map(|host| self.due(host)).min();
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = [due, next].into_iter().flatten().min() else {
                break;
            };
            let next = next.max(self.now);
            if next > STORM && self.is_over() || next > STORM + CALM {
                break;
            }
            if next > self.now {
                tokio::time::advance(Duration::from_millis(next - self.now)).await;
                self.now = next;
            }
            if let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= next
            {
                let happening = entry.remove();
                self.steps += 1;
                match self.frozen_until(&happening) {
                    Some(until) => self.at(until, happening),
                    None => self.happen(happening),
                }
            }
            for number in 0..self.hosts.len() {
                if self.hosts[number].frozen_until > self.now {
                    continue;
                }
                let due = self.due(&self.hosts[number]);
                let running = self.hosts[number].running.as_ref();
                if running.is_some_and(|running| running.dirty)
                    || due.is_some_and(|due| due <= self.now)
                {
                    self.pump(number).await;
                }
            }
            self.after();
        }
        self.outcome()
    }

    fn note(&mut self, line: &str) {
        let line = format!("{:>7} {line}", self.now);
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    fn wrong(&mut self, what: String) {
        tell!(self, "WRONG: {what}");
        self.wrong.push(what);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), happening);
    }

    fn after_ms(&mut self, from: u64, to: u64, happening: Happening) {
        let at = self.now + self.chance.between(from, to);
        self.at(at, happening);
    }

    fn is_storm(&self) -> bool {
        self.now < STORM && !self.script.is_calm
    }

    /// On the API server's clock.
    fn time(&self) -> Timestamp {
        moment(i64::try_from(self.now).unwrap_or_default())
    }

    fn skewed(&self, program: usize) -> Timestamp {
        self.time() + SignedDuration::from_millis(self.script.skews[program])
    }

    /// On a device's own time line.
    fn moment_of(&self, device: usize) -> Moment {
        Moment::from_millis(10_000 + self.now * self.script.rates[device] / 1_000)
    }

    fn is_over(&self) -> bool {
        let open = self
            .api
            .list()
            .into_iter()
            .any(|change| match change.object {
                Object::Invocation(invocation) => {
                    let status = invocation.status.as_ref();
                    !status.is_some_and(|status| status.phase.is_terminal())
                }
                Object::Device(_) => false,
            });
        let idle = |device: &Device| device.life.as_ref().is_some_and(Life::is_idle);
        !open && self.devices.iter().all(idle)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deed(deed) => self.deed(&deed),
            Happening::Fault(fault) => self.fault(fault),
            Happening::StartGateway(number) => self.start_gateway(number),
            Happening::StartOperator => self.start_operator(),
            Happening::StartAgent(number) => self.start_agent(number),
            Happening::Perform(request, gateway) => self.perform(request, gateway),
            Happening::Answer(request, answer) => self.answer(request, answer),
            Happening::SeeGateway(number, life) => self.see_gateway(number, life),
            Happening::SeeOperator(life) => self.see_operator(life),
            Happening::Relist(number, life) => self.relist(number, life),
            Happening::End(life, write) => self.end(life, *write),
            Happening::Lease(number, life) => self.lease(number, life),
            Happening::SeeLease(number, life, lease) => self.see_lease(number, life, *lease),
            Happening::Dial(number, life) => self.dial(number, life),
            Happening::Arrive(link) => self.arrive(link),
            Happening::GiveUp(link) => self.give_up(link),
            Happening::Up(link) => self.up(link),
            Happening::Down(link) => self.down(link),
            Happening::UpAgain(link, event) => self.up_again(link, *event),
            Happening::DownAgain(link, event) => self.down_again(link, *event),
            Happening::Beat(link) => self.beat(link),
            Happening::BrokenAtAgent(link) => self.broken_at_agent(link),
            Happening::BrokenAtGateway(link) => self.broken_at_gateway(link),
            Happening::Turn(number, life) => self.turn(number, life),
            Happening::Ends(number, run) => self.ends(number, run),
            Happening::DiskIsFree(number) => self.devices[number].disk_is_full = false,
            Happening::ApiIsBack => self.api_is_back(),
            Happening::OperatorLists(life) => self.operator_lists(life),
            Happening::Renewed(life, number) => self.renewed(life, number),
            Happening::Trust(number) => self.trust(number, "Active"),
            Happening::Reconnect => {
                for number in 0..self.devices.len() {
                    if let Some(link) = self.devices[number].link {
                        self.close_at_agent(link);
                    }
                }
            }
            Happening::Wake => {}
        }
    }

    // People, and what goes wrong.

    fn deed(&mut self, deed: &Deed) {
        if self.now < self.api_away_until {
            let at = self.api_away_until + 300;
            return self.at(at, Happening::Deed(deed.clone()));
        }
        match deed {
            Deed::Create(number) => self.create(*number),
            Deed::Cancel(number) => {
                let key = (Kind::Invocation, name_of(*number));
                let Some(mut object) = self.api.get(&key) else {
                    return;
                };
                object["spec"]["cancel"] = json!("Requested");
                object["metadata"]["generation"] = json!(2);
                tell!(self, "somebody cancels {}", key.1);
                self.api.put(&key, object);
            }
        }
    }

    fn create(&mut self, number: usize) {
        let invocation = self.script.invocations[number].clone();
        let name = name_of(number);
        let id = invocation
            .key
            .map_or_else(|| name.clone(), |key| format!("key-{key}"));
        let mut spec = json!({
            "deviceRef": { "name": device_name(invocation.device) },
            "capability": CAPABILITY,
            "input": { "id": id, "holdMs": invocation.hold_ms, "fails": invocation.fails },
            "timeoutSeconds": invocation.timeout_seconds,
        });
        if let Some(seconds) = invocation.queue_seconds {
            spec["whenOffline"] = json!("Queue");
            spec["queueSeconds"] = json!(seconds);
        }
        if invocation.key.is_some() {
            spec["idempotencyKey"] = json!(id);
        }
        // API servers know whole seconds.
        let created = Timestamp::from_second(self.time().as_second()).unwrap_or_default();
        let object = json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "CapabilityInvocation",
            "metadata": {
                "namespace": NAMESPACE, "name": name, "uid": uid_of(number),
                "generation": 1, "creationTimestamp": created,
            },
            "spec": spec,
        });
        tell!(self, "somebody creates {name}: {spec}");
        self.api.put(&(Kind::Invocation, name), object);
    }

    // The API server's side of requests.

    fn perform(&mut self, request: u64, gateway: usize) {
        if self.now < self.api_away_until {
            return if self.api_is_silent {
                // Done later than anybody waits for, or never.
                if self.chance.one_in(2) {
                    let at = self.api_away_until;
                    self.at(at, Happening::Perform(request, gateway));
                }
            } else {
                self.api.forget_wish(request);
                self.after_ms(1, 20, Happening::Answer(request, Some(unavailable())));
            };
        }
        let Some((what, answer)) = self.api.perform(request) else {
            return;
        };
        tell!(
            self,
            "the API server does for {}: {what}",
            gateway_name(gateway)
        );
        let lost = self.script.lost_answers;
        if self.is_storm() && lost > 0 && self.chance.one_in(lost) {
            tell!(self, "and its answer is lost");
            // The connection breaks, or nobody ever says anything.
            if self.chance.one_in(2) {
                self.after_ms(1, 500, Happening::Answer(request, None));
            }
            return;
        }
        self.after_ms(1, 20, Happening::Answer(request, Some(answer)));
    }

    fn answer(&mut self, request: u64, answer: Option<Answer>) {
        self.api.answer(request, answer);
        for number in 0..self.hosts.len() {
            if let Some(running) = &mut self.hosts[number].running
                && running.asked.remove(&request)
            {
                running.dirty = true;
            }
        }
    }

    /// What follows from what just happened.
    fn after(&mut self) {
        for (request, from) in self.api.asked() {
            if let Some(running) = &mut self.hosts[from].running {
                running.asked.insert(request);
            }
            let slow = self.is_storm() && self.chance.one_in(12);
            let (least, most) = if slow { (100, 3_000) } else { (1, 25) };
            self.after_ms(least, most, Happening::Perform(request, from));
        }
        let changes = self.api.changes();
        for place in self.judged..changes {
            self.judge_change(place);
        }
        self.judged = changes;
        for number in 0..self.hosts.len() {
            let (slow, life) = (self.hosts[number].slow_until, self.hosts[number].life);
            let is_behind = self.hosts[number].running.as_mut().is_some_and(|running| {
                let due = running.seen < changes && !running.watch_is_due;
                running.watch_is_due |= due;
                due
            });
            if is_behind {
                let at = slow.max(self.now) + self.chance.between(1, 40);
                self.at(at, Happening::SeeGateway(number, life));
            }
        }
        let now = self.skewed(GATEWAYS);
        if let Some(operator) = &self.operator {
            let life = operator.life;
            let is_behind = operator.seen < changes;
            let next = operator.next();
            if !self.operator_is_due {
                if is_behind {
                    self.operator_is_due = true;
                    self.after_ms(1, 60, Happening::SeeOperator(life));
                } else if let Some(next) = next {
                    self.operator_is_due = true;
                    let wait = next.duration_since(now).as_millis().clamp(1, 1_000);
                    let wait = u64::try_from(wait).unwrap_or(1);
                    self.at(self.now + wait, Happening::SeeOperator(life));
                }
            }
        }
    }

    fn judge_change(&mut self, place: usize) {
        let Some(change) = self.api.change(place) else {
            return;
        };
        if let Object::Invocation(invocation) = &change.object
            && let Some(status) = &invocation.status
        {
            tell!(
                self,
                "{} is {} {:?} {}",
                change.key.1,
                status.phase.as_str(),
                status.error.as_ref().map(|error| error.code),
                status.duplicate_of.as_deref().unwrap_or_default()
            );
            if status.phase.is_terminal() {
                let now = self.time();
                self.written.entry(change.key.1.clone()).or_insert(now);
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        for (number, device) in self.devices.iter().enumerate() {
            let idle = device.life.as_ref().is_some_and(Life::is_idle);
            if !idle {
                self.wrong.push(format!(
                    "{} still has something to do or to say",
                    device_name(number)
                ));
            }
        }
        for name in self.api.ends_changed() {
            self.wrong
                .push(format!("somebody tried to change the end of {name}"));
        }
        let mut ended = Vec::new();
        for change in self.api.list() {
            let Object::Invocation(invocation) = change.object else {
                continue;
            };
            ended.push(self.case(&change.key.1, &invocation));
        }
        Outcome {
            steps: self.steps,
            ended,
            wrong: self.wrong,
            trace: self.trace.unwrap_or_default(),
        }
    }

    /// What is known of an invocation.
    fn case(&self, name: &str, invocation: &crds::CapabilityInvocation) -> Case {
        let uid = invocation.metadata.uid.as_deref().unwrap_or_default();
        let own = self.effects.get(uid).copied().unwrap_or_default();
        let key = invocation.spec.idempotency_key.as_deref();
        let of_key = |key| self.of_ids.get(key).copied().unwrap_or_default();
        let created = invocation.metadata.creation_timestamp.as_ref();
        let created = created.map(|created| created.0);
        let written = self.written.get(name).copied();
        let device = &invocation.spec.device_ref.name;
        let place = (0..self.devices.len()).find(|number| device_name(*number) == *device);
        let ends = place.map_or(&[][..], |place| &self.devices[place].ends);
        Case {
            invocation: invocation.clone(),
            effect: key.map_or(own, of_key),
            own: Some(own),
            written,
            clocks: CLOCKS,
            restarted: ends
                .iter()
                .any(|end| Some(*end) >= created && Some(*end) <= written),
            calm: self.script.is_calm,
        }
    }
}

/// As API servers make them.
fn uid_of(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// On the clock of the runtime, which stands still unless it is moved.
fn instant() -> Instant {
    Instant::now()
}
