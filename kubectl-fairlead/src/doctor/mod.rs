//! `doctor`: what is wrong with the installation, and what to do about it.
//!
//! - [`observe`]: looks, with the caller's rights and within bounds of time, and changes nothing;
//! - [`judge`]: what the facts come to. Pure;
//! - this file: the report, as a table and for programs.

mod expected;
mod judge;
mod observe;

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    clock::now,
    cluster::Cluster,
    exit::Exit,
    show::{
        Shown, out,
        table::{Table, Tone},
    },
    terminal::Colours,
};

/// From good to bad.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Verdict {
    /// It could not be looked at; the finding says why.
    Skipped,
    Ok,
    /// It works now, or something that is not needed does not.
    Warning,
    Failed,
}

/// A finding.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub result: Verdict,
    /// What was looked at.
    pub name: &'static str,
    pub found: String,
    /// What to do, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

pub async fn run(cluster: &Cluster, shown: Shown) -> anyhow::Result<Exit> {
    let observed = Box::pin(observe::observe(cluster)).await?;
    let checks = judge::judge(&observed, now());
    match shown.value_for_programs(&checks)? {
        Some(text) => out(&text)?,
        None => out(&report(&checks, shown.colours))?,
    }
    let worst = checks
        .iter()
        .map(|check| check.result)
        .max()
        .unwrap_or(Verdict::Skipped);
    Ok(if worst == Verdict::Failed {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn report(checks: &[Check], colours: Colours) -> String {
    let mut table = Table::new(&["RESULT", "CHECK", "FOUND"]);
    for check in checks {
        let tone = match check.result {
            Verdict::Skipped => Tone::Faint,
            Verdict::Ok => Tone::Good,
            Verdict::Warning => Tone::Warning,
            Verdict::Failed => Tone::Bad,
        };
        table.push(
            tone,
            vec![
                format!("{:?}", check.result),
                check.name.to_owned(),
                check.found.clone(),
            ],
        );
    }
    let mut text = table.render(colours);
    let remedies: Vec<_> = checks
        .iter()
        .filter_map(|check| check.remedy.as_ref().map(|remedy| (check.name, remedy)))
        .collect();
    if !remedies.is_empty() {
        text.push_str("\nWhat to do:\n");
        for (name, remedy) in remedies {
            // A string takes everything.
            let _ = writeln!(text, "  {name}: {remedy}");
        }
    }
    text
}
