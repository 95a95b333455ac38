//! A capability for trials: writes what it does to the file that its one argument names.
#![expect(
    clippy::print_stdout,
    reason = "a capability answers on standard output"
)]

use anyhow::Context as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let log = std::env::args_os().nth(1).context("usage: effect LOG")?;
    println!("{}", e2e::faults::effects::have(log.as_ref()).await?);
    Ok(())
}
