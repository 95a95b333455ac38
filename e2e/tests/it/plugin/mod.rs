//! `kubectl fairlead` as a process: what people type, see and get, with the rights that they have.
//!
//! Each trial is a long life, for a namespace with a device in it is what costs.

mod doctor;
mod invoking;
mod keeping;
mod pairing;
pub mod person;
mod refused;

use std::sync::Arc;

use libtest_mimic::Trial;

use crate::fixture::Fixture;

/// What each of them begins with.
pub const TOPIC: &str = "plugin::";

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "plugin::a_person_at_a_terminal_pairs_and_another_decides_later",
            pairing::pairs,
        ),
        fixture.trial(
            "plugin::devices_are_shown_and_kept_from_a_terminal_and_by_scripts",
            keeping::keeps,
        ),
        fixture.trial(
            "plugin::an_invocation_ends_with_the_code_of_its_outcome",
            invoking::invokes,
        ),
        fixture.trial(
            "plugin::who_lacks_a_right_is_told_which_and_no_secret",
            refused::refused,
        ),
    ]
}

/// They take away what others need: alone, and last.
pub fn upheavals(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![fixture.trial(
        "plugin::the_doctor_finds_what_is_broken_and_its_remedy_helps",
        doctor::finds,
    )]
}
