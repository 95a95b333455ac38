//! Reads and writes one JSON file of the state folder.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::{fs::OFlags, process::geteuid};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{Error, access, atomic};

/// Largest file that is read: an identity with a long chain and a long list of gateways is a tenth of it.
const MAX_BYTES: u64 = 256 * 1024;

/// The content of a private file; `None` where there is none. Refuses a link, and what others may read or change.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let io = |source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    access::judge(
        access::Kind::File,
        metadata.uid(),
        geteuid().as_raw(),
        metadata.mode(),
    )
    .map_err(|fault| Error::Refused {
        path: path.to_owned(),
        fault,
    })?;
    let mut content = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(io)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(Error::Damaged {
            path: path.to_owned(),
            what: format!("larger than {MAX_BYTES} bytes"),
        });
    }
    Ok(Some(content))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    atomic::replace(path, |file| file.write_all(content))
        .map(|_| ())
        .map_err(|source| Error::Io {
            action: "write",
            path: path.to_owned(),
            source,
        })
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    read(path)?
        .map(|content| {
            serde_json::from_slice(&content).map_err(|error| Error::Damaged {
                path: path.to_owned(),
                what: error.to_string(),
            })
        })
        .transpose()
}

pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let content = serde_json::to_vec_pretty(value).map_err(|error| Error::Io {
        action: "encode",
        path: path.to_owned(),
        source: io::Error::other(error),
    })?;
    write(path, &content)
}
