//! What this stream has not carried yet: it is sent, or marked before that; it ends at once; or it waits for others.

use std::sync::Arc;

use crds::{excess::Excess, v1alpha1::capability_invocation::InvocationPhase};
use jiff::Timestamp;
use proto::node::gateway_event::Event;
use tokio::time::Instant;

use super::{Dispatcher, MARK_AFTER, MAX_FLIGHTS, RESERVED_ROOM, cancel, dispatch_of, heard};
use crate::{
    clock,
    domain::{
        device::KnownDevice,
        dispatch::{self, Decision, Push},
        invocation::{OpenInvocation, after},
        register::Declared,
    },
    index::invocations::Entry,
    node::{
        Shared,
        flight::{Again, Awaited, Flight, State},
        outbox::Outbox,
        writes::Answer,
    },
};

/// Milliseconds that are left of what is marked before it is sent. The mark may take as long as that, and what is marked
/// and then not sent ends as Unknown; what never was sent ends as such.
const LEAST_TO_MARK: u32 = 500;

impl Dispatcher {
    /// Looks after what waits for others. Returns when to look again.
    pub(super) fn hold(
        &mut self,
        entry: &Entry,
        outbox: &Outbox,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let may_be_known = self.may_have_been_given_up(&entry.invocation);
        let decision = dispatch::hold(&entry.invocation, may_be_known, self.since, now);
        self.act(decision, entry, outbox, now)
    }

    /// Looks after what is one too many. Returns when to look again.
    pub(super) fn turn_away(
        &mut self,
        entry: &Entry,
        excess: Excess,
        outbox: &Outbox,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let may_be_known = self.may_have_been_given_up(&entry.invocation);
        let decision =
            dispatch::turn_away(&entry.invocation, excess, may_be_known, self.since, now);
        let look_at = self.act(decision, entry, outbox, now);
        match excess {
            Excess::OfDevice => look_at,
            // That those of other devices have ended is not heard of here.
            Excess::OfNamespace => look_at.map(|at| at.min(after(now, 1))),
        }
    }

    /// Carries out what was decided of one that is not sent now, where there is room for that.
    fn act(
        &mut self,
        decision: Decision,
        entry: &Entry,
        outbox: &Outbox,
        now: Timestamp,
    ) -> Option<Timestamp> {
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

    /// Sends it or ends it. Returns when to look again, and whether it is not judged yet: then what comes after it waits.
    pub(super) fn begin(
        &mut self,
        entry: &Entry,
        device: &KnownDevice,
        declared: &Declared,
        outbox: &Outbox,
        now: Timestamp,
    ) -> (Option<Timestamp>, bool) {
        let invocation = &entry.invocation;
        let capability = &invocation.spec().capability;
        let Some(standing) = self.standing(capability, device, declared) else {
            self.hold(entry, outbox, now);
            return (Some(now), true);
        };
        let Some(fit) = self.fit(entry, &standing) else {
            return (self.hold(entry, outbox, now), true);
        };
        let stream = dispatch::Stream {
            declared,
            standing: &standing,
            fit: &fit,
            since: self.since,
            shown: self.shown.as_ref(),
        };
        let decision = dispatch::decide(invocation, device, stream, now);
        (self.carry_out(decision, entry, outbox, now), false)
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
                if push.remaining_ms < LEAST_TO_MARK {
                    return Some(invocation.deadline());
                }
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
    /// news of that may be on their way. The same holds for what was made before this gateway renewed its Lease, where it
    /// was late. This gateway's clock may be behind that of the API server, so the order of the writes counts, too.
    pub(super) fn may_have_been_given_up(&self, invocation: &OpenInvocation) -> bool {
        let is_older = |shown| invocation.may_be_older_than(shown);
        invocation.phase() == InvocationPhase::Queued
            && (self.shown.as_ref().is_none_or(is_older) || self.may_have_been_gone(invocation))
    }

    fn may_have_been_gone(&self, invocation: &OpenInvocation) -> bool {
        let Shared {
            index, settings, ..
        } = &*self.shared;
        let gateways = &index.gateways;
        gateways.may_have_been_gone(&settings.gateway, invocation, clock::now())
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
}
