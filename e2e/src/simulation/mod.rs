//! `cargo simulate`: the whole world in one thread, thousands of schedules a minute, each of them replayable.
//!
//! What decides is real: the agent's plan on its journal's own bytes, the gateway's streams, dispatch, index and writes,
//! the operator's plan. What lies between them is played: an [`api`] server, connections ([`link`]), clocks, people, and
//! deaths between any two steps. A seed draws a [`script`]; the [`world`] lives it through and is judged at the end by
//! the same rule as `cargo faults`.
//!
//! No control plane, no process, no port.
#![expect(clippy::print_stdout, reason = "what is printed is the finding")]

mod agent;
mod api;
mod chance;
mod link;
mod operator;
mod script;
#[cfg(test)]
mod tests;
mod world;

use anyhow::ensure;
use clap::Parser;

use crate::faults::verdict::{self, Verdict};
use crate::wait::Stopwatch;
use script::{Sabotage, Script};
use world::{Outcome, World};

/// Play the whole world, seed by seed, and compare what resources say with what happened.
#[derive(Debug, Parser)]
#[command(name = "simulate", bin_name = "cargo simulate")]
pub struct Arguments {
    /// How many schedules are played
    #[arg(long, default_value_t = 2000)]
    schedules: u64,

    /// The first schedule's seed; each that follows is one more
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Go on for so many seconds instead of a number of schedules
    #[arg(long)]
    seconds: Option<u64>,

    /// Print what happens, line by line
    #[arg(long)]
    trace: bool,

    /// Let the agents have effects before their journal knows: the end must then be red
    #[arg(long)]
    break_journal: bool,

    /// Let the gateways write Unknown whatever they hear: the end must then be red
    #[arg(long, conflicts_with = "break_journal")]
    break_gateway: bool,
}

impl Arguments {
    /// Plays the schedules.
    ///
    /// # Errors
    /// When a resource says what is not true, an effect was had twice, or something never ended; the first such
    /// schedule is told line by line.
    pub fn run(self) -> anyhow::Result<()> {
        let sabotage = match (self.break_journal, self.break_gateway) {
            (true, _) => Sabotage::EffectFirst,
            (false, true) => Sabotage::EndsUnknown,
            (false, false) => Sabotage::None,
        };
        let watch = Stopwatch::start();
        let mut findings = Findings::default();
        let mut seed = self.seed;
        loop {
            let goes_on = match self.seconds {
                Some(seconds) => watch.elapsed().as_secs() < seconds,
                None => findings.schedules < self.schedules,
            };
            if !goes_on {
                break;
            }
            let before = findings.bad();
            let outcome = play(seed, sabotage, self.trace)?;
            for line in &outcome.trace {
                println!("{line}");
            }
            findings.add(seed, &outcome);
            if before == 0 && findings.bad() > 0 && !self.trace {
                println!("seed {seed}, line by line:");
                for line in play(seed, sabotage, true)?.trace {
                    println!("{line}");
                }
            }
            seed = seed.wrapping_add(1);
        }
        findings.conclude(watch.elapsed().as_secs_f64())
    }
}

/// Lives one schedule through.
fn play(seed: u64, sabotage: Sabotage, traced: bool) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let outcome = runtime.block_on(async {
        let world = World::new(seed, Script::draw(seed, sabotage), traced);
        world.live().await
    });
    gateway::clock::play(None);
    Ok(outcome)
}

/// What was found.
#[derive(Debug, Default)]
struct Findings {
    schedules: u64,
    steps: u64,
    invocations: u64,
    unknown: u64,
    twice: u64,
    untrue: u64,
    stuck: u64,
}

impl Findings {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.schedules += 1;
        self.steps += outcome.steps;
        for (name, verdict) in verdict::judge_all(&outcome.ended) {
            self.invocations += 1;
            let what = match verdict {
                Verdict::True => continue,
                Verdict::Unknown => {
                    self.unknown += 1;
                    continue;
                }
                Verdict::Twice => {
                    self.twice += 1;
                    "the effect was had twice".to_owned()
                }
                Verdict::Untrue(why) => {
                    self.untrue += 1;
                    why
                }
                Verdict::Untold => {
                    self.untrue += 1;
                    "the device told what became of it, and nobody kept that".to_owned()
                }
                Verdict::Stuck => {
                    self.stuck += 1;
                    "never ended".to_owned()
                }
            };
            println!("seed {seed}, {name}: {what}");
        }
        for wrong in &outcome.wrong {
            println!("seed {seed}: {wrong}");
            if wrong.contains("twice") {
                self.twice += 1;
            } else if wrong.contains("end of") {
                self.untrue += 1;
            } else {
                self.stuck += 1;
            }
        }
    }

    fn bad(&self) -> u64 {
        self.twice + self.untrue + self.stuck
    }

    fn conclude(&self, seconds: f64) -> anyhow::Result<()> {
        let Self {
            schedules,
            steps,
            invocations,
            unknown,
            twice,
            untrue,
            stuck,
        } = self;
        let figures = format!(
            "schedules={schedules} steps={steps} invocations={invocations} effects_twice={twice} untrue_phases={untrue} \
             stuck={stuck} unknown={unknown} seconds={seconds:.0}"
        );
        ensure!(
            self.bad() == 0 && *invocations > 0,
            "simulation found: {figures}"
        );
        println!("simulation ok: {figures}");
        Ok(())
    }
}
