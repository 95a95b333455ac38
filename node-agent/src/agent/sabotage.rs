//! Breaks the journal's promise on purpose, so that it can be seen that the check of resources against the world
//! notices. In debug builds alone, and where the environment asks for it.

use crate::journal::Record;

/// Asks for it.
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
