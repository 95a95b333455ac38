//! Waits until something happens, and gathers what is to be decided about.

use std::{collections::HashSet, time::Duration};

use proto::node::{self, DeviceEvent};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Agent, LAST_WORDS, MAX_REPEATS, STOP_GRACE, Session,
    order::{self, Wish},
    plan::{self, Event, Observed, Plan, Repeat},
};
use crate::{
    host::clock::{self, Moment},
    mediation::desk::Heard,
    upstream::Word,
};

/// Events that are decided about together, and recorded in one sync.
const MAX_BATCH: usize = 64;
/// Longest sleep: a machine that slept wakes up later than its timers think.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// What ended a wait.
enum Woken {
    Upstream(Option<Word>),
    Completed(Option<Event>),
    Desk(Heard),
    Progressed(node::Progress),
    Stop,
    Time,
}

impl Agent {
    /// Waits, then returns what happened, in order. May be empty: time passed, or there is room or a stream again.
    pub(super) async fn gather(&mut self, stop: &CancellationToken) -> Vec<Event> {
        let mut events = Vec::new();
        let woken = self.wait(stop).await;
        self.take(woken, &mut events);
        while events.len() < MAX_BATCH {
            if let Ok(word) = self.upstream.try_recv() {
                self.take(Woken::Upstream(Some(word)), &mut events);
            } else if let Ok(event) = self.completed.try_recv() {
                events.push(event);
            } else {
                break;
            }
        }
        let now = clock::now();
        if let Some((again, _)) = self.again.take_if(|(_, at)| *at <= now) {
            events.extend(again);
        }
        self.registry = self.capabilities.current();
        events
    }

    async fn wait(&mut self, stop: &CancellationToken) -> Woken {
        let wake = self.next_wake();
        tokio::select! {
            biased;
            () = stop.cancelled(), if self.stop_at.is_none() => Woken::Stop,
            // Closed for good when the connection's task ended, which also ends the process.
            word = self.upstream.recv(), if !self.upstream.is_closed() => Woken::Upstream(word),
            event = self.completed.recv() => Woken::Completed(event),
            heard = self.desk.hear() => Woken::Desk(heard),
            Some(progress) = self.progressed.recv() => Woken::Progressed(progress),
            () = room(self.session.as_ref()) => Woken::Time,
            () = at(wake) => Woken::Time,
        }
    }

    fn next_wake(&self) -> Option<Moment> {
        let again = self.again.as_ref().map(|(_, at)| *at);
        let last_words = self.stop_at.map(|at| at.after(LAST_WORDS));
        // Also where it is past by now: the journal may have taken longer than it was away. Each plan names a later one.
        let wake = self.wake;
        let is_owed = self.journal.ledger().owed().next().is_some();
        let repeat = is_owed.then_some(self.repeat_at);
        [wake, again, repeat, last_words]
            .into_iter()
            .flatten()
            .min()
    }

    fn take(&mut self, woken: Woken, events: &mut Vec<Event>) {
        match woken {
            Woken::Upstream(Some(Word::Opened {
                outbound,
                max_artefact_bytes,
            })) => {
                self.spools.gateways_store(max_artefact_bytes);
                self.uploads.opened(outbound.clone());
                self.session = Some(Session {
                    outbound,
                    told: HashSet::new(),
                    told_asked: HashSet::new(),
                    is_full: false,
                });
            }
            Woken::Upstream(Some(Word::Closed) | None) => {
                self.uploads.closed();
                self.session = None;
            }
            Woken::Upstream(Some(Word::Event(event, received_at))) => {
                // Not from here: the loop may have waited for the disk meanwhile.
                let wish = order::parse(event, received_at);
                if let Some(Wish::Wanted {
                    uid,
                    offset,
                    window,
                }) = &wish
                {
                    self.uploads.want(uid, *offset, *window);
                }
                events.extend(wish.and_then(Event::wished));
            }
            Woken::Completed(event) => events.extend(event),
            Woken::Desk(Heard::Answer(answer)) => events.push(Event::Answer(answer)),
            Woken::Progressed(progress) => self.tell_progress(progress),
            Woken::Stop => self.stop_at = Some(clock::now().after(STOP_GRACE)),
            // The plan looks at the rules that there are now.
            Woken::Desk(Heard::Settings) | Woken::Time => {}
        }
    }

    pub(super) async fn plan(&self, events: &[Event]) -> Plan {
        let repeats = self.repeats().await;
        let none = HashSet::new();
        let session = self.session.as_ref();
        plan::plan(&Observed {
            now: clock::now(),
            events,
            ledger: self.journal.ledger(),
            bounds: self.journal.bounds(),
            repeats: &repeats,
            jobs: &self.jobs,
            refused: &self.refused.uids,
            told: session.map(|session| &session.told),
            told_asked: session.map_or(&none, |session| &session.told_asked),
            surface: &self.registry.surface(),
            rules: &self.desk.settings().rules,
            limits: self.limits,
            stop_at: self.stop_at,
        })
    }
}

impl Agent {
    async fn repeats(&self) -> Vec<Repeat> {
        let mut repeats = Vec::new();
        if self.repeat_at > clock::now() {
            return repeats;
        }
        for (uid, first) in self.journal.ledger().owed().take(MAX_REPEATS) {
            repeats.push(Repeat {
                uid: uid.clone(),
                result: self.journal.result(first).await,
            });
        }
        repeats
    }
}

/// Until the stream takes more, where it did not.
async fn room(session: Option<&Session>) {
    let full: Option<&mpsc::Sender<DeviceEvent>> = session
        .filter(|session| session.is_full)
        .map(|session| &session.outbound);
    match full {
        // A closed stream ends the wait too, and is noticed when it is written to.
        Some(outbound) if !outbound.is_closed() => drop(outbound.reserve().await),
        Some(_) | None => std::future::pending().await,
    }
}

async fn at(moment: Option<Moment>) {
    match moment {
        Some(moment) => sleep(moment.since(clock::now()).min(MAX_SLEEP)).await,
        None => std::future::pending().await,
    }
}
