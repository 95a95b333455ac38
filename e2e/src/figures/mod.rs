//! Figures that take more than one device, each on a control plane and programs of its own.
#![expect(clippy::print_stdout, reason = "what is printed is the figure")]

use clap::{Parser, Subcommand};

use crate::controlplane::{Binaries, ControlPlane};
use crate::install::install;
use crate::stack::{Programs, Stack};

mod artefact;
mod crowd;
mod pairings;
mod rest;
mod streams;

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
    /// Time of a large output and of one four times as large, and the gateway's peak memory
    Artefact {
        /// How large the first one is
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=250))]
        mebibytes: u64,
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
        let programs = Programs::build()?;
        let binaries = Binaries::find()?;
        let folder = tempfile::Builder::new()
            .prefix("fairlead-figures-")
            .tempdir()?;
        let control_plane =
            ControlPlane::start(&binaries, &folder.path().join("controlplane")).await?;
        let cluster = control_plane.cluster().clone();
        install(&cluster.client()).await?;
        let mut stack = Stack::start(&cluster, &programs, folder.path(), 2).await?;
        let measured = match self.figure {
            Figure::Streams { devices } => streams::measure(&cluster, &mut stack, devices).await,
            Figure::Rest { devices, seconds } => {
                rest::measure(&cluster, &mut stack, devices, seconds).await
            }
            Figure::Artefact { mebibytes } => {
                artefact::measure(&cluster, &mut stack, mebibytes).await
            }
            Figure::Pairings { devices } => {
                pairings::measure(&cluster, &stack, devices.into()).await
            }
        };
        let stopped = stack.stop().await;
        let ended = control_plane.stop().await;
        measured.and(stopped).and(ended)
    }
}
