//! What a run came to: counts, and one line that says so.
#![expect(clippy::print_stdout, reason = "what is printed is the finding")]

use std::time::Duration;

use anyhow::ensure;

use super::verdict::Verdict;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    schedules: u64,
    played: Duration,
    /// Agents whose state has a small disk of its own. None where root did not run this: then no disk was ever full.
    disks: usize,
    /// Agents that died between the journal's write and an effect.
    deaths: usize,
    invocations: usize,
    unknown: usize,
    twice: usize,
    untrue: usize,
    stuck: usize,
}

impl Findings {
    /// Nothing yet, of so many schedules.
    pub fn of(schedules: u64, played: Duration, disks: usize, deaths: usize) -> Self {
        Self {
            schedules,
            played,
            disks,
            deaths,
            ..Self::default()
        }
    }

    pub fn add(&mut self, name: &str, verdict: Verdict) {
        self.invocations += 1;
        match verdict {
            Verdict::True => {}
            Verdict::Unknown => self.unknown += 1,
            Verdict::Twice => {
                self.twice += 1;
                println!("{name}: the effect was had twice");
            }
            Verdict::Untrue(why) => {
                self.untrue += 1;
                println!("{name}: {why}");
            }
            Verdict::Untold => {
                self.untrue += 1;
                println!("{name}: the device knows what became of it, and nobody has kept that");
            }
            Verdict::Stuck => {
                self.stuck += 1;
                println!("{name}: never ended");
            }
        }
    }

    /// The last line.
    ///
    /// # Errors
    /// When anything was found, or nothing was played.
    pub fn conclude(&self) -> anyhow::Result<()> {
        let Self {
            schedules,
            played,
            disks,
            deaths,
            invocations,
            unknown,
            twice,
            untrue,
            stuck,
        } = self;
        let figures = format!(
            "schedules={schedules} invocations={invocations} effects_twice={twice} untrue_phases={untrue} stuck={stuck} unknown={unknown} disks={disks} deaths={deaths} seconds={:.0}",
            played.as_secs_f64()
        );
        ensure!(
            *twice == 0 && *untrue == 0 && *stuck == 0 && *invocations > 0,
            "faults found: {figures}"
        );
        println!("faults ok: {figures}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_found_is_no_success() {
        let found = |verdict| {
            let mut findings = Findings::default();
            findings.add("one", verdict);
            findings.conclude()
        };
        assert!(found(Verdict::True).is_ok() && found(Verdict::Unknown).is_ok());
        assert!(
            Findings::default().conclude().is_err(),
            "nothing was played"
        );
        for (verdict, count) in [
            (Verdict::Twice, "effects_twice=1"),
            (Verdict::Untrue(String::new()), "untrue_phases=1"),
            (Verdict::Untold, "untrue_phases=1"),
            (Verdict::Stuck, "stuck=1"),
        ] {
            let error = found(verdict).unwrap_err().to_string();
            assert!(
                error.starts_with("faults found: ") && error.contains(count),
                "{error}"
            );
        }
    }
}
