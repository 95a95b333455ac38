//! `status`: what this device is to the cluster.

use std::path::Path;

use crate::{args::Output, host::clock, status::Status, terminal};

pub(super) fn show(path: &Path, output: Output) -> anyhow::Result<()> {
    let status = Status::read(path, clock::wall())?;
    match output {
        Output::Text => terminal::say(&status.to_string()),
        Output::Json => terminal::say(&serde_json::to_string_pretty(&status)?),
    }
    Ok(())
}
