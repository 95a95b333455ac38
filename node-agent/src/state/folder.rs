//! The folder itself: what is in it, and that one process alone changes it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use pairing::key::KeyFingerprint;

use super::{
    Error, Identity, Refused, Standing, access, atomic, file,
    identity::Life,
    key::DeviceKey,
    pairing::{Pairing, Saved},
    session, standing,
};

const LOCK: &str = "lock";
const KEY: &str = "key.pem";
const PAIRING: &str = "pairing.json";
const IDENTITY: &str = "identity.json";
const SESSION: &str = "session.json";
const REFUSED: &str = "refused.json";
const JOURNAL: &str = "journal";
const ARTEFACTS: &str = "artefacts";

/// The folder, read while another process may use it.
#[derive(Clone, Debug)]
pub struct View {
    path: PathBuf,
}

impl View {
    /// `None` where there is no such folder.
    pub fn of(path: &Path) -> Result<Option<Self>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        access::check(path)?;
        Ok(Some(Self {
            path: path.to_owned(),
        }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the journal is.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// The folder for outputs that are too large to be told.
    pub fn artefacts(&self) -> PathBuf {
        self.path.join(ARTEFACTS)
    }

    /// `None` where no key was made yet.
    pub fn key(&self) -> Result<Option<DeviceKey>, Error> {
        let path = self.path.join(KEY);
        file::read(&path)?
            .map(|pem| DeviceKey::from_pem(&pem).map_err(|what| Error::Damaged { path, what }))
            .transpose()
    }

    pub fn identity(&self) -> Result<Option<Identity>, Error> {
        file::read_json(&self.path.join(IDENTITY))
    }

    /// A certificate's life, with an identity that cannot be read as an error.
    pub fn life_of(&self, identity: &Identity) -> Result<Life, Error> {
        identity.life().map_err(|error| Error::Damaged {
            path: self.path.join(IDENTITY),
            what: error.to_string(),
        })
    }

    /// Whether the identity is for this key.
    pub fn check_identity(&self, identity: &Identity, key: &DeviceKey) -> Result<(), Error> {
        let issued_for = identity
            .chain()
            .next()
            .and_then(|leaf| KeyFingerprint::of_certificate(&leaf).ok());
        if issued_for == Some(key.fingerprint()) {
            return Ok(());
        }
        Err(Error::Damaged {
            path: self.path.join(IDENTITY),
            what: "it was issued for another key".to_owned(),
        })
    }

    pub fn pairing(&self) -> Result<Option<Saved>, Error> {
        Ok(file::read_json(&self.path.join(PAIRING))?.map(Saved::loaded))
    }

    /// See [`standing`]. `now` in seconds since 1970.
    pub fn standing(&self, now: i64) -> Result<Standing<Identity, Saved>, Error> {
        let identity = self
            .identity()?
            .map(|identity| {
                self.life_of(&identity)
                    .map(|life| (identity, life.is_over_at(now)))
            })
            .transpose()?;
        Ok(standing(identity, self.pairing()?))
    }

    pub fn session(&self) -> Result<Option<session::Session>, Error> {
        file::read_json(&self.path.join(SESSION))
    }

    /// The renewal that was not accepted last. `None` where one was accepted since.
    pub fn refused(&self) -> Result<Option<Refused>, Error> {
        file::read_json(&self.path.join(REFUSED))
    }

    /// Who uses the folder now.
    pub fn user(&self) -> Option<u32> {
        let file = File::open(self.path.join(LOCK)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => holder(file),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }
}

fn holder(lock: File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The folder, used by this process alone while this lives.
#[derive(Debug)]
pub struct Folder {
    view: View,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing; fails where it is not the owner's alone, or in use.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |action| {
            move |source| Error::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("create"))?;
        access::check(path)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(io("open the lock of"))?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy {
                    path: path.to_owned(),
                    pid: holder(lock),
                });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        sign(&mut lock).map_err(io("sign the lock of"))?;
        Ok(Self {
            view: View {
                path: path.to_owned(),
            },
            _lock: lock,
        })
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// This device's key, made at the first call. Fails where the key is gone but something was issued for it.
    pub fn key(&self) -> Result<DeviceKey, Error> {
        if let Some(key) = self.view.key()? {
            return Ok(key);
        }
        let path = self.view.path.join(KEY);
        if self.view.identity()?.is_some() || self.view.pairing()?.is_some() {
            return Err(Error::NoKey { path });
        }
        let key = DeviceKey::generate().map_err(|error| Error::Io {
            action: "generate",
            path: path.clone(),
            source: io::Error::other(error),
        })?;
        file::write(&path, key.to_pem().as_bytes())?;
        Ok(key)
    }

    /// Keeps a pairing, durably; what it returns is the only way to go on with it.
    pub fn save_pairing(&self, pairing: Pairing) -> Result<Saved, Error> {
        file::write_json(&self.view.path.join(PAIRING), &pairing)?;
        Ok(Saved::loaded(pairing))
    }

    /// Sends a pairing to another gateway, durably. Whom it believes stays: the authority that it began with.
    pub fn redirect_pairing(&self, saved: Saved, gateway: String) -> Result<Saved, Error> {
        if saved.pairing().gateway == gateway {
            return Ok(saved);
        }
        self.save_pairing(Pairing {
            gateway,
            ..saved.pairing().clone()
        })
    }

    pub fn forget_pairing(&self) -> Result<(), Error> {
        self.remove(&[PAIRING])
    }

    /// Keeps an identity, durably, and ends the pairing that led to it.
    pub fn save_identity(&self, identity: &Identity) -> Result<(), Error> {
        file::write_json(&self.view.path.join(IDENTITY), identity)?;
        self.forget_pairing()
    }

    /// Keeps why a renewal was not accepted.
    pub fn save_refused(&self, refused: &Refused) -> Result<(), Error> {
        file::write_json(&self.view.path.join(REFUSED), refused)
    }

    /// Forgets it: a certificate was accepted.
    pub fn forget_refused(&self) -> Result<(), Error> {
        self.remove(&[REFUSED])
    }

    pub fn save_session(&self, session: &session::Session) -> Result<(), Error> {
        file::write_json(&self.view.path.join(SESSION), session)
    }

    /// Forgets everything; the key last, so that a stop on the way leaves nothing that lacks its key.
    pub fn clear(&self) -> Result<(), Error> {
        self.remove(&[IDENTITY])?;
        self.remove(&[PAIRING, SESSION, REFUSED, JOURNAL])?;
        self.remove_artefacts()?;
        self.remove(&[KEY])
    }

    fn remove_artefacts(&self) -> Result<(), Error> {
        let path = self.view.artefacts();
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io {
                action: "remove",
                path,
                source,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn remove(&self, names: &[&str]) -> Result<(), Error> {
        let mut removed = false;
        for name in names {
            let path = self.view.path.join(name);
            match fs::remove_file(&path) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(Error::Io {
                        action: "remove",
                        path,
                        source,
                    });
                }
            }
        }
        if removed {
            let path = self.view.path.join(LOCK);
            atomic::sync_folder_of(&path).map_err(|source| Error::Io {
                action: "sync the folder of",
                path,
                source,
            })?;
        }
        Ok(())
    }
}

/// `status` holds the lock for an instant to see whether somebody else does.
fn try_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..5 {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            locked => return locked,
        }
    }
    lock.try_lock()
}

fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("state");
        (temporary, path)
    }

    #[test]
    fn a_folder_or_key_that_others_may_read_is_refused_with_what_to_do() {
        let (_temporary, path) = folder();
        let opened = Folder::open(&path).unwrap();
        opened.key().unwrap();
        let key = path.join(KEY);
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);

        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = opened.key().err().unwrap().to_string();
        assert!(error.contains("chmod 0600"), "{error}");

        drop(opened);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = Folder::open(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 0700"), "{error}");
    }

    #[test]
    fn a_link_in_the_place_of_the_key_is_not_followed() {
        let (temporary, path) = folder();
        let opened = Folder::open(&path).unwrap();
        let elsewhere = temporary.path().join("elsewhere");
        fs::write(&elsewhere, "x").unwrap();
        std::os::unix::fs::symlink(&elsewhere, path.join(KEY)).unwrap();
        assert!(matches!(opened.key(), Err(Error::Io { .. })));
    }

    #[test]
    fn a_second_process_is_told_who_is_there() {
        let (_temporary, path) = folder();
        let first = Folder::open(&path).unwrap();
        let Err(Error::Busy { pid, .. }) = Folder::open(&path) else {
            unreachable!("the folder is in use");
        };
        assert_eq!(pid, Some(std::process::id()));
        assert_eq!(first.view().user(), Some(std::process::id()));
        drop(first);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn the_key_stays_the_same_and_is_not_made_anew_under_an_identity() {
        let (_temporary, path) = folder();
        let opened = Folder::open(&path).unwrap();
        let fingerprint = opened.key().unwrap().fingerprint();
        assert_eq!(opened.key().unwrap().fingerprint(), fingerprint);
        fs::remove_file(path.join(KEY)).unwrap();
        opened.save_pairing(Pairing::for_tests()).unwrap();
        assert!(matches!(opened.key(), Err(Error::NoKey { .. })));
        opened.clear().unwrap();
        assert_ne!(opened.key().unwrap().fingerprint(), fingerprint);
    }

    #[test]
    fn a_pairing_that_is_sent_elsewhere_stays_the_same_otherwise() {
        let (_temporary, path) = folder();
        let opened = Folder::open(&path).unwrap();
        let saved = opened.save_pairing(Pairing::for_tests()).unwrap();
        let elsewhere = "elsewhere.example:1".to_owned();
        let moved = opened.redirect_pairing(saved, elsewhere.clone()).unwrap();
        assert_eq!(opened.view().pairing().unwrap().as_ref(), Some(&moved));
        let expected = Pairing {
            gateway: elsewhere,
            ..Pairing::for_tests()
        };
        assert_eq!(moved.pairing(), &expected);
    }

    #[test]
    fn garbage_is_damage_and_never_a_panic() {
        let (_temporary, path) = folder();
        let opened = Folder::open(&path).unwrap();
        for name in [KEY, IDENTITY, PAIRING, SESSION, REFUSED] {
            for content in [&b""[..], b"{", b"\xff\xff", b"{\"chain\":[\"!\"]}"] {
                file::write(&path.join(name), content).unwrap();
                let view = opened.view();
                let read = match name {
                    KEY => view.key().map(|_| ()),
                    IDENTITY => view.identity().map(|_| ()),
                    PAIRING => view.pairing().map(|_| ()),
                    REFUSED => view.refused().map(|_| ()),
                    _ => view.session().map(|_| ()),
                };
                assert!(matches!(read, Err(Error::Damaged { .. })), "{name}");
            }
        }
    }
}
