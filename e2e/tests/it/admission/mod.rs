//! What a real API server refuses and what it lets pass: every rule of the schemas, the policies and the roles, with the
//! message that a person would see.
//!
//! The rules are tables of steps, see [`step`]. They have a control plane of their own ([`ground`]), where no operator
//! and no gateway runs: here the trials play them.

mod counters;
mod devices;
mod gateways;
mod ground;
mod invocations;
mod metadata;
mod numbers;
mod objects;
mod pairing_codes;
mod pairing_requests;
mod probe;
mod programs;
mod roles;
mod step;

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use crate::fixture::Fixture;
use ground::Ground;
use step::Rule;

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    let ground = Arc::new(Ground::new(fixture.folder().join("admission")));
    let rules = [
        pairing_requests::rules(),
        pairing_codes::rules(),
        devices::rules(),
        invocations::rules(),
        gateways::rules(),
        programs::rules(),
        metadata::rules(),
        numbers::rules(),
        counters::rules(),
        probe::rules(),
    ];
    let mut trials: Vec<Trial> = rules
        .into_iter()
        .flatten()
        .map(|rule| trial(&ground, rule))
        .collect();
    let ground = Arc::clone(&ground);
    trials.push(Trial::test(
        "admission::roles_give_what_is_needed_and_nothing_else",
        move || ground.run(roles::check).map_err(failed),
    ));
    trials
}

fn trial(ground: &Arc<Ground>, rule: Rule) -> Trial {
    let ground = Arc::clone(ground);
    Trial::test(format!("admission::{}", rule.name), move || {
        ground
            .run(async |plane| rule.run(plane).await)
            .map_err(failed)
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of map_err")]
fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}
