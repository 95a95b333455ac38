//! Requests of one connection that are being answered, and how long the connection may stay as it is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::clock::instant;

/// How long a connection may be idle.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Before a user's first request on it.
    pub stranger: Duration,
    /// After that.
    pub user: Duration,
}

/// What a connection waits for, and until when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// A request.
    Idle(Instant),
    /// The end of an answer.
    Answer(Instant),
    /// Answers that may last as long as the connection.
    Never,
}

/// Requests that are being answered.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
    /// Is notified when a request begins or ends, or its deadline goes.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    next: u64,
    /// With their deadlines, unless they may last.
    exchanges: BTreeMap<u64, Option<Instant>>,
    /// When the last exchange ended, or the connection began.
    idle_since: Instant,
}

/// One request, until its answer is sent or given up.
#[derive(Debug)]
pub struct Exchange {
    number: u64,
    activity: Arc<Activity>,
}

impl Activity {
    pub fn new(now: Instant) -> Self {
        Self {
            state: Mutex::new(State {
                next: 0,
                exchanges: BTreeMap::new(),
                idle_since: now,
            }),
            changed: Notify::new(),
        }
    }

    /// A request begins, which must be answered by then.
    pub fn begin(self: &Arc<Self>, by: Instant) -> Exchange {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.exchanges.insert(number, Some(by));
        drop(state);
        self.changed.notify_one();
        Exchange {
            number,
            activity: Arc::clone(self),
        }
    }

    /// Waits until something changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns what the connection waits for.
    pub fn due(&self, patience: Patience, has_user: bool) -> Due {
        self.state().due(patience, has_user)
    }

    /// Poisoning is harmless: every critical section leaves the state consistent.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn due(&self, patience: Patience, has_user: bool) -> Due {
        if self.exchanges.is_empty() {
            let patience = if has_user {
                patience.user
            } else {
                patience.stranger
            };
            return Due::Idle(self.idle_since + patience);
        }
        let earliest = self.exchanges.values().flatten().min();
        earliest.map_or(Due::Never, |at| Due::Answer(*at))
    }
}

impl Exchange {
    /// The answer may last as long as the connection.
    pub fn lasts(&self) {
        self.activity.state().exchanges.insert(self.number, None);
        self.activity.changed.notify_one();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.exchanges.remove(&self.number);
        state.idle_since = instant();
        drop(state);
        self.activity.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        stranger: Duration::from_secs(1),
        user: Duration::from_secs(10),
    };

    #[tokio::test(start_paused = true)]
    async fn a_connection_waits_for_its_earliest_answer_or_else_for_a_request() {
        let begin = instant();
        let activity = Arc::new(Activity::new(begin));
        assert_eq!(
            activity.due(PATIENCE, false),
            Due::Idle(begin + PATIENCE.stranger)
        );
        assert_eq!(
            activity.due(PATIENCE, true),
            Due::Idle(begin + PATIENCE.user)
        );
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (late, early) = (activity.begin(at(9)), activity.begin(at(5)));
        assert_eq!(activity.due(PATIENCE, true), Due::Answer(at(5)));
        early.lasts();
        assert_eq!(activity.due(PATIENCE, true), Due::Answer(at(9)));
        drop(late);
        assert_eq!(activity.due(PATIENCE, true), Due::Never);
        tokio::time::advance(Duration::from_secs(3)).await;
        drop(early);
        assert_eq!(activity.due(PATIENCE, true), Due::Idle(at(13)));
    }
}
