//! `capabilities`: what this device has.

use super::Settings;
use crate::{
    capability::{About, live},
    terminal,
};

/// What this device has, to standard output; what is wrong, to standard error.
pub(super) fn show(settings: &Settings) -> anyhow::Result<()> {
    let (registry, problems) = settings.capabilities(About::default()).load();
    terminal::say(&live::table(&registry));
    let Some((last, others)) = problems.split_last() else {
        return Ok(());
    };
    for problem in others {
        eprintln!("error: {problem}");
    }
    Err(last.clone().into())
}
