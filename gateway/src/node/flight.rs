//! Where one invocation is on its way to the device and back.
//!
//! ```text
//! Sent ──result──────────────────────────► Ending ──written──► Ended ──left the index──► (forgotten)
//!  │ 100 ms                                 ▲   │ API server away
//!  └──► Marking (writes Dispatched) ──result┘   └──► Retrying ──► Ending
//! ```

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::writes::Answer;
use crate::domain::invocation::OpenInvocation;

/// An invocation that a stream deals with.
pub struct Flight {
    /// The newest version that is known; absent for a result of something that the index does not have.
    pub invocation: Option<Arc<OpenInvocation>>,
    pub name: String,
    pub state: State,
    /// The device reported a result, and waits for the ack.
    pub wants_ack: bool,
    /// Writes of its end that failed.
    pub failures: u32,
}

/// How far it came.
pub enum State {
    /// The device has it, or will.
    Sent {
        awaited: Awaited,
        mark_at: Option<Instant>,
    },
    /// `Dispatched` is being written. What the device answers meanwhile waits.
    Marking {
        awaited: Awaited,
        answer: Option<Answer>,
    },
    /// The end is being written.
    Ending,
    /// The end could not be written.
    Retrying { answer: Answer, at: Instant },
    /// Somebody else wrote to it: decide anew.
    LookAgain { at: Instant },
    /// The end is in Kubernetes; the index has yet to hear.
    Ended,
}

/// What the device was told, and what it is expected to say.
#[derive(Clone, Copy)]
pub struct Awaited {
    pub sent: Timestamp,
    /// Past it, nobody waits for an answer.
    pub until: Timestamp,
    pub cancel_sent: bool,
}

impl Flight {
    /// When something is to be done about it.
    pub fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Sent { mark_at, .. } => *mark_at,
            State::Retrying { at, .. } | State::LookAgain { at } => Some(*at),
            State::Marking { .. } | State::Ending | State::Ended => None,
        }
    }
}
