//! `doctor`: what is wrong with this device, and what to do about it.
//!
//! - [`observe`]: looks, within bounds of time, and changes nothing: another process may use everything that it looks at;
//! - [`judge`]: what the facts come to. Pure;
//! - this file: the report, as text and as JSON.

pub mod judge;
pub mod observe;

use std::fmt;

use serde::Serialize;

/// All checks, in the order in which one depends on another. As JSON, its fields stay.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The worst of them.
    pub result: Verdict,
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub name: Name,
    /// What of several it is about: the address of a gateway.
    pub subject: Option<String>,
    pub result: Verdict,
    /// What was found, in one line.
    pub found: String,
    /// What to do, where there is something to do.
    pub remedy: Option<String>,
}

/// From good to bad.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Verdict {
    /// It could not be looked at, or need not be; the finding says why.
    Skipped,
    Ok,
    /// It works now, or something that is not needed does not.
    Warning,
    Failed,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Name {
    Configuration,
    Capabilities,
    StateFolder,
    Disk,
    Pairing,
    Journal,
    Process,
    Socket,
    ControlGroups,
    Screen,
    Certificate,
    Dns,
    Port,
    Tls,
    Clock,
}

impl Name {
    fn text(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Capabilities => "capabilities",
            Self::StateFolder => "state folder",
            Self::Disk => "disk",
            Self::Pairing => "pairing",
            Self::Journal => "journal",
            Self::Process => "process",
            Self::Socket => "socket",
            Self::ControlGroups => "control groups",
            Self::Screen => "screen",
            Self::Certificate => "certificate",
            Self::Dns => "DNS",
            Self::Port => "port",
            Self::Tls => "TLS",
            Self::Clock => "clock",
        }
    }
}

impl Report {
    pub fn new(checks: Vec<Check>) -> Self {
        let worst = checks.iter().map(|check| check.result).max();
        Self {
            result: worst.unwrap_or(Verdict::Skipped),
            checks,
        }
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let word = match check.result {
                Verdict::Ok => "ok",
                Verdict::Warning => "WARNING",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "skipped",
            };
            write!(f, "{word:<8} {:<15}", check.name.text())?;
            if let Some(subject) = &check.subject {
                write!(f, "{subject}: ")?;
            }
            writeln!(f, "{}", check.found)?;
            if let Some(remedy) = &check.remedy {
                writeln!(f, "{:>24}{remedy}", "-> ")?;
            }
        }
        let count = |verdict| {
            self.checks
                .iter()
                .filter(|one| one.result == verdict)
                .count()
        };
        write!(
            f,
            "{} ok, {} warnings, {} failed, {} skipped",
            count(Verdict::Ok),
            count(Verdict::Warning),
            count(Verdict::Failed),
            count(Verdict::Skipped)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_fields() {
        let check = Check {
            name: Name::StateFolder,
            subject: None,
            result: Verdict::Ok,
            found: "fine".to_owned(),
            remedy: None,
        };
        assert_eq!(
            serde_json::to_value(Report::new(vec![check])).unwrap(),
            serde_json::json!({
                "result": "Ok",
                "checks": [{
                    "name": "StateFolder",
                    "subject": null,
                    "result": "Ok",
                    "found": "fine",
                    "remedy": null
                }]
            })
        );
    }

    #[test]
    fn the_worst_finding_is_the_result() {
        use Verdict::{Failed, Ok, Skipped, Warning};
        assert!(Skipped < Ok && Ok < Warning && Warning < Failed);
    }
}
