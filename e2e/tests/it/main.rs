//! Everything that needs a real API server: one is booted for the whole run, each trial has a namespace of its own.
//!
//! A new topic is a file with `pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial>` and a line in [`trials`].
//! `cargo test -p e2e --test it -- FILTER` runs a part.

mod commands;
mod door;
mod fixture;
mod smoke;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use fixture::Fixture;

fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    [
        smoke::trials(fixture),
        door::trials(fixture),
        commands::trials(fixture),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::from_args();
    let fixture = Fixture::new()?;
    let trials = trials(&fixture);
    let nothing_to_run =
        arguments.list || trials.iter().all(|trial| arguments.is_filtered_out(trial));
    if !nothing_to_run {
        fixture.boot()?;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    fixture.tear_down(conclusion.has_failed())?;
    Ok(conclusion.exit_code())
}
