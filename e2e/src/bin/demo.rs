//! `cargo demo`: the whole of it, on a real API server.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match e2e::demo::Arguments::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // Not by `Debug`: what went wrong should not drown in a backtrace.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
