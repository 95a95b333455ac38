//! A device in the world: the agent's own plan, on its own journal's bytes, with the loop around them played.
//!
//! [`Life::turn`] is what `node_agent::agent` does in one turn – gather, plan, record, act – with a possible death between
//! any two of these, and in the middle of a write.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use node_agent::agent::jobs::Jobs;
use node_agent::agent::order::{self, Order};
use node_agent::agent::plan::{self, Effect, Event, Limits, Observed, Repeat};
use node_agent::capability::Offer;
use node_agent::host::clock::Moment;
use node_agent::journal::ledger::without_output;
use node_agent::journal::played::Played;
use node_agent::journal::{Bounds, Record, Uid};
use node_agent::mediation::rules::Rules;
use proto::node::{self, Availability, device_event, gateway_event};

/// The one thing that devices can do here.
pub const CAPABILITY: &str = "trial.effect";
const RECORD_AGAIN: Duration = Duration::from_secs(2);
const STOP_GRACE: Duration = Duration::from_secs(4);
const LAST_WORDS: Duration = Duration::from_secs(1);
const MAX_REPEATS: usize = 8;
/// Bytes that nobody needs, at which the journal is written anew: few, so that it happens.
const GARBAGE: u64 = 600;

/// How an agent is made.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    pub limits: Limits,
    pub concurrency: usize,
    pub bounds: Bounds,
    /// Effects come before the journal knows. Wrong, and must be noticed.
    pub effect_first: bool,
}

/// One process, from its start to its death.
pub struct Life {
    pub number: u32,
    make: Make,
    journal: Played,
    jobs: Jobs,
    session: Option<Session>,
    refused: HashSet<Uid>,
    again: Option<(Vec<Event>, Moment)>,
    repeat_at: Moment,
    events: VecDeque<Event>,
    stop_at: Option<Moment>,
    /// What a death in the middle of a write leaves behind the rest.
    torn: Vec<u8>,
}

struct Session {
    link: u64,
    told: HashSet<Uid>,
    told_asked: HashSet<Uid>,
    is_full: bool,
}

/// What a turn does to the world around the agent, in order.
pub enum Act {
    Start(Arc<Order>),
    Stop(Uid, order::Why),
    Say(Box<device_event::Event>),
}

/// What became of a turn.
#[derive(Default)]
pub struct Turn {
    pub acts: Vec<Act>,
    pub wake: Option<Moment>,
    /// It died on the way.
    pub died: bool,
    /// It was told to stop, and has nothing more to do.
    pub over: bool,
}

/// What a turn may meet.
pub struct Around<'a> {
    pub now: Moment,
    /// Messages that the stream takes.
    pub room: usize,
    pub disk_is_full: bool,
    /// How many of the events that came are looked at.
    pub batch: usize,
    /// Whether it dies here: asked between any two acts.
    pub dies: &'a mut dyn FnMut() -> bool,
    /// How much of a write is there, where it dies in it.
    pub share: u64,
}

impl Life {
    pub fn begin(number: u32, make: Make, disk: &[u8], now: Moment) -> Self {
        Self {
            number,
            make,
            journal: Played::open(disk, make.bounds, GARBAGE, now),
            jobs: Jobs::default(),
            session: None,
            refused: HashSet::new(),
            again: None,
            repeat_at: Moment::default(),
            events: VecDeque::new(),
            stop_at: None,
            torn: Vec::new(),
        }
    }

    /// What is on the disk after a death. Of what was not synced, only a part.
    pub fn remains(&self, share: u64) -> Vec<u8> {
        let bytes = self.journal.bytes();
        let synced = self.journal.synced();
        let kept = synced + part(bytes.len() - synced, share);
        let mut remains = bytes[..kept].to_vec();
        if kept == bytes.len() {
            remains.extend_from_slice(&self.torn);
        }
        remains
    }

    pub fn opened(&mut self, link: u64) {
        self.session = Some(Session {
            link,
            told: HashSet::new(),
            told_asked: HashSet::new(),
            is_full: false,
        });
    }

    pub fn closed(&mut self, link: u64) {
        self.session.take_if(|session| session.link == link);
    }

    pub fn link(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.link)
    }

    pub fn wants_room(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_full)
    }

    /// Something came from the gateway.
    pub fn heard(&mut self, event: gateway_event::Event, now: Moment) {
        let wish = order::parse(event, now);
        self.events.extend(wish.and_then(Event::wished));
    }

    /// A capability ended.
    pub fn completed(&mut self, uid: Uid, ending: order::Ending) {
        self.events.push_back(Event::Completed { uid, ending });
    }

    pub fn stop(&mut self, now: Moment) {
        self.stop_at.get_or_insert(now.after(STOP_GRACE));
    }

    /// Whether it has nothing left to do and to say.
    pub fn is_idle(&self) -> bool {
        let ledger = self.journal.ledger();
        self.jobs.is_empty() && ledger.unacked().is_empty() && ledger.followers().next().is_none()
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn turn(&mut self, around: Around<'_>) -> Turn {
        let Around {
            now,
            mut room,
            disk_is_full,
            batch,
            dies,
            share,
        } = around;
        let mut turn = Turn::default();
        let mut events: Vec<Event> = {
            let count = batch
                .clamp(1, self.events.len().max(1))
                .min(self.events.len());
            self.events.drain(..count).collect()
        };
        if let Some((again, _)) = self.again.take_if(|(_, at)| *at <= now) {
            events.extend(again);
        }
        let repeats = self.repeats(now);
        let plan = self.plan(now, &events, &repeats);
        if dies() {
            turn.died = true;
            return turn;
        }
        let plan::Plan {
            records,
            effects,
            wake,
        } = plan;
        if self.make.effect_first {
            let died = self.act(effects, &[], &mut room, &mut turn, dies);
            if died || dies() {
                turn.died = true;
                return turn;
            }
            self.journal.commit(&records, now);
        } else {
            let effects = if disk_is_full && !records.is_empty() {
                self.unrecorded(&records, effects, wake, now)
            } else {
                if !records.is_empty() && dies() {
                    let bytes = self.journal.encode(&records);
                    self.torn = bytes[..part(bytes.len(), share)].to_vec();
                    turn.died = true;
                    return turn;
                }
                self.journal.commit(&records, now);
                effects
            };
            if let Some(session) = &mut self.session {
                session.is_full = false;
            }
            if self.act(effects, &records, &mut room, &mut turn, dies) {
                turn.died = true;
                return turn;
            }
        }
        self.journal.tidy(now);
        turn.wake = self.next_wake(wake, now);
        turn.over = self.is_over(now);
        turn
    }

    fn plan(&self, now: Moment, events: &[Event], repeats: &[Repeat]) -> plan::Plan {
        let offer = Offer {
            availability: Availability::Available,
            concurrency: self.make.concurrency,
            is_mediated: false,
            capability: None,
        };
        let none = HashSet::new();
        let session = self.session.as_ref();
        plan::plan(&Observed {
            now,
            events,
            ledger: self.journal.ledger(),
            bounds: self.journal.bounds(),
            repeats,
            jobs: &self.jobs,
            refused: &self.refused,
            told: session.map(|session| &session.told),
            told_asked: session.map_or(&none, |session| &session.told_asked),
            rules: &Rules::default(),
            surface: &BTreeMap::from([(CAPABILITY, offer)]),
            limits: self.make.limits,
            stop_at: self.stop_at,
        })
    }

    fn repeats(&self, now: Moment) -> Vec<Repeat> {
        if self.repeat_at > now {
            return Vec::new();
        }
        let owed = self.journal.ledger().owed().take(MAX_REPEATS);
        owed.map(|(uid, first)| Repeat {
            uid: uid.clone(),
            result: self.journal.result(first),
        })
        .collect()
    }

    fn unrecorded(
        &mut self,
        records: &[Record],
        effects: Vec<Effect>,
        wake: Option<Moment>,
        now: Moment,
    ) -> Vec<Effect> {
        let plan = plan::Plan {
            records: records.to_vec(),
            effects,
            wake,
        };
        let ledger = self.journal.ledger();
        let (plan, again) = plan.unrecorded(&self.jobs, ledger);
        self.repeat_at = now.after(RECORD_AGAIN);
        if !again.is_empty() || ledger.followers().next().is_some() {
            let mut all = self.again.take().map(|(all, _)| all).unwrap_or_default();
            all.extend(again);
            self.again = Some((all, now.after(RECORD_AGAIN)));
        }
        plan.effects
    }

    /// Returns whether it died on the way.
    fn act(
        &mut self,
        effects: Vec<Effect>,
        records: &[Record],
        room: &mut usize,
        turn: &mut Turn,
        dies: &mut dyn FnMut() -> bool,
    ) -> bool {
        for effect in effects {
            if dies() {
                return true;
            }
            match effect {
                Effect::Wait(order) => self.jobs.wait(order),
                Effect::Ask(order) => self.jobs.ask(order),
                Effect::TellAsked(uid) => self.tell_asked(uid, room, turn),
                // Nobody waits for a reply here.
                // Nor does a capability of this world say more than can be told.
                Effect::Reply { .. } | Effect::Store { .. } | Effect::Expect(..) => {}
                Effect::Follow(order) => self.jobs.follow(order),
                Effect::Start(order) => {
                    self.jobs.start(&order);
                    turn.acts.push(Act::Start(order));
                }
                Effect::Stop(uid, why) => {
                    self.jobs.stop(&uid, why);
                    turn.acts.push(Act::Stop(uid, why));
                }
                Effect::Leave(uid) => self.jobs.leave(&uid),
                Effect::TellAccepted(uid) => {
                    let uid = uid.as_str().to_owned();
                    let accepted = device_event::Event::Accepted(node::Accepted { uid });
                    self.say(accepted, room, turn);
                }
                Effect::TellResult(uid) => self.tell_result(uid, records, room, turn),
                Effect::Refuse { uid, name } => {
                    let result = without_output(
                        &uid,
                        &name,
                        node::Outcome::Failed,
                        node::FailureCode::JournalUnavailable,
                        "the device cannot write to its journal, or it is full; it was not started",
                    );
                    self.say(device_event::Event::Result(result), room, turn);
                    self.refused.insert(uid);
                }
            }
        }
        false
    }

    fn tell_asked(&mut self, uid: Uid, room: &mut usize, turn: &mut Turn) {
        let asks = node::AwaitingMediation {
            uid: uid.as_str().to_owned(),
        };
        let is_said = self.say(device_event::Event::AwaitingMediation(asks), room, turn);
        if let Some(session) = self.session.as_mut().filter(|_| is_said) {
            session.told_asked.insert(uid);
        }
    }

    fn tell_result(&mut self, uid: Uid, records: &[Record], room: &mut usize, turn: &mut Turn) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.is_full {
            session.told.remove(&uid);
            return;
        }
        let recorded = records.iter().find_map(|record| match record {
            Record::Finished {
                uid: recorded,
                result,
            } if *recorded == uid => Some(result.clone()),
            Record::Finished { .. }
            | Record::Waiting { .. }
            | Record::Accepted { .. }
            | Record::Following { .. }
            | Record::Kept { .. }
            | Record::Cancelled { .. }
            | Record::Forgotten { .. }
            | Record::Acked { .. } => None,
        });
        let Some(result) = recorded.or_else(|| self.journal.result(&uid)) else {
            return;
        };
        let said = self.say(device_event::Event::Result(result), room, turn);
        if let Some(session) = &mut self.session {
            if said {
                session.told.insert(uid);
            } else {
                session.told.remove(&uid);
            }
        }
    }

    /// Whether there was room.
    fn say(&mut self, event: device_event::Event, room: &mut usize, turn: &mut Turn) -> bool {
        let Some(session) = &mut self.session else {
            return false;
        };
        if *room == 0 {
            session.is_full = true;
            return false;
        }
        *room -= 1;
        turn.acts.push(Act::Say(Box::new(event)));
        true
    }

    fn next_wake(&self, wake: Option<Moment>, now: Moment) -> Option<Moment> {
        let again = self.again.as_ref().map(|(_, at)| *at);
        let last_words = self.stop_at.map(|at| at.after(LAST_WORDS));
        let is_owed = self.journal.ledger().owed().next().is_some();
        let repeat = is_owed.then_some(self.repeat_at);
        [wake.filter(|at| *at > now), again, repeat, last_words]
            .into_iter()
            .flatten()
            .min()
    }

    fn is_over(&self, now: Moment) -> bool {
        let Some(stop_at) = self.stop_at else {
            return false;
        };
        let said = self.session.is_none() || self.journal.ledger().unacked().is_empty();
        now >= stop_at.after(LAST_WORDS) || self.jobs.is_empty() && said
    }
}

/// So much of `length`, in 1/1024.
fn part(length: usize, share: u64) -> usize {
    let share = usize::try_from(share.min(1024)).unwrap_or_default();
    length * share / 1024
}
