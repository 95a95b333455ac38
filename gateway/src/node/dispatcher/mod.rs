//! Carries one device's invocations: sends them, says in Kubernetes what became of them, and acks what the device
//! reported once that is there.
//!
//! - here: what is open is compared with what is under way;
//! - [`begin`]: what is not under way yet, [`judging`]: whether it may be sent, and [`places`]: how much may be;
//! - [`heard`]: what the device says;
//! - [`done`]: what is due, and what was written.
//!
//! An invocation that is over within 100 ms costs one write and no read: the end is written to the version that the
//! watch brought.

mod begin;
mod done;
mod heard;
mod judging;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use crds::v1alpha1::capability_invocation::InvocationPhase;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use proto::node::{self, gateway_event::Event};
use tokio::time::Instant;

use self::{
    done::Done,
    judging::{Allowance, Judging},
};
use super::{
    Shared,
    flight::{Again, Flight, State},
    outbox::Outbox,
    writes::Answer,
};
use crate::{
    clock::now,
    domain::{
        device::{DeviceKey, KnownDevice},
        dispatch::{self, FollowUp, Push},
        grants::Standing,
        invocation::{Moment, OpenInvocation},
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
    /// Since when the Device shows the session.
    shown: Option<Moment>,
    /// By uid.
    flights: BTreeMap<String, Flight>,
    /// Uids of open invocations for which the device asks a person, before this stream carries them.
    asking: BTreeSet<String>,
    /// What was found out about capabilities that were asked for, until the device or its Device says something else.
    /// Their schemas are read once, and not for each invocation.
    standings: BTreeMap<String, Arc<Standing>>,
    judging: Judging,
    allowance: Allowance,
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
            judging: Judging::default(),
            allowance: Allowance::default(),
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
        self.judging.outdate();
    }

    /// The Device shows the session since then. Not since the version that the index has: that one lags, and what was
    /// written between the two would count as newer than the session.
    pub fn shown(&mut self, since: &Moment) {
        self.shown.get_or_insert_with(|| since.clone());
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
        self.wants_room = false;
        self.allowance = Allowance::default();
        self.flush(outbox);
        let open = self.shared.index.invocations.of(&self.device);
        self.forget(&open.entries, outbox);
        let mut look_at = None;
        // In order: what cannot be sent yet holds up what comes after it.
        let mut held_up = false;
        // What is older is yet to be sent: it is being marked.
        let mut is_behind = false;
        for (place, entry) in open.entries.iter().enumerate() {
            let wait = if self.flights.contains_key(&entry.invocation.uid) {
                self.follow(entry, outbox, now, is_behind)
            } else if !begins.takes(entry.invocation.phase()) {
                None
            } else if let Some(excess) = open.excess(place) {
                // Nothing that comes after it is sent either: it is beyond, too.
                self.turn_away(entry, excess, outbox, now)
            } else {
                held_up = held_up || !self.has_place(declared, outbox);
                // What is marked first itself may be marked meanwhile.
                let is_behind = is_behind && !self.may_have_been_given_up(&entry.invocation);
                // Those of other capabilities need not wait for one that is taken; the next of its own find it taken, too.
                if held_up || is_behind || self.is_taken(&entry.invocation, declared) {
                    self.hold(entry, outbox, now)
                } else {
                    let (wait, is_unjudged) = self.begin(entry, device, declared, outbox, now);
                    held_up |= is_unjudged;
                    wait
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

    /// Drops what has left the index: it ended or was deleted, and whoever runs it need not go on.
    fn forget(&mut self, open: &[Arc<Entry>], outbox: &Outbox) {
        if self.flights.is_empty() && self.asking.is_empty() && self.judging.is_empty() {
            return;
        }
        let open: BTreeSet<&str> = open
            .iter()
            .map(|entry| entry.invocation.uid.as_str())
            .collect();
        self.asking.retain(|uid| open.contains(uid.as_str()));
        self.judging.retain(|uid| open.contains(uid));
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
