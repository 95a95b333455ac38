//! `fairlead-agent`: pairs this device, then runs what it is asked to.

use std::process::ExitCode;

use clap::Parser as _;
use node_agent::{app, args::Args};

fn main() -> ExitCode {
    app::main(Args::parse())
}
