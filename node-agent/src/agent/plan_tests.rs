//! Decisions, one by one; then a thousand lives of an agent that crashes between any two acts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use proto::node::{self, Availability, FailureCode, Outcome};

use super::{
    jobs::{Jobs, Storing},
    order::{Ending, Order, Sharing, Why},
    plan::{Answer, Effect, Event, Limits, Observed, Plan, Repeat, Reply, plan},
};
use crate::{
    capability::{Call, Capability, Failure, Offer, Running},
    host::clock::Moment,
    journal::{Bounds, Ledger, Mark, Phase, Record, Uid},
    mediation::{
        question::Digest,
        rules::{Decision, Rules},
    },
};

pub(super) const NOW: Moment = Moment::from_millis(10_000);

/// Forgets a result with its ack.
pub(super) const FORGETFUL: Bounds = Bounds {
    bytes: u64::MAX,
    open: 1024,
    acked: 0,
    retention: Duration::ZERO,
    tombstones: 1024,
    memory: Duration::MAX,
};

pub(super) fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

pub(super) fn order(text: &str) -> Arc<Order> {
    Arc::new(Order {
        uid: uid(text),
        name: format!("check-{text}"),
        capability: "echo".to_owned(),
        input: b"1".to_vec(),
        deadline: NOW.after(Duration::from_secs(30)),
        max_output_bytes: 1_000,
        requested_by: "jane".to_owned(),
        sharing: Sharing::Alone,
        mediate: false,
        decision: None,
    })
}

pub(super) fn with(text: &str, change: impl FnOnce(&mut Order)) -> Event {
    let mut order = Arc::unwrap_or_clone(order(text));
    change(&mut order);
    Event::Dispatch(Arc::new(order))
}

/// What a key is remembered by that this order came with.
pub(super) fn mark(key: &str, order: &Order) -> Mark {
    let Order {
        capability,
        input,
        requested_by,
        ..
    } = order;
    Mark::of(key, capability, input, requested_by)
}

pub(super) fn dispatch(text: &str) -> Event {
    Event::Dispatch(order(text))
}

pub(super) fn cancel(text: &str) -> Event {
    Event::Cancel {
        uid: uid(text),
        name: format!("check-{text}"),
    }
}

pub(super) fn completed(text: &str) -> Event {
    Event::Completed {
        uid: uid(text),
        ending: Ending::Output(b"1".to_vec()),
    }
}

/// What a person says of what is asked.
pub(super) fn answer(order: &Order, is_allowed: bool) -> Answer {
    Answer {
        ticket: 1,
        uid: order.uid.clone(),
        shown: Digest::of(order),
        is_allowed,
        decision: Decision {
            by: "joe".to_owned(),
            reason: "so".to_owned(),
        },
    }
}

/// Takes anything but `"no"`.
struct Picky;

impl Capability for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }

    fn takes(&self, input: &[u8]) -> Result<(), Failure> {
        if input != b"\"no\"" {
            return Ok(());
        }
        Err(Failure::new(FailureCode::InvalidInput, "/: not that"))
    }

    fn run(&self, _call: Call) -> Running {
        panic!("a plan runs nothing")
    }
}

pub(super) fn surface() -> BTreeMap<&'static str, Offer<'static>> {
    let offer = |availability, concurrency| Offer {
        availability,
        concurrency,
        is_mediated: false,
        capability: Some(&Picky),
    };
    BTreeMap::from([
        ("echo", offer(Availability::Available, usize::MAX)),
        ("lamp", offer(Availability::Unavailable, usize::MAX)),
        ("door", offer(Availability::Available, 1)),
        (
            "screen",
            Offer {
                is_mediated: true,
                ..offer(Availability::Available, usize::MAX)
            },
        ),
    ])
}

/// An agent with a stream and nothing to do.
#[derive(Default)]
pub(super) struct World {
    pub(super) ledger: Ledger,
    pub(super) bounds: Bounds,
    pub(super) jobs: Jobs,
    pub(super) refused: HashSet<Uid>,
    pub(super) told: Option<HashSet<Uid>>,
    pub(super) told_asked: HashSet<Uid>,
    pub(super) rules: Rules,
    /// What became of answers.
    pub(super) replies: Vec<(u64, Reply)>,
    pub(super) stop_at: Option<Moment>,
    /// What the journal's file holds.
    pub(super) finished: HashMap<Uid, node::Result>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            told: Some(HashSet::new()),
            ..Self::default()
        }
    }

    /// What a restart leaves of it.
    pub(super) fn restarted(disk: &[Record]) -> Self {
        let mut world = Self {
            ledger: Ledger::restarted(disk),
            ..Self::default()
        };
        for record in disk {
            world.keep(record);
        }
        world
    }

    fn keep(&mut self, record: &Record) {
        if let Record::Finished { uid, result } = record {
            let kept = self.finished.entry(uid.clone());
            kept.or_insert_with(|| result.clone());
        }
    }

    pub(super) fn record(&mut self, record: &Record) {
        self.ledger.add(record);
        self.keep(record);
    }

    fn repeats(&self) -> Vec<Repeat> {
        let owed = self.ledger.owed().take(3);
        owed.map(|(uid, first)| Repeat {
            uid: uid.clone(),
            result: self.ledger.told(first, &self.finished),
        })
        .collect()
    }

    pub(super) fn plan_at(&self, now: Moment, events: &[Event]) -> Plan {
        plan(&Observed {
            repeats: &self.repeats(),
            now,
            events,
            ledger: &self.ledger,
            bounds: self.bounds,
            jobs: &self.jobs,
            refused: &self.refused,
            told: self.told.as_ref(),
            told_asked: &self.told_asked,
            rules: &self.rules,
            surface: &surface(),
            limits: Limits {
                running: 2,
                waiting: 2,
                asking: 3,
            },
            stop_at: self.stop_at,
        })
    }

    pub(super) fn plan(&self, events: &[Event]) -> Plan {
        self.plan_at(NOW, events)
    }

    /// Plans, and lets it happen.
    pub(super) fn after(self, events: &[Event]) -> Self {
        self.after_at(NOW, events)
    }

    pub(super) fn after_at(mut self, now: Moment, events: &[Event]) -> Self {
        let plan = self.plan_at(now, events);
        for record in &plan.records {
            self.record(record);
        }
        for effect in plan.effects {
            self.act(effect);
        }
        self
    }

    pub(super) fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Ask(order) => self.jobs.ask(order),
            Effect::TellAsked(uid) => {
                self.told_asked.insert(uid);
            }
            Effect::Reply { ticket, reply, .. } => self.replies.push((ticket, reply)),
            Effect::Wait(order) => self.jobs.wait(order),
            Effect::Follow(order) => self.jobs.follow(order),
            Effect::Start(order) => self.jobs.start(&order),
            Effect::Stop(uid, why) => self.jobs.stop(&uid, why),
            Effect::Leave(uid) => self.jobs.leave(&uid),
            Effect::Store {
                uid,
                result,
                deadline,
            } => {
                let result = *result;
                self.jobs.store(uid, Storing { result, deadline });
            }
            Effect::Expect(uid, deadline) => self.jobs.expect(&uid, deadline),
            Effect::TellResult(uid) => {
                self.told.as_mut().unwrap().insert(uid);
            }
            Effect::Refuse { uid, .. } => {
                self.refused.insert(uid);
            }
            Effect::TellAccepted(_) => {}
        }
    }
}

/// Outcome and code of each end that a plan records.
pub(super) fn ends(plan: &Plan) -> Vec<(String, Outcome, Option<FailureCode>)> {
    let ends = plan.records.iter().filter_map(|record| {
        if let Record::Finished { uid, result } = record {
            let code = result.failure.as_ref().map(proto::node::Failure::code);
            Some((uid.to_string(), result.outcome(), code))
        } else {
            None
        }
    });
    ends.collect()
}

pub(super) fn starts(plan: &Plan) -> Vec<String> {
    let starts = plan.effects.iter().filter_map(|effect| {
        if let Effect::Start(order) = effect {
            Some(order.uid.to_string())
        } else {
            None
        }
    });
    starts.collect()
}

pub(super) fn end(
    text: &str,
    outcome: Outcome,
    code: FailureCode,
) -> (String, Outcome, Option<FailureCode>) {
    (text.to_owned(), outcome, Some(code))
}

#[test]
fn an_order_is_recorded_started_and_confirmed() {
    let plan = World::new().plan(&[dispatch("a")]);
    assert_eq!(
        plan.records,
        [Record::Accepted {
            uid: uid("a"),
            name: "check-a".to_owned(),
            mark: None,
        }]
    );
    assert_eq!(
        plan.effects,
        [Effect::Start(order("a")), Effect::TellAccepted(uid("a"))]
    );
    assert_eq!(plan.wake, Some(order("a").deadline));
}

#[test]
fn what_comes_twice_runs_once_even_in_one_batch() {
    let plan = World::new().plan(&[dispatch("a"), dispatch("a")]);
    assert_eq!(starts(&plan), ["a"]);
    assert_eq!(plan.records.len(), 1);

    let running = World::new().after(&[dispatch("a")]);
    let plan = running.plan(&[dispatch("a")]);
    assert_eq!(plan.records, []);
    assert_eq!(plan.effects, [Effect::TellAccepted(uid("a"))]);

    let ended = running.after(&[completed("a")]);
    let plan = ended.plan(&[dispatch("a")]);
    assert_eq!(plan.effects, [Effect::TellResult(uid("a"))]);

    let acked = ended.after(&[Event::Ack(uid("a"))]);
    let plan = acked.plan(&[dispatch("a")]);
    assert_eq!(plan.effects, [Effect::TellResult(uid("a"))]);
}

#[test]
fn an_end_is_recorded_before_it_is_told() {
    let plan = World::new().after(&[dispatch("a")]).plan(&[completed("a")]);
    assert_eq!(ends(&plan), [("a".to_owned(), Outcome::Succeeded, None)]);
    assert_eq!(
        plan.effects,
        [Effect::Leave(uid("a")), Effect::TellResult(uid("a"))]
    );
}

#[test]
fn what_cannot_be_done_is_said_and_recorded() {
    for (event, outcome, code) in [
        (
            with("a", |order| order.capability = "oven".to_owned()),
            Outcome::Failed,
            FailureCode::NotDeclared,
        ),
        (
            with("a", |order| order.capability = "lamp".to_owned()),
            Outcome::Failed,
            FailureCode::Unavailable,
        ),
        (
            with("a", |order| order.input = vec![b'1'; 40_000]),
            Outcome::Failed,
            FailureCode::InvalidInput,
        ),
        (
            with("a", |order| order.deadline = NOW),
            Outcome::TimedOut,
            FailureCode::DeadlineBeforeStart,
        ),
    ] {
        let plan = World::new().plan(&[event]);
        assert_eq!(ends(&plan), [end("a", outcome, code)]);
        assert_eq!(plan.effects, [Effect::TellResult(uid("a"))]);
    }
}

#[test]
fn as_many_run_and_wait_as_may_and_the_next_is_told_so() {
    let events = ["a", "b", "c", "d", "e"].map(dispatch);
    let world = World::new();
    let plan = world.plan(&events);
    assert_eq!(starts(&plan), ["a", "b"]);
    assert_eq!(ends(&plan), [end("e", Outcome::Failed, FailureCode::Busy)]);
    let plan = world.after(&events).plan(&[completed("b")]);
    assert_eq!(starts(&plan), ["c"]);
}

#[test]
fn who_waits_gets_its_turn_in_order() {
    let world = World::new()
        .after(&["a", "b", "c"].map(dispatch))
        .after(&[completed("a")])
        .after(&[dispatch("d")]);
    let waiting: Vec<_> = world.jobs.waiting().map(|o| o.uid.to_string()).collect();
    assert_eq!(waiting, ["d"]);
    assert_eq!(starts(&world.plan(&[completed("c")])), ["d"]);
}

#[test]
fn a_busy_capability_keeps_its_own_waiting_and_nobody_else() {
    let door = |text| with(text, |order| order.capability = "door".to_owned());
    let events = [door("a"), door("b"), dispatch("c"), dispatch("d")];
    assert_eq!(starts(&World::new().plan(&events)), ["a", "c"]);
    let world = World::new().after(&events);
    for (events, expected) in [
        (vec![completed("c")], &["d"][..]),
        (vec![completed("a")], &["b"]),
        (vec![completed("c"), completed("a")], &["b", "d"]),
        // Who waits for it comes before who asks for it now.
        (vec![completed("a"), door("e")], &["b"]),
    ] {
        assert_eq!(starts(&world.plan(&events)), expected, "{events:?}");
    }

    let world = World::new().after(&["a", "b", "c"].map(door));
    let plan = world.plan(&[door("d")]);
    assert_eq!(ends(&plan), [end("d", Outcome::Failed, FailureCode::Busy)]);
    assert_eq!(starts(&world.plan(&[dispatch("e")])), ["e"]);
}

#[test]
fn a_deadline_stops_what_runs_and_keeps_what_waits_from_starting() {
    let world = World::new().after(&["a", "b", "c"].map(dispatch));
    let late = order("a").deadline;
    let plan = world.plan_at(late, &[]);
    assert_eq!(
        ends(&plan),
        [end(
            "c",
            Outcome::TimedOut,
            FailureCode::DeadlineBeforeStart
        )]
    );
    assert!(
        plan.effects
            .contains(&Effect::Stop(uid("a"), Why::Deadline))
    );
    assert_eq!(starts(&plan), [] as [&str; 0]);
    // Asked once.
    let world = world.after(&[cancel("a")]);
    let plan = world.plan_at(late, &[]);
    assert!(
        !plan
            .effects
            .contains(&Effect::Stop(uid("a"), Why::Deadline))
    );
}

#[test]
fn cancel_reaches_what_waits_what_runs_what_ended_and_what_never_came() {
    let world = World::new().after(&["a", "b", "c"].map(dispatch));
    let plan = world.plan(&[cancel("a")]);
    assert_eq!(plan.effects, [Effect::Stop(uid("a"), Why::Cancelled)]);
    let plan = world.plan(&[cancel("c")]);
    assert_eq!(
        ends(&plan),
        [end("c", Outcome::Cancelled, FailureCode::Cancelled)]
    );
    let world = world.after(&[completed("a")]);
    let plan = world.plan(&[cancel("a")]);
    assert_eq!(plan.effects, [Effect::TellResult(uid("a"))]);
    let plan = world.plan(&[cancel("z")]);
    let record = Record::Cancelled {
        uid: uid("z"),
        name: "check-z".to_owned(),
    };
    assert_eq!(plan.records, [record]);
    assert_eq!(plan.effects, [Effect::TellResult(uid("z"))]);
    // And is not run when it comes late after all.
    let world = world.after(&[cancel("z")]);
    assert_eq!(starts(&world.plan(&[dispatch("z")])), [] as [&str; 0]);
}

#[test]
fn a_new_stream_hears_every_result_that_nobody_acked() {
    let mut world = World::new()
        .after(&["a", "b"].map(dispatch))
        .after(&["a", "b"].map(completed))
        .after(&[Event::Ack(uid("a"))]);
    assert_eq!(world.plan(&[]).effects, []);
    world.told = Some(HashSet::new());
    assert_eq!(world.plan(&[]).effects, [Effect::TellResult(uid("b"))]);
    world.told = None;
    assert_eq!(world.plan(&[]).effects, []);
}

#[test]
fn what_is_forgotten_is_not_run_recorded_or_told_again() {
    let mut world = World::new()
        .after(&[dispatch("a")])
        .after(&[completed("a")])
        .after(&[Event::Ack(uid("a"))]);
    world.ledger.shrink(NOW, FORGETFUL);
    let plan = world.plan(&[dispatch("a"), cancel("a"), Event::Ack(uid("a"))]);
    assert_eq!(plan.records, []);
    assert_eq!(plan.effects, []);
}

#[test]
fn a_full_journal_refuses_new_work_and_remembers_that_it_did() {
    for bounds in [
        Bounds {
            bytes: 1_000,
            ..Bounds::default()
        },
        Bounds {
            open: 0,
            ..Bounds::default()
        },
    ] {
        let mut world = World {
            bounds,
            ..World::new()
        };
        let plan = world.plan(&[dispatch("a")]);
        assert_eq!(plan.records, []);
        let refuse = Effect::Refuse {
            uid: uid("a"),
            name: "check-a".to_owned(),
        };
        assert_eq!(plan.effects, std::slice::from_ref(&refuse));
        world = world.after(&[dispatch("a")]);
        world.bounds = Bounds::default();
        // There is room again, but somebody was told that it does not run.
        assert_eq!(world.plan(&[dispatch("a")]).effects, [refuse]);
    }
}

#[test]
fn room_is_set_aside_for_the_results_of_what_runs() {
    let bounds = Bounds {
        bytes: 2 * order("a").reserve() + 500,
        ..Bounds::default()
    };
    let world = World {
        bounds,
        ..World::new()
    };
    let world = world.after(&["a", "b"].map(dispatch));
    assert_eq!(world.jobs.running().count(), 2);
    let plan = world.plan(&[dispatch("c")]);
    assert!(matches!(plan.effects[..], [Effect::Refuse { .. }]));
}

#[test]
fn without_a_journal_nothing_starts_and_no_end_is_told() {
    let world = World::new().after(&["a", "b", "c"].map(dispatch));
    let plan = world.plan(&[completed("a"), dispatch("d"), cancel("b")]);
    assert_eq!(starts(&plan), ["c"]);
    let (plan, again) = plan.unrecorded(&world.jobs, &world.ledger);
    assert_eq!(plan.records, []);
    assert_eq!(starts(&plan), [] as [&str; 0]);
    let refused: Vec<_> = plan
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Refuse { uid, .. } => Some(uid.to_string()),
            Effect::TellResult(uid) => unreachable!("{uid} is told unrecorded"),
            Effect::Wait(_)
            | Effect::Ask(_)
            | Effect::Follow(_)
            | Effect::Start(_)
            | Effect::Stop(..)
            | Effect::Leave(_)
            | Effect::Store { .. }
            | Effect::Expect(..)
            | Effect::TellAsked(_)
            | Effect::Reply { .. }
            | Effect::TellAccepted(_) => None,
        })
        .collect();
    assert_eq!(refused, ["d", "c"]);
    assert!(
        plan.effects
            .contains(&Effect::Stop(uid("b"), Why::Cancelled))
    );
    // What ended is recorded later, and told then.
    let plan = world.plan(&again);
    assert_eq!(ends(&plan), [("a".to_owned(), Outcome::Succeeded, None)]);
}

#[test]
fn an_agent_that_stops_starts_nothing_and_says_what_never_started() {
    let mut world = World::new().after(&["a", "b", "c"].map(dispatch));
    world.stop_at = Some(NOW.after(Duration::from_secs(4)));
    let plan = world.plan(&[completed("a"), dispatch("z")]);
    assert_eq!(starts(&plan), [] as [&str; 0]);
    assert_eq!(
        ends(&plan)[1..],
        [end("c", Outcome::Failed, FailureCode::AgentRestarted)]
    );
    let plan = world.plan_at(NOW.after(Duration::from_secs(4)), &[]);
    assert!(
        plan.effects
            .contains(&Effect::Stop(uid("b"), Why::Shutdown))
    );
}

/// The life of an agent and its gateways, with crashes, as a seed decides.
struct Life {
    world: World,
    now: Moment,
    /// What a power cut leaves.
    disk: Vec<Record>,
    /// Whose capability began, in order, over all lives of the process.
    started: Vec<Uid>,
    /// What is running in this life.
    running: BTreeSet<Uid>,
    /// Who was allowed to run by a person, rightly.
    allowed: BTreeSet<Uid>,
    again: Vec<Event>,
    gateway: Gateway,
    dice: Dice,
}

/// What the gateways know, which die as well but share what is in Kubernetes.
#[derive(Default)]
struct Gateway {
    open: BTreeSet<Uid>,
    told: HashMap<Uid, (Outcome, Option<FailureCode>)>,
    /// Whose end came from a device's journal.
    recorded: BTreeSet<Uid>,
    acked: BTreeSet<Uid>,
}

/// xorshift: the same seed gives the same life.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Some of the invocations need a person's word.
fn is_mediated(uid: &Uid) -> bool {
    matches!(uid.as_str(), "u2" | "u6" | "u7" | "u8")
}

/// Half of the invocations have one of two keys.
fn key_of(uid: &Uid) -> Option<&'static str> {
    match uid.as_str() {
        "u0" | "u1" | "u2" => Some("key-0"),
        "u3" | "u4" | "u5" => Some("key-1"),
        _ => None,
    }
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(),
            now: NOW,
            disk: Vec::new(),
            started: Vec::new(),
            running: BTreeSet::new(),
            allowed: BTreeSet::new(),
            again: Vec::new(),
            gateway: Gateway::default(),
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        }
    }

    fn dispatch(&self, uid: &Uid) -> Event {
        let mut order = Arc::unwrap_or_clone(order(uid.as_str()));
        order.deadline = self.now.after(Duration::from_secs(30));
        order.mediate = is_mediated(uid);
        if let Some(key) = key_of(uid) {
            order.sharing = Sharing::With(mark(key, &order));
        }
        Event::Dispatch(Arc::new(order))
    }

    fn some_uid(&mut self) -> Uid {
        uid(&format!("u{}", self.dice.below(12)))
    }

    /// Something happens: more than one thing at once, now and then.
    fn events(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.again);
        for _ in 0..=self.dice.below(3) {
            match self.dice.below(10) {
                9 => events.extend(self.word()),
                0..=2 => {
                    let uid = self.some_uid();
                    // A gateway dispatches what has no end yet, as often as it likes; and one that is late, what has.
                    let late = self.gateway.recorded.contains(&uid) && self.dice.below(2) == 0;
                    let open = !self.gateway.told.contains_key(&uid);
                    if self.world.told.is_some() && (open || late) {
                        self.gateway.open.insert(uid.clone());
                        events.push(self.dispatch(&uid));
                    }
                }
                3 => {
                    let uid = self.some_uid();
                    if self.gateway.open.contains(&uid) && self.world.told.is_some() {
                        events.push(cancel(uid.as_str()));
                    }
                }
                4..=5 => {
                    if let Some(uid) = self.running.pop_first() {
                        let ending = match self.world.jobs.stopping(&uid) {
                            Some(why) => Ending::Stopped(why),
                            None => Ending::Output(b"1".to_vec()),
                        };
                        events.push(Event::Completed { uid, ending });
                    }
                }
                6 => self.world.told = Some(HashSet::new()),
                7 => {
                    let uid = self.some_uid();
                    if self.world.told.is_some() && self.gateway.acked.contains(&uid) {
                        events.push(Event::Ack(uid));
                    }
                }
                _ => self.now = self.now.after(Duration::from_secs(7)),
            }
        }
        events
    }

    /// A person answers one of those that wait for that, rightly or not.
    fn word(&mut self) -> Option<Event> {
        let asked: Vec<_> = self.world.jobs.asking().cloned().collect();
        let order = asked.get(self.dice.below(asked.len().max(1)))?;
        let is_allowed = self.dice.below(3) > 0;
        let mut answer = answer(order, is_allowed);
        if self.dice.below(5) == 0 {
            answer.uid = self.some_uid();
        }
        if is_allowed && answer.uid == order.uid {
            self.allowed.insert(order.uid.clone());
        }
        Some(Event::Answer(answer))
    }

    fn step(&mut self) {
        let events = self.events();
        self.act(&events, true);
        if self.dice.below(4) == 0 {
            self.world.ledger.shrink(self.now, FORGETFUL);
        }
    }

    fn act(&mut self, events: &[Event], may_fail: bool) {
        let plan = self.world.plan_at(self.now, events);
        let Plan {
            records, effects, ..
        } = plan.clone();
        let luck = if may_fail { self.dice.below(10) } else { 9 };
        let effects = match luck {
            // The disk is full.
            0 if records.iter().any(Record::must_last) => {
                let (plan, again) = plan.unrecorded(&self.world.jobs, &self.world.ledger);
                self.again = again;
                plan.effects
            }
            // A power cut within the write: a part of it is there.
            1 => {
                let written = self.dice.below(records.len() + 1);
                self.disk.extend_from_slice(&records[..written]);
                return self.crash();
            }
            _ => {
                for record in &records {
                    self.world.record(record);
                }
                self.disk.extend(records);
                effects
            }
        };
        let crash_at = (luck == 2).then(|| self.dice.below(effects.len() + 1));
        for (index, effect) in effects.into_iter().enumerate() {
            if crash_at == Some(index) {
                return self.crash();
            }
            self.check(&effect);
            match &effect {
                Effect::Start(order) => {
                    self.started.push(order.uid.clone());
                    self.running.insert(order.uid.clone());
                }
                Effect::TellResult(uid) => self.hear(uid),
                Effect::Refuse { uid, .. } => {
                    let refusal = (Outcome::Failed, Some(FailureCode::JournalUnavailable));
                    self.gateway.told.entry(uid.clone()).or_insert(refusal);
                    self.gateway.acked.insert(uid.clone());
                }
                Effect::Wait(_)
                | Effect::Ask(_)
                | Effect::Follow(_)
                | Effect::Stop(..)
                | Effect::Leave(_)
                | Effect::Store { .. }
                | Effect::Expect(..)
                | Effect::TellAsked(_)
                | Effect::Reply { .. }
                | Effect::TellAccepted(_) => {}
            }
            // Without a stream there is nobody to hear it.
            if self.world.told.is_some() || !matches!(effect, Effect::TellResult(_)) {
                self.world.act(effect);
            }
        }
        if crash_at.is_some() {
            self.crash();
        }
    }

    /// What must be on the disk when an effect happens.
    fn check(&self, effect: &Effect) {
        match effect {
            Effect::Start(order) => {
                let accepted = self.disk.iter().any(
                    |record| matches!(record, Record::Accepted { uid, .. } if *uid == order.uid),
                );
                assert!(accepted, "{} starts unrecorded", order.uid);
                assert!(
                    !self.started.contains(&order.uid),
                    "{} starts twice",
                    order.uid
                );
                assert!(
                    !is_mediated(&order.uid) || self.allowed.contains(&order.uid),
                    "{} starts without a person's word",
                    order.uid
                );
                let key = key_of(&order.uid);
                assert!(
                    key.is_none() || self.started.iter().all(|other| key_of(other) != key),
                    "{} has its key's effect a second time",
                    order.uid
                );
            }
            Effect::Ask(order) => {
                assert!(
                    self.disk.iter().any(|record| *record.uid() == order.uid),
                    "{} is asked unrecorded",
                    order.uid
                );
            }
            Effect::TellResult(uid) => {
                assert!(
                    self.disk.iter().any(|record| record.uid() == uid),
                    "the end of {uid} is told unrecorded"
                );
            }
            Effect::Wait(_)
            | Effect::Follow(_)
            | Effect::Stop(..)
            | Effect::Leave(_)
            | Effect::Store { .. }
            | Effect::Expect(..)
            | Effect::TellAccepted(_)
            | Effect::TellAsked(_)
            | Effect::Reply { .. }
            | Effect::Refuse { .. } => {}
        }
    }

    /// A gateway hears a result; it may lose the ack.
    fn hear(&mut self, uid: &Uid) {
        let end = self.end_of(uid);
        if !self.gateway.told.contains_key(uid) {
            self.gateway.recorded.insert(uid.clone());
        }
        let before = self.gateway.told.entry(uid.clone()).or_insert(end);
        if before.1 != Some(FailureCode::JournalUnavailable) {
            assert_eq!(*before, end, "{uid} ended in two ways");
        }
        // What is said of one that is not the first of its key is said of the first's effect.
        let first = self.first_of(uid);
        let ran = self.started.contains(first.as_ref().unwrap_or(uid));
        if first.is_some() {
            assert!(!self.started.contains(uid), "{uid} repeats, and ran");
        }
        match end {
            (Outcome::Succeeded | Outcome::Unknown, _) => {
                // Unknown is honest where the crash came between the record and the start.
                assert!(
                    ran || end.0 == Outcome::Unknown,
                    "{uid}: success without effect"
                );
            }
            // One that follows may time out before the first starts.
            (_, Some(FailureCode::DeadlineExceeded)) => assert!(ran || first.is_some(), "{uid}"),
            (
                _,
                Some(
                    FailureCode::Busy
                    | FailureCode::AgentRestarted
                    | FailureCode::DeadlineBeforeStart
                    | FailureCode::NoDecision
                    | FailureCode::Refused
                    | FailureCode::JournalUnavailable,
                ),
            ) => assert!(!ran, "{uid}: {end:?} with an effect"),
            _ => {}
        }
        if self.dice.below(3) > 0 {
            self.gateway.acked.insert(uid.clone());
        }
    }

    fn first_of(&self, uid: &Uid) -> Option<Uid> {
        self.disk.iter().find_map(|record| {
            if let Record::Following {
                uid: of, follow, ..
            } = record
                && of == uid
            {
                Some(follow.first.clone())
            } else {
                None
            }
        })
    }

    fn end_of(&self, uid: &Uid) -> (Outcome, Option<FailureCode>) {
        let recorded = self.disk.iter().find_map(|record| match record {
            Record::Cancelled { uid: of, .. } if of == uid => {
                Some((Outcome::Cancelled, Some(FailureCode::Cancelled)))
            }
            Record::Finished { uid: of, result } if of == uid => Some((
                result.outcome(),
                result.failure.as_ref().map(proto::node::Failure::code),
            )),
            Record::Finished { .. }
            | Record::Waiting { .. }
            | Record::Accepted { .. }
            | Record::Kept { .. }
            | Record::Following { .. }
            | Record::Cancelled { .. }
            | Record::Forgotten { .. }
            | Record::Acked { .. } => None,
        });
        let accepted = self
            .disk
            .iter()
            .any(|record| matches!(record, Record::Accepted { uid: of, .. } if of == uid));
        let lost = if accepted {
            Outcome::Unknown
        } else {
            Outcome::Failed
        };
        recorded.unwrap_or((lost, Some(FailureCode::AgentRestarted)))
    }

    fn crash(&mut self) {
        self.world = World::restarted(&self.disk);
        self.running.clear();
        self.again.clear();
    }

    /// Quiet: everything that is open comes to an end.
    fn settle(&mut self) {
        for _ in 0..50 {
            self.world.told = Some(HashSet::new());
            let mut events = std::mem::take(&mut self.again);
            let uids = std::mem::take(&mut self.running).into_iter();
            events.extend(uids.map(|uid| completed(uid.as_str())));
            let acked = self.gateway.acked.iter().cloned();
            events.extend(acked.map(Event::Ack));
            let questions: Vec<_> = self.world.jobs.asking().cloned().collect();
            events.extend(
                questions
                    .iter()
                    .map(|order| Event::Answer(answer(order, false))),
            );
            let open = self.gateway.open.iter();
            let untold = open.filter(|uid| !self.gateway.told.contains_key(*uid));
            events.extend(untold.map(|uid| self.dispatch(uid)));
            self.act(&events, false);
        }
    }
}

#[test]
fn over_a_thousand_lives_nothing_happens_twice_and_nothing_untrue_is_said() {
    for seed in 1..1_200 {
        let mut life = Life::new(seed);
        for _ in 0..60 {
            life.step();
        }
        life.settle();
        for uid in &life.gateway.open {
            assert!(
                life.gateway.told.contains_key(uid),
                "seed {seed}: {uid} never ended"
            );
        }
        let counts = life.world.ledger.counts();
        assert_eq!(
            (counts.running, life.world.jobs.is_empty()),
            (0, true),
            "seed {seed}"
        );
        for uid in life.world.ledger.unacked() {
            assert_eq!(life.world.ledger.phase(uid), Some(Phase::Ended));
        }
    }
}
