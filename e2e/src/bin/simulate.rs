//! `cargo simulate`: see [`e2e::simulation`].

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    e2e::simulation::Arguments::parse().run()
}
