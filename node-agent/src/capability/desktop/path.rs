//! `desktop.open_path`: opens a file or a folder of this device, out of the folders that its administrator chose.
//!
//! A path is followed to its end before it is judged, and then held: where it names something else at the moment when the
//! opener starts, or right after, that is noticed. The opener itself takes a path, so whoever may write to the chosen
//! folders could still win a race that is over before the second look; choose folders that only trusted users write to.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
    sync::LazyLock,
};

use proto::node::{Execution, FailureCode};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use super::{Opener, invalid, opened};
use crate::capability::{Call, Capability, Failure, Running, terms::Terms};

/// Longest path, in bytes: what the kernel takes.
const MAX_BYTES: usize = 4096;

static TERMS: LazyLock<Terms> = LazyLock::new(|| {
    let input = r#"{"type":"object","properties":{"path":{"type":"string","minLength":1,"maxLength":4096}},"required":["path"],"additionalProperties":false}"#;
    let output = r#"{"type":"object","properties":{"opened":{"type":"string"}}}"#;
    Terms::built_in(Some(input), Some(output))
});

#[derive(Debug)]
pub(super) struct OpenPath {
    opener: Opener,
    roots: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    path: String,
}

impl OpenPath {
    pub(super) fn new(opener: Opener, roots: Vec<PathBuf>) -> Self {
        Self { opener, roots }
    }
}

impl Capability for OpenPath {
    fn name(&self) -> &'static str {
        "desktop.open_path"
    }

    fn description(&self) -> &'static str {
        "opens a file or folder on this screen"
    }

    fn terms(&self) -> &Terms {
        &TERMS
    }

    /// Its form alone: what the disk says is looked at when it is opened.
    fn takes(&self, input: &[u8]) -> Result<(), Failure> {
        self.terms().takes(input)?;
        read(input).map(drop)
    }

    fn execution(&self) -> Execution {
        Execution::Mediated
    }

    fn run(&self, call: Call) -> Running {
        let (opener, roots) = (self.opener.clone(), self.roots.clone());
        Box::pin(async move {
            let path = read(&call.input)?;
            // A network file system that hangs must not take the heartbeats with it.
            let held = tokio::task::spawn_blocking(move || Held::hold(&path, &roots))
                .await
                .map_err(|error| Failure::new(FailureCode::Internal, error.to_string()))?
                .map_err(invalid)?;
            held.open(&opener).await?;
            Ok(opened(&held.path.to_string_lossy()))
        })
    }
}

fn read(input: &[u8]) -> Result<String, Failure> {
    let Input { path } = serde_json::from_slice(input)
        .map_err(|error| invalid(format!("give {{\"path\": \"/...\"}}: {error}")))?;
    judge_form(&path).map_err(|why| invalid(format!("/path: {why}")))?;
    Ok(path)
}

/// Fails with why it can be no path that is opened, whatever is on the disk.
fn judge_form(path: &str) -> Result<(), &'static str> {
    if path.len() > MAX_BYTES || path.contains(char::is_control) {
        return Err("path is too long, or contains a control character");
    }
    if !path.starts_with('/') {
        return Err("path must begin with /");
    }
    Ok(())
}

/// A file or folder that was found to be one that may be opened.
#[derive(Debug)]
struct Held {
    /// Canonical.
    path: PathBuf,
    fd: OwnedFd,
}

impl Held {
    /// Fails with why it may not be opened.
    fn hold(path: &str, roots: &[PathBuf]) -> Result<Self, String> {
        judge_form(path)?;
        // One answer for what is missing and for what is outside: who asks learns nothing about the rest of the disk.
        let refused = || "path is not in the folders from which this device opens files".to_owned();
        let path = fs::canonicalize(path).map_err(|_| refused())?;
        let is_inside = roots
            .iter()
            .filter_map(|root| fs::canonicalize(root).ok())
            .any(|root| path.starts_with(root));
        if !is_inside {
            return Err(refused());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|_| refused())?;
        let held = Self { path, fd };
        // It is what was judged only where the kernel calls it so, too.
        if held.place().ok().as_ref() != Some(&held.path) {
            return Err(refused());
        }
        held.judge_kind()?;
        Ok(held)
    }

    /// Where the kernel says that it is.
    fn place(&self) -> io::Result<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Opening it must not run it, and must not wake up a device.
    fn judge_kind(&self) -> Result<(), String> {
        let metadata = self.metadata().map_err(|error| error.to_string())?;
        if metadata.is_dir() {
            return Ok(());
        }
        if !metadata.is_file() {
            return Err("path is neither a file nor a folder".to_owned());
        }
        let is_launcher = self
            .path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("desktop"));
        if is_launcher || metadata.mode() & 0o111 != 0 {
            return Err("path is a program: it is not opened".to_owned());
        }
        // Its other names may be anywhere on the file system, out of the chosen folders too, and nothing tells where.
        if metadata.nlink() > 1 {
            return Err("path is a file with more than one name, a hard link: copy it".to_owned());
        }
        Ok(())
    }

    fn metadata(&self) -> io::Result<fs::Metadata> {
        fs::metadata(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Has it opened, if its path leads to it before that and after it.
    async fn open(&self, opener: &Opener) -> Result<(), Failure> {
        self.check()?;
        opener.open(self.path.as_os_str()).await?;
        self.check()
    }

    /// Whether its path still leads to it, and to nothing else.
    fn check(&self) -> Result<(), Failure> {
        let same = || -> io::Result<bool> {
            let (held, found) = (self.metadata()?, fs::symlink_metadata(&self.path)?);
            let is_same = (held.dev(), held.ino()) == (found.dev(), found.ino());
            Ok(is_same && self.place()? == self.path)
        };
        if matches!(same(), Ok(true)) {
            return Ok(());
        }
        Err(Failure::new(
            FailureCode::CapabilityFailed,
            "the file was moved or replaced while it was being opened",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt as _, fs::symlink, net::UnixListener};

    use super::*;

    struct Place {
        temporary: tempfile::TempDir,
    }

    impl Place {
        /// `inside/file`, `inside/folder/`, `outside/secret`; the root is a link to `inside`.
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            let place = Self { temporary };
            for folder in ["inside/folder", "outside"] {
                fs::create_dir_all(place.at(folder)).unwrap();
            }
            for file in ["inside/file", "outside/secret", "inside-not"] {
                fs::write(place.at(file), "x").unwrap();
            }
            symlink(place.at("inside"), place.at("root")).unwrap();
            place
        }

        fn at(&self, path: &str) -> PathBuf {
            self.temporary.path().join(path)
        }

        fn hold(&self, path: &str) -> Result<Held, String> {
            let roots = [self.at("nothing"), self.at("root")];
            Held::hold(self.at(path).to_str().unwrap(), &roots)
        }
    }

    #[test]
    fn the_form_of_a_path_is_judged_before_anybody_is_asked() {
        let opener = Opener {
            launcher: std::path::Path::new("/nowhere").into(),
            words: Vec::new(),
        };
        let capability = OpenPath::new(opener, Vec::new());
        let takes = |path: &str| {
            let input = serde_json::json!({ "path": path }).to_string();
            capability.takes(input.as_bytes())
        };
        // Whether it is there is for later.
        assert_eq!(takes("/nowhere/at/all"), Ok(()));
        for wrong in ["", "file", "/x\ny", &"/ä".repeat(2048)] {
            let failure = takes(wrong).unwrap_err();
            assert_eq!(failure.code, FailureCode::InvalidInput);
            assert!(failure.message.contains("/path: "), "{failure}");
        }
    }

    #[test]
    fn what_is_inside_may_be_opened_by_its_true_name() {
        let place = Place::new();
        let inside = fs::canonicalize(place.at("inside")).unwrap();
        symlink("file", place.at("inside/link")).unwrap();
        for (path, expected) in [
            ("inside/file", "file"),
            ("root/file", "file"),
            ("inside/folder", "folder"),
            ("inside/folder/../link", "file"),
        ] {
            let held = place.hold(path).unwrap();
            assert_eq!(held.path, inside.join(expected), "{path}");
            held.check().unwrap();
        }
        assert_eq!(place.hold("inside").unwrap().path, inside);
    }

    #[test]
    fn what_is_outside_or_leads_there_is_refused_like_what_is_missing() {
        let place = Place::new();
        symlink(place.at("outside/secret"), place.at("inside/link")).unwrap();
        symlink(place.at("outside"), place.at("inside/way")).unwrap();
        let missing = place.hold("inside/missing").unwrap_err();
        for path in [
            "outside/secret",
            "inside/../outside/secret",
            "inside/link",
            "inside/way/secret",
            "inside-not",
            "inside/file/",
        ] {
            assert_eq!(place.hold(path).unwrap_err(), missing, "{path}");
        }
        let roots = [place.at("inside")];
        for path in ["inside/file", "", "file", "/x\ny", &"/x".repeat(4096)] {
            assert!(Held::hold(path, &roots).is_err(), "{path}");
        }
    }

    #[test]
    fn what_opening_could_run_is_refused() {
        let place = Place::new();
        fs::write(place.at("inside/x.desktop"), "x").unwrap();
        fs::write(place.at("inside/script"), "x").unwrap();
        fs::set_permissions(place.at("inside/script"), fs::Permissions::from_mode(0o755)).unwrap();
        let _socket = UnixListener::bind(place.at("inside/socket")).unwrap();
        for path in ["inside/x.desktop", "inside/script"] {
            assert!(place.hold(path).unwrap_err().contains("program"), "{path}");
        }
        assert!(place.hold("inside/socket").unwrap_err().contains("neither"));
    }

    #[test]
    fn a_file_that_may_have_a_name_elsewhere_is_refused() {
        let place = Place::new();
        fs::hard_link(place.at("outside/secret"), place.at("inside/innocent")).unwrap();
        let refused = place.hold("inside/innocent").unwrap_err();
        assert!(refused.contains("hard link"), "{refused}");
        fs::remove_file(place.at("outside/secret")).unwrap();
        place.hold("inside/innocent").unwrap();
    }

    #[tokio::test]
    async fn what_was_swapped_before_it_was_opened_is_not_opened() {
        let place = Place::new();
        let opener = Opener {
            launcher: std::path::Path::new("/nowhere").into(),
            words: Vec::new(),
        };
        let held = place.hold("inside/file").unwrap();
        // It cannot be started, so it is noticed when somebody tries.
        let failure = held.open(&opener).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::Unavailable);
        fs::remove_file(place.at("inside/file")).unwrap();
        symlink(place.at("outside/secret"), place.at("inside/file")).unwrap();
        let failure = held.open(&opener).await.unwrap_err();
        assert_eq!(failure.code, FailureCode::CapabilityFailed);
    }

    #[test]
    fn a_swap_after_the_look_is_noticed() {
        let place = Place::new();
        let replaced = place.hold("inside/file").unwrap();
        fs::rename(place.at("inside/file"), place.at("inside/old")).unwrap();
        assert!(replaced.check().is_err(), "moved away");
        symlink(place.at("outside/secret"), place.at("inside/file")).unwrap();
        assert!(replaced.check().is_err(), "a link in its place");
        fs::remove_file(place.at("inside/file")).unwrap();
        fs::write(place.at("inside/file"), "y").unwrap();
        assert!(replaced.check().is_err(), "another file in its place");

        fs::create_dir(place.at("inside/deep")).unwrap();
        fs::write(place.at("inside/deep/file"), "x").unwrap();
        let held = place.hold("inside/deep/file").unwrap();
        fs::rename(place.at("inside/deep"), place.at("outside/deep")).unwrap();
        symlink(place.at("outside/deep"), place.at("inside/deep")).unwrap();
        assert!(held.check().is_err(), "a folder above it is a link now");
    }
}
