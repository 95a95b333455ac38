//! Measures what the demo does not: `cargo figures --help` says what.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    e2e::figures::Arguments::parse().run().await
}
