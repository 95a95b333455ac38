//! Invocations that ran, and whose outputs are too large to be told: the end is told once a gateway has stored the output,
//! or as the failure that it could not be.

use std::sync::Arc;

use proto::node::{self, FailureCode, Outcome};

use super::{Draft, Effect};
use crate::{
    agent::order::Order,
    journal::{Phase, Record, Uid, ledger::without_output},
};

impl Draft<'_> {
    /// It ended, and its output is in a file. From here on it is never run again, whatever becomes of the output.
    pub(super) fn keep(&mut self, uid: &Uid, result: &node::Result) {
        let order = self.observed.jobs.get_running(uid);
        let deadline = order.map(|order| order.deadline);
        self.phases.insert(uid.clone(), Phase::Storing);
        self.plan.records.push(Record::Kept {
            uid: uid.clone(),
            result: result.clone(),
        });
        self.act(Effect::Store {
            uid: uid.clone(),
            result: Box::new(result.clone()),
            deadline,
        });
        if let Some(deadline) = deadline {
            self.wake_at(deadline);
        }
    }

    /// It is stored: now it is told.
    pub(super) fn stored(&mut self, uid: &Uid) {
        let storing = self.observed.jobs.get_storing(uid);
        if let Some(storing) = storing.filter(|_| self.phase(uid) == Some(Phase::Storing)) {
            self.act(Effect::Leave(uid.clone()));
            self.end(uid, storing.result.clone());
        }
    }

    pub(super) fn not_stored(&mut self, uid: &Uid, why: &str) {
        let storing = self.observed.jobs.get_storing(uid);
        if let Some(storing) = storing.filter(|_| self.phase(uid) == Some(Phase::Storing)) {
            let message = format!("it ran, and its output was not stored: {why}");
            let (outcome, code) = (Outcome::Failed, FailureCode::ArtefactNotStored);
            let mut result = without_output(uid, &storing.result.name, outcome, code, &message);
            result.mediation.clone_from(&storing.result.mediation);
            self.act(Effect::Leave(uid.clone()));
            self.end(uid, result);
        }
    }

    /// It was done before anybody wanted it stopped.
    pub(super) fn cancel_storing(&mut self, uid: &Uid) {
        self.not_stored(uid, "it was cancelled meanwhile");
    }

    /// A gateway asks for it once more, and says how much time is left.
    pub(super) fn expect(&mut self, order: &Arc<Order>) {
        self.act(Effect::Expect(order.uid.clone(), order.deadline));
        self.act(Effect::TellAccepted(order.uid.clone()));
        self.wake_at(order.deadline);
    }

    pub(super) fn keep_deadlines_of_storing(&mut self) {
        let observed = self.observed;
        for (uid, storing) in observed.jobs.storing() {
            match storing.deadline {
                Some(deadline) if deadline <= observed.now => {
                    self.not_stored(uid, "its time was over before");
                }
                Some(deadline) => self.wake_at(deadline),
                None => {}
            }
        }
    }
}
