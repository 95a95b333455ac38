//! Everything that needs a real API server: one is booted for the whole run, each trial has a namespace of its own.
//!
//! A new topic is a file with `pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial>` and a line in [`trials`].
//! `cargo test -p e2e --test it -- FILTER` runs a part.

mod admission;
mod agent;
mod artefacts;
mod attacks;
mod authority;
mod client_examples;
mod commands;
mod console;
mod decision;
mod door;
mod entry;
mod events;
mod fixture;
mod guarded;
mod hostile_gateway;
mod invocation;
mod mediation;
mod misbehaviour;
mod node_json;
mod oidc;
mod plugin;
mod renewal;
mod smoke;
mod standby;
mod trust;
mod upheaval;
mod upkeep;

use std::process::ExitCode;
use std::sync::Arc;

use e2e::stack::Programs;
use libtest_mimic::{Arguments, Trial};

use fixture::Fixture;

fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    [
        smoke::trials(fixture),
        admission::trials(fixture),
        door::trials(fixture),
        decision::trials(fixture),
        commands::trials(fixture),
        console::trials(fixture),
        client_examples::trials(fixture),
        plugin::trials(fixture),
        misbehaviour::trials(fixture),
        attacks::trials(fixture),
        node_json::trials(fixture),
        trust::trials(fixture),
        events::trials(fixture),
        agent::trials(fixture),
        mediation::trials(fixture),
        renewal::trials(fixture),
        upkeep::trials(fixture),
        standby::trials(fixture),
        hostile_gateway::trials(fixture),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::from_args();
    let fixture = Fixture::new()?;
    let trials = trials(&fixture);
    // First, for it wants to find nothing wrong.
    let mut upheavals = plugin::upheavals(&fixture);
    upheavals.extend(upheaval::trials(&fixture));
    upheavals.extend(artefacts::trials(&fixture));
    upheavals.extend(entry::trials(&fixture));
    upheavals.extend(oidc::trials(&fixture));
    upheavals.extend(renewal::upheavals(&fixture));
    upheavals.extend(guarded::upheavals(&fixture));
    upheavals.extend(authority::upheavals(&fixture));
    let all = || trials.iter().chain(&upheavals);
    let runs = |topic: &str| {
        let mut of_topic = all().filter(|trial| trial.name().starts_with(topic));
        !arguments.list && of_topic.any(|trial| !arguments.is_filtered_out(trial))
    };
    if runs(plugin::TOPIC) || runs(client_examples::TOPIC) {
        Programs::build_clients()?;
    }
    if runs("") {
        fixture.boot()?;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // What kills shared processes runs alone, and last.
    let one_by_one = Arguments {
        test_threads: Some(1),
        ..arguments
    };
    let upheaval = libtest_mimic::run(&one_by_one, upheavals);
    let failed = conclusion.has_failed() || upheaval.has_failed();
    fixture.tear_down(failed)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
