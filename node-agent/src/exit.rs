//! How the process ends: each reason that a script may want to tell apart has its own code.

use crate::{
    config::document::Problem,
    enrol,
    install::Unfit,
    journal,
    mediation::{client, wire::Refused},
    state,
};

/// The exit codes of `fairlead-agent`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked is done.
    Done = 0,
    /// Something failed that has no code of its own; the message says what.
    Failed = 1,
    /// The command line cannot be read, or a code is none.
    Usage = 2,
    /// This device is not paired: `pair` first.
    NotPaired = 3,
    /// This device is paired already: `unpair` first.
    AlreadyPaired = 4,
    /// The code was not proved: wrong, used, locked and expired look alike. Trying again is a person's decision.
    CodeNotProved = 5,
    /// An approver denied the request.
    Denied = 6,
    /// Nobody decided in time.
    RequestExpired = 7,
    /// Approved, but no certificate could be issued.
    NotIssued = 8,
    /// Another process uses the state folder.
    Busy = 9,
    /// The state folder cannot be used: wrong owner, wrong mode, damaged, unreadable; the journal in it likewise.
    State = 10,
    /// No gateway could be reached, or none that had time.
    Unreachable = 11,
    /// Whoever answered is not the gateway that the pin or the code speaks of.
    GatewayNotTrusted = 12,
    /// The configuration, or a file that declares capabilities, is wrong; the message names the file and the line.
    Config = 13,
    /// A signal stopped it before it was done. What was reached is kept.
    Interrupted = 14,
    /// No agent listens at its socket.
    NotRunning = 15,
    /// This user may not answer for the device, or what listens at the socket is not to be believed.
    NotAllowed = 16,
    /// This host, or this user, cannot do that: no systemd, not root.
    Unfit = 17,
    /// What was answered does not wait for an answer, or is something else by now.
    NotAnswered = 18,
}

impl Exit {
    /// The code for what went wrong: the first cause in the chain that has one.
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(|cause| {
                if let Some(error) = cause.downcast_ref::<enrol::Error>() {
                    return Some(Self::of_enrolment(error));
                }
                if let Some(error) = cause.downcast_ref::<state::Error>() {
                    return Some(Self::of_state(error));
                }
                if let Some(error) = cause.downcast_ref::<client::Error>() {
                    return Some(Self::of_answer(error));
                }
                if cause.is::<Problem>() {
                    return Some(Self::Config);
                }
                if cause.is::<journal::OpenError>() {
                    return Some(Self::State);
                }
                if cause.is::<Interrupted>() {
                    return Some(Self::Interrupted);
                }
                cause.downcast_ref::<Refusal>().map(Refusal::exit)
            })
            .unwrap_or(Self::Failed)
    }

    fn of_enrolment(error: &enrol::Error) -> Self {
        match error {
            enrol::Error::CodeNotProved | enrol::Error::NotAdmitted => Self::CodeNotProved,
            enrol::Error::Denied { .. } => Self::Denied,
            enrol::Error::RequestExpired => Self::RequestExpired,
            enrol::Error::NotIssued { .. } => Self::NotIssued,
            enrol::Error::Unreachable { .. }
            | enrol::Error::Busy { .. }
            | enrol::Error::Lost { .. } => Self::Unreachable,
            enrol::Error::NotTrusted { .. } | enrol::Error::Forged(_) => Self::GatewayNotTrusted,
            enrol::Error::State(error) => Self::of_state(error),
            enrol::Error::Refused { .. } | enrol::Error::Protocol(_) | enrol::Error::Key(_) => {
                Self::Failed
            }
        }
    }

    fn of_answer(error: &client::Error) -> Self {
        match error {
            client::Error::NotRunning { .. } => Self::NotRunning,
            client::Error::NotAllowed { .. } | client::Error::NotTrusted { .. } => Self::NotAllowed,
            client::Error::Io { .. } => Self::Failed,
            client::Error::Refused { why, .. } => match why {
                Refused::NotAllowed => Self::NotAllowed,
                Refused::NotAsked | Refused::Changed => Self::NotAnswered,
                Refused::Malformed | Refused::NotRecorded | Refused::Busy => Self::Failed,
            },
        }
    }

    fn of_state(error: &state::Error) -> Self {
        match error {
            state::Error::Busy { .. } => Self::Busy,
            state::Error::Refused { .. }
            | state::Error::Io { .. }
            | state::Error::Damaged { .. }
            | state::Error::NoKey { .. } => Self::State,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A signal came first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "stopped by a signal; what was reached is kept: run pair again to go on, and once the code was proved, without it"
)]
pub struct Interrupted;

/// A command that cannot be carried out as things stand.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this device is not paired: run `fairlead-agent pair` with a code from your administrator"
    )]
    NotPaired,
    #[error(
        "this device is paired already, as {namespace}/{device}: run `fairlead-agent unpair` before you pair it anew"
    )]
    AlreadyPaired { namespace: String, device: String },
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

impl Refusal {
    fn exit(&self) -> Exit {
        match self {
            Self::NotPaired => Exit::NotPaired,
            Self::AlreadyPaired { .. } => Exit::AlreadyPaired,
            Self::Usage(_) => Exit::Usage,
            Self::Unfit(_) => Exit::Unfit,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_first_cause_with_a_code_decides() {
        let denied = enrol::Error::Denied {
            reason: "no".to_owned(),
            retry_after: std::time::Duration::ZERO,
        };
        for (error, expected) in [
            (anyhow::anyhow!("anything"), Exit::Failed),
            (anyhow::Error::from(Refusal::NotPaired), Exit::NotPaired),
            (
                anyhow::Error::from(Problem::of(std::path::Path::new("x"), "wrong")),
                Exit::Config,
            ),
            (
                Err::<(), _>(denied)
                    .context("pair this device")
                    .unwrap_err(),
                Exit::Denied,
            ),
            (
                anyhow::Error::from(enrol::Error::CodeNotProved),
                Exit::CodeNotProved,
            ),
            (
                anyhow::Error::from(journal::OpenError::NotAJournal("journal".into())),
                Exit::State,
            ),
            (anyhow::Error::from(Interrupted), Exit::Interrupted),
            (
                anyhow::Error::from(client::Error::NotRunning { path: "x".into() }),
                Exit::NotRunning,
            ),
        ] {
            assert_eq!(Exit::of(&error), expected, "{error:#}");
        }
    }

    /// Every code, in order: whoever adds one is led here.
    fn all() -> Vec<Exit> {
        fn next(exit: Exit) -> Option<Exit> {
            Some(match exit {
                Exit::Done => Exit::Failed,
                Exit::Failed => Exit::Usage,
                Exit::Usage => Exit::NotPaired,
                Exit::NotPaired => Exit::AlreadyPaired,
                Exit::AlreadyPaired => Exit::CodeNotProved,
                Exit::CodeNotProved => Exit::Denied,
                Exit::Denied => Exit::RequestExpired,
                Exit::RequestExpired => Exit::NotIssued,
                Exit::NotIssued => Exit::Busy,
                Exit::Busy => Exit::State,
                Exit::State => Exit::Unreachable,
                Exit::Unreachable => Exit::GatewayNotTrusted,
                Exit::GatewayNotTrusted => Exit::Config,
                Exit::Config => Exit::Interrupted,
                Exit::Interrupted => Exit::NotRunning,
                Exit::NotRunning => Exit::NotAllowed,
                Exit::NotAllowed => Exit::Unfit,
                Exit::Unfit => Exit::NotAnswered,
                Exit::NotAnswered => return None,
            })
        }
        std::iter::successors(Some(Exit::Done), |exit| next(*exit)).collect()
    }

    #[test]
    fn the_documentation_and_the_help_have_each_code_and_no_other() {
        let page = include_str!("../../docs/agent.md");
        let (_, table) = page.split_once("## Exit codes").unwrap();
        let rows = table.lines().filter_map(|line| {
            let code = line.strip_prefix("| ")?.split(' ').next()?;
            code.parse::<u8>().ok()
        });
        let codes: Vec<u8> = all().into_iter().map(|exit| exit as u8).collect();
        assert_eq!(rows.collect::<Vec<_>>(), codes);
        let words = crate::args::EXIT_CODES.split_whitespace();
        let mut shown: Vec<u8> = words.filter_map(|word| word.parse().ok()).collect();
        shown.sort_unstable();
        assert_eq!(shown, codes);
    }
}
