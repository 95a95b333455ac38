//! Measures what the demo does not: `cargo figures streams` and `cargo figures rest`.

use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    e2e::figures::Arguments::parse().run().await
}
