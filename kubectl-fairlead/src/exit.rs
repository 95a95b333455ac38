//! How the process ends, for scripts. docs/kubectl.md has the same table, and a test keeps it so.

use std::{fmt::Write as _, process::ExitCode};

use crds::v1alpha1::capability_invocation::InvocationPhase;

/// What came of it. The numbers are contract.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// Done. Of an invocation: Succeeded.
    Done,
    /// Failed; the message says why. Of `doctor`: something is wrong.
    Failed,
    /// The invocation is Failed.
    InvocationFailed,
    /// The person at the device, or its rules, refused the invocation.
    Refused,
    /// The invocation was not done in time.
    TimedOut,
    /// The invocation was cancelled.
    Cancelled,
    /// The invocation may have run; nobody can know.
    Unknown,
    /// Nobody decided, or somebody said no: here, or on the request.
    NotApproved,
    /// It goes on; who asked did not want to wait any longer.
    StillOpen,
    /// Stopped by a signal.
    Interrupted,
}

/// All of them, with what they mean.
const TABLE: &[(Exit, &str)] = &[
    (Exit::Done, "done; of `invoke`: the capability succeeded"),
    (
        Exit::Failed,
        "failed, see the message; of `doctor`: something is wrong",
    ),
    (Exit::InvocationFailed, "the invocation is Failed"),
    (
        Exit::Refused,
        "the person at the device, or its rules, refused it",
    ),
    (Exit::TimedOut, "the invocation is TimedOut"),
    (Exit::Cancelled, "the invocation is Cancelled"),
    (Exit::Unknown, "the invocation is Unknown: it may have run"),
    (
        Exit::NotApproved,
        "not approved: nobody came, somebody said no, or the request ended",
    ),
    (Exit::StillOpen, "what was waited for goes on"),
    (Exit::Interrupted, "stopped by Ctrl-C"),
];

/// For `--help`.
pub fn help() -> String {
    let mut text = "Exit codes:".to_owned();
    for (exit, means) in TABLE {
        // A string takes everything.
        let _ = write!(text, "\n  {:>3}  {means}", exit.code());
    }
    text + "\n    2  usage"
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            // 2 is clap's, for usage.
            Self::InvocationFailed => 3,
            Self::Refused => 4,
            Self::TimedOut => 5,
            Self::Cancelled => 6,
            Self::Unknown => 7,
            Self::NotApproved => 8,
            Self::StillOpen => 9,
            Self::Interrupted => 130,
        }
    }

    /// The worse of two ends of one command for several devices. What nobody can know is worse than a known failure.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if other.badness() > self.badness() {
            other
        } else {
            self
        }
    }

    fn badness(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::StillOpen => 1,
            Self::Cancelled => 2,
            Self::NotApproved => 3,
            Self::Refused => 4,
            Self::TimedOut => 5,
            Self::InvocationFailed => 6,
            Self::Failed => 7,
            Self::Unknown => 8,
            Self::Interrupted => 9,
        }
    }

    /// Of an invocation in that phase.
    pub fn of(phase: InvocationPhase) -> Self {
        match phase {
            InvocationPhase::Succeeded => Self::Done,
            InvocationPhase::Failed => Self::InvocationFailed,
            InvocationPhase::Refused => Self::Refused,
            InvocationPhase::TimedOut => Self::TimedOut,
            InvocationPhase::Cancelled => Self::Cancelled,
            InvocationPhase::Unknown => Self::Unknown,
            InvocationPhase::Queued
            | InvocationPhase::Dispatched
            | InvocationPhase::AwaitingMediation => Self::StillOpen,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_an_invocation_has_a_code_of_its_own() {
        let mut codes: Vec<_> = InvocationPhase::TERMINAL
            .map(|phase| Exit::of(phase).code())
            .to_vec();
        codes.sort_unstable();
        assert_eq!(codes, [0, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn the_worst_of_several_counts_in_any_order() {
        let worst = |exits: &[Exit]| exits.iter().copied().fold(Exit::Done, Exit::worse);
        let exits = [Exit::TimedOut, Exit::Done, Exit::Unknown, Exit::Failed];
        assert_eq!(worst(&exits), Exit::Unknown);
        let mut reversed = exits;
        reversed.reverse();
        assert_eq!(worst(&reversed), Exit::Unknown);
        assert_eq!(worst(&[]), Exit::Done);
        let mut badness: Vec<_> = TABLE.iter().map(|(exit, _)| exit.badness()).collect();
        badness.sort_unstable();
        badness.dedup();
        assert_eq!(badness.len(), TABLE.len(), "two ends are equally bad");
    }

    #[test]
    fn the_table_of_the_documentation_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kubectl.md");
        let text = std::fs::read_to_string(path).unwrap();
        for (exit, means) in TABLE {
            let line = format!("| {} | {means} |", exit.code());
            assert!(
                text.contains(&line),
                "docs/kubectl.md lacks the line:\n{line}"
            );
        }
    }
}
