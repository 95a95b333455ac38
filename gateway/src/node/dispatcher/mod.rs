//! Carries one device's invocations: sends them, says in Kubernetes what became of them, and acks what the device
//! reported once that is there.
//!
//! - here: what is open is compared with what is under way;
//! - [`heard`]: what the device says;
//! - [`done`]: what is due, and what was written.
//!
//! An invocation that is over within 100 ms costs one write and no read: the end is written to the version that the
//! watch brought.

mod done;
mod heard;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use crds::{names::MAX_OPEN_PER_DEVICE, v1alpha1::capability_invocation::InvocationPhase};
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use proto::node::{self, gateway_event::Event};
use tokio::time::Instant;

use self::done::Done;
use super::{
    Shared,
    flight::{Again, Awaited, Flight, State},
    outbox::Outbox,
    writes::Answer,
};
use crate::{
    clock::now,
    domain::{
        device::{DeviceKey, KnownDevice},
        dispatch::{self, Decision, FollowUp, Push},
        grants::{self, Standing},
        invocation::OpenInvocation,
        register::{Declared, MAX_CONCURRENCY},
    },
    index::invocations::Entry,
};

/// How long a result may take before `Dispatched` is written.
const MARK_AFTER: Duration = Duration::from_millis(100);
/// Most invocations that one device's stream deals with at once: those that it carries, and results that it repeats.
const MAX_FLIGHTS: usize = 2 * MAX_CONCURRENCY;
/// Most acks that wait for room.
const MAX_ACKS: usize = 16;
/// Room that is left for acks and heartbeats.
const RESERVED_ROOM: usize = 3;
/// Most capabilities whose standing is kept: as many as a device has. Whoever invokes names others as he likes.
const MAX_STANDINGS: usize = 128;
/// Clocks that differ by less than a timer's grain must not make a loop spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// One device's invocations.
pub struct Dispatcher {
    shared: Arc<Shared>,
    device: DeviceKey,
    /// When the stream began.
    since: Timestamp,
    /// When this gateway knew that the Device shows the session, and the Device's version then.
    shown: Option<(Timestamp, String)>,
    /// By uid.
    flights: BTreeMap<String, Flight>,
    /// Uids of open invocations for which the device asks a person, before this stream carries them.
    asking: BTreeSet<String>,
    /// What was found out about capabilities that were asked for, until the device or its Device says something else.
    /// Their schemas are read once, and not for each invocation.
    standings: BTreeMap<String, Arc<Standing>>,
    work: FuturesUnordered<Work>,
    acks: VecDeque<String>,
    look_at: Option<Instant>,
    /// When the next result of something that the index does not have may be looked up.
    look_up_at: Instant,
    wants_room: bool,
}

/// What a stream may begin to carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begins {
    /// Everything.
    All,
    /// What was sent before. The Device does not show the session yet: whoever looks at it takes the device for absent,
    /// and may end what is queued as never sent.
    Known,
    /// Nothing: the device was told to go.
    Nothing,
}

impl Begins {
    fn takes(self, phase: InvocationPhase) -> bool {
        match self {
            Self::All => true,
            Self::Known => phase != InvocationPhase::Queued,
            Self::Nothing => false,
        }
    }
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

impl Dispatcher {
    pub fn new(shared: Arc<Shared>, device: DeviceKey, since: Timestamp) -> Self {
        Self {
            shared,
            device,
            since,
            shown: None,
            flights: BTreeMap::new(),
            asking: BTreeSet::new(),
            standings: BTreeMap::new(),
            work: FuturesUnordered::new(),
            acks: VecDeque::new(),
            look_at: None,
            look_up_at: Instant::now(),
            wants_room: false,
        }
    }

    /// What the device declares, or its Device, has changed.
    pub fn changed(&mut self) {
        self.standings = BTreeMap::new();
    }

    /// Compares what the index has with what is under way, and does what is to be done.
    pub fn look(
        &mut self,
        device: &KnownDevice,
        declared: &Declared,
        outbox: &Outbox,
        begins: Begins,
    ) {
        let now = now();
        if begins == Begins::All {
            self.shown
                .get_or_insert_with(|| (now, device.resource_version.clone()));
        }
        self.wants_room = false;
        self.flush(outbox);
        let open = self.shared.index.invocations.of(&self.device);
        self.forget(&open, outbox);
        let mut look_at = None;
        // In order: what cannot be sent yet holds up what comes after it.
        let mut held_up = false;
        // What is older is yet to be sent: it is being marked.
        let mut is_behind = false;
        for (place, entry) in open.iter().enumerate() {
            let wait = if self.flights.contains_key(&entry.invocation.uid) {
                self.follow(entry, outbox, now, is_behind)
            } else if !begins.takes(entry.invocation.phase()) || place >= MAX_OPEN_PER_DEVICE {
                None
            } else {
                held_up = held_up || !self.has_place(declared, outbox);
                // What is marked first itself may be marked meanwhile.
                let is_behind = is_behind && !self.may_have_been_given_up(&entry.invocation);
                // Those of other capabilities need not wait for one that is taken; the next of its own find it taken, too.
                if held_up || is_behind || self.is_taken(&entry.invocation, declared) {
                    self.hold(entry, outbox, now)
                } else {
                    self.begin(entry, device, declared, outbox, now)
                }
            };
            look_at = [look_at, wait].into_iter().flatten().min();
            let flight = self.flights.get(&entry.invocation.uid);
            is_behind |= flight.is_some_and(Flight::is_first);
        }
        self.look_at = look_at.map(|at: Timestamp| {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            Instant::now() + wait.max(SHORTEST_WAIT)
        });
    }

    /// Whether the device takes one more, of whatever capability.
    fn has_place(&mut self, declared: &Declared, outbox: &Outbox) -> bool {
        if outbox.room() <= RESERVED_ROOM {
            self.wants_room = true;
            return false;
        }
        self.flights.len() < MAX_FLIGHTS && self.places_left(declared) > 0
    }

    fn places_left(&self, declared: &Declared) -> usize {
        let most = declared.concurrency.min(self.shared.settings.in_flight);
        most.saturating_sub(self.carried().count())
    }

    /// Whether the device runs as many of its capability as it does at once. Those about which it asks a person do not
    /// run; of those with one idempotency key, one does.
    fn is_taken(&self, invocation: &OpenInvocation, declared: &Declared) -> bool {
        if invocation.phase() != InvocationPhase::Queued || self.asking.contains(&invocation.uid) {
            // The device has it.
            return false;
        }
        if key_of(invocation).is_some_and(|key| self.knows_key(key))
            && self.places_left(declared) > 1
        {
            // It waits on the device for the first one's end. The last place is for what runs.
            return false;
        }
        let capability = &invocation.spec().capability;
        let mut keys = BTreeSet::new();
        let running = self
            .carried()
            .filter(|flight| !flight.asks)
            .filter_map(|flight| flight.invocation.as_deref())
            .filter(|other| other.spec().capability == *capability)
            .filter(|other| key_of(other).is_none_or(|key| keys.insert(key)));
        running.count() >= declared.concurrency_of(capability)
    }

    /// Whether the device knows the key from this stream.
    fn knows_key(&self, key: &str) -> bool {
        let known = self.flights.values().filter(|flight| flight.is_known());
        known
            .filter_map(|flight| flight.invocation.as_deref())
            .any(|other| key_of(other) == Some(key))
    }

    fn carried(&self) -> impl Iterator<Item = &Flight> {
        self.flights.values().filter(|flight| flight.takes_place())
    }

    fn standing(
        &mut self,
        capability: &str,
        device: &KnownDevice,
        declared: &Declared,
    ) -> Arc<Standing> {
        if let Some(known) = self.standings.get(capability) {
            return Arc::clone(known);
        }
        let found = grants::standing(capability, declared, &device.spec, &device.status);
        let found = Arc::new(found);
        if self.standings.len() >= MAX_STANDINGS {
            self.standings.clear();
        }
        self.standings
            .insert(capability.to_owned(), Arc::clone(&found));
        found
    }

    /// Drops what has left the index: it ended or was deleted, and whoever runs it need not go on.
    fn forget(&mut self, open: &[Arc<Entry>], outbox: &Outbox) {
        if self.flights.is_empty() && self.asking.is_empty() {
            return;
        }
        let open: BTreeSet<&str> = open
            .iter()
            .map(|entry| entry.invocation.uid.as_str())
            .collect();
        self.asking.retain(|uid| open.contains(uid.as_str()));
        let wants_room = &mut self.wants_room;
        self.flights.retain(|uid, flight| {
            if open.contains(uid.as_str()) {
                return true;
            }
            match &flight.state {
                State::Ended { .. } | State::LookAgain { .. } => false,
                State::Sent { .. } if flight.awaited.is_none_or(|awaited| awaited.cancel_sent) => {
                    false
                }
                State::Sent { .. } if outbox.room() > 0 => {
                    outbox.push(cancel(uid, &flight.name));
                    false
                }
                State::Sent { .. } => {
                    *wants_room = true;
                    true
                }
                State::Marking { .. } | State::Ending { .. } | State::Retrying { .. } => true,
            }
        });
    }

    /// `is_behind`: something older is yet to be sent. Returns when to look again.
    fn follow(
        &mut self,
        entry: &Entry,
        outbox: &Outbox,
        now: Timestamp,
        is_behind: bool,
    ) -> Option<Timestamp> {
        let uid = &entry.invocation.uid;
        let flight = self.flights.get_mut(uid)?;
        if flight
            .invocation
            .as_ref()
            .is_none_or(|known| entry.invocation.is_newer_than(known))
        {
            flight.invocation = Some(Arc::clone(&entry.invocation));
        }
        let invocation = flight.invocation.as_ref()?;
        let marking = match &flight.state {
            State::Sent { .. } => false,
            State::Marking { .. } => true,
            State::Ending { .. }
            | State::Retrying { .. }
            | State::LookAgain { .. }
            | State::Ended { .. } => return None,
        };
        let awaited = flight.awaited.as_mut()?;
        let is_first = awaited.again == Again::Marked;
        let is_due = awaited.again == Again::Now || is_first && !is_behind;
        if is_due && outbox.room() > RESERVED_ROOM {
            awaited.again = Again::No;
            let push = if is_first {
                dispatch::at_last(invocation, awaited.mediate, now)
            } else {
                dispatch::again(invocation, awaited.mediate, now)
            };
            match push {
                Some(push) => outbox.push(Event::Dispatch(dispatch_of(invocation, push))),
                None if is_first => awaited.pushed = false,
                None => {}
            }
        } else if is_due {
            self.wants_room = true;
        }
        match dispatch::follow(invocation, awaited.until, awaited.cancel_sent, now) {
            FollowUp::Wait(until) => Some(until),
            FollowUp::Cancel if outbox.room() > 0 => {
                awaited.cancel_sent = true;
                let until = awaited.until;
                outbox.push(cancel(uid, &flight.name));
                Some(until)
            }
            FollowUp::Cancel => {
                self.wants_room = true;
                None
            }
            // It is looked at again when the mark is written.
            FollowUp::End(_) if marking => None,
            FollowUp::End(end) => {
                self.end(uid.clone(), Answer::Ours(end));
                None
            }
        }
    }

    /// Looks after what waits for others. Returns when to look again.
    fn hold(&mut self, entry: &Entry, outbox: &Outbox, now: Timestamp) -> Option<Timestamp> {
        let may_be_known = self.may_have_been_given_up(&entry.invocation);
        let decision = dispatch::hold(&entry.invocation, may_be_known, self.since, now);
        let (is_act, is_said) = match &decision {
            Decision::Nothing | Decision::Wait(_) => (false, false),
            Decision::End(_) => (true, false),
            Decision::Cancel(_) | Decision::Push(_) => (true, true),
        };
        if is_said && outbox.room() <= RESERVED_ROOM {
            self.wants_room = true;
            return None;
        }
        if is_act && self.flights.len() >= MAX_FLIGHTS {
            // It is looked at again when one of them goes.
            return None;
        }
        self.carry_out(decision, entry, outbox, now)
    }

    /// Returns when to look again.
    fn begin(
        &mut self,
        entry: &Entry,
        device: &KnownDevice,
        declared: &Declared,
        outbox: &Outbox,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let invocation = &entry.invocation;
        let standing = self.standing(&invocation.spec().capability, device, declared);
        let stream = dispatch::Stream {
            declared,
            standing: &standing,
            since: self.since,
        };
        let decision = dispatch::decide(invocation, device, stream, now);
        self.carry_out(decision, entry, outbox, now)
    }

    /// Returns when to look again.
    fn carry_out(
        &mut self,
        decision: Decision,
        entry: &Entry,
        outbox: &Outbox,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let invocation = &entry.invocation;
        let (until, cancel_sent, mediate) = match decision {
            Decision::Nothing => return None,
            Decision::Wait(until) => return Some(until),
            Decision::Push(push) if self.may_have_been_given_up(invocation) => {
                self.mark_first(entry, &push, now);
                return Some(push.answer_by);
            }
            Decision::Push(push) => {
                let (until, mediate) = (push.answer_by, push.mediate);
                outbox.push(Event::Dispatch(dispatch_of(invocation, push)));
                self.shared.metrics.dispatched(entry.seen.elapsed());
                (until, false, mediate)
            }
            Decision::Cancel(until) => {
                outbox.push(cancel(&invocation.uid, &invocation.name));
                (until, true, true)
            }
            Decision::End(end) => {
                let known = Some(Arc::clone(invocation));
                let state = State::Sent { mark_at: None };
                let flight = Flight::new(&invocation.name, known, state);
                self.flights.insert(invocation.uid.clone(), flight);
                self.end(invocation.uid.clone(), Answer::Ours(end));
                return None;
            }
        };
        // What is only cancelled was not sent by this stream.
        let mark_at = (invocation.phase() == InvocationPhase::Queued && !cancel_sent)
            .then(|| Instant::now() + MARK_AFTER);
        let mut flight = Flight::new(
            &invocation.name,
            Some(Arc::clone(invocation)),
            State::Sent { mark_at },
        );
        flight.awaited = Some(Awaited {
            sent: now,
            until,
            pushed: !cancel_sent,
            cancel_sent,
            again: Again::No,
            mediate,
        });
        if self.asking.remove(&invocation.uid) {
            heard::asks(&mut flight);
        }
        self.flights.insert(invocation.uid.clone(), flight);
        Some(until)
    }

    /// Before the Device showed the session, others could take the device for absent, and end what was queued for it; the
    /// news of that may be on their way. This gateway's clock may be behind that of the API server, so the order of the
    /// writes counts, too.
    fn may_have_been_given_up(&self, invocation: &OpenInvocation) -> bool {
        invocation.phase() == InvocationPhase::Queued
            && self.shown.as_ref().is_none_or(|(at, version)| {
                invocation.created <= *at || invocation.was_written_before(version)
            })
    }

    /// Writes that it is sent before it is: that fails where somebody ended it. One that waited for its device can wait
    /// for a write.
    fn mark_first(&mut self, entry: &Entry, push: &Push, now: Timestamp) {
        let invocation = &entry.invocation;
        self.shared.metrics.dispatched(entry.seen.elapsed());
        let state = State::Sent {
            mark_at: Some(Instant::now()),
        };
        let known = Some(Arc::clone(invocation));
        let mut flight = Flight::new(&invocation.name, known, state);
        flight.awaited = Some(Awaited {
            sent: now,
            until: push.answer_by,
            pushed: false,
            cancel_sent: false,
            again: Again::WhenMarked,
            mediate: push.mediate,
        });
        if self.asking.remove(&invocation.uid) {
            heard::asks(&mut flight);
        }
        self.flights.insert(invocation.uid.clone(), flight);
    }

    /// When [`Self::tick`] and [`Self::look`] are due.
    pub fn due(&self) -> Option<Instant> {
        self.flights
            .values()
            .filter_map(Flight::due)
            .chain(self.look_at)
            .min()
    }

    /// Whether the device may go on reporting.
    pub fn can_hear(&self) -> bool {
        self.acks.len() < MAX_ACKS
    }

    /// Whether something waits for room in the outbox.
    pub fn wants_room(&self) -> bool {
        self.wants_room || !self.acks.is_empty()
    }

    fn flush(&mut self, outbox: &Outbox) {
        while outbox.room() > 0 {
            let Some(uid) = self.acks.pop_front() else {
                self.acks = VecDeque::new();
                return;
            };
            outbox.push(Event::ResultAck(node::ResultAck { uid }));
        }
    }
}

/// Its idempotency key. An empty one is none.
fn key_of(invocation: &OpenInvocation) -> Option<&str> {
    let key = invocation.spec().idempotency_key.as_deref();
    key.filter(|key| !key.is_empty())
}

fn cancel(uid: &str, name: &str) -> Event {
    Event::Cancel(node::Cancel {
        uid: uid.to_owned(),
        name: name.to_owned(),
    })
}

fn dispatch_of(invocation: &OpenInvocation, push: Push) -> node::Dispatch {
    let spec = invocation.spec();
    node::Dispatch {
        uid: invocation.uid.clone(),
        name: invocation.name.clone(),
        capability: spec.capability.clone(),
        input: push.input,
        remaining_ms: push.remaining_ms,
        max_output_bytes: u32::try_from(spec.max_output_bytes).unwrap_or_default(),
        requested_by: spec.requested_by.clone().unwrap_or_default(),
        idempotency_key: spec.idempotency_key.clone().unwrap_or_default(),
        mediate: push.mediate,
    }
}
