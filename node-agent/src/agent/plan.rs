//! What to do next. Pure: no clock, no I/O, no randomness.
//!
//! A plan has two halves. Its records are durable before any of its effects happens: that is the whole of "at most
//! once". [`Plan::unrecorded`] is the plan for when they cannot be made durable.

mod asking;
mod once;
mod storing;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use proto::node::{self, Availability, FailureCode, Outcome};

pub use self::{
    asking::{Answer, Reply},
    once::Repeat,
};
use super::{
    jobs::Jobs,
    order::{self, Ending, MAX_INPUT_BYTES, Order, Why, Wish},
};
use crate::{
    capability::{Failure, Offer},
    host::clock::Moment,
    journal::{Bounds, Ledger, Phase, Record, Uid},
    mediation::rules::{Rules, Ruling},
};

/// Bytes that a refusal's record may take.
const REFUSAL_BYTES: u64 = 4 * 1024;

/// Most invocations that a gateway sends at once, as the protocol has it.
const MOST_AT_ONCE: u32 = 64;

/// How an order ends that is not tried, and why.
type Objection = (Outcome, FailureCode, Cow<'static, str>);

/// How much may happen at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub running: usize,
    pub waiting: usize,
    /// For the answer of a person. 0: nobody can be asked.
    pub asking: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            running: 4,
            waiting: 64,
            asking: 32,
        }
    }
}

impl Limits {
    /// How many a gateway may send before one has ended: those that run, as many that wait for them, and those that a
    /// person is asked about, so that nobody's silence keeps the others away.
    pub fn at_once(&self) -> u32 {
        let all = 2 * self.running + self.asking;
        u32::try_from(all)
            .unwrap_or(MOST_AT_ONCE)
            .clamp(1, MOST_AT_ONCE)
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    Dispatch(Arc<Order>),
    /// The name is empty where the gateway does not say it.
    Cancel {
        uid: Uid,
        name: String,
    },
    Ack(Uid),
    /// A person at the device answered.
    Answer(Answer),
    /// A capability ended.
    Completed {
        uid: Uid,
        ending: Ending,
    },
    /// Its output is stored.
    Stored(Uid),
    /// Its output will not be stored.
    NotStored {
        uid: Uid,
        message: String,
    },
    /// It ended before, and that could not be recorded.
    Unrecorded(Box<node::Result>),
}

impl Event {
    /// What a gateway's wish is to a plan. `None`: nothing is decided about it.
    pub fn wished(wish: Wish) -> Option<Self> {
        Some(match wish {
            Wish::Dispatch(order) => Self::Dispatch(Arc::from(order)),
            Wish::Cancel { uid, name } => Self::Cancel { uid, name },
            Wish::Ack(uid) => Self::Ack(uid),
            Wish::Stored(uid) => Self::Stored(uid),
            Wish::NotStored { uid, message } => Self::NotStored { uid, message },
            Wish::Wanted { .. } => return None,
        })
    }
}

/// Everything that a plan may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub now: Moment,
    /// In the order in which it happened.
    pub events: &'a [Event],
    pub ledger: &'a Ledger,
    pub bounds: Bounds,
    /// Of what [`Ledger::owed`] says; not all of it at once.
    pub repeats: &'a [Repeat],
    pub jobs: &'a Jobs,
    /// What was refused because it could not be recorded: refused for as long as the process lives.
    pub refused: &'a HashSet<Uid>,
    /// Results that were sent on the stream at hand; `None` where there is no stream.
    pub told: Option<&'a HashSet<Uid>>,
    /// Those of which this stream was told that a person is asked.
    pub told_asked: &'a HashSet<Uid>,
    pub surface: &'a BTreeMap<&'a str, Offer<'a>>,
    pub rules: &'a Rules,
    pub limits: Limits,
    /// When running capabilities are stopped because the agent stops; `None` while it does not.
    pub stop_at: Option<Moment>,
}

/// What to do: first make the records durable, all together; then the effects, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub records: Vec<Record>,
    pub effects: Vec<Effect>,
    /// When to look again though nothing happens.
    pub wake: Option<Moment>,
}

/// One act.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Keeps an order until it is its turn.
    Wait(Arc<Order>),
    /// Keeps an order until a person answers.
    Ask(Arc<Order>),
    /// Keeps an order until the first of its key ends.
    Follow(Arc<Order>),
    /// Starts the capability.
    Start(Arc<Order>),
    /// Asks a running capability to end.
    Stop(Uid, Why),
    /// It neither waits, nor is asked, nor runs any more.
    Leave(Uid),
    /// It ran, and its output is to be stored until then; the result is what is told after that.
    Store {
        uid: Uid,
        result: Box<node::Result>,
        deadline: Option<Moment>,
    },
    /// Until when an output is to be stored.
    Expect(Uid, Moment),
    /// Says that it runs.
    TellAccepted(Uid),
    /// Says that a person is asked.
    TellAsked(Uid),
    /// Says to a person what became of an answer.
    Reply { ticket: u64, uid: Uid, reply: Reply },
    /// Says how it ended.
    TellResult(Uid),
    /// Says that it cannot be recorded and so is not run, and remembers that.
    Refuse { uid: Uid, name: String },
}

/// What to do about `observed`.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut draft = Draft::of(observed);
    draft.repeat();
    draft.apply_rules();
    for event in observed.events {
        match event {
            Event::Dispatch(order) => draft.dispatch(order),
            Event::Cancel { uid, name } => draft.cancel(uid, name),
            Event::Ack(uid) => draft.ack(uid),
            Event::Answer(answer) => draft.answer(answer),
            Event::Completed { uid, ending } => draft.complete(uid, ending.clone()),
            Event::Stored(uid) => draft.stored(uid),
            Event::NotStored { uid, message } => draft.not_stored(uid, message),
            Event::Unrecorded(result) => draft.record_again(result),
        }
    }
    draft.keep_deadlines();
    draft.promote();
    draft.report_asked();
    draft.report();
    draft.plan
}

struct Draft<'a> {
    observed: &'a Observed<'a>,
    plan: Plan,
    /// What the plan makes of an invocation, before the ledger knows.
    phases: HashMap<Uid, Phase>,
    waiting: VecDeque<Arc<Order>>,
    asking: asking::Planned,
    running: usize,
    /// The same by capability.
    running_of: HashMap<String, usize>,
    /// Bytes and invocations that may still be recorded.
    bytes_left: u64,
    count_left: usize,
    /// Whose result is wanted.
    wanted: BTreeSet<Uid>,
    /// Whose result is where it belongs since now.
    acked: HashSet<Uid>,
    once: once::Planned,
}

impl<'a> Draft<'a> {
    fn of(observed: &'a Observed<'a>) -> Self {
        let Observed {
            ledger,
            bounds,
            jobs,
            ..
        } = observed;
        let taken = ledger.open_bytes() + ledger.reserved() + jobs.reserved();
        let mut running_of = HashMap::new();
        for order in jobs.running() {
            *running_of.entry(order.capability.clone()).or_default() += 1;
        }
        Self {
            observed,
            plan: Plan::default(),
            phases: HashMap::new(),
            waiting: jobs.waiting().cloned().collect(),
            asking: asking::Planned::of(jobs.asking().cloned()),
            running: jobs.running().count(),
            running_of,
            bytes_left: bounds.bytes.saturating_sub(taken),
            count_left: bounds.open.saturating_sub(ledger.open()),
            wanted: BTreeSet::new(),
            acked: HashSet::new(),
            once: once::Planned::default(),
        }
    }

    fn phase(&self, uid: &Uid) -> Option<Phase> {
        self.phases
            .get(uid)
            .copied()
            .or_else(|| self.observed.ledger.phase(uid))
    }

    fn act(&mut self, effect: Effect) {
        self.plan.effects.push(effect);
    }

    fn dispatch(&mut self, order: &Arc<Order>) {
        let uid = &order.uid;
        if self.observed.refused.contains(uid) {
            return self.refuse(uid, &order.name);
        }
        match self.phase(uid) {
            Some(Phase::Running) => self.act(Effect::TellAccepted(uid.clone())),
            Some(Phase::Waiting) => self.say_again(uid),
            Some(Phase::Following) => {}
            Some(Phase::Storing) => self.expect(order),
            Some(Phase::Ended) => self.tell_end(uid),
            // Not answered: whoever asks the next process, or another device, gets one.
            None if self.observed.stop_at.is_some() => {}
            None => self.receive(order),
        }
    }

    /// Answers who asks for an end. Where nothing is kept but that there was one, nothing is said: the end is where it
    /// belongs, and whatever could be said without it would contradict it there.
    fn tell_end(&mut self, uid: &Uid) {
        if !self.observed.ledger.is_forgotten(uid) {
            self.wanted.insert(uid.clone());
        }
    }

    fn receive(&mut self, order: &Arc<Order>) {
        let ruling = self.ruling(order);
        // One whose time is over has no use for another one's end.
        if order.deadline > self.observed.now {
            // Before its key is looked at: who may not have it run may not have what it gave another one, either.
            if let Ruling::Denied(decision) = ruling {
                return self.deny(order, &decision);
            }
            if self.joins(order, &ruling) {
                return;
            }
        }
        if let Some((outcome, code, message)) = self.objection(order) {
            return self.end_before_start(order, outcome, code, &message);
        }
        let decided = match ruling {
            Ruling::Denied(decision) => return self.deny(order, &decision),
            Ruling::Allowed(decision) => &Arc::new(order.decided(decision)),
            Ruling::Ask => return self.hold(order),
            Ruling::Run => order,
        };
        self.receive_decided(decided);
    }

    /// Nobody needs to be asked any more.
    fn receive_decided(&mut self, order: &Arc<Order>) {
        let is_next = self.is_next(order);
        // It would wait, and so does everything that waits.
        let is_full = self.waiting.len() >= self.observed.limits.waiting
            && !self.has_slot(order)
            && !self.waiting.iter().any(|other| self.has_slot(other));
        if is_full {
            let message = "as many invocations wait on this device as may: try again later";
            return self.end_before_start(order, Outcome::Failed, FailureCode::Busy, message);
        }
        if !self.take_room(order.reserve()) {
            return self.refuse(&order.uid, &order.name);
        }
        self.hold_key(order);
        if is_next {
            self.start(order);
        } else {
            self.waiting.push_back(Arc::clone(order));
            self.record_waiting(order);
            self.act(Effect::Wait(Arc::clone(order)));
        }
    }

    fn hold(&mut self, order: &Arc<Order>) {
        if let Some((outcome, code, message)) = self.objection_to_asking() {
            return self.end_before_start(order, outcome, code, &message);
        }
        if !self.take_room(order.reserve()) {
            return self.refuse(&order.uid, &order.name);
        }
        self.hold_key(order);
        self.record_waiting(order);
        self.ask(order);
    }

    /// Why an order is not even tried, nor anybody asked about it.
    fn objection(&self, order: &Order) -> Option<Objection> {
        let Observed { now, surface, .. } = self.observed;
        if order.deadline <= *now {
            return Some((
                Outcome::TimedOut,
                FailureCode::DeadlineBeforeStart,
                "its time was over before it could start".into(),
            ));
        }
        let failed = |code, message: &'static str| Some((Outcome::Failed, code, message.into()));
        let Some(offer) = surface.get(order.capability.as_str()) else {
            return failed(
                FailureCode::NotDeclared,
                "this device does not have the capability",
            );
        };
        match offer.availability {
            Availability::Available => {}
            Availability::Unavailable | Availability::Unspecified => {
                return failed(
                    FailureCode::Unavailable,
                    "this device has the capability, but it is not available now",
                );
            }
        }
        if order.input.len() > MAX_INPUT_BYTES {
            return failed(FailureCode::InvalidInput, "the input is too large");
        }
        let Some(input) = order.json() else {
            return failed(FailureCode::InvalidInput, "the input is no JSON");
        };
        let Failure { code, message } = offer.takes(input).err()?;
        Some((Outcome::Failed, code, message.into()))
    }

    /// Whether as few run as may, of all and of its capability. One that is not declared any more is not waited for: it
    /// starts, and fails.
    fn has_slot(&self, order: &Order) -> bool {
        let offer = self.observed.surface.get(order.capability.as_str());
        let most = offer.map_or(usize::MAX, |offer| offer.concurrency);
        let of_its_kind = self.running_of.get(&order.capability);
        self.running < self.observed.limits.running && of_its_kind.is_none_or(|&runs| runs < most)
    }

    /// Whether it may start before everything that waits.
    fn is_next(&self, order: &Order) -> bool {
        self.has_slot(order) && !self.waiting.iter().any(|other| self.has_slot(other))
    }

    fn take_room(&mut self, bytes: u64) -> bool {
        if self.bytes_left < bytes || self.count_left == 0 {
            return false;
        }
        self.bytes_left -= bytes;
        self.count_left -= 1;
        true
    }

    fn start(&mut self, order: &Arc<Order>) {
        self.running += 1;
        *self.running_of.entry(order.capability.clone()).or_default() += 1;
        self.phases.insert(order.uid.clone(), Phase::Running);
        self.plan.records.push(Record::Accepted {
            uid: order.uid.clone(),
            name: order.name.clone(),
            mark: order.mark(),
        });
        self.act(Effect::Start(Arc::clone(order)));
        self.act(Effect::TellAccepted(order.uid.clone()));
        self.wake_at(order.deadline);
    }

    fn refuse(&mut self, uid: &Uid, name: &str) {
        self.act(Effect::Refuse {
            uid: uid.clone(),
            name: name.to_owned(),
        });
    }

    /// Recorded, whatever the end: whoever asks again gets the same answer, and nobody runs it meanwhile.
    fn end(&mut self, uid: &Uid, result: node::Result) {
        self.phases.insert(uid.clone(), Phase::Ended);
        self.plan.records.push(Record::Finished {
            uid: uid.clone(),
            result,
        });
        self.wanted.insert(uid.clone());
    }

    fn cancel(&mut self, uid: &Uid, name: &str) {
        if self.observed.refused.contains(uid) {
            return self.refuse(uid, name);
        }
        match self.phase(uid) {
            Some(Phase::Waiting) => {
                let order = self.leave_queue(uid).or_else(|| self.stop_asking(uid));
                if let Some(order) = order {
                    self.end_before_start(
                        &order,
                        Outcome::Cancelled,
                        FailureCode::Cancelled,
                        "cancelled before it started",
                    );
                }
            }
            Some(Phase::Following) => self.cancel_following(uid),
            Some(Phase::Running) => self.stop(uid, Why::Cancelled),
            Some(Phase::Storing) => self.cancel_storing(uid),
            Some(Phase::Ended) => self.tell_end(uid),
            None => self.cancel_unheard(uid, name),
        }
    }

    /// Recorded, so that it is not started when another gateway dispatches it late.
    fn cancel_unheard(&mut self, uid: &Uid, name: &str) {
        if !self.take_room(REFUSAL_BYTES) {
            return self.refuse(uid, name);
        }
        self.phases.insert(uid.clone(), Phase::Ended);
        self.plan.records.push(Record::Cancelled {
            uid: uid.clone(),
            name: name.to_owned(),
        });
        self.wanted.insert(uid.clone());
    }

    fn leave_queue(&mut self, uid: &Uid) -> Option<Arc<Order>> {
        let index = self.waiting.iter().position(|order| &order.uid == uid)?;
        self.act(Effect::Leave(uid.clone()));
        self.waiting.remove(index)
    }

    fn stop(&mut self, uid: &Uid, why: Why) {
        if self.observed.jobs.stopping(uid).is_none() {
            self.act(Effect::Stop(uid.clone(), why));
        }
    }

    fn ack(&mut self, uid: &Uid) {
        let is_new = !self.observed.ledger.is_acked(uid) && !self.acked.contains(uid);
        if self.phase(uid) == Some(Phase::Ended) && is_new {
            self.plan.records.push(Record::Acked { uid: uid.clone() });
            self.wanted.remove(uid);
            self.acked.insert(uid.clone());
            self.count_left += 1;
        }
    }

    fn complete(&mut self, uid: &Uid, ending: Ending) {
        if let Some(order) = self.observed.jobs.get_running(uid) {
            self.record_again(&order::result(order, ending));
        }
    }

    fn record_again(&mut self, result: &node::Result) {
        let Some(uid) = Uid::parse(&result.uid) else {
            return;
        };
        // Twice in one batch counts once.
        if self.phase(&uid) == Some(Phase::Ended) {
            return;
        }
        if let Some(order) = self.observed.jobs.get_running(&uid) {
            self.running -= 1;
            if let Some(runs) = self.running_of.get_mut(&order.capability) {
                *runs -= 1;
            }
        }
        self.act(Effect::Leave(uid.clone()));
        if result.artefact.is_some() && self.phase(&uid) != Some(Phase::Storing) {
            return self.keep(&uid, result);
        }
        self.end(&uid, result.clone());
    }

    fn keep_deadlines(&mut self) {
        self.keep_deadlines_of_following();
        self.keep_deadlines_of_asked();
        self.keep_deadlines_of_storing();
        let Observed {
            now, jobs, stop_at, ..
        } = self.observed;
        let over: Vec<_> = self
            .waiting
            .iter()
            .filter(|order| order.deadline <= *now || stop_at.is_some())
            .map(|order| order.uid.clone())
            .collect();
        for uid in over {
            let Some(order) = self.leave_queue(&uid) else {
                continue;
            };
            let (outcome, code, message) = if order.deadline <= *now {
                (
                    Outcome::TimedOut,
                    FailureCode::DeadlineBeforeStart,
                    "its time was over before its turn came",
                )
            } else {
                (
                    Outcome::Failed,
                    FailureCode::AgentRestarted,
                    "the agent was stopped while it waited for its turn: it never started",
                )
            };
            self.end_before_start(&order, outcome, code, message);
        }
        for order in jobs.running() {
            if self.phase(&order.uid) != Some(Phase::Running) || jobs.stopping(&order.uid).is_some()
            {
                continue;
            }
            if order.deadline <= *now {
                self.stop(&order.uid, Why::Deadline);
            } else if stop_at.is_some_and(|at| at <= *now) {
                self.stop(&order.uid, Why::Shutdown);
            } else {
                self.wake_at(order.deadline);
            }
        }
        for order in self.waiting.clone() {
            self.wake_at(order.deadline);
        }
        if let Some(at) = stop_at {
            self.wake_at(*at);
        }
    }

    /// In order; but one whose capability is busy keeps nobody else waiting. Rules and capabilities may have changed since
    /// it came.
    fn promote(&mut self) {
        while let Some(next) = self.waiting.iter().position(|order| self.has_slot(order))
            && let Some(order) = self.waiting.remove(next)
        {
            match self.ruling(&order) {
                Ruling::Run => self.start(&order),
                Ruling::Allowed(decision) => self.start(&Arc::new(order.decided(decision))),
                Ruling::Denied(decision) => {
                    self.act(Effect::Leave(order.uid.clone()));
                    self.deny(&order, &decision);
                }
                Ruling::Ask => match self
                    .objection(&order)
                    .or_else(|| self.objection_to_asking())
                {
                    None => self.ask(&order),
                    Some((outcome, code, message)) => {
                        self.act(Effect::Leave(order.uid.clone()));
                        self.end_before_start(&order, outcome, code, &message);
                    }
                },
            }
        }
    }

    /// Results that this stream did not carry yet, the oldest first, and those that were asked for.
    fn report(&mut self) {
        let Observed { ledger, told, .. } = self.observed;
        let Some(told) = told else {
            return;
        };
        let mut tell: Vec<Uid> = ledger
            .unacked()
            .iter()
            .filter(|uid| !told.contains(*uid) && !self.acked.contains(*uid))
            .cloned()
            .collect();
        for uid in std::mem::take(&mut self.wanted) {
            if !tell.contains(&uid) {
                tell.push(uid);
            }
        }
        self.plan
            .effects
            .extend(tell.into_iter().map(Effect::TellResult));
    }

    fn wake_at(&mut self, moment: Moment) {
        if moment > self.observed.now {
            self.plan.wake = Some(self.plan.wake.map_or(moment, |wake| wake.min(moment)));
        }
    }
}

impl Plan {
    /// What to do where the records could not be made durable: nothing starts and no end is told. What did not start is
    /// refused; what ended is returned, to be recorded later. What follows another goes on following: its end comes again
    /// by itself, but for a cancel.
    pub fn unrecorded(self, jobs: &Jobs, ledger: &Ledger) -> (Self, Vec<Event>) {
        let mut effects = Vec::new();
        let mut again = Vec::new();
        let mut lost = HashSet::new();
        for record in self.records {
            if !record.must_last() {
                continue;
            }
            lost.insert(record.uid().clone());
            match record {
                Record::Finished { uid, result } | Record::Kept { uid, result }
                    if jobs.get_running(&uid).is_some() || jobs.get_storing(&uid).is_some() =>
                {
                    again.push(Event::Unrecorded(Box::new(result)));
                }
                Record::Finished { uid, result } if ledger.following(&uid).is_some() => {
                    if result.outcome() == Outcome::Cancelled {
                        again.push(Event::Unrecorded(Box::new(result)));
                    }
                }
                Record::Accepted { uid, name, .. }
                | Record::Waiting { uid, name, .. }
                | Record::Following { uid, name, .. }
                | Record::Cancelled { uid, name }
                | Record::Kept {
                    uid,
                    result: node::Result { name, .. },
                }
                | Record::Finished {
                    uid,
                    result: node::Result { name, .. },
                } => {
                    // One that waited must not get its turn after all; for the others this does nothing.
                    effects.push(Effect::Leave(uid.clone()));
                    effects.push(Effect::Refuse { uid, name });
                }
                Record::Acked { .. } | Record::Forgotten { .. } => {}
            }
        }
        for effect in self.effects {
            let uid = match &effect {
                Effect::Wait(order)
                | Effect::Ask(order)
                | Effect::Follow(order)
                | Effect::Start(order) => &order.uid,
                Effect::Stop(uid, _)
                | Effect::Leave(uid)
                | Effect::Store { uid, .. }
                | Effect::Expect(uid, _)
                | Effect::TellAccepted(uid)
                | Effect::TellAsked(uid)
                | Effect::TellResult(uid)
                | Effect::Reply { uid, .. }
                | Effect::Refuse { uid, .. } => uid,
            };
            if !lost.contains(uid) {
                effects.push(effect);
            } else if let Effect::Reply { ticket, uid, .. } = effect {
                let reply = Reply::NotRecorded;
                effects.push(Effect::Reply { ticket, uid, reply });
            }
        }
        let plan = Self {
            records: Vec::new(),
            effects,
            wake: self.wake,
        };
        (plan, again)
    }
}
