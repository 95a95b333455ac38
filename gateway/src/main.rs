//! `fairlead-gateway`.

use clap::Parser as _;
use gateway::{app, args::Args};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    app::run(Args::parse()).await
}
