//! What is due for a device's invocations, and what became of what was written. Also after the stream has ended.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use tokio::time::{Instant, sleep_until, timeout};

use super::Dispatcher;
use crate::{
    clock,
    domain::{device::DeviceKey, fit::Fit, invocation::OpenInvocation},
    node::{
        api,
        flight::{Again, Flight, State},
        jitter::jitter,
        metrics::LeftAside,
        writes::{Answer, Finish, finish, mark, tell},
    },
};
use crds::v1alpha1::capability_invocation::Progress;

/// How long before a mark is tried again: it is of use, but nothing waits for it.
const MARK_AGAIN: Duration = Duration::from_secs(2);
/// How long before an invocation that somebody else wrote to is looked at again: the watch brings it sooner.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long before an end is tried again. No longer: once the API server is back, others write what they think.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// How long the end of a session waits until what was sent is marked. As long as the API server is away, the one can be
/// written as little as the other.
const MARK_TIME: Duration = Duration::from_mins(10);
/// How long the ends that are under way may take after that.
const SETTLE_TIME: Duration = Duration::from_secs(15);

/// Something that was under way and is done.
pub enum Done {
    Marked {
        uid: String,
        /// What was to be written with it.
        progress: Option<Progress>,
        /// Nothing but the progress.
        only_progress: bool,
        outcome: Result<Option<Arc<OpenInvocation>>, api::Error>,
    },
    Finished {
        uid: String,
        outcome: Result<Finish, (Answer, api::Error)>,
    },
    /// Whether an input fits; `None`: the check was not made.
    Judged(Option<Fit>),
}

impl Dispatcher {
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
            self.tick_one(uid, now);
        }
    }

    fn tick_one(&mut self, uid: String, now: Instant) {
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        match std::mem::replace(&mut flight.state, State::LookAgain { at: now }) {
            State::Sent { mark_at } => {
                if let Some(awaited) = &mut flight.awaited
                    && matches!(awaited.again, Again::At(at) if at <= now)
                {
                    // It is sent when next looked at.
                    awaited.again = Again::Now;
                }
                let marks = mark_at.is_some_and(|at| at <= now);
                flight.state = State::Sent { mark_at };
                if marks || flight.progress_is_due(now) {
                    self.mark(uid, now);
                }
            }
            State::Retrying { answer, .. } if !flight.is_outdated(&answer) => {
                self.end(uid, answer);
            }
            // It was sent: somebody else's write changes nothing about that.
            State::LookAgain { .. } | State::Retrying { .. } if flight.awaited.is_some() => {
                let pushed = flight.awaited.is_some_and(|awaited| awaited.pushed);
                let mark_at = (pushed && flight.lacks_phase()).then_some(now);
                flight.state = State::Sent { mark_at };
            }
            State::LookAgain { .. } | State::Retrying { .. } => {
                self.flights.remove(&uid);
            }
            state @ (State::Marking { .. } | State::Ending { .. } | State::Ended { .. }) => {
                flight.state = state;
            }
        }
    }

    /// Writes that it was sent and how far it came.
    fn mark(&mut self, uid: String, now: Instant) {
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        if !flight.begins_anew(clock::now()) {
            flight.state = State::Sent { mark_at: None };
            return;
        }
        let only_progress = !flight.lacks_phase();
        let Some((invocation, underway)) = flight.underway(now) else {
            flight.state = State::Sent { mark_at: None };
            return;
        };
        flight.state = State::Marking { answer: None };
        let shared = Arc::clone(&self.shared);
        self.work.push(Box::pin(async move {
            let progress = underway.progress.clone();
            let outcome = if only_progress {
                tell(&shared, invocation, underway).await
            } else {
                mark(&shared, invocation, underway).await
            };
            Done::Marked {
                uid,
                progress,
                only_progress,
                outcome,
            }
        }));
    }

    /// Writes the end of a flight.
    pub(super) fn end(&mut self, uid: String, answer: Answer) {
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        let ours = matches!(answer, Answer::Ours(_));
        if ours {
            flight.decided();
        }
        flight.state = State::Ending { ours, heard: None };
        let (shared, device) = (Arc::clone(&self.shared), self.device.clone());
        let (name, known) = (flight.name.clone(), flight.invocation.clone());
        self.work.push(Box::pin(async move {
            let outcome = finish(&shared, &device, &uid, &name, known, answer).await;
            Done::Finished { uid, outcome }
        }));
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
            Done::Marked {
                uid,
                progress,
                only_progress,
                outcome,
            } => self.marked(uid, progress, only_progress, outcome),
            Done::Finished { uid, outcome } => self.finished(uid, outcome),
            Done::Judged(fit) => self.judging.note(fit),
        }
    }

    fn marked(
        &mut self,
        uid: String,
        progress: Option<Progress>,
        only_progress: bool,
        outcome: Result<Option<Arc<OpenInvocation>>, api::Error>,
    ) {
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        let mut mark_at = None;
        match outcome {
            Ok(Some(invocation)) => {
                flight.marked(Some(invocation));
                // The device may have begun to ask meanwhile.
                mark_at = flight.lacks_phase().then(Instant::now);
            }
            // It ended or was deleted meanwhile. The index hears of it; an answer is looked up.
            Ok(None) => flight.marked(None),
            Err(cause) => {
                flight.keep_progress(progress);
                let error = &cause as &dyn std::error::Error;
                if only_progress {
                    tracing::debug!(error, device = %self.device, invocation = flight.name, "Writing the progress failed");
                } else {
                    // What is refused once is refused again.
                    let again = !matches!(cause, api::Error::Invalid(_));
                    mark_at = again.then(|| Instant::now() + MARK_AGAIN);
                    tracing::warn!(error, device = %self.device, invocation = flight.name, "Writing the phase failed");
                }
            }
        }
        if let State::Marking { answer } =
            std::mem::replace(&mut flight.state, State::Sent { mark_at })
            && let Some(answer) = answer
        {
            self.end(uid, answer);
        }
    }

    fn finished(&mut self, uid: String, outcome: Result<Finish, (Answer, api::Error)>) {
        let Some(flight) = self.flights.get_mut(&uid) else {
            return;
        };
        // What the device said while our own end was being written.
        let heard = if let State::Ending { heard, .. } = &mut flight.state {
            heard.take()
        } else {
            None
        };
        match outcome {
            Ok(Finish::Changed) => {
                match heard {
                    Some(answer) => self.end(uid, answer),
                    None => {
                        flight.state = State::LookAgain {
                            at: Instant::now() + LOOK_AGAIN,
                        };
                    }
                }
                return;
            }
            Ok(Finish::Written(phase)) => self.shared.metrics.ended(phase),
            Ok(Finish::LeftAside(reason)) => {
                if flight.wants_ack {
                    self.shared.metrics.left_aside(reason);
                }
                if let LeftAside::OtherDevice | LeftAside::OtherInvocation = reason {
                    tracing::warn!(
                        device = %self.device,
                        invocation = flight.name,
                        reason = ?reason,
                        "Result refused: it is not of an invocation of this device"
                    );
                }
            }
            Err((answer, error)) => {
                if flight.failures == 0 && !matches!(error, api::Error::NotYet) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        device = %self.device,
                        invocation = flight.name,
                        "Writing the end failed and is tried again"
                    );
                }
                let at = Instant::now() + retry_after(&self.device, flight.failures);
                flight.failures = flight.failures.saturating_add(1);
                let answer = heard.unwrap_or(answer);
                flight.state = State::Retrying { answer, at };
                return;
            }
        }
        if let Some(answer) = heard {
            // Ours is there, and the device says something else: it is read what is there, and told beside it.
            flight.invocation = None;
            self.end(uid, answer);
            return;
        }
        let heard = std::mem::take(&mut flight.wants_ack);
        flight.state = State::Ended { heard };
        if heard {
            self.acks.push_back(uid);
        }
    }

    /// The stream has ended: writes what is under way, and that the session ended.
    ///
    /// First of all it is written what was sent: whoever sees that the device has gone takes what is still queued for
    /// never sent.
    pub async fn settle(mut self, session_end: impl Future<Output = ()>) {
        let now = Instant::now();
        for flight in self.flights.values_mut() {
            if let State::Sent {
                mark_at: Some(mark_at),
            } = &mut flight.state
            {
                *mark_at = now;
            }
        }
        let _ = timeout(MARK_TIME, self.settle_marks()).await;
        let ends = async {
            while let Some(done) = self.work.next().await {
                self.note(done);
            }
        };
        // Past it, the device repeats what it has.
        let _ = tokio::join!(timeout(SETTLE_TIME, ends), session_end);
    }

    /// Until nothing that the device has is queued, as far as anybody can see.
    async fn settle_marks(&mut self) {
        loop {
            let now = Instant::now();
            self.flights.retain(|_, flight| flight.settles(now));
            if !self.flights.values().any(Flight::lacks_phase) {
                return;
            }
            let due: Vec<String> = self
                .flights
                .iter()
                .filter(|(_, flight)| flight.mark_at().is_some_and(|at| at <= now))
                .map(|(uid, _)| uid.clone())
                .collect();
            for uid in due {
                self.mark(uid, now);
            }
            let next = self.flights.values().filter_map(Flight::mark_at);
            let next = next.min().unwrap_or(now + MARK_TIME);
            tokio::select! {
                done = self.done() => self.note(done),
                () = sleep_until(next) => {}
            }
        }
    }
}

/// Longer each time, but not much, and different for each device.
fn retry_after(device: &DeviceKey, failures: u32) -> Duration {
    let wait = FIRST_RETRY
        .saturating_mul(1 << failures.min(10))
        .min(LAST_RETRY);
    wait.mul_f64(jitter(device, failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_tried_again_within_two_seconds_for_ever() {
        for failures in [0, 1, 5, 1000, u32::MAX] {
            let wait = retry_after(&DeviceKey::new("kitchen", "lamp-1"), failures);
            assert!(
                (FIRST_RETRY / 2..=Duration::from_secs(2)).contains(&wait),
                "{wait:?}"
            );
        }
    }
}
