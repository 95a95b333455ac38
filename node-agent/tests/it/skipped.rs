//! What a test does not try here, so that somebody hears of it: the harness keeps what a passing test says to itself.

use std::{env, fmt::Display, fs::OpenOptions, io::Write as _};

/// Where such lines go besides standard error, for who runs the tests and shows them at the end.
const FILE: &str = "FAIRLEAD_SKIPPED";

/// Says that `what` is not tried, and why.
pub fn skipped(what: &str, why: impl Display) {
    let why = why.to_string().replace('\n', " ");
    let line = format!("SKIPPED {what}: {why}\n");
    eprint!("{line}");
    let Some(path) = env::var_os(FILE) else {
        return;
    };
    // One write: other tests append to it, too.
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(line.as_bytes()).unwrap();
}
