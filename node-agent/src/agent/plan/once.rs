//! Invocations with the same idempotency key are one: the first may run, the others end as it does.
//!
//! Who comes with a known key is recorded as waiting for the first one's end, also where that has ended already: the end
//! is read back from the journal outside, and handed in as a [`Repeat`]. So it does not matter in which life of the
//! process the first ended, and how many results are in memory at once is bounded there.
//!
//! Who asks is part of what a person at the device is asked. So what was decided of one requester's invocation is told to
//! nobody else: whoever comes with another one's key gets no end that a person had a word in, nor gets around being asked
//! about by it.

use std::{collections::HashMap, sync::Arc};

use proto::node::{self, FailureCode, Outcome};
use sha2::{Digest as _, Sha256};

use super::{Draft, Effect};
use crate::{
    agent::order::{Order, Sharing},
    journal::{Follow, Mark, Phase, Record, Uid, ledger::without_output, mark::MAX_KEY_BYTES},
    mediation::rules::Ruling,
};

/// The first of a key ended.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// Who waits for that.
    pub uid: Uid,
    /// How the first ended; `None` where that is forgotten.
    pub result: Option<node::Result>,
}

/// What the plan makes of keys, before the ledger knows.
#[derive(Default)]
pub(super) struct Planned {
    first: HashMap<[u8; 32], (Uid, String, Mark)>,
    /// With the name of who follows.
    following: HashMap<Uid, (String, Follow)>,
}

impl Draft<'_> {
    /// Deals with an order that is not the first of its key, or whose key is none. Returns whether it did.
    pub(super) fn joins(&mut self, order: &Arc<Order>, ruling: &Ruling) -> bool {
        let mark = match &order.sharing {
            Sharing::Alone => return false,
            Sharing::With(mark) => mark,
            Sharing::KeyTooLong => {
                let message = format!(
                    "the idempotency key is longer than the {MAX_KEY_BYTES} bytes that this device takes: use a \
                     shorter one"
                );
                self.end_before_start(order, Outcome::Failed, FailureCode::InvalidInput, &message);
                return true;
            }
        };
        let Some((first, first_name, known)) = self.first_of(mark) else {
            return false;
        };
        let is_of_another = !known.is_same_requester(mark);
        let message = if !known.is_same_call(mark) {
            format!("the key was used for another capability or input by {first_name}")
        } else if is_of_another && *ruling == Ruling::Ask {
            // Nor is it run: with the same key, it would be the same effect twice.
            format!(
                "the key was used for {first_name}, which somebody else asked for, and the person at this device has to \
                 be asked about each requester: use a key of your own"
            )
        } else {
            let follow = Follow {
                first,
                first_name,
                max_output_bytes: u32::try_from(order.max_output_bytes).unwrap_or(u32::MAX),
                is_of_another,
            };
            self.follow(order, follow);
            return true;
        };
        self.end_before_start(order, Outcome::Failed, FailureCode::InvalidInput, &message);
        true
    }

    /// The order runs or waits for its turn: whoever comes with its key follows it.
    pub(super) fn hold_key(&mut self, order: &Order) {
        if let Some(mark) = order.mark() {
            let first = (order.uid.clone(), order.name.clone(), mark);
            self.once.first.insert(mark.key(), first);
        }
    }

    fn first_of(&self, mark: &Mark) -> Option<(Uid, String, Mark)> {
        let planned = self.once.first.get(&mark.key()).cloned();
        planned.or_else(|| {
            let holder = self.observed.ledger.holder(mark)?;
            Some((holder.uid.clone(), holder.name.to_owned(), holder.mark))
        })
    }

    fn follow(&mut self, order: &Arc<Order>, follow: Follow) {
        let Order { uid, name, .. } = &**order;
        if !self.take_room(order.reserve()) {
            return self.refuse(uid, name);
        }
        self.phases.insert(uid.clone(), Phase::Following);
        let planned = (name.clone(), follow.clone());
        self.once.following.insert(uid.clone(), planned);
        self.plan.records.push(Record::Following {
            uid: uid.clone(),
            name: name.clone(),
            follow,
        });
        self.act(Effect::Follow(Arc::clone(order)));
        self.wake_at(order.deadline);
    }

    /// Ends those whose first has ended.
    pub(super) fn repeat(&mut self) {
        let observed = self.observed;
        for Repeat { uid, result } in observed.repeats {
            self.end_following(uid, |name, follow| {
                repeated(uid, name, follow, result.as_ref())
            });
        }
        let followers = observed.ledger.followers();
        for (uid, _) in followers.filter(|(_, follow)| observed.refused.contains(&follow.first)) {
            self.end_following(uid, |name, follow| {
                let message = format!(
                    "it has the same key as {}, which could not be recorded and was not started: use another key",
                    follow.first_name
                );
                let (outcome, code) = (Outcome::Failed, FailureCode::JournalUnavailable);
                without_output(uid, name, outcome, code, &message)
            });
        }
    }

    /// Ends this one only.
    pub(super) fn cancel_following(&mut self, uid: &Uid) {
        self.end_following(uid, |name, follow| {
            let message = format!(
                "cancelled while it waited for the end of {}, which has the same key",
                follow.first_name
            );
            let (outcome, code) = (Outcome::Cancelled, FailureCode::Cancelled);
            without_output(uid, name, outcome, code, &message)
        });
    }

    /// Its own deadline counts, whatever that of the first is.
    pub(super) fn keep_deadlines_of_following(&mut self) {
        let observed = self.observed;
        for order in observed.jobs.following() {
            if order.deadline > observed.now {
                self.wake_at(order.deadline);
                continue;
            }
            let uid = &order.uid;
            self.end_following(uid, |name, follow| {
                let message = format!(
                    "its time was over while it waited for the end of {}, which has the same key and may have its \
                     effect yet",
                    follow.first_name
                );
                // Not "before it could start": the effect that it stands for may be there.
                let (outcome, code) = (Outcome::TimedOut, FailureCode::DeadlineExceeded);
                without_output(uid, name, outcome, code, &message)
            });
        }
    }

    /// Where it still follows.
    fn end_following(&mut self, uid: &Uid, result: impl FnOnce(&str, &Follow) -> node::Result) {
        if self.phase(uid) != Some(Phase::Following) {
            return;
        }
        let planned = self.once.following.get(uid).cloned();
        let known = planned.or_else(|| {
            let (name, follow) = self.observed.ledger.following(uid)?;
            Some((name.to_owned(), follow.clone()))
        });
        let Some((name, follow)) = known else {
            return;
        };
        let mut result = result(&name, &follow);
        result.duplicate_of = follow.first_name;
        self.act(Effect::Leave(uid.clone()));
        self.end(uid, result);
    }
}

/// What is told of `uid`, whose first ended so.
fn repeated(uid: &Uid, name: &str, follow: &Follow, first: Option<&node::Result>) -> node::Result {
    let first_name = &follow.first_name;
    let Some(first) = first else {
        let message = format!(
            "it has the same key as {first_name}, which ended and whose result is not kept any more: it is not run again"
        );
        let (outcome, code) = (Outcome::Unknown, FailureCode::Internal);
        return without_output(uid, name, outcome, code, &message);
    };
    if follow.is_of_another && was_decided(first) {
        let message = format!(
            "it has the same key as {first_name}, which somebody else asked for and about which this device was asked: \
             use a key of your own"
        );
        let (outcome, code) = (Outcome::Failed, FailureCode::InvalidInput);
        return without_output(uid, name, outcome, code, &message);
    }
    if first.artefact.is_some() {
        // The file is gone once the first is acked, and in the store it lasts as long as the first does.
        let message = format!(
            "it has the same key as {first_name}, which ran, and whose output is an artefact: status.artefact of that one \
             says where"
        );
        let (outcome, code) = (Outcome::Failed, FailureCode::ArtefactNotStored);
        return without_output(uid, name, outcome, code, &message);
    }
    let max_output_bytes = follow.max_output_bytes as usize;
    if first.output.len() > max_output_bytes {
        let message = format!(
            "it has the same key as {first_name}, which ran, and whose output has {} bytes where {max_output_bytes} are \
             asked for at most",
            first.output.len(),
        );
        let (outcome, code) = (Outcome::Failed, FailureCode::OutputTooLarge);
        return without_output(uid, name, outcome, code, &message);
    }
    let output_sha256 = if first.outcome() == Outcome::Succeeded {
        Sha256::digest(&first.output).to_vec()
    } else {
        first.output_sha256.clone()
    };
    node::Result {
        uid: uid.as_str().to_owned(),
        name: name.to_owned(),
        output_sha256,
        ..first.clone()
    }
}

/// Whether somebody's word, or silence, had a part in how it ended.
fn was_decided(result: &node::Result) -> bool {
    let code = result.failure.as_ref().map(node::Failure::code);
    let is_silence = matches!(code, Some(FailureCode::Refused | FailureCode::NoDecision));
    result.mediation.is_some() || is_silence
}
