//! What the agent is asked to do, read from the wire once; and how it ends.

use std::time::Duration;

use proto::{
    MAX_TIMEOUT_SECONDS,
    node::{self, FailureCode, Outcome, gateway_event::Event as FromGateway},
};
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};

use crate::{
    host::clock::Moment,
    journal::{
        Mark, Uid,
        ledger::{FRAME_BYTES, without_output},
        mark::MAX_KEY_BYTES,
    },
    mediation::rules::{Decision, MAX_PATTERN_BYTES, MAX_REASON_BYTES},
    terminal::{cut, printable},
};

/// Longest time until a deadline, whatever a gateway sends: none keeps a place of the agent for longer.
const MAX_TIME: Duration = Duration::from_secs(MAX_TIMEOUT_SECONDS as u64);
/// Largest input, in bytes, whatever a gateway sends.
pub const MAX_INPUT_BYTES: usize = 32 * 1024;
/// Largest output, in bytes, whatever is asked for: what a gateway reads.
pub const MAX_OUTPUT_BYTES: usize = 256 * 1024;
/// What is meant where nothing is said.
const DEFAULT_OUTPUT_BYTES: usize = 64 * 1024;
/// What is said of what was cancelled and had begun; whatever else is said of what was cancelled, it had not.
pub const STOPPED_WHILE_IT_RAN: &str = "stopped while it ran";
/// Longest name of a resource.
const MAX_NAME_BYTES: usize = 253;

/// One invocation to run, at most once ever.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Order {
    pub uid: Uid,
    /// Name of the CapabilityInvocation.
    pub name: String,
    pub capability: String,
    /// JSON, not looked at yet.
    pub input: Vec<u8>,
    /// Counted from the moment of receipt, by this machine's own time line.
    pub deadline: Moment,
    pub max_output_bytes: usize,
    pub requested_by: String,
    pub sharing: Sharing,
    /// A person is asked, whatever the capability says.
    pub mediate: bool,
    /// Who allowed it, where somebody had to.
    pub decision: Option<Decision>,
}

/// Whether an invocation is one with others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    Alone,
    /// With all that have the same idempotency key.
    With(Mark),
    /// The key is longer than may be.
    KeyTooLong,
}

impl Sharing {
    fn of(key: &str, capability: &str, input: &[u8], requester: &str) -> Self {
        match key.len() {
            0 => Self::Alone,
            1..=MAX_KEY_BYTES => Self::With(Mark::of(key, capability, input, requester)),
            _ => Self::KeyTooLong,
        }
    }
}

impl Order {
    /// Bytes that its result may take.
    pub fn reserve(&self) -> u64 {
        self.max_output_bytes as u64 + FRAME_BYTES
    }

    /// The same, allowed.
    pub fn decided(&self, decision: Decision) -> Self {
        Self {
            decision: Some(decision),
            ..self.clone()
        }
    }

    /// Its input, `null` where there is none; `None` where it is no JSON.
    pub fn json(&self) -> Option<&[u8]> {
        if self.input.is_empty() {
            return Some(b"null");
        }
        serde_json::from_slice::<IgnoredAny>(&self.input).ok()?;
        Some(&self.input)
    }

    /// Its idempotency key.
    pub fn mark(&self) -> Option<Mark> {
        match self.sharing {
            Sharing::With(mark) => Some(mark),
            Sharing::Alone | Sharing::KeyTooLong => None,
        }
    }
}

/// Why an invocation is stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    Cancelled,
    Deadline,
    /// The agent stops.
    Shutdown,
}

/// How a capability ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    Output(Vec<u8>),
    /// The output is in a file.
    Artefact(node::Artefact),
    Failed(FailureCode, String),
    Stopped(Why),
}

/// What a gateway wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wish {
    Dispatch(Box<Order>),
    /// The name is empty where the gateway does not say it.
    Cancel {
        uid: Uid,
        name: String,
    },
    Ack(Uid),
    /// Send of an output from there on, and so far.
    Wanted {
        uid: Uid,
        offset: u64,
        window: u64,
    },
    /// An output is stored.
    Stored(Uid),
    /// An output will not be stored.
    NotStored {
        uid: Uid,
        message: String,
    },
}

/// Reads what came from a gateway at `received_at`. `None` for what is not for the agent, or no wish: a uid that is none
/// cannot even be answered.
pub fn parse(event: FromGateway, received_at: Moment) -> Option<Wish> {
    match event {
        FromGateway::Dispatch(dispatch) => {
            order(dispatch, received_at).map(|order| Wish::Dispatch(Box::new(order)))
        }
        FromGateway::Cancel(node::Cancel { uid, name }) => cancel(&uid, name),
        FromGateway::ResultAck(node::ResultAck { uid }) => Uid::parse(&uid).map(Wish::Ack),
        FromGateway::ArtefactWanted(wanted) => Some(Wish::Wanted {
            uid: Uid::parse(&wanted.uid)?,
            offset: wanted.offset,
            window: wanted.window_bytes.into(),
        }),
        FromGateway::ArtefactStored(stored) => Uid::parse(&stored.uid).map(Wish::Stored),
        FromGateway::ArtefactRefused(node::ArtefactRefused { uid, message }) => {
            Some(Wish::NotStored {
                uid: Uid::parse(&uid)?,
                message: printable(&message),
            })
        }
        FromGateway::Welcome(_)
        | FromGateway::Drain(_)
        | FromGateway::HeartbeatAck(_)
        | FromGateway::Renewed(_) => None,
    }
}

fn cancel(uid: &str, mut name: String) -> Option<Wish> {
    let uid = Uid::parse(uid)?;
    if name.len() > MAX_NAME_BYTES {
        name.clear();
    }
    Some(Wish::Cancel { uid, name })
}

fn order(dispatch: node::Dispatch, received_at: Moment) -> Option<Order> {
    let node::Dispatch {
        uid,
        name,
        capability,
        input,
        remaining_ms,
        max_output_bytes,
        requested_by,
        idempotency_key,
        mediate,
    } = dispatch;
    let max_output_bytes = match max_output_bytes as usize {
        0 => DEFAULT_OUTPUT_BYTES,
        bytes => bytes.min(MAX_OUTPUT_BYTES),
    };
    let remaining = Duration::from_millis(remaining_ms.into());
    let fits = |text: &str| (1..=MAX_NAME_BYTES).contains(&text.len());
    // A result without a name is never recorded, for it could not be told of whom it is.
    let fits = fits(&name) && fits(&capability);
    Some(Order {
        uid: Uid::parse(&uid).filter(|_| fits)?,
        sharing: Sharing::of(&idempotency_key, &capability, &input, &requested_by),
        name,
        capability,
        input,
        deadline: received_at.after(remaining.min(MAX_TIME)),
        max_output_bytes,
        requested_by,
        mediate,
        decision: None,
    })
}

/// What is told of a decision.
pub fn mediation(Decision { by, reason }: &Decision) -> node::Mediation {
    node::Mediation {
        by: cut(by, MAX_PATTERN_BYTES).to_owned(),
        reason: cut(reason, MAX_REASON_BYTES).to_owned(),
    }
}

/// What is told of an invocation that ran.
pub fn result(order: &Order, ending: Ending) -> node::Result {
    node::Result {
        mediation: order.decision.as_ref().map(mediation),
        ..result_of(order, ending)
    }
}

fn result_of(order: &Order, ending: Ending) -> node::Result {
    let without = |outcome, code, message: &str| {
        without_output(&order.uid, &order.name, outcome, code, message)
    };
    match ending {
        Ending::Output(output) if output.len() > order.max_output_bytes => without(
            Outcome::Failed,
            FailureCode::OutputTooLarge,
            &format!(
                "it ran, and its output has {} bytes where {} are asked for at most",
                output.len(),
                order.max_output_bytes
            ),
        ),
        // A moment past its deadline or not: it was done, and TimedOut would say that it was not.
        Ending::Output(output) => node::Result {
            uid: order.uid.as_str().to_owned(),
            name: order.name.clone(),
            outcome: Outcome::Succeeded.into(),
            output_sha256: Sha256::digest(&output).to_vec(),
            output,
            ..node::Result::default()
        },
        Ending::Artefact(artefact) => node::Result {
            uid: order.uid.as_str().to_owned(),
            name: order.name.clone(),
            outcome: Outcome::Succeeded.into(),
            output_sha256: artefact.sha256.clone(),
            artefact: Some(artefact),
            ..node::Result::default()
        },
        // The capability has a time of its own, and that was over.
        Ending::Failed(code @ FailureCode::DeadlineExceeded, message) => {
            without(Outcome::TimedOut, code, &message)
        }
        Ending::Failed(code, message) => without(Outcome::Failed, code, &message),
        Ending::Stopped(Why::Cancelled) => without(
            Outcome::Cancelled,
            FailureCode::Cancelled,
            STOPPED_WHILE_IT_RAN,
        ),
        Ending::Stopped(Why::Deadline) => without(
            Outcome::TimedOut,
            FailureCode::DeadlineExceeded,
            "stopped at its deadline",
        ),
        Ending::Stopped(Why::Shutdown) => without(
            Outcome::Unknown,
            FailureCode::AgentRestarted,
            "the agent was stopped while it ran: it may have had its effect",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(5_000);

    fn dispatch() -> node::Dispatch {
        node::Dispatch {
            uid: "a".to_owned(),
            name: "check".to_owned(),
            capability: "echo".to_owned(),
            input: b"1".to_vec(),
            remaining_ms: 1_000,
            max_output_bytes: 10,
            requested_by: "jane".to_owned(),
            ..node::Dispatch::default()
        }
    }

    fn read(dispatch: node::Dispatch) -> Option<Order> {
        match parse(FromGateway::Dispatch(dispatch), NOW) {
            Some(Wish::Dispatch(order)) => Some(*order),
            Some(_) | None => None,
        }
    }

    #[test]
    fn time_counts_from_the_receipt_and_sizes_are_bounded() {
        let order = read(dispatch()).unwrap();
        assert_eq!(order.deadline, Moment::from_millis(6_000));
        let endless = node::Dispatch {
            remaining_ms: u32::MAX,
            ..dispatch()
        };
        assert_eq!(read(endless).unwrap().deadline, NOW.after(MAX_TIME));
        for (asked, expected) in [
            (0, DEFAULT_OUTPUT_BYTES),
            (10, 10),
            (u32::MAX, MAX_OUTPUT_BYTES),
        ] {
            let order = read(node::Dispatch {
                max_output_bytes: asked,
                ..dispatch()
            });
            assert_eq!(order.unwrap().max_output_bytes, expected);
        }
    }

    #[test]
    fn a_key_is_bounded_and_none_is_none() {
        let same = |key: &str| Sharing::With(Mark::of(key, "echo", b"1", "jane"));
        for (key, expected) in [
            (String::new(), Sharing::Alone),
            ("k".to_owned(), same("k")),
            ("k".repeat(128), same(&"k".repeat(128))),
            ("k".repeat(129), Sharing::KeyTooLong),
        ] {
            let order = read(node::Dispatch {
                idempotency_key: key,
                ..dispatch()
            });
            assert_eq!(order.unwrap().sharing, expected);
        }
    }

    #[test]
    fn what_is_no_order_is_dropped() {
        for wrong in [
            node::Dispatch {
                uid: String::new(),
                ..dispatch()
            },
            node::Dispatch {
                uid: "a\nb".to_owned(),
                ..dispatch()
            },
            node::Dispatch {
                name: "x".repeat(1000),
                ..dispatch()
            },
            node::Dispatch {
                name: String::new(),
                ..dispatch()
            },
        ] {
            assert_eq!(read(wrong), None);
        }
    }

    #[test]
    fn a_cancel_may_name_what_it_is_about() {
        for (name, expected) in [("check", "check"), ("", ""), (&"x".repeat(1000), "")] {
            let event = FromGateway::Cancel(node::Cancel {
                uid: "a".to_owned(),
                name: name.to_owned(),
            });
            let wish = Wish::Cancel {
                uid: Uid::parse("a").unwrap(),
                name: expected.to_owned(),
            };
            assert_eq!(parse(event, NOW), Some(wish));
        }
    }

    #[test]
    fn an_end_says_what_is_true() {
        let order = read(dispatch()).unwrap();
        for (ending, outcome, code) in [
            (Ending::Output(b"1".to_vec()), Outcome::Succeeded, None),
            (
                Ending::Output(vec![b'1'; 11]),
                Outcome::Failed,
                Some(FailureCode::OutputTooLarge),
            ),
            (
                Ending::Failed(FailureCode::InvalidInput, "no".to_owned()),
                Outcome::Failed,
                Some(FailureCode::InvalidInput),
            ),
            (
                Ending::Failed(FailureCode::DeadlineExceeded, "its own time".to_owned()),
                Outcome::TimedOut,
                Some(FailureCode::DeadlineExceeded),
            ),
            (
                Ending::Stopped(Why::Cancelled),
                Outcome::Cancelled,
                Some(FailureCode::Cancelled),
            ),
            (
                Ending::Stopped(Why::Deadline),
                Outcome::TimedOut,
                Some(FailureCode::DeadlineExceeded),
            ),
            (
                Ending::Stopped(Why::Shutdown),
                Outcome::Unknown,
                Some(FailureCode::AgentRestarted),
            ),
        ] {
            let result = result(&order, ending.clone());
            assert_eq!(result.outcome(), outcome, "{ending:?}");
            assert_eq!(result.failure.map(|f| f.code()), code, "{ending:?}");
        }
    }

    #[test]
    fn what_was_cancelled_says_whether_it_had_begun() {
        let order = read(dispatch()).unwrap();
        let stopped = result(&order, Ending::Stopped(Why::Cancelled));
        assert_eq!(stopped.failure.unwrap().message, STOPPED_WHILE_IT_RAN);
    }

    #[test]
    fn who_allowed_it_is_told_whatever_the_end() {
        let decision = Decision {
            by: "ä".repeat(200),
            reason: "x".repeat(600),
        };
        let order = read(dispatch()).unwrap().decided(decision);
        for ending in [Ending::Output(Vec::new()), Ending::Stopped(Why::Deadline)] {
            let mediation = result(&order, ending).mediation.unwrap();
            assert_eq!((mediation.by.len(), mediation.reason.len()), (252, 512));
        }
    }

    #[test]
    fn a_result_carries_the_digest_of_its_output() {
        let order = read(dispatch()).unwrap();
        let result = result(&order, Ending::Output(b"1".to_vec()));
        assert_eq!(result.output_sha256, Sha256::digest(b"1").to_vec());
    }
}
