//! `kubectl fairlead`: pairs devices, shows them and runs capabilities on them, with the caller's own rights.

mod app;
mod args;
mod attention;
mod clock;
mod cluster;
mod commands;
mod complete;
mod destination;
mod doctor;
mod exit;
mod fleet;
mod grants;
mod patience;
mod remedies;
mod show;
mod terminal;
mod watching;
mod who_can;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

/// An error of usage that the argument parser cannot see. Ends the process with 2, as its own errors do.
fn usage(kind: ErrorKind, words: impl std::fmt::Display) -> clap::Error {
    args::Args::command().error(kind, words)
}

fn main() -> ExitCode {
    app::main(args::Args::parse())
}
