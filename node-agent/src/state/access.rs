//! Where the state folder is, and that it and its files are their owner's alone.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use super::Error;

/// Where the state of the system's own agent is.
pub const SYSTEM_PATH: &str = "/var/lib/fairlead";

/// Where the state is kept unless a person says otherwise: `None` where the environment names no home.
pub fn default_path(
    is_systems: bool,
    xdg_state_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Option<PathBuf> {
    if is_systems {
        return Some(PathBuf::from(SYSTEM_PATH));
    }
    xdg_state_home
        .filter(|path| path.is_absolute())
        .or_else(|| home.map(|home| home.join(".local/state")))
        .map(|base| base.join("fairlead"))
}

/// What is wrong with a folder or a file, and what to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Belongs to another user.
    Owner {
        kind: Kind,
        owner: u32,
        expected: u32,
    },
    /// Others may read or change it.
    Mode {
        kind: Kind,
        mode: u32,
    },
    NotAFolder,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Folder,
    File,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner {
                kind,
                owner,
                expected,
            } => write!(
                f,
                "the {kind} belongs to user {owner} and this process runs as user {expected}: run as that user, or, \
                 if you trust the content, `chown {expected}` it"
            ),
            Self::Mode { kind, mode } => write!(
                f,
                "others may use the {kind} (mode {mode:04o}): if you trust the content, `chmod {}` it; if the key \
                 may have been read, unpair and pair again",
                match kind {
                    Kind::Folder => "0700",
                    Kind::File => "0600",
                }
            ),
            Self::NotAFolder => f.write_str("not a folder: choose another with --state-dir"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "folder",
            Self::File => "file",
        })
    }
}

/// Whether what holds a key is its owner's alone.
pub(super) fn judge(kind: Kind, owner: u32, expected: u32, mode: u32) -> Result<(), Fault> {
    if owner != expected {
        return Err(Fault::Owner {
            kind,
            owner,
            expected,
        });
    }
    let mode = mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Fault::Mode { kind, mode });
    }
    Ok(())
}

/// Whether the folder is its owner's alone.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let refused = |fault| Error::Refused {
        path: path.to_owned(),
        fault,
    };
    let metadata = fs::metadata(path).map_err(|source| Error::Io {
        action: "look at",
        path: path.to_owned(),
        source,
    })?;
    if !metadata.is_dir() {
        return Err(refused(Fault::NotAFolder));
    }
    judge(
        Kind::Folder,
        metadata.uid(),
        geteuid().as_raw(),
        metadata.mode(),
    )
    .map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_has_its_place_and_others_have_theirs() {
        let xdg = || Some(PathBuf::from("/x"));
        let home = || Some(PathBuf::from("/h"));
        for (is_systems, xdg, home, expected) in [
            (true, xdg(), home(), Some("/var/lib/fairlead")),
            (false, xdg(), home(), Some("/x/fairlead")),
            (false, None, home(), Some("/h/.local/state/fairlead")),
            (
                false,
                Some(PathBuf::from("relative")),
                home(),
                Some("/h/.local/state/fairlead"),
            ),
            (false, None, None, None),
        ] {
            assert_eq!(
                default_path(is_systems, xdg, home),
                expected.map(PathBuf::from)
            );
        }
    }

    #[test]
    fn what_others_may_touch_is_refused() {
        for (owner, mode, accepted) in [
            (7, 0o700, true),
            (7, 0o040_700, true),
            (7, 0o600, true),
            (7, 0o500, true),
            (7, 0o750, false),
            (7, 0o701, false),
            (8, 0o700, false),
        ] {
            assert_eq!(
                judge(Kind::Folder, owner, 7, mode).is_ok(),
                accepted,
                "{owner} {mode:o}"
            );
        }
    }
}
