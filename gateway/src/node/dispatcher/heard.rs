//! What the device says of its invocations. Nothing that it says ends its stream: what is odd is left aside, and acked
//! where it is a result, so that the device forgets it.

use std::{sync::Arc, time::Duration};

use crds::v1alpha1::capability_invocation::InvocationPhase;
use proto::node;
use tokio::time::Instant;

use super::{Dispatcher, MARK_AFTER, MAX_FLIGHTS};
use crate::{
    clock::now,
    domain::{
        names::{is_object_name, is_uid},
        underway,
    },
    node::{
        flight::{Again, Awaited, Flight, State},
        metrics::LeftAside,
        writes::Answer,
    },
};

/// How long before an invocation is sent again whose result there was no memory for.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A device that reports what the index does not have costs a read each time, and no more of them than this.
const BETWEEN_LOOK_UPS: Duration = Duration::from_millis(50);

impl Dispatcher {
    /// A device reports how an invocation ended. The ack leaves with the next look after the end was written.
    pub fn result(&mut self, mut result: node::Result) {
        if !is_uid(&result.uid) {
            // Nothing to ack: no gateway said that uid.
            return self.shared.metrics.left_aside(LeftAside::Malformed);
        }
        if !is_object_name(&result.name) {
            // An agent that was told to cancel what it never heard of may know no name.
            result.name.clear();
        }
        let uid = result.uid.clone();
        match self.flights.get(&uid).map(|flight| &flight.state) {
            // It repeats itself: the ack was lost.
            Some(State::Ended { heard: true }) => return self.acks.push_back(uid),
            // It repeats what is held.
            Some(
                State::Marking { answer: Some(_) }
                | State::Ending { ours: false, .. }
                | State::Ending { heard: Some(_), .. }
                | State::Retrying {
                    answer: Answer::Device { .. },
                    ..
                },
            ) => return,
            Some(_) => {}
            None if self.flights.len() >= MAX_FLIGHTS => {
                return self.shared.metrics.left_aside(LeftAside::TooMany);
            }
            None => {
                if !self.take_up(&result) {
                    self.shared.metrics.left_aside(LeftAside::Unnamed);
                    return self.acks.push_back(uid);
                }
            }
        }
        let bytes = u32::try_from(result.output.len().max(1)).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.shared.result_memory).try_acquire_many_owned(bytes);
        let Ok(memory) = memory else {
            self.shared.metrics.left_aside(LeftAside::TooMany);
            return self.ask_again(&uid);
        };
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        flight.wants_ack = true;
        let answer = Answer::Device {
            result: Box::new(result),
            _memory: memory,
        };
        match &mut flight.state {
            State::Marking { answer: waiting } => *waiting = Some(answer),
            State::Ending { heard, .. } => *heard = Some(answer),
            // Our own end is there: what the device says is kept beside it.
            State::Ended { .. } => {
                flight.invocation = None;
                self.look_up(&uid, answer);
            }
            State::Sent { .. } | State::Retrying { .. } | State::LookAgain { .. } => {
                if flight.invocation.is_some() {
                    self.end(uid, answer);
                } else {
                    self.look_up(&uid, answer);
                }
            }
        }
    }

    /// Writes the answer once it was read what there is.
    fn look_up(&mut self, uid: &str, answer: Answer) {
        if let Some(flight) = self.flights.get_mut(uid) {
            flight.state = State::Retrying {
                answer,
                at: self.look_up_at,
            };
            self.look_up_at = self.look_up_at.max(Instant::now()) + BETWEEN_LOOK_UPS;
        }
    }

    /// Begins to deal with something that this stream did not carry. False: nobody knows what it is.
    fn take_up(&mut self, result: &node::Result) -> bool {
        let known = self
            .shared
            .index
            .invocations
            .find(&self.device, &result.uid)
            .map(|entry| Arc::clone(&entry.invocation));
        let name = known.as_ref().map_or(&result.name, |known| &known.name);
        if name.is_empty() {
            return false;
        }
        let state = State::LookAgain { at: Instant::now() };
        let flight = Flight::new(&name.clone(), known, state);
        self.flights.insert(result.uid.clone(), flight);
        true
    }

    /// There is no memory for its result. The device has it, so nothing is decided anew: it is sent again later, and
    /// answered again.
    fn ask_again(&mut self, uid: &str) {
        let Some(flight) = self.flights.get_mut(uid) else {
            return;
        };
        match (&flight.state, &flight.invocation) {
            (State::Sent { .. }, _) => {}
            (State::LookAgain { .. }, Some(invocation)) => {
                let now = now();
                flight.awaited.get_or_insert(Awaited {
                    sent: now,
                    until: invocation.answer_by(now),
                    pushed: true,
                    cancel_sent: false,
                    again: Again::No,
                    // The device has its result. One that forgot it all the same asks its person.
                    mediate: true,
                });
                let queued = invocation.phase() == InvocationPhase::Queued;
                flight.state = State::Sent {
                    mark_at: queued.then(|| Instant::now() + MARK_AFTER),
                };
            }
            // The device repeats it on its next stream.
            (State::LookAgain { .. }, None) => {
                self.flights.remove(uid);
                return;
            }
            (
                State::Marking { .. }
                | State::Ending { .. }
                | State::Retrying { .. }
                | State::Ended { .. },
                _,
            ) => return,
        }
        if let Some(awaited) = &mut flight.awaited {
            awaited.again = Again::At(Instant::now() + ASK_AGAIN);
        }
    }

    /// The device asks the person who is there.
    pub fn awaiting_mediation(&mut self, uid: &str) {
        if let Some(flight) = self.flights.get_mut(uid) {
            asks(flight);
        } else if self.asking.len() < MAX_FLIGHTS
            && self
                .shared
                .index
                .invocations
                .find(&self.device, uid)
                .is_some()
        {
            self.asking.insert(uid.to_owned());
        }
    }

    /// Its capability starts, whoever was asked before: from here on it takes a place of what runs.
    pub fn accepted(&mut self, uid: &str) {
        self.asking.remove(uid);
        if let Some(flight) = self.flights.get_mut(uid) {
            flight.asks = false;
        }
    }

    /// The device says how far it came. Of what this stream did not carry, nothing is kept.
    pub fn progress(&mut self, reported: &node::Progress) {
        if let Some(flight) = self.flights.get_mut(&reported.uid) {
            flight.progressed(underway::progress(reported));
        }
    }
}

/// A person is asked: the phase is to say so.
pub(super) fn asks(flight: &mut Flight) {
    flight.asks = true;
    let lacks_phase = flight.lacks_phase();
    if let State::Sent { mark_at } = &mut flight.state
        && lacks_phase
    {
        *mark_at = Some(Instant::now());
    }
}
