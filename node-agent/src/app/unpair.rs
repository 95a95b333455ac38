//! `unpair`: forgets everything, once the person is sure.

use std::path::Path;

use super::usage;
use crate::{
    exit::Refusal,
    state::{Folder, View},
    terminal,
};

pub(super) fn unpair(path: &Path, yes: bool) -> anyhow::Result<()> {
    let Some(view) = View::of(path)? else {
        return Err(Refusal::NotPaired.into());
    };
    // What is damaged can be removed all the same.
    let device = match view.identity() {
        Ok(Some(identity)) => Some(format!("{}/{}", identity.namespace, identity.device)),
        Ok(None) | Err(_) => None,
    };
    if !yes {
        if !terminal::is_interactive() {
            return Err(usage("nobody to ask: add --yes"));
        }
        let answer = terminal::ask(&format!(
            "Remove the key, the identity and the journal of {}? They cannot be brought back. [y/N]",
            device.as_deref().unwrap_or("this device")
        ))?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(usage("nothing was removed"));
        }
    }
    Folder::open(path)?.clear()?;
    terminal::say("This device is not paired any more.");
    if let Some(device) = device {
        terminal::say(&format!(
            "The cluster still knows it as {device}: an administrator must revoke or delete that Device."
        ));
    }
    Ok(())
}
