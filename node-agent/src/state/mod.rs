//! The state folder: what survives a stop, a crash and a power cut.
//!
//! | File | What | Written |
//! |---|---|---|
//! | `lock` | held by the one process that uses the folder | at its start |
//! | `key.pem` | this device's private key | once |
//! | `pairing.json` | a pairing in progress | before the proof leaves; gone when it ends |
//! | `identity.json` | certificate, authorities, gateways | when issued or renewed; when another gateway was reached |
//! | `refused.json` | why the last renewal was not accepted | when it was not; gone with the next one that is |
//! | `session.json` | what `status` shows of the connection | when that changes |
//! | `journal` | invocations | see [`crate::journal`] |
//! | `artefacts/` | outputs that wait to be stored | see [`crate::capability::spool`] |
//!
//! The folder is the owner's alone; so is each file. Nothing here talks to anybody.

pub mod access;
pub(crate) mod atomic;
mod file;
pub mod folder;
pub mod identity;
pub mod key;
pub mod pairing;
pub mod refused;
pub mod session;

use std::{io, path::PathBuf};

pub use folder::{Folder, View};
pub use identity::Identity;
pub use key::DeviceKey;
pub use pairing::{Pairing, Saved};
pub use refused::Refused;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else could read or change it.
    #[error("{}: {fault}", path.display())]
    Refused { path: PathBuf, fault: access::Fault },
    #[error(
        "another fairlead-agent{} uses {}: stop it first, or choose another folder with --state-dir",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), path.display()
    )]
    Busy { path: PathBuf, pid: Option<u32> },
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Not written by us, or not on this disk.
    #[error("{} is damaged ({what}): restore it from a backup, or run `fairlead-agent unpair` and pair again", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error(
        "{} is missing, and what is in the folder was issued for it: restore it from a backup, or run `fairlead-agent unpair` and pair again",
        path.display()
    )]
    NoKey { path: PathBuf },
}

/// Where this device stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing<I, P> {
    Unpaired,
    /// A code was proved, and no certificate is here yet.
    Pairing(P),
    Paired(I),
}

/// What counts where both are there: an identity that still holds, for then the pairing is a rest that a crash left
/// between two writes; but a pairing over an identity that has run out, for then it is how the device comes back.
pub fn standing<I, P>(identity: Option<(I, bool)>, pairing: Option<P>) -> Standing<I, P> {
    match (identity, pairing) {
        (Some((_, true)) | None, Some(pairing)) => Standing::Pairing(pairing),
        (Some((identity, _)), _) => Standing::Paired(identity),
        (None, None) => Standing::Unpaired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_identity_counts_before_a_pairing_and_an_expired_one_after() {
        const EXPIRED: bool = true;
        for (identity, pairing, expected) in [
            (None, None, Standing::Unpaired),
            (None, Some("pairing"), Standing::Pairing("pairing")),
            (Some(("id", !EXPIRED)), None, Standing::Paired("id")),
            (Some(("id", EXPIRED)), None, Standing::Paired("id")),
            (Some(("id", !EXPIRED)), Some("rest"), Standing::Paired("id")),
            (
                Some(("id", EXPIRED)),
                Some("pairing"),
                Standing::Pairing("pairing"),
            ),
        ] {
            assert_eq!(standing(identity, pairing), expected);
        }
    }
}
