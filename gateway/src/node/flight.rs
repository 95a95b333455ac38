//! Where one invocation is on its way to the device and back.
//!
//! ```text
//! Sent ──result──────────────────────────► Ending ──written──► Ended ──left the index──► (forgotten)
//!  │ 100 ms, a person is asked, progress    ▲   │ API server away
//!  └──► Marking (writes what is so) ─result─┘   └──► Retrying ──► Ending
//! ```

use std::{sync::Arc, time::Duration};

use crds::v1alpha1::capability_invocation::{InvocationPhase, Progress};
use jiff::Timestamp;
use tokio::time::Instant;

use super::writes::Answer;
use crate::{
    clock,
    domain::{invocation::OpenInvocation, underway::Underway},
};

/// How long before the first progress is written, and between two. What ends before has none.
const BETWEEN_PROGRESS: Duration = Duration::from_secs(5);

/// An invocation that a stream deals with.
pub struct Flight {
    /// The newest version that is known; absent for a result of something that the index does not have.
    pub invocation: Option<Arc<OpenInvocation>>,
    pub name: String,
    pub state: State,
    /// What this stream told the device, if it did.
    pub awaited: Option<Awaited>,
    /// The device asks a person.
    pub asks: bool,
    /// How far it came, if that is not written yet.
    progress: Option<Progress>,
    /// No progress is written before.
    progress_at: Instant,
    /// The device reported a result, and waits for the ack.
    pub wants_ack: bool,
    /// Writes of its end that failed.
    pub failures: u32,
    /// The version that an end of ours was decided on.
    decided_on: Option<String>,
}

/// How far it came.
pub enum State {
    /// The device has it, or will.
    Sent { mark_at: Option<Instant> },
    /// That it was sent, or how far it came, is being written. What the device answers meanwhile waits.
    Marking { answer: Option<Answer> },
    /// The end is being written. What the device answers meanwhile, if the end is ours, is worth more.
    Ending { ours: bool, heard: Option<Answer> },
    /// The end could not be written.
    Retrying { answer: Answer, at: Instant },
    /// Somebody else wrote to it: decide anew.
    LookAgain { at: Instant },
    /// The end is in Kubernetes; the index has yet to hear. `heard`: it is the device's, or what the device said is there
    /// beside it.
    Ended { heard: bool },
}

/// What the device was told, and what it is expected to say.
#[derive(Clone, Copy)]
pub struct Awaited {
    pub sent: Timestamp,
    /// Past it, nobody waits for an answer.
    pub until: Timestamp,
    /// It was sent, and not only cancelled.
    pub pushed: bool,
    pub cancel_sent: bool,
    pub again: Again,
    /// The person at the device is to be asked, whatever the device declares. What is sent once more must not ask where
    /// it did not at first, or the other way round.
    pub mediate: bool,
}

/// Whether it is sent once more, so that the device repeats what there was no memory for; or for the first time.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Again {
    No,
    At(Instant),
    Now,
    /// It is sent when it is written that it is: somebody may have ended it that this gateway has not heard of yet.
    WhenMarked,
    /// That is written, and it is sent once nothing older is to be.
    Marked,
}

impl Flight {
    pub fn new(name: &str, invocation: Option<Arc<OpenInvocation>>, state: State) -> Self {
        Self {
            invocation,
            name: name.to_owned(),
            state,
            awaited: None,
            asks: false,
            progress: None,
            progress_at: Instant::now() + BETWEEN_PROGRESS,
            wants_ack: false,
            failures: 0,
            decided_on: None,
        }
    }

    /// When something is to be done about it.
    pub fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Sent { mark_at } => {
                let again = match self.awaited.map(|awaited| awaited.again) {
                    Some(Again::At(at)) => Some(at),
                    Some(Again::No | Again::Now | Again::WhenMarked | Again::Marked) | None => None,
                };
                let progress_at = self.progress.as_ref().map(|_| self.progress_at);
                [*mark_at, again, progress_at].into_iter().flatten().min()
            }
            State::Retrying { at, .. } | State::LookAgain { at } => Some(*at),
            State::Marking { .. } | State::Ending { .. } | State::Ended { .. } => None,
        }
    }

    /// An end of ours was decided, on what is known now.
    pub fn decided(&mut self) {
        self.decided_on = self.version().map(str::to_owned);
    }

    /// Whether that is an end of ours, decided on what is not there any more. What failed to be written then must not be
    /// written over what came since.
    pub fn is_outdated(&self, answer: &Answer) -> bool {
        matches!(answer, Answer::Ours(_)) && self.version() != self.decided_on.as_deref()
    }

    fn version(&self) -> Option<&str> {
        let known = self.invocation.as_ref()?;
        Some(&known.resource_version)
    }

    /// Whether the phase does not say yet what this stream knows.
    pub fn lacks_phase(&self) -> bool {
        let phase = self.invocation.as_ref().map(|known| known.phase());
        match phase {
            Some(InvocationPhase::Queued) => true,
            Some(InvocationPhase::Dispatched) => self.asks,
            _ => false,
        }
    }

    /// Whether it takes one of the places of its device: it was sent on this stream, or will be, and its end is not there.
    pub fn takes_place(&self) -> bool {
        let is_sent = self
            .awaited
            .is_some_and(|awaited| awaited.pushed || awaited.again == Again::WhenMarked);
        is_sent && !matches!(self.state, State::Ended { .. })
    }

    /// Whether it was sent on this stream: the device knows it, and its idempotency key.
    pub fn is_known(&self) -> bool {
        self.awaited.is_some_and(|awaited| awaited.pushed)
    }

    /// Whether it is to be sent for the first time, and nothing younger before it.
    pub fn is_first(&self) -> bool {
        match self.awaited.map(|awaited| awaited.again) {
            Some(Again::Marked) => true,
            Some(Again::WhenMarked) => match self.state {
                State::Marking { .. } => true,
                // Where nothing is tried any more it is not waited for.
                State::Sent { mark_at } => mark_at.is_some(),
                State::Ending { .. }
                | State::Retrying { .. }
                | State::LookAgain { .. }
                | State::Ended { .. } => false,
            },
            Some(Again::No | Again::At(_) | Again::Now) | None => false,
        }
    }

    /// Whether it is not sent before it is marked.
    fn waits_for_mark(&self) -> bool {
        self.awaited
            .is_some_and(|awaited| awaited.again == Again::WhenMarked)
    }

    /// About to be marked before it is sent, it is sent no sooner than now: its time is not to go by while the mark is
    /// tried. False: its time is over, and it is not sent.
    pub fn begins_anew(&mut self, now: Timestamp) -> bool {
        let (true, Some(invocation), Some(awaited)) =
            (self.waits_for_mark(), &self.invocation, &mut self.awaited)
        else {
            return true;
        };
        awaited.sent = now;
        awaited.until = invocation.answer_by(now);
        let has_time = invocation.remaining(now).is_some();
        if !has_time {
            self.progress = None;
        }
        has_time
    }

    /// It was marked, or is not there to be marked.
    pub fn marked(&mut self, invocation: Option<Arc<OpenInvocation>>) {
        self.invocation = invocation;
        if let Some(awaited) = &mut self.awaited
            && awaited.again == Again::WhenMarked
        {
            if self.invocation.is_some() {
                awaited.again = Again::Marked;
                awaited.pushed = true;
            } else {
                // It was never sent: there is nothing to stop, and no answer.
                self.awaited = None;
            }
        }
    }

    /// When that it was sent is to be written.
    pub fn mark_at(&self) -> Option<Instant> {
        if let State::Sent { mark_at } = self.state {
            mark_at
        } else {
            None
        }
    }

    /// The stream has ended. Whether something about it is still to be written: first of all that it was sent. What the
    /// device answered it says again, and nobody must take it for never sent until then.
    pub fn settles(&mut self, now: Instant) -> bool {
        let pushed = self.awaited.is_some_and(|awaited| awaited.pushed);
        let known_there = match &self.state {
            State::Marking { .. } | State::Ending { .. } => return true,
            State::Sent { mark_at } => return mark_at.is_some() && !self.waits_for_mark(),
            State::Retrying { answer, .. } => pushed || matches!(answer, Answer::Device { .. }),
            State::LookAgain { .. } => pushed,
            State::Ended { .. } => return false,
        };
        if !known_there || !self.lacks_phase() {
            return false;
        }
        self.awaited.get_or_insert_with(|| {
            let sent = clock::now();
            Awaited {
                sent,
                until: sent,
                pushed: false,
                cancel_sent: false,
                again: Again::No,
                mediate: true,
            }
        });
        self.state = State::Sent { mark_at: Some(now) };
        true
    }

    /// The device tells how far it came.
    pub fn progressed(&mut self, progress: Progress) {
        self.progress = Some(progress);
    }

    pub fn progress_is_due(&self, now: Instant) -> bool {
        self.progress.is_some() && self.progress_at <= now
    }

    /// What is to be written now that it is not done yet. A progress that is due goes with it.
    pub fn underway(&mut self, now: Instant) -> Option<(Arc<OpenInvocation>, Underway)> {
        let (Some(invocation), Some(awaited)) = (self.invocation.clone(), self.awaited) else {
            // Nothing is under way any more.
            self.progress = None;
            return None;
        };
        let progress = if self.progress_at <= now {
            self.progress.take()
        } else {
            None
        };
        if progress.is_some() {
            self.progress_at = now + BETWEEN_PROGRESS;
        }
        let underway = Underway {
            sent: awaited.sent,
            asks: self.asks,
            progress,
        };
        Some((invocation, underway))
    }

    /// A progress was not written: it is, next time, unless there is a newer one.
    pub fn keep_progress(&mut self, progress: Option<Progress>) {
        if self.progress.is_none() {
            self.progress = progress;
        }
    }
}
