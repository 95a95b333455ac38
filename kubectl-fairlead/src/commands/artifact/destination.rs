//! A path that the caller names for an output.
//!
//! A regular file, or a name that is free, gets its content as a whole or not at all: the content is written beside it
//! under another name, and then renamed. A link is followed. Anything else, such as a FIFO, a device node or a socket of a
//! process substitution, is opened and written into: a rename would put a regular file in its place.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Most links that lead from one to another.
const MAX_LINKS: usize = 40;

/// Where an output goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Destination {
    /// A regular file that is replaced, with its permissions, or a name that is free.
    Whole {
        path: PathBuf,
        replaces: Option<Permissions>,
    },
    /// Anything else that can be written into.
    Into(PathBuf),
}

impl Destination {
    /// Looks at what is at the path now. Writes nothing.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
                Ok(found) if found.is_file() => {
                    return Ok(Self::Whole {
                        path: fs::canonicalize(&path)?,
                        replaces: Some(found.permissions()),
                    });
                }
                Ok(_) => return Ok(Self::Into(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            // A free name, or a link to one.
            match fs::read_link(&path) {
                Ok(target) => path = folder(&path).join(target),
                Err(_) => {
                    return Ok(Self::Whole {
                        path,
                        replaces: None,
                    });
                }
            }
        }
        Err(io::Error::other("too many links"))
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Whole { path, .. } | Self::Into(path) => path,
        }
    }

    pub fn open(&self) -> io::Result<Opened<'_>> {
        match self {
            Self::Whole { path, replaces } => {
                let file = tempfile::Builder::new()
                    .prefix(".fairlead-")
                    .tempfile_in(folder(path))?;
                if let Some(permissions) = replaces {
                    file.as_file().set_permissions(permissions.clone())?;
                }
                Ok(Opened::Beside(file, path))
            }
            Self::Into(path) => OpenOptions::new().write(true).open(path).map(Opened::Into),
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// What is written to.
pub enum Opened<'a> {
    /// Removed unless it is done.
    Beside(NamedTempFile, &'a Path),
    Into(File),
}

impl Opened<'_> {
    /// Another handle of it.
    pub fn file(&self) -> io::Result<File> {
        match self {
            Self::Beside(file, _) => file.reopen(),
            Self::Into(file) => file.try_clone(),
        }
    }

    /// All of the content was written to `written`, a handle of it.
    pub fn done(self, written: &File) -> io::Result<()> {
        match self {
            Self::Beside(file, path) => {
                written.sync_all()?;
                file.persist(path).map(drop).map_err(|error| error.error)
            }
            Self::Into(_) => Ok(()),
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink},
    };

    use super::*;

    fn write(path: &Path, text: &str) -> io::Result<()> {
        let destination = Destination::of(path)?;
        let opened = destination.open()?;
        let mut file = opened.file()?;
        file.write_all(text.as_bytes())?;
        opened.done(&file)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_fifo_is_written_into_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut text = String::new();
                File::open(path).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        write(&path, "through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_link_is_followed_and_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o640)).unwrap();
        symlink("target", &link).unwrap();
        write(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "the file keeps its permissions");

        let (nowhere, dangling) = (folder.path().join("free"), folder.path().join("dangling"));
        symlink("free", &dangling).unwrap();
        write(&dangling, "new").unwrap();
        assert_eq!(fs::read_to_string(nowhere).unwrap(), "new");
        assert!(fs::symlink_metadata(&dangling).unwrap().is_symlink());
    }

    #[test]
    fn a_device_node_is_written_into() {
        assert_eq!(
            Destination::of(Path::new("/dev/null")).unwrap(),
            Destination::Into("/dev/null".into())
        );
        write(Path::new("/dev/null"), "gone").unwrap();
        assert!(
            fs::metadata("/dev/null")
                .unwrap()
                .file_type()
                .is_char_device()
        );
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let destination = Destination::of(&path).unwrap();
        let opened = destination.open().unwrap();
        opened.file().unwrap().write_all(b"half").unwrap();
        drop(opened);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["file"], "nothing is left behind");
        write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_folder_and_a_ring_of_links_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Destination::of(folder.path()).is_err());
        let ring = folder.path().join("ring");
        symlink("ring", &ring).unwrap();
        assert!(Destination::of(&ring).is_err());
    }
}
