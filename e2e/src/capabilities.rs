//! What the administrator of a device declares.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::private;

/// Writes into `folder` a configuration of the agent, and what it declares: TOML with `[[capability]]`. Returns the
/// configuration's path.
///
/// # Errors
/// When it cannot be written, or the path is not text.
pub fn declare(folder: &Path, declared: &str) -> anyhow::Result<PathBuf> {
    let capabilities = folder.join("capabilities.d");
    private::folder(&capabilities)?;
    private::write(&capabilities.join("declared.toml"), declared.as_bytes())?;
    let config = folder.join("agent.toml");
    let path = capabilities.to_str().context("a path is not text")?;
    let text = format!("capabilities_dir = {path:?}\n");
    private::write(&config, text.as_bytes())?;
    Ok(config)
}
