//! Makes a plan happen: records first, then effects.

use std::sync::Arc;

use proto::node::{self, DeviceEvent, device_event::Event as ToGateway};
use tokio::sync::{mpsc::error::TrySendError, oneshot};

use super::{
    Agent, RECORD_AGAIN,
    jobs::Storing,
    order::Order,
    plan::{Effect, Event, Plan},
    runner,
};
use crate::{
    host::clock,
    journal::{Record, Uid, ledger::without_output},
    mediation::question::Question,
};

impl Agent {
    pub(super) async fn apply(&mut self, plan: Plan) {
        let Plan {
            records,
            effects,
            wake,
        } = plan;
        #[cfg(debug_assertions)]
        let records = super::sabotage::of(records);
        let records: Arc<[Record]> = records.into();
        let reserve = self.jobs.reserved() + self.journal.ledger().reserved() + starting(&effects);
        let now = clock::now();
        let committed = self
            .journal
            .commit(Arc::clone(&records), reserve, now)
            .await;
        let effects = match committed {
            Ok(()) => {
                self.let_go_of_outputs(&records);
                effects
            }
            Err(error) => {
                tracing::error!(%error, "Writing the journal failed: new work is refused until it can be written");
                let plan = Plan {
                    records: records.to_vec(),
                    effects,
                    wake,
                };
                let ledger = self.journal.ledger();
                let (plan, again) = plan.unrecorded(&self.jobs, ledger);
                self.repeat_at = clock::now().after(RECORD_AGAIN);
                if !again.is_empty() || ledger.followers().next().is_some() {
                    let mut all = self
                        .again
                        .take()
                        .map(|(events, _)| events)
                        .unwrap_or_default();
                    all.extend(again);
                    self.again = Some((all, clock::now().after(RECORD_AGAIN)));
                }
                plan.effects
            }
        };
        self.wake = wake;
        if let Some(session) = &mut self.session {
            session.is_full = false;
        }
        for effect in effects {
            #[cfg(debug_assertions)]
            super::sabotage::may_die();
            match effect {
                Effect::Wait(order) => self.jobs.wait(order),
                Effect::Ask(order) => self.jobs.ask(order),
                Effect::Follow(order) => self.jobs.follow(order),
                Effect::Start(order) => self.start(&order),
                Effect::Stop(uid, why) => {
                    self.jobs.stop(&uid, why);
                    // Where it just ended by itself, nobody listens any more.
                    if let Some(stop) = self.stops.remove(&uid) {
                        let _ = stop.send(why);
                    }
                }
                Effect::Store {
                    uid,
                    result,
                    deadline,
                } => {
                    self.uploads.add(&uid, &result);
                    let result = *result;
                    self.jobs.store(uid, Storing { result, deadline });
                }
                Effect::Expect(uid, deadline) => self.jobs.expect(&uid, deadline),
                Effect::Leave(uid) => {
                    self.uploads.remove(&uid);
                    self.jobs.leave(&uid);
                    self.stops.remove(&uid);
                }
                Effect::TellAccepted(uid) => {
                    let uid = uid.as_str().to_owned();
                    self.send(ToGateway::Accepted(node::Accepted { uid }));
                }
                Effect::TellAsked(uid) => self.tell_asked(uid),
                Effect::Reply { ticket, reply, .. } => self.desk.reply(ticket, reply),
                Effect::TellResult(uid) => self.tell_result(uid, &records).await,
                Effect::Refuse { uid, name } => self.refuse(uid, &name),
            }
        }
        self.publish();
        if let Err(error) = self.journal.tidy(clock::now()).await {
            tracing::warn!(%error, "Making the journal smaller failed; it is tried again");
        }
    }

    /// Files of what is acked, and of what will not be stored.
    fn let_go_of_outputs(&self, records: &[Record]) {
        for record in records {
            match record {
                Record::Finished { uid, result } if result.artefact.is_none() => {
                    self.spools.remove(uid.as_str());
                }
                Record::Acked { uid } => self.spools.remove(uid.as_str()),
                Record::Finished { .. }
                | Record::Waiting { .. }
                | Record::Accepted { .. }
                | Record::Following { .. }
                | Record::Kept { .. }
                | Record::Cancelled { .. }
                | Record::Forgotten { .. } => {}
            }
        }
    }

    fn start(&mut self, order: &Arc<Order>) {
        self.jobs.start(order);
        let (stop, stopped) = oneshot::channel();
        self.stops.insert(order.uid.clone(), stop);
        tracing::info!(uid = %order.uid, name = order.name, capability = order.capability, "Starting");
        let running = runner::run(
            self.registry.get(&order.capability),
            Arc::clone(order),
            self.spools.spool(&order.uid),
            stopped,
            self.progress.clone(),
        );
        let (uid, completions) = (order.uid.clone(), self.completions.clone());
        self.tasks.spawn(async move {
            let ending = running.await;
            // Fails only when the agent is gone; then the journal says that it ran.
            let _ = completions.send(Event::Completed { uid, ending }).await;
        });
    }

    fn tell_asked(&mut self, uid: Uid) {
        let asks = node::AwaitingMediation {
            uid: uid.as_str().to_owned(),
        };
        let is_sent = self.send(ToGateway::AwaitingMediation(asks));
        if let Some(session) = self.session.as_mut().filter(|_| is_sent) {
            session.told_asked.insert(uid);
        }
    }

    /// Where there is room: results go first, and the next word says more.
    pub(super) fn tell_progress(&mut self, progress: node::Progress) {
        if let Some(session) = self.session.as_ref().filter(|session| !session.is_full) {
            let event = Some(ToGateway::Progress(progress));
            let _ = session.outbound.try_send(DeviceEvent { event });
        }
    }

    /// Shows what is asked now to whoever looks.
    fn publish(&mut self) {
        let registry = &self.registry;
        let questions = self.jobs.asking().map(|order| {
            let capability = registry.get(&order.capability);
            Question::of(order, capability.as_deref())
        });
        self.desk.publish(questions);
    }

    async fn tell_result(&mut self, uid: Uid, just_recorded: &[Record]) {
        let Some(session) = &mut self.session else {
            return;
        };
        if session.is_full {
            // Asked for again, and not sent: it counts as untold until there is room.
            session.told.remove(&uid);
            return;
        }
        let recorded = just_recorded.iter().find_map(|record| match record {
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
        let result = match recorded {
            Some(result) => Some(result),
            None => self.journal.result(&uid).await,
        };
        let Some(result) = result else {
            return;
        };
        let sent = self.send(ToGateway::Result(result));
        if let Some(session) = &mut self.session {
            if sent {
                session.told.insert(uid);
            } else {
                session.told.remove(&uid);
            }
        }
    }

    fn refuse(&mut self, uid: Uid, name: &str) {
        let result = without_output(
            &uid,
            name,
            node::Outcome::Failed,
            node::FailureCode::JournalUnavailable,
            "the device cannot write to its journal, or it is full; it was not started",
        );
        self.send(ToGateway::Result(result));
        self.refused.add(uid);
    }

    /// Whether there was room. Never waits: a gateway that does not read must not stop the loop.
    fn send(&mut self, event: ToGateway) -> bool {
        let Some(session) = &mut self.session else {
            return false;
        };
        match session
            .outbound
            .try_send(DeviceEvent { event: Some(event) })
        {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                session.is_full = true;
                false
            }
            Err(TrySendError::Closed(_)) => {
                self.session = None;
                false
            }
        }
    }
}

/// Bytes that the results of what is about to start or wait may take.
fn starting(effects: &[Effect]) -> u64 {
    let reserve = effects.iter().map(|effect| match effect {
        Effect::Start(order) | Effect::Wait(order) | Effect::Ask(order) | Effect::Follow(order) => {
            order.reserve()
        }
        Effect::Stop(..)
        | Effect::Leave(_)
        | Effect::Store { .. }
        | Effect::Expect(..)
        | Effect::TellAccepted(_)
        | Effect::TellAsked(_)
        | Effect::Reply { .. }
        | Effect::TellResult(_)
        | Effect::Refuse { .. } => 0,
    });
    reserve.sum()
}
