//! `install` and `uninstall`.

use std::{env, path::Path};

use anyhow::Context as _;

use crate::{
    config::{Config, DEFAULT_PATH},
    exit::Refusal,
    install::{self, Host, Install, Place, Step, Uninstall, apply::Applier},
    terminal,
};

/// Where systemd is what runs the host, there is this.
const SYSTEMD: &str = "/run/systemd/system";

pub(super) fn install(install: &Install) -> anyhow::Result<()> {
    check(&install.place)?;
    if install.place.root.is_none() && Path::new(DEFAULT_PATH).exists() {
        let config = Config::read(None)?;
        install::check_state(config.state_dir.as_deref()).map_err(Refusal::from)?;
    }
    let program = env::current_exe().context("find this program")?;
    perform(&install.place, &install::plan(install, &program))?;
    if install.place.root.is_none() && !install.place.dry_run {
        let user = if install.as_root {
            "root"
        } else {
            install::USER
        };
        terminal::say(&format!(
            "Installed. It starts once this device is paired:\n\n    sudo -u {user} fairlead-agent pair\n    \
             sudo systemctl start fairlead-agent"
        ));
    }
    Ok(())
}

pub(super) fn uninstall(uninstall: &Uninstall) -> anyhow::Result<()> {
    check(&uninstall.place)?;
    perform(&uninstall.place, &install::plan_removal(uninstall))?;
    if uninstall.place.dry_run {
        return Ok(());
    }
    terminal::say(if uninstall.purge {
        "Uninstalled. If this device was paired, the cluster still knows it: an administrator must revoke or delete its \
         Device."
    } else {
        "Uninstalled. The state and the configuration are kept: remove them with --purge."
    });
    Ok(())
}

fn check(place: &Place) -> anyhow::Result<()> {
    let host = Host {
        is_root: rustix::process::geteuid().is_root(),
        has_systemd: Path::new(SYSTEMD).is_dir(),
    };
    Ok(install::check(place, host).map_err(Refusal::from)?)
}

fn perform(place: &Place, steps: &[Step]) -> anyhow::Result<()> {
    let mut applier = Applier::new(place.root.as_deref(), place.dry_run);
    let mut changes = 0;
    for step in steps {
        if let Some(said) = applier.apply(step)? {
            changes += 1;
            terminal::say(&if place.dry_run {
                format!("would {said}")
            } else {
                said
            });
        }
    }
    if changes == 0 {
        terminal::say("Everything is as it should be already.");
    }
    Ok(())
}
