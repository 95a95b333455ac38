//! `cargo faults`: see [`e2e::faults`].

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    e2e::faults::Arguments::parse().run().await
}
