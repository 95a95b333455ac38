//! Figures that take more than one device, each on a control plane and programs of its own.
#![expect(clippy::print_stdout, reason = "what is printed is the figure")]

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use crate::controlplane::{Binaries, ControlPlane};
use crate::install::install;
use crate::stack::{Programs, Stack};

mod agent;
mod artefact;
mod crowd;
mod door;
mod events;
mod fleet;
mod invocations;
mod load;
mod memory;
mod outage;
mod pairings;
mod rest;
mod streams;
mod throughput;

/// Measure what many devices cost.
#[derive(Debug, Parser)]
#[command(name = "figures", bin_name = "cargo figures")]
pub struct Arguments {
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Debug, Subcommand)]
enum Figure {
    /// Memory of a gateway for each idle stream
    Streams {
        /// How many devices
        #[arg(long, default_value_t = 1000)]
        devices: usize,
    },
    /// Requests to the API server when nothing happens
    Rest {
        /// How many devices
        #[arg(long, default_value_t = 10)]
        devices: usize,
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Size of an agent's program, and its memory when it waits and after many invocations
    Agent {
        /// How many invocations
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        invocations: u32,
    },
    /// Time of a large output and of one four times as large, and the gateway's peak memory
    Artefact {
        /// How large the first one is
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=250))]
        mebibytes: u64,
    },
    /// Time of short invocations from creation to end while others are open, and that of a bare client's writes
    Invocations {
        /// How many devices; more than 4 are played by the measuring process
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        devices: u16,
        /// How many invocations
        #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u16).range(4..=20000))]
        count: u16,
    },
    /// Short invocations per second over 10 played devices, and rounds of a bare client per second
    Throughput {
        /// For how long each of the two
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(4..=300))]
        seconds: u64,
    },
    /// Time from the end of an outage to the start and the end of what waited for it
    Outage {
        /// How often, of each of the two outages
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=20))]
        rounds: u8,
        /// How long gateways and API server are away each time
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
        seconds: u64,
    },
    /// Time from a change in Kubernetes to the subscriber of a console, and to a bare watch
    Events {
        /// How many changes
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=250))]
        count: u16,
    },
    /// Time of a device's handshake while sixteen addresses flood the port, and the gateway's memory
    Door {
        /// What the flood does; all kinds in turn where it is not given
        #[arg(long, value_enum)]
        attack: Option<door::Attack>,
        /// How long each of the five quiet and the five flooded windows lasts
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=120))]
        seconds: u64,
        #[command(flatten)]
        force: door::Force,
    },
    /// The flood of `door`, until standard input ends
    #[command(hide = true)]
    Flood {
        /// Where the gateway listens
        gateway: SocketAddr,
        /// What the flood does
        attack: door::Attack,
        #[command(flatten)]
        force: door::Force,
    },
    /// Time from an approval to the certificate on the device's disk
    Pairings {
        /// How many devices
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
        devices: u16,
    },
}

impl Arguments {
    /// Runs a control plane, an operator and two gateways, and measures.
    ///
    /// # Errors
    /// When something does not start, or a device is not let in.
    pub async fn run(self) -> anyhow::Result<()> {
        // It needs nothing of what the others need.
        if let Figure::Flood {
            gateway,
            attack,
            force,
        } = self.figure
        {
            return door::flood(gateway, attack, force).await;
        }
        let programs = Programs::build()?;
        let binaries = Binaries::find()?;
        let folder = tempfile::Builder::new()
            .prefix("fairlead-figures-")
            .tempdir()?;
        let mut control_plane =
            ControlPlane::start(&binaries, &folder.path().join("controlplane")).await?;
        let cluster = control_plane.cluster().clone();
        install(&cluster.client()).await?;
        let mut stack = Stack::start(&cluster, &programs, folder.path(), 2).await?;
        let measured = match self.figure {
            Figure::Streams { devices } => streams::measure(&cluster, &mut stack, devices).await,
            Figure::Rest { devices, seconds } => {
                rest::measure(&cluster, &mut stack, devices, seconds).await
            }
            Figure::Agent { invocations } => agent::measure(&cluster, &stack, invocations).await,
            Figure::Artefact { mebibytes } => {
                artefact::measure(&cluster, &mut stack, mebibytes).await
            }
            Figure::Invocations { devices, count } => {
                invocations::measure(&cluster, &mut stack, devices.into(), count.into()).await
            }
            Figure::Throughput { seconds } => {
                throughput::measure(&cluster, &mut stack, seconds).await
            }
            Figure::Outage { rounds, seconds } => {
                outage::measure(&mut control_plane, &mut stack, rounds.into(), seconds).await
            }
            Figure::Events { count } => events::measure(&cluster, &mut stack, count).await,
            Figure::Door {
                attack,
                seconds,
                force,
            } => {
                let measurement = door::Measurement {
                    attack,
                    seconds,
                    force,
                };
                door::measure(&cluster, &mut stack, measurement).await
            }
            Figure::Flood { .. } => Ok(()),
            Figure::Pairings { devices } => {
                pairings::measure(&cluster, &stack, devices.into()).await
            }
        };
        let stopped = stack.stop().await;
        let ended = control_plane.stop().await;
        measured.and(stopped).and(ended)
    }
}

/// The value that so many percent do not exceed; of sorted values.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len().saturating_sub(1) * percent).div_ceil(100);
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_exceeds_the_ninety_ninth_percentile() {
        let sorted: Vec<f64> = (0..=100).map(f64::from).collect();
        for (percent, value) in [(0, 0.0), (50, 50.0), (99, 99.0), (100, 100.0)] {
            assert!((percentile(&sorted, percent) - value).abs() < f64::EPSILON);
        }
        assert!(percentile(&[], 50).is_nan());
    }
}
