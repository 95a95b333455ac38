//! Does what was planned, step by step, and says so.

use std::{
    fmt, fs, io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::Step;

/// For who starts the agent, which is anybody; and what systemd reads, in which nothing is anybody's secret.
const READABLE: u32 = 0o644;
const RUNNABLE: u32 = 0o755;
/// What the device may do, and for whom: nobody's business but root's and the agent's.
const CONFIG_FILE: u32 = 0o640;
const CONFIG_FOLDER: u32 = 0o750;
const UNIT_NAME: &str = "fairlead-agent.service";

/// Where it is done, and whether.
#[derive(Clone, Debug)]
pub struct Applier {
    root: PathBuf,
    dry_run: bool,
    has_changed: bool,
}

impl Applier {
    pub fn new(root: Option<&Path>, dry_run: bool) -> Self {
        Self {
            root: root.unwrap_or(Path::new("/")).to_owned(),
            dry_run,
            has_changed: false,
        }
    }

    /// Makes one step true. `None` where it is already.
    pub fn apply(&mut self, step: &Step) -> anyhow::Result<Option<String>> {
        if let Step::Call { command, may_fail } = step {
            return self.call(command, *may_fail).map(Some);
        }
        if *step == Step::Started {
            let verb = if self.has_changed { "restart" } else { "start" };
            return self.call(&["systemctl", verb, UNIT_NAME], false).map(Some);
        }
        if self.is_true(step)? {
            return Ok(None);
        }
        self.has_changed = true;
        if !self.dry_run {
            self.make(step).with_context(|| step.to_string())?;
        }
        Ok(Some(step.to_string()))
    }

    /// Where a path of the installed system is, while it is written to.
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn is_true(&self, step: &Step) -> anyhow::Result<bool> {
        let look = |path: &str| {
            let path = self.at(path);
            match fs::symlink_metadata(&path) {
                Ok(metadata) => Ok(Some(metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
            }
        };
        let has_mode = |metadata: fs::Metadata, mode| metadata.mode() & 0o7777 == mode;
        Ok(match step {
            Step::Folder(path) => {
                look(path)?.is_some_and(|folder| folder.is_dir() && has_mode(folder, CONFIG_FOLDER))
            }
            Step::File { path, content } => {
                look(path)?.is_some_and(|file| file.is_file() && has_mode(file, READABLE))
                    && fs::read(self.at(path)).is_ok_and(|found| found == content.as_bytes())
            }
            Step::FileOnce { path, .. } | Step::Link { path, .. } if look(path)?.is_none() => false,
            Step::FileOnce { .. } => true,
            Step::Program { from, path } => {
                look(path)?.is_some_and(|file| file.is_file() && has_mode(file, RUNNABLE))
                    && are_same(from, &self.at(path)).context("compare the programs")?
            }
            Step::Link { path, target } => {
                fs::read_link(self.at(path)).is_ok_and(|found| found == Path::new(target))
            }
            Step::Gone(path) | Step::TreeGone(path) => look(path)?.is_none(),
            Step::EmptyGone(path) => match fs::read_dir(self.at(path)) {
                Ok(mut entries) => entries.next().is_some(),
                Err(_) => true,
            },
            Step::Call { .. } | Step::Started => false,
        })
    }

    fn make(&self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Folder(path) => {
                let path = self.ready(path)?;
                match fs::create_dir(&path) {
                    // A link would have somebody else's folder changed.
                    Err(error)
                        if error.kind() == io::ErrorKind::AlreadyExists
                            && fs::symlink_metadata(&path)?.is_dir() => {}
                    made => made?,
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(CONFIG_FOLDER))?;
            }
            Step::File { path, content } => {
                self.replace(path, READABLE, &mut content.as_bytes())?;
            }
            Step::FileOnce { path, content } => {
                self.replace(path, CONFIG_FILE, &mut content.as_bytes())?;
            }
            Step::Program { from, path } => {
                let mut source =
                    fs::File::open(from).with_context(|| format!("open {}", from.display()))?;
                self.replace(path, RUNNABLE, &mut source)?;
            }
            Step::Link { path, target } => {
                let path = self.ready(path)?;
                remove(fs::remove_file(&path))?;
                std::os::unix::fs::symlink(target, path)?;
            }
            Step::Gone(path) => remove(fs::remove_file(self.ready(path)?))?,
            Step::EmptyGone(path) => remove(fs::remove_dir(self.ready(path)?))?,
            Step::TreeGone(path) => remove(fs::remove_dir_all(self.ready(path)?))?,
            Step::Call { .. } | Step::Started => {}
        }
        Ok(())
    }

    /// The path, in a folder that is there and is in the root: a link of an image must not lead out of it.
    fn ready(&self, path: &str) -> anyhow::Result<PathBuf> {
        let path = self.at(path);
        let parent = path.parent().unwrap_or(&self.root);
        make_folders(parent).with_context(|| format!("make {}", parent.display()))?;
        let (parent, root) = (fs::canonicalize(parent)?, fs::canonicalize(&self.root)?);
        anyhow::ensure!(
            parent.starts_with(&root),
            "{} leads out of {}: look for a link",
            path.display(),
            root.display()
        );
        Ok(path)
    }

    /// Whole or as it was: the file may be a program that runs.
    fn replace(&self, path: &str, mode: u32, content: &mut dyn io::Read) -> anyhow::Result<()> {
        let path = self.ready(path)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        remove(fs::remove_file(&new))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        // Whatever the umask says.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        let written = io::copy(content, &mut file).and_then(|_| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&new, &path)) {
            let _ = fs::remove_file(&new);
            return Err(error.into());
        }
        Ok(())
    }

    fn call(&self, command: &[&str], may_fail: bool) -> anyhow::Result<String> {
        let said = command.join(" ");
        let Some((program, arguments)) = command.split_first().filter(|_| !self.dry_run) else {
            return Ok(said);
        };
        let status = Command::new(program)
            .args(arguments)
            .status()
            .with_context(|| said.clone());
        match status {
            Ok(status) if status.success() || may_fail => Ok(said),
            Ok(status) => anyhow::bail!("{said}: {status}"),
            Err(error) if may_fail => Ok(format!("{said} ({error:#})")),
            Err(error) => Err(error),
        }
    }
}

/// Those that are missing, open to all whatever the umask says: it may be that of a person who keeps everything private.
fn make_folders(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folders(parent)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(RUNNABLE))
}

/// What is gone already is gone.
fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn are_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (a, b) = (fs::metadata(one)?, fs::metadata(other)?);
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return Ok(true);
    }
    Ok(a.len() == b.len() && fs::read(one)? == fs::read(other)?)
}

/// What is said about it.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "make {path} ({CONFIG_FOLDER:04o})"),
            Self::File { path, .. } => write!(f, "write {path} ({READABLE:04o})"),
            Self::FileOnce { path, .. } => write!(f, "write {path} ({CONFIG_FILE:04o})"),
            Self::Program { path, .. } => write!(f, "copy this program to {path} ({RUNNABLE:04o})"),
            Self::Link { path, target } => write!(f, "link {path} to {target}"),
            Self::Gone(path) | Self::EmptyGone(path) => write!(f, "remove {path}"),
            Self::TreeGone(path) => write!(f, "remove {path} and everything in it"),
            Self::Call { command, .. } => f.write_str(&command.join(" ")),
            Self::Started => write!(f, "systemctl start {UNIT_NAME}"),
        }
    }
}
