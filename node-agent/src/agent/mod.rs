//! The loop: wait for something to happen, observe, plan, apply.
//!
//! - [`order`]: what the agent is asked, read from the wire once, and how it ends;
//! - [`jobs`]: what waits and what runs;
//! - `observe`: waits, and gathers what happened;
//! - [`plan`]: decides, purely;
//! - `apply`: records, then acts;
//! - `runner`: one capability, from its start to its end;
//! - `uploads`: outputs on their way to the gateways' store.
//!
//! Heartbeats are not here: they go on whatever this loop waits for.

mod apply;
#[cfg(test)]
mod asking_tests;
pub mod jobs;
mod observe;
#[cfg(test)]
mod once_tests;
pub mod order;
pub mod plan;
#[cfg(test)]
mod plan_tests;
mod runner;
#[cfg(debug_assertions)]
mod sabotage;
#[cfg(test)]
mod storing_tests;
mod uploads;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use proto::node::{self, DeviceEvent};
use runtime::shutdown::Tasks;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    jobs::{Jobs, Storing},
    order::Why,
    plan::{Event, Limits},
    uploads::Uploads,
};
use crate::{
    capability::{Registry, live::Live, spool::Spools},
    host::clock::{self, Moment},
    journal::{Journal, Phase, Uid},
    mediation::desk::Desk,
    upstream::Word,
};

/// How long running capabilities may go on after the agent was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(4);
/// How long, after that, results wait for their acks.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// When what could not be recorded is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(2);
/// Results that are read back and repeated in one turn: so many are in memory for that.
const MAX_REPEATS: usize = 8;
/// What was refused unrecorded, and is remembered at most.
const MAX_REFUSED: usize = 1024;

/// What the loop needs.
pub struct Parts {
    pub journal: Journal,
    /// What can be done; it may change at any time.
    pub capabilities: Live,
    pub limits: Limits,
    /// Where a person is asked, and answers.
    pub desk: Desk,
    /// Where outputs go that are too large to be told.
    pub spools: Spools,
    /// What comes from the gateway at hand.
    pub upstream: mpsc::Receiver<Word>,
    /// Where capabilities run.
    pub tasks: Tasks,
}

/// The agent's own state.
struct Agent {
    journal: Journal,
    capabilities: Live,
    /// What could be done when events were last gathered: what is planned with it is done with it.
    registry: Arc<Registry>,
    limits: Limits,
    desk: Desk,
    upstream: mpsc::Receiver<Word>,
    tasks: Tasks,
    spools: Spools,
    uploads: Uploads,
    jobs: Jobs,
    stops: HashMap<Uid, oneshot::Sender<Why>>,
    session: Option<Session>,
    refused: Refused,
    completed: mpsc::Receiver<Event>,
    completions: mpsc::Sender<Event>,
    /// How far those are that run. Neither decided about nor recorded.
    progressed: mpsc::Receiver<node::Progress>,
    progress: mpsc::Sender<node::Progress>,
    /// What could not be recorded, and when to try again.
    again: Option<(Vec<Event>, Moment)>,
    /// From when on the ends of firsts are repeated: not at once where the journal could not be written.
    repeat_at: Moment,
    wake: Option<Moment>,
    stop_at: Option<Moment>,
}

/// The stream at hand.
struct Session {
    outbound: mpsc::Sender<DeviceEvent>,
    /// Results that went out on it.
    told: HashSet<Uid>,
    /// Those of which it carried that a person is asked.
    told_asked: HashSet<Uid>,
    /// There was no room for everything: look again when there is.
    is_full: bool,
}

/// What was refused because it could not be recorded. The oldest are forgotten.
#[derive(Debug, Default)]
struct Refused {
    order: VecDeque<Uid>,
    uids: HashSet<Uid>,
}

impl Refused {
    fn add(&mut self, uid: Uid) {
        if self.uids.insert(uid.clone()) {
            self.order.push_back(uid);
        }
        if self.order.len() > MAX_REFUSED
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
    }
}

/// Serves until told to stop, and then for as long as it takes to stop in good order.
pub async fn run(parts: Parts, stop: CancellationToken) -> anyhow::Result<()> {
    let Parts {
        journal,
        capabilities,
        limits,
        desk,
        spools,
        upstream,
        tasks,
    } = parts;
    let (completions, completed) = mpsc::channel(limits.running.max(1));
    let (progress, progressed) = mpsc::channel(limits.running.max(1));
    let mut agent = Agent {
        journal,
        registry: capabilities.current(),
        capabilities,
        limits,
        desk,
        upstream,
        tasks,
        spools,
        uploads: Uploads::default(),
        jobs: Jobs::default(),
        stops: HashMap::new(),
        session: None,
        refused: Refused::default(),
        completed,
        completions,
        progressed,
        progress,
        again: None,
        repeat_at: Moment::default(),
        wake: None,
        stop_at: None,
    };
    agent.go_on_storing(&stop).await;
    loop {
        let events = agent.gather(&stop).await;
        let plan = agent.plan(&events).await;
        agent.apply(plan).await;
        if agent.is_over() {
            return Ok(());
        }
    }
}

impl Agent {
    /// Goes on with the outputs that an earlier life did not get stored.
    async fn go_on_storing(&mut self, stop: &CancellationToken) {
        let ledger = self.journal.ledger();
        self.spools.tidy(|name| {
            Uid::parse(name).is_some_and(|uid| match ledger.phase(&uid) {
                Some(Phase::Storing) => true,
                Some(Phase::Ended) => !ledger.is_acked(&uid),
                Some(Phase::Waiting | Phase::Following | Phase::Running) | None => false,
            })
        });
        for result in self.journal.storing().await {
            if let Some(uid) = Uid::parse(&result.uid) {
                self.uploads.add(&uid, &result);
                let deadline = None;
                self.jobs.store(uid, Storing { result, deadline });
            }
        }
        let sending = self
            .uploads
            .clone()
            .run(self.spools.clone(), self.completions.clone());
        let stop = stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = sending => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Whether it was told to stop, nothing runs, and all is said or the time for that is over.
    fn is_over(&self) -> bool {
        let Some(stop_at) = self.stop_at else {
            return false;
        };
        let said = self.session.is_none() || self.journal.ledger().unacked().is_empty();
        let late = clock::now() >= stop_at.after(LAST_WORDS);
        late || self.jobs.is_empty() && said
    }
}
