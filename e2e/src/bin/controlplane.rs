//! `cargo controlplane up | env | down`: a real Kubernetes API server for a person at a terminal.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use e2e::controlplane::Binaries;
use e2e::controlplane::background::{Place, Ready};

/// A real Kubernetes API server on loopback: etcd, kube-apiserver and kubectl.
#[derive(Parser)]
#[command(name = "controlplane", bin_name = "cargo controlplane")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start one, empty, and print how to use it; a first start builds it, which takes minutes
    Up {
        #[command(flatten)]
        place: PlaceArguments,
        /// Stay in the foreground until ctrl-C
        #[arg(long)]
        foreground: bool,
    },
    /// Print how to use the one that is up: `eval "$(cargo controlplane env)"`
    Env(PlaceArguments),
    /// Stop it
    Down(PlaceArguments),
}

#[derive(Args)]
struct PlaceArguments {
    /// The folder it runs in; several can be up in several folders [default: run/default in the cache]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Not by `Debug`: what to do about it should not drown in a backtrace.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up {
            place,
            foreground: false,
        } => print(&Place::new(place.dir)?.up()?),
        Command::Up {
            place,
            foreground: true,
        } => {
            let place = Place::new(place.dir)?;
            let binaries = Binaries::find()?;
            tokio::runtime::Runtime::new()
                .context("start the runtime")?
                .block_on(place.run(&binaries, |ready| {
                    // Nobody may be listening; the state file has it, too.
                    let _ = print(ready);
                }))
        }
        Command::Env(place) => print(&Place::new(place.dir)?.env()?),
        Command::Down(place) => {
            let was_up = Place::new(place.dir)?.down()?;
            eprintln!(
                "{}",
                if was_up {
                    "Stopped"
                } else {
                    "No control plane is up"
                }
            );
            Ok(())
        }
    }
}

fn print(ready: &Ready) -> anyhow::Result<()> {
    write!(std::io::stdout(), "{}", ready.exports()).context("print")
}
