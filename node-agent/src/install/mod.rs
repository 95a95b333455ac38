//! `install` and `uninstall`: the agent as a service of its host, under systemd.
//!
//! - [`plan`], [`plan_removal`]: what there is to do. Pure;
//! - [`mod@unit`]: what systemd is told;
//! - [`apply`]: does it, or says what it would do.
//!
//! Each step says what shall be, so that a second run changes nothing. Nothing here knows a secret: the state folder is
//! made by systemd, for its owner alone, and never looked into.

pub mod apply;
pub mod unit;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

/// Of the program and of the unit.
pub const PROGRAM_NAME: &str = "fairlead-agent";
/// The service user, and its group.
pub const USER: &str = "fairlead";
/// The one folder that the unit may write to.
pub const STATE_DIR: &str = crate::state::access::SYSTEM_PATH;

const CONFIG_DIR: &str = "/etc/fairlead";
const CONFIG: &str = "/etc/fairlead/agent.toml";
const CAPABILITIES_DIR: &str = "/etc/fairlead/capabilities.d";
const UNIT: &str = "/etc/systemd/system/fairlead-agent.service";
const DROP_INS: &str = "/etc/systemd/system/fairlead-agent.service.d";
const AS_ROOT: &str = "/etc/systemd/system/fairlead-agent.service.d/10-as-root.conf";
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/fairlead-agent.service";
const SYSUSERS: &str = "/etc/sysusers.d/fairlead-agent.conf";
const TMPFILES: &str = "/etc/tmpfiles.d/fairlead-agent.conf";
/// Where the program goes, unless a package has put it where programs of packages are.
const OWN_PLACE: &str = "/usr/local/bin/fairlead-agent";
const PACKAGED: &str = "/usr/bin/fairlead-agent";
/// What a new configuration says: nothing but the defaults, with every key explained.
const EXAMPLE: &str = include_str!("../../agent.example.toml");

#[derive(Clone, Debug, clap::Args)]
pub struct Install {
    #[command(flatten)]
    pub place: Place,
    /// Lets declared commands run as users of their own: the agent runs as root, with few privileges. Without this it
    /// runs as the user fairlead, with none.
    #[arg(long)]
    pub as_root: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Uninstall {
    #[command(flatten)]
    pub place: Place,
    /// Removes the state and the configuration, too: the key and the identity of this device are gone then.
    #[arg(long)]
    pub purge: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The root of an image, where files are written and nothing is started.
    #[arg(long, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    /// Says what would be done, and does nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// What of the host matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Host {
    pub is_root: bool,
    /// Whether systemd is what runs this host.
    pub has_systemd: bool,
}

/// Something that shall be. Paths are those of the installed system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// A folder of the configuration: only root may change it, and the agent's group look into it.
    Folder(&'static str),
    /// A file that anybody may read and only root may change.
    File {
        path: &'static str,
        content: Cow<'static, str>,
    },
    /// A file of the configuration, which only the agent's group may read besides root; one that is there already is the
    /// administrator's.
    FileOnce {
        path: &'static str,
        content: Cow<'static, str>,
    },
    /// The program itself.
    Program { from: PathBuf, path: &'static str },
    Link {
        path: &'static str,
        target: &'static str,
    },
    /// No such file or link.
    Gone(&'static str),
    /// No such folder, where nothing else is in it.
    EmptyGone(&'static str),
    /// No such folder, whatever is in it.
    TreeGone(&'static str),
    /// A command of the host. Failing ends everything, unless it may fail.
    Call {
        command: &'static [&'static str],
        may_fail: bool,
    },
    /// The service is started; anew, where something changed.
    Started,
}

/// Why nothing is installed here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unfit {
    #[error(
        "only root can do that: run it with sudo, or with --root FOLDER to write into an image"
    )]
    NotRoot,
    #[error(
        "this host is not run by systemd: have `fairlead-agent run` started by what does run it, or write into an image \
         with --root FOLDER"
    )]
    NoSystemd,
    #[error(
        "the configuration keeps the state in {0}, and the service may write to {STATE_DIR} alone: take state_dir out of \
         {CONFIG}"
    )]
    StateElsewhere(String),
}

/// Whether this can be done here at all. An image is nobody's host.
pub fn check(place: &Place, host: Host) -> Result<(), Unfit> {
    if place.root.is_some() || place.dry_run {
        return Ok(());
    }
    if !host.has_systemd {
        return Err(Unfit::NoSystemd);
    }
    if !host.is_root {
        return Err(Unfit::NotRoot);
    }
    Ok(())
}

/// Whether the state is kept where the service may write.
pub fn check_state(configured: Option<&Path>) -> Result<(), Unfit> {
    match configured {
        Some(path) if path != Path::new(STATE_DIR) => {
            Err(Unfit::StateElsewhere(path.display().to_string()))
        }
        Some(_) | None => Ok(()),
    }
}

/// What to do so that the service is there and runs. `program` is the one that runs now.
pub fn plan(install: &Install, program: &Path) -> Vec<Step> {
    let is_packaged = program == Path::new(PACKAGED);
    let place = if is_packaged { PACKAGED } else { OWN_PLACE };
    let user = if install.as_root { "root" } else { USER };
    let file = |path, content: String| Step::File {
        path,
        content: content.into(),
    };
    let mut steps = Vec::new();
    if !is_packaged {
        steps.push(Step::Program {
            from: program.to_owned(),
            path: OWN_PLACE,
        });
    }
    steps.extend([
        Step::Folder(CONFIG_DIR),
        Step::Folder(CAPABILITIES_DIR),
        Step::FileOnce {
            path: CONFIG,
            content: EXAMPLE.into(),
        },
        file(SYSUSERS, unit::sysusers()),
        file(TMPFILES, unit::tmpfiles(user)),
        file(UNIT, unit::service(place)),
    ]);
    if install.as_root {
        steps.push(Step::File {
            path: AS_ROOT,
            content: unit::AS_ROOT.into(),
        });
    } else {
        steps.extend([Step::Gone(AS_ROOT), Step::EmptyGone(DROP_INS)]);
    }
    steps.push(Step::Link {
        path: WANTED,
        target: UNIT,
    });
    if install.place.root.is_none() {
        let call = |command| Step::Call {
            command,
            may_fail: false,
        };
        steps.extend([
            call(&["systemd-sysusers", SYSUSERS]),
            call(&["systemd-tmpfiles", "--create", TMPFILES]),
            call(&["systemctl", "daemon-reload"]),
            Step::Started,
        ]);
    }
    steps
}

/// What to do so that the service is gone. The service user stays: what belonged to it must not become somebody else's.
pub fn plan_removal(uninstall: &Uninstall) -> Vec<Step> {
    let on_the_host = uninstall.place.root.is_none();
    let mut steps = Vec::new();
    if on_the_host {
        steps.push(Step::Call {
            command: &["systemctl", "stop", "fairlead-agent.service"],
            // There may be none.
            may_fail: true,
        });
    }
    steps.extend([
        Step::Gone(WANTED),
        Step::Gone(UNIT),
        Step::Gone(AS_ROOT),
        Step::EmptyGone(DROP_INS),
        Step::Gone(TMPFILES),
        Step::Gone(SYSUSERS),
    ]);
    if on_the_host {
        steps.push(Step::Call {
            command: &["systemctl", "daemon-reload"],
            may_fail: false,
        });
    }
    if uninstall.purge {
        steps.extend([Step::TreeGone(STATE_DIR), Step::TreeGone(CONFIG_DIR)]);
    }
    // The last one: what was not removed can be removed by calling it again.
    steps.push(Step::Gone(OWN_PLACE));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host {
        is_root: true,
        has_systemd: true,
    };

    fn place(root: Option<&str>, dry_run: bool) -> Place {
        Place {
            root: root.map(PathBuf::from),
            dry_run,
        }
    }

    fn install(root: Option<&str>, as_root: bool) -> Install {
        Install {
            place: place(root, false),
            as_root,
        }
    }

    #[test]
    fn a_host_without_systemd_or_rights_is_told_so_and_an_image_needs_neither() {
        let user = Host {
            is_root: false,
            ..HOST
        };
        let container = Host {
            has_systemd: false,
            ..HOST
        };
        for (place, host, expected) in [
            (place(None, false), HOST, Ok(())),
            (place(None, false), user, Err(Unfit::NotRoot)),
            (place(None, false), container, Err(Unfit::NoSystemd)),
            (place(Some("/image"), false), container, Ok(())),
            (place(None, true), user, Ok(())),
        ] {
            assert_eq!(check(&place, host), expected, "{place:?} {host:?}");
        }
    }

    #[test]
    fn a_state_that_the_service_cannot_write_to_is_refused() {
        check_state(None).unwrap();
        check_state(Some(Path::new(STATE_DIR))).unwrap();
        let refused = check_state(Some(Path::new("/srv/state"))).unwrap_err();
        assert!(refused.to_string().contains("/srv/state"), "{refused}");
    }

    #[test]
    fn an_image_is_written_to_and_nothing_is_called() {
        let program = Path::new("/somewhere/fairlead-agent");
        let calls = |steps: &[Step]| {
            let calls = |step: &&Step| matches!(step, Step::Call { .. } | Step::Started);
            steps.iter().filter(calls).count()
        };
        assert_eq!(calls(&plan(&install(Some("/image"), false), program)), 0);
        assert_eq!(calls(&plan(&install(None, false), program)), 4);
        let removal = |root| {
            plan_removal(&Uninstall {
                place: place(root, false),
                purge: true,
            })
        };
        assert_eq!(calls(&removal(Some("/image"))), 0);
        assert_eq!(calls(&removal(None)), 2);
    }

    #[test]
    fn the_program_of_a_package_stays_where_it_is() {
        let copies = |program| {
            let steps = plan(&install(None, false), Path::new(program));
            let unit = steps.iter().find_map(|step| {
                if let Step::File {
                    path: UNIT,
                    content,
                } = step
                {
                    return Some(content.clone());
                }
                None
            });
            let copies = steps
                .iter()
                .any(|step| matches!(step, Step::Program { .. }));
            let starts = format!("ExecStart={program} run");
            (copies, unit.unwrap().contains(&starts))
        };
        assert_eq!(copies(PACKAGED), (false, true));
        assert_eq!(copies(OWN_PLACE), (true, true));
        assert_eq!(copies("/root/fairlead-agent"), (true, false));
    }

    #[test]
    fn state_and_configuration_go_only_when_that_is_asked_for() {
        for purge in [false, true] {
            let steps = plan_removal(&Uninstall {
                place: place(None, false),
                purge,
            });
            let removes = |path| steps.contains(&Step::TreeGone(path));
            assert_eq!((removes(STATE_DIR), removes(CONFIG_DIR)), (purge, purge));
        }
    }
}
