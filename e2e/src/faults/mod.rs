//! `cargo faults`: real programs on a real API server, with everything done to them that happens to programs; at the end
//! the resources are compared with what capabilities really did.
//!
//! A schedule is drawn from its seed ([`schedule`]) and played at once; what it asked for may end much later, so the
//! next one begins meanwhile, and all are judged at the end ([`verdict`]) against the log of [`effects`]. Devices reach
//! their gateways through a [`proxy`] each.

mod disk;
pub mod effects;
mod findings;
mod proxy;
mod schedule;
pub mod verdict;
mod world;

use anyhow::Context as _;
use clap::Parser;

use crate::controlplane::{Binaries, ControlPlane};
use crate::install::install;
use crate::stack::Programs;
use world::World;

/// Kill, freeze, cut and stall real programs, and compare what they say with what happened.
#[derive(Debug, Parser)]
#[command(name = "faults", bin_name = "cargo faults")]
pub struct Arguments {
    /// How many schedules are played
    #[arg(long, default_value_t = 200)]
    schedules: u64,

    /// The first schedule's seed; each that follows is one more
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Let the agents have effects before their journal knows: the end must then be red
    #[arg(long)]
    break_journal: bool,
}

impl Arguments {
    /// Plays the schedules.
    ///
    /// # Errors
    /// When a resource says what is not true, an effect was had twice, or something never ended; logs and states are
    /// kept then, and the message says where.
    pub async fn run(self) -> anyhow::Result<()> {
        let programs = Programs::build()?;
        let binaries = Binaries::find()?;
        let mut folder = tempfile::Builder::new()
            .prefix("fairlead-faults-")
            .tempdir()?;
        let control_plane =
            ControlPlane::start(&binaries, &folder.path().join("controlplane")).await?;
        install(&control_plane.cluster().client()).await?;
        let path = folder.path().to_owned();
        let mut world = World::start(control_plane, &programs, &path, self.break_journal).await?;
        let played = world.play(self.seed, self.schedules).await;
        let stopped = world.stop().await;
        let judged = played.and_then(|findings| findings.conclude());
        // What was broken on purpose is red, and nobody looks into why.
        if judged.is_err() && !self.break_journal {
            folder.disable_cleanup(true);
        }
        let ended = judged.and(stopped);
        if self.break_journal {
            return ended;
        }
        ended.with_context(|| format!("logs and states are in {}", path.display()))
    }
}
