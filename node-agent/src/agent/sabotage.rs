//! Breaks the journal's promise on purpose, so that it can be seen that the check of resources against the world
//! notices; and lets the agent die where a signal from outside seldom meets it. In debug builds alone, and where the
//! environment asks for it.

use crate::{journal::Record, upstream::backoff};

/// Asks for deaths: one moment at which the journal is written and the next effect is not yet had, in so many, is the last.
const DEATHS: &str = "FAIRLEAD_TEST_DEATHS";
/// Asks for the effect first.
const SWITCH: &str = "FAIRLEAD_TEST_EFFECT_BEFORE_JOURNAL";

/// What is left of the records when what must be durable before an effect is not written.
pub fn of(records: Vec<Record>) -> Vec<Record> {
    if std::env::var_os(SWITCH).is_none() {
        return records;
    }
    records
        .into_iter()
        .filter(|record| !matches!(record, Record::Waiting { .. } | Record::Accepted { .. }))
        .collect()
}

/// Between the journal's write and an effect, and between two of those. Nothing is said or cleaned up, as by SIGKILL.
pub fn may_die() {
    let said = std::env::var(DEATHS).ok();
    let moments = said.and_then(|said| said.parse::<u32>().ok());
    if moments.is_some_and(|moments| backoff::random() * f64::from(moments) < 1.0) {
        std::process::abort();
    }
}
