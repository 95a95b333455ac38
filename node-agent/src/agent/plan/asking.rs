//! What waits for the word of the person at the device, or of the device's rules.
//!
//! It is recorded as waiting before anybody is asked, so a crash while somebody is asked leaves it not run. Only an allow
//! leads on: to its start where there is a place, to the queue where there is none. What waits for a person takes no place
//! of what runs.

use std::{collections::VecDeque, sync::Arc};

use proto::node::{self, FailureCode, Outcome};

use super::{Draft, Effect, Objection};
use crate::{
    agent::order::{self, Order},
    journal::{Phase, Record, Uid, ledger::without_output},
    mediation::{
        question::Digest,
        rules::{Decision, Ruling},
    },
};

/// What a person at the device says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Where the reply goes.
    pub ticket: u64,
    pub uid: Uid,
    /// Of what the person was shown.
    pub shown: Digest,
    pub is_allowed: bool,
    pub decision: Decision,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    Taken,
    /// It is not asked, or not any more.
    NotAsked,
    /// The person was shown something else.
    Changed,
    /// The journal cannot be written: it is not run.
    NotRecorded,
}

/// What the plan makes of those that are asked, before the jobs know.
#[derive(Default)]
pub(super) struct Planned {
    orders: VecDeque<Arc<Order>>,
    /// Of whom the gateway is to hear once more that somebody is asked.
    again: Vec<Uid>,
}

impl Planned {
    pub(super) fn of(orders: impl Iterator<Item = Arc<Order>>) -> Self {
        Self {
            orders: orders.collect(),
            again: Vec::new(),
        }
    }

    fn find(&self, uid: &Uid) -> Option<&Arc<Order>> {
        self.orders.iter().find(|order| &order.uid == uid)
    }

    fn take(&mut self, uid: &Uid) -> Option<Arc<Order>> {
        let index = self.orders.iter().position(|order| &order.uid == uid)?;
        self.orders.remove(index)
    }
}

impl Draft<'_> {
    /// What the rules say of an order now. A person's allow stands, but for a deny.
    pub(super) fn ruling(&self, order: &Order) -> Ruling {
        let capability = order.capability.as_str();
        let offer = self.observed.surface.get(capability);
        let mediated = order.mediate || offer.is_some_and(|offer| offer.is_mediated);
        let rules = self.observed.rules;
        match rules.ruling(capability, &order.requested_by, mediated) {
            denied @ Ruling::Denied(_) => denied,
            Ruling::Run | Ruling::Ask | Ruling::Allowed(_) if order.decision.is_some() => {
                Ruling::Run
            }
            other @ (Ruling::Run | Ruling::Ask | Ruling::Allowed(_)) => other,
        }
    }

    /// Why nobody can be asked now.
    pub(super) fn objection_to_asking(&self) -> Option<Objection> {
        let most = self.observed.limits.asking;
        if most == 0 {
            return Some((
                Outcome::Failed,
                FailureCode::Unavailable,
                "nobody can be asked on this device: its agent's log says why".into(),
            ));
        }
        (self.asking.orders.len() >= most).then_some((
            Outcome::Failed,
            FailureCode::Busy,
            "as many invocations wait for the person at this device as may: try again later".into(),
        ))
    }

    /// Holds an order until a person answers. Recorded as waiting already, or with this.
    pub(super) fn ask(&mut self, order: &Arc<Order>) {
        self.asking.orders.push_back(Arc::clone(order));
        self.act(Effect::Ask(Arc::clone(order)));
    }

    /// The gateway does not know, or not any more, that somebody is asked.
    pub(super) fn say_again(&mut self, uid: &Uid) {
        if self.asking.find(uid).is_some() {
            self.asking.again.push(uid.clone());
        }
    }

    /// Ends an order that somebody's word is against. It did not run.
    pub(super) fn deny(&mut self, order: &Order, decision: &Decision) {
        let Decision { by, reason } = decision;
        let because = if reason.is_empty() { "" } else { ": " };
        let message = format!("{by} said no{because}{reason}");
        let (outcome, code) = (Outcome::Refused, FailureCode::Refused);
        let mut result = without_output(&order.uid, &order.name, outcome, code, &message);
        result.mediation = Some(order::mediation(decision));
        self.end_recorded(&order.uid, &order.name, result);
    }

    /// Rules that changed count for who is asked already.
    pub(super) fn apply_rules(&mut self) {
        if self.observed.stop_at.is_some() {
            return;
        }
        let orders = self.asking.orders.clone();
        // Past its deadline nothing is started, whatever the rules say by now.
        for order in orders
            .iter()
            .filter(|order| order.deadline > self.observed.now)
        {
            match self.ruling(order) {
                Ruling::Ask => {}
                Ruling::Denied(decision) => {
                    self.stop_asking(&order.uid);
                    self.deny(order, &decision);
                }
                Ruling::Allowed(decision) => self.go_on(order, Some(decision)),
                Ruling::Run => self.go_on(order, None),
            }
        }
    }

    pub(super) fn answer(&mut self, answer: &Answer) {
        let reply = self.reply_to(answer);
        self.act(Effect::Reply {
            ticket: answer.ticket,
            uid: answer.uid.clone(),
            reply,
        });
    }

    fn reply_to(&mut self, answer: &Answer) -> Reply {
        let Some(order) = self.asking.find(&answer.uid).cloned() else {
            return Reply::NotAsked;
        };
        // Its end is decided below, in this very plan.
        if order.deadline <= self.observed.now || self.observed.stop_at.is_some() {
            return Reply::NotAsked;
        }
        if Digest::of(&order) != answer.shown {
            return Reply::Changed;
        }
        let decision = answer.decision.clone();
        if answer.is_allowed {
            self.go_on(&order, Some(decision));
        } else {
            self.stop_asking(&order.uid);
            self.deny(&order, &decision);
        }
        Reply::Taken
    }

    /// An order that need not be asked any more.
    fn go_on(&mut self, order: &Arc<Order>, decision: Option<Decision>) {
        self.asking.take(&order.uid);
        let order = match decision {
            Some(decision) => Arc::new(order.decided(decision)),
            None => Arc::clone(order),
        };
        if self.is_next(&order) {
            self.start(&order);
        } else {
            // Recorded as waiting since it is asked.
            self.act(Effect::Wait(Arc::clone(&order)));
            self.waiting.push_back(order);
        }
    }

    /// Where it is asked.
    pub(super) fn stop_asking(&mut self, uid: &Uid) -> Option<Arc<Order>> {
        let order = self.asking.take(uid)?;
        self.act(Effect::Leave(uid.clone()));
        Some(order)
    }

    /// Silence is no consent.
    pub(super) fn keep_deadlines_of_asked(&mut self) {
        let observed = self.observed;
        for order in self.asking.orders.clone() {
            let (outcome, code, message) = if order.deadline <= observed.now {
                (
                    Outcome::TimedOut,
                    FailureCode::NoDecision,
                    "nobody at the device answered before its time was over: it did not run",
                )
            } else if observed.stop_at.is_some() {
                (
                    Outcome::Failed,
                    FailureCode::AgentRestarted,
                    "the agent was stopped while the person at the device was asked: it never started",
                )
            } else {
                self.wake_at(order.deadline);
                continue;
            };
            self.stop_asking(&order.uid);
            self.end_before_start(&order, outcome, code, message);
        }
    }

    /// Says on this stream, once or when it asks, of whom somebody is asked.
    pub(super) fn report_asked(&mut self) {
        if self.observed.told.is_none() {
            return;
        }
        let Planned { orders, again } = &self.asking;
        let said = self.observed.told_asked;
        let tell: Vec<Effect> = orders
            .iter()
            .map(|order| &order.uid)
            .filter(|uid| !said.contains(*uid) || again.contains(uid))
            .map(|uid| Effect::TellAsked(uid.clone()))
            .collect();
        self.plan.effects.extend(tell);
    }

    /// Records an end of something that did not start.
    fn end_recorded(&mut self, uid: &Uid, name: &str, result: node::Result) {
        if self.phase(uid).is_none() && !self.take_room(super::REFUSAL_BYTES) {
            return self.refuse(uid, name);
        }
        self.end(uid, result);
    }

    pub(super) fn end_before_start(
        &mut self,
        order: &Order,
        outcome: Outcome,
        code: FailureCode,
        message: &str,
    ) {
        let Order {
            uid,
            name,
            decision,
            ..
        } = order;
        let mut result = without_output(uid, name, outcome, code, message);
        result.mediation = decision.as_ref().map(order::mediation);
        self.end_recorded(uid, name, result);
    }

    /// Recorded before anybody is asked, and before it waits for its turn.
    pub(super) fn record_waiting(&mut self, order: &Order) {
        self.phases.insert(order.uid.clone(), Phase::Waiting);
        self.plan.records.push(Record::Waiting {
            uid: order.uid.clone(),
            name: order.name.clone(),
            mark: order.mark(),
        });
    }
}
