//! `kubectl fairlead`: pairs devices, shows them and runs capabilities on them, with the caller's own rights.

mod app;
mod args;
mod attention;
mod clock;
mod cluster;
mod commands;
mod complete;
mod doctor;
mod exit;
mod grants;
mod remedies;
mod show;
mod terminal;
mod watching;
mod who_can;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    app::main(args::Args::parse())
}
