//! How far a capability has come, as it says itself. Only the last word counts.

use tokio::sync::watch;

use crate::terminal::{cut, printable_within};

/// Longest message, in bytes, as the protocol has it.
const MAX_MESSAGE_BYTES: usize = 256;

/// One word of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Step {
    /// 100 at most.
    pub percent: u32,
    /// On one line. May be empty.
    pub message: String,
}

impl Step {
    /// Bounds what a capability says.
    pub fn new(percent: u32, message: &str) -> Self {
        let message = printable_within(message.trim(), MAX_MESSAGE_BYTES);
        Self {
            percent: percent.min(100),
            message: cut(&message, MAX_MESSAGE_BYTES).to_owned(),
        }
    }
}

/// Where a capability says how far it has come. Cheap to clone; by default nobody listens.
#[derive(Clone, Debug)]
pub struct Reporter(watch::Sender<Option<Step>>);

impl Default for Reporter {
    fn default() -> Self {
        Self::new().0
    }
}

impl Reporter {
    /// With the other end.
    pub fn new() -> (Self, watch::Receiver<Option<Step>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    /// Never waits; may be called as often as one likes.
    pub fn report(&self, step: Step) {
        self.0.send_replace(Some(step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_capability_says_is_bounded_and_on_one_line() {
        let step = Step::new(u32::MAX, &format!(" a\nb{}", "ä".repeat(300)));
        assert_eq!(step.percent, 100);
        assert!(step.message.starts_with("a bää"));
        assert!(step.message.len() <= 256);
    }

    #[test]
    fn the_last_word_counts_and_nobody_needs_to_listen() {
        let (reporter, heard) = Reporter::new();
        reporter.report(Step::new(1, "a"));
        reporter.clone().report(Step::new(2, "b"));
        assert_eq!(*heard.borrow(), Some(Step::new(2, "b")));
        drop(heard);
        reporter.report(Step::new(3, "c"));
        Reporter::default().report(Step::new(1, ""));
    }
}
