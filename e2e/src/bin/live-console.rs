//! `cargo live-console COMMAND...`: a gateway's console with something behind it, for a command that asks it.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match e2e::live_console::Arguments::parse().run() {
        Ok(code) => code,
        // Not by `Debug`: what went wrong should not drown in a backtrace.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
