//! Carries one device's invocations: sends them, says in Kubernetes what became of them, and acks what the device
//! reported once that is there.
//!
//! An invocation that is over within 100 ms costs one write and no read: the end is written to the version that the
//! watch brought.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use crds::v1alpha1::capability_invocation::InvocationPhase;
use futures::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use proto::node::{self, gateway_event::Event};
use tokio::time::Instant;

use super::{
    Shared, api,
    flight::{Awaited, Flight, State},
    metrics::LeftAside,
    outbox::Outbox,
    presence::retry_after,
    writes::{Answer, Finish, finish, mark},
};
use crate::{
    clock::now,
    domain::{
        device::{DeviceKey, KnownDevice},
        dispatch::{self, Decision, FollowUp, Push},
        invocation::OpenInvocation,
        register::Declared,
    },
    index::invocations::Entry,
};

/// How long a result may take before `Dispatched` is written.
const MARK_AFTER: Duration = Duration::from_millis(100);
/// How long before `Dispatched` is tried again: it is of use, but nothing waits for it.
const MARK_AGAIN: Duration = Duration::from_secs(2);
/// How long before an invocation that somebody else wrote to is looked at again: the watch brings it sooner.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long before an invocation is sent again whose result there was no memory for.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A device that reports what the index does not have costs a read each time, and no more of them than this.
const BETWEEN_LOOK_UPS: Duration = Duration::from_millis(50);
/// Most invocations that one device's stream deals with at once: those that it carries, and results that it repeats.
const MAX_FLIGHTS: usize = 64;
/// Most acks that wait for room.
const MAX_ACKS: usize = 16;
/// Room that is left for acks and heartbeats.
const RESERVED_ROOM: usize = 3;
/// How long the writes of a stream that has ended may go on.
const SETTLE_TIME: Duration = Duration::from_secs(15);
/// Clocks that differ by less than a timer's grain must not make a loop spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// One device's invocations.
pub struct Dispatcher {
    shared: Arc<Shared>,
    device: DeviceKey,
    /// When the stream began.
    since: Timestamp,
    /// By uid.
    flights: BTreeMap<String, Flight>,
    work: FuturesUnordered<Work>,
    acks: VecDeque<String>,
    look_at: Option<Instant>,
    /// When the next result of something that the index does not have may be looked up.
    look_up_at: Instant,
    wants_room: bool,
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Something that was under way and is done.
pub enum Done {
    Marked {
        uid: String,
        outcome: Result<Option<Arc<OpenInvocation>>, api::Error>,
    },
    Finished {
        uid: String,
        outcome: Result<Finish, (Answer, api::Error)>,
    },
}

impl Dispatcher {
    pub fn new(shared: Arc<Shared>, device: DeviceKey, since: Timestamp) -> Self {
        Self {
            shared,
            device,
            since,
            flights: BTreeMap::new(),
            work: FuturesUnordered::new(),
            acks: VecDeque::new(),
            look_at: None,
            look_up_at: Instant::now(),
            wants_room: false,
        }
    }

    /// Compares what the index has with what is under way, and does what is to be done. `draining`: nothing new is
    /// begun.
    pub fn look(
        &mut self,
        device: &KnownDevice,
        declared: &Declared,
        outbox: &Outbox,
        draining: bool,
    ) {
        let now = now();
        self.wants_room = false;
        self.flush(outbox);
        let open = self.shared.index.invocations.of(&self.device);
        self.forget(&open, outbox);
        let mut look_at = None;
        // In order: what cannot be sent yet holds up what comes after it.
        let mut held_up = draining;
        for entry in &open {
            let wait = if self.flights.contains_key(&entry.invocation.uid) {
                self.follow(entry, outbox, now)
            } else if held_up {
                None
            } else if self.has_place(outbox) {
                self.begin(entry, device, declared, outbox, now)
            } else {
                held_up = true;
                None
            };
            look_at = [look_at, wait].into_iter().flatten().min();
        }
        self.look_at = look_at.map(|at: Timestamp| {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            Instant::now() + wait.max(SHORTEST_WAIT)
        });
    }

    fn has_place(&mut self, outbox: &Outbox) -> bool {
        if outbox.room() <= RESERVED_ROOM {
            self.wants_room = true;
            return false;
        }
        let carried = self
            .flights
            .values()
            .filter(|flight| !matches!(flight.state, State::Ended))
            .count();
        carried < self.shared.settings.in_flight
    }

    /// Drops what has left the index: it ended or was deleted, and whoever runs it need not go on.
    fn forget(&mut self, open: &[Arc<Entry>], outbox: &Outbox) {
        let wants_room = &mut self.wants_room;
        self.flights.retain(|uid, flight| {
            if open.iter().any(|entry| entry.invocation.uid == *uid) {
                return true;
            }
            match &flight.state {
                State::Ended | State::LookAgain { .. } => false,
                State::Sent { awaited, .. } if awaited.cancel_sent => false,
                State::Sent { .. } if outbox.room() > 0 => {
                    outbox.push(cancel(uid, &flight.name));
                    false
                }
                State::Sent { .. } => {
                    *wants_room = true;
                    true
                }
                State::Marking { .. } | State::Ending | State::Retrying { .. } => true,
            }
        });
    }

    /// Returns when to look again.
    fn follow(&mut self, entry: &Entry, outbox: &Outbox, now: Timestamp) -> Option<Timestamp> {
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
        let (awaited, marking) = match &mut flight.state {
            State::Sent { awaited, .. } => (awaited, false),
            State::Marking { awaited, .. } => (awaited, true),
            State::Ending | State::Retrying { .. } | State::LookAgain { .. } | State::Ended => {
                return None;
            }
        };
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
        let stream = dispatch::Stream {
            declared,
            since: self.since,
        };
        match dispatch::decide(invocation, device, stream, now) {
            Decision::Nothing => None,
            Decision::Wait(until) => Some(until),
            Decision::Push(push) => {
                let queued = invocation.phase() == InvocationPhase::Queued;
                let awaited = Awaited {
                    sent: now,
                    until: push.answer_by,
                    cancel_sent: false,
                };
                outbox.push(Event::Dispatch(dispatch_of(invocation, push)));
                self.shared.metrics.dispatched(entry.seen.elapsed());
                let mark_at = queued.then(|| Instant::now() + MARK_AFTER);
                self.insert(invocation, State::Sent { awaited, mark_at });
                Some(awaited.until)
            }
            Decision::Cancel(until) => {
                let awaited = Awaited {
                    sent: now,
                    until,
                    cancel_sent: true,
                };
                outbox.push(cancel(&invocation.uid, &invocation.name));
                self.insert(
                    invocation,
                    State::Sent {
                        awaited,
                        mark_at: None,
                    },
                );
                Some(until)
            }
            Decision::End(end) => {
                self.insert(invocation, State::Ending);
                self.end(invocation.uid.clone(), Answer::Ours(end));
                None
            }
        }
    }

    fn insert(&mut self, invocation: &Arc<OpenInvocation>, state: State) {
        let flight = Flight {
            name: invocation.name.clone(),
            invocation: Some(Arc::clone(invocation)),
            state,
            wants_ack: false,
            failures: 0,
        };
        self.flights.insert(invocation.uid.clone(), flight);
    }

    /// A device reports how an invocation ended. The ack leaves with the next look after the end was written.
    pub fn result(&mut self, result: node::Result) {
        let uid = result.uid.clone();
        match self.flights.get(&uid) {
            Some(Flight {
                state: State::Ended,
                ..
            }) => {
                // It repeats itself: the ack was lost.
                self.acks.push_back(uid);
                return;
            }
            Some(_) => {}
            None if self.flights.len() >= MAX_FLIGHTS => {
                self.shared.metrics.left_aside(LeftAside::TooMany);
                return;
            }
            None => self.take_up(&result),
        }
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        let bytes = u32::try_from(result.output.len().max(1)).unwrap_or(u32::MAX);
        let Ok(memory) = Arc::clone(&self.shared.result_memory).try_acquire_many_owned(bytes)
        else {
            self.shared.metrics.left_aside(LeftAside::TooMany);
            if let State::Sent { .. } | State::LookAgain { .. } = flight.state {
                // Sent again, it is answered again.
                flight.state = State::LookAgain {
                    at: Instant::now() + ASK_AGAIN,
                };
            }
            return;
        };
        flight.wants_ack = true;
        let answer = Answer::Device {
            result: Box::new(result),
            _memory: memory,
        };
        match &mut flight.state {
            State::Marking {
                answer: waiting, ..
            } => *waiting = Some(answer),
            // What is being written stands.
            State::Ending | State::Ended => {}
            State::Sent { .. } | State::Retrying { .. } | State::LookAgain { .. } => {
                if flight.invocation.is_some() {
                    self.end(uid, answer);
                } else {
                    flight.state = State::Retrying {
                        answer,
                        at: self.look_up_at,
                    };
                    self.look_up_at = self.look_up_at.max(Instant::now()) + BETWEEN_LOOK_UPS;
                }
            }
        }
    }

    /// Begins to deal with something that this stream did not carry.
    fn take_up(&mut self, result: &node::Result) {
        let invocations = &self.shared.index.invocations;
        let known = invocations
            .find(&self.device, &result.uid)
            .map(|entry| Arc::clone(&entry.invocation));
        let flight = Flight {
            name: known
                .as_ref()
                .map_or(&result.name, |known| &known.name)
                .clone(),
            invocation: known,
            state: State::LookAgain { at: Instant::now() },
            wants_ack: true,
            failures: 0,
        };
        self.flights.insert(result.uid.clone(), flight);
    }

    /// Does what is due.
    pub fn tick(&mut self) {
        let now = Instant::now();
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
        }
        let due: Vec<String> = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.due().is_some_and(|due| due <= now))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in due {
            let Some(flight) = self.flights.get_mut(&uid) else {
                continue;
            };
            match std::mem::replace(&mut flight.state, State::Ending) {
                State::Sent { awaited, .. } => {
                    flight.state = State::Marking {
                        awaited,
                        answer: None,
                    };
                    if let Some(invocation) = flight.invocation.clone() {
                        let shared = Arc::clone(&self.shared);
                        self.work.push(Box::pin(async move {
                            let outcome = mark(&shared, invocation, awaited.sent).await;
                            Done::Marked { uid, outcome }
                        }));
                    }
                }
                State::Retrying { answer, .. } => self.end(uid, answer),
                State::LookAgain { .. } => {
                    self.flights.remove(&uid);
                }
                state @ (State::Marking { .. } | State::Ending | State::Ended) => {
                    flight.state = state;
                }
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

    /// Waits until something that is under way is done. Never ends while nothing is.
    pub async fn done(&mut self) -> Done {
        match self.work.next().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Takes note of it.
    pub fn note(&mut self, done: Done) {
        match done {
            Done::Marked { uid, outcome } => self.marked(&uid, outcome),
            Done::Finished { uid, outcome } => self.finished(uid, outcome),
        }
    }

    fn marked(&mut self, uid: &str, outcome: Result<Option<Arc<OpenInvocation>>, api::Error>) {
        let Some(flight) = self.flights.get_mut(uid) else {
            return;
        };
        let State::Marking { awaited, answer } =
            std::mem::replace(&mut flight.state, State::Ending)
        else {
            return;
        };
        let mark_at = match outcome {
            Ok(Some(invocation)) => {
                flight.invocation = Some(invocation);
                None
            }
            // It ended or was deleted meanwhile. The index hears of it; an answer is looked up.
            Ok(None) => {
                flight.invocation = None;
                None
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, device = %self.device, invocation = flight.name, "Writing Dispatched failed");
                Some(Instant::now() + MARK_AGAIN)
            }
        };
        match answer {
            Some(answer) => self.end(uid.to_owned(), answer),
            None => flight.state = State::Sent { awaited, mark_at },
        }
    }

    fn finished(&mut self, uid: String, outcome: Result<Finish, (Answer, api::Error)>) {
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        match outcome {
            Ok(Finish::Changed) => {
                flight.state = State::LookAgain {
                    at: Instant::now() + LOOK_AGAIN,
                };
                return;
            }
            Ok(Finish::Written(phase)) => self.shared.metrics.ended(phase),
            Ok(Finish::LeftAside(reason)) => {
                if flight.wants_ack {
                    self.shared.metrics.left_aside(reason);
                }
                match reason {
                    LeftAside::OtherDevice | LeftAside::OtherInvocation => tracing::warn!(
                        device = %self.device,
                        invocation = flight.name,
                        reason = ?reason,
                        "Result refused: it is not of an invocation of this device"
                    ),
                    LeftAside::Ended | LeftAside::TooMany => {}
                }
            }
            Err((answer, error)) => {
                if flight.failures == 0 {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        device = %self.device,
                        invocation = flight.name,
                        "Writing the end failed and is tried again"
                    );
                }
                let at = Instant::now() + retry_after(flight.failures);
                flight.failures = flight.failures.saturating_add(1);
                flight.state = State::Retrying { answer, at };
                return;
            }
        }
        flight.state = State::Ended;
        if std::mem::take(&mut flight.wants_ack) {
            self.acks.push_back(uid);
        }
    }

    /// Writes the end of a flight.
    fn end(&mut self, uid: String, answer: Answer) {
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        flight.state = State::Ending;
        let (shared, device) = (Arc::clone(&self.shared), self.device.clone());
        let (name, known) = (flight.name.clone(), flight.invocation.clone());
        self.work.push(Box::pin(async move {
            let outcome = finish(&shared, &device, &uid, &name, known, answer).await;
            Done::Finished { uid, outcome }
        }));
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

    /// The stream has ended: writes what is under way. What cannot be written the device reports again.
    pub async fn settle(mut self) {
        let settle = async {
            while let Some(done) = self.work.next().await {
                self.note(done);
            }
        };
        // Past it, the device repeats what it has.
        let _ = tokio::time::timeout(SETTLE_TIME, settle).await;
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
    }
}
