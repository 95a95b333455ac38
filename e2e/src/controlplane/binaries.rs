//! Where etcd, kube-apiserver and kubectl come from: a folder somebody names, or built once from pinned Go modules.
//!
//! The build goes to a folder of its own and is renamed when whole, so what is in the cache is always complete; a lock
//! makes a second build wait for the first. Blocking code: it is called before anything async starts.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::process::tail;
use crate::wait::Stopwatch;

/// What is built: the program's name and its package. The names are those of the envtest convention.
const PROGRAMS: [(&str, &str); 3] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
];

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/controlplane");
const PROGRESS_EVERY: Duration = Duration::from_secs(15);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// A folder with all three programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Takes `KUBEBUILDER_ASSETS` where it is set, and otherwise the cache, building what is not there.
    /// Progress goes to standard error.
    ///
    /// # Errors
    /// When the named folder lacks a program, or the build cannot be done; the message says what to do.
    pub fn find() -> anyhow::Result<Self> {
        if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS") {
            return Self::in_folder(folder.into())
                .context("KUBEBUILDER_ASSETS is set, so nothing is built; unset it to build from e2e/controlplane");
        }
        let recipe = Recipe::read()?;
        let cache = cache_root()?.join("controlplane");
        let folder = cache.join(recipe.key());
        if !folder.is_dir() {
            crate::private::folder(&cache)?;
            build_once(&recipe, &folder)?;
        }
        Self::in_folder(folder)
    }

    /// Takes the programs of a folder.
    pub fn in_folder(folder: PathBuf) -> anyhow::Result<Self> {
        for (name, _) in PROGRAMS {
            ensure!(
                folder.join(name).is_file(),
                "no {name} in {}: it must hold etcd, kube-apiserver and kubectl",
                folder.display()
            );
        }
        Ok(Self { folder })
    }

    /// The folder, for a `PATH`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of etcd.
    pub fn etcd(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    /// Path of kube-apiserver.
    pub fn api_server(&self) -> PathBuf {
        self.folder.join("kube-apiserver")
    }

    /// Path of kubectl.
    pub fn kubectl(&self) -> PathBuf {
        self.folder.join("kubectl")
    }
}

/// The folder for what can be made again: `FAIRLEAD_CACHE`, or `fairlead` in the user's cache folder.
pub fn cache_root() -> anyhow::Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("FAIRLEAD_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("fairlead")))
        .or_else(|| Some(set("HOME")?.join(".cache/fairlead")))
        .context("no place for a cache: set FAIRLEAD_CACHE to a folder")
        .and_then(|root| std::path::absolute(root).context("find the cache folder"))
}

/// All that decides what the build gives.
#[derive(Debug)]
struct Recipe {
    go_mod: String,
    go_sum: String,
    go: GoEnvironment,
    linker_flags: String,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct GoEnvironment {
    #[serde(rename = "GOVERSION")]
    version: String,
    #[serde(rename = "GOOS")]
    os: String,
    #[serde(rename = "GOARCH")]
    architecture: String,
}

impl Recipe {
    fn read() -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = Path::new(MODULE).join(name);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let go_mod = read("go.mod")?;
        let version = module_version(&go_mod, "k8s.io/kubernetes")
            .context("e2e/controlplane/go.mod requires no version of k8s.io/kubernetes")?;
        Ok(Self {
            linker_flags: linker_flags(version)?,
            go: GoEnvironment::ask(&go_mod)?,
            go_sum: read("go.sum")?,
            go_mod,
        })
    }

    fn flags(&self) -> [&str; 5] {
        // Said, as a GOFLAGS of the user could have Go change what is pinned.
        [
            "-mod=readonly",
            "-trimpath",
            "-v",
            "-ldflags",
            &self.linker_flags,
        ]
    }

    fn key(&self) -> String {
        let Self {
            go_mod,
            go_sum,
            go,
            linker_flags: _,
        } = self;
        let mut hash = Sha256::new();
        let flags = self.flags().join(" ");
        for part in [
            go_mod,
            go_sum,
            &go.version,
            &go.os,
            &go.architecture,
            &flags,
        ] {
            // The length keeps two parts from being read as one.
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hex::encode(&hash.finalize()[..16])
    }
}

impl GoEnvironment {
    fn ask(go_mod: &str) -> anyhow::Result<Self> {
        let needed = go_mod
            .lines()
            .find_map(|line| line.strip_prefix("go "))
            .unwrap_or("1.26");
        let install = format!(
            "install Go {needed} or later (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl"
        );
        let asked = go(&["env", "-json", "GOVERSION", "GOOS", "GOARCH"])
            .stdin(Stdio::null())
            .output();
        let output = match asked {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!(
                    "Go is not installed, and the Kubernetes control plane is built with it: {install}"
                )
            }
            Err(error) => return Err(error).context("run go env"),
        };
        ensure!(
            output.status.success(),
            "this Go cannot build the Kubernetes control plane: {install}\n{}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("read what go env says")
    }
}

fn go(arguments: &[&str]) -> Command {
    let mut go = Command::new("go");
    go.args(arguments)
        .current_dir(MODULE)
        // Pure Go: no C compiler is needed, and the programs run on any libc.
        .env("CGO_ENABLED", "0")
        // A workspace file in some parent folder would add modules that go.sum does not know.
        .env("GOWORK", "off");
    go
}

/// Without these the server calls itself v0.0.0-master, and discovery and skew checks go wrong.
fn linker_flags(version: &str) -> anyhow::Result<String> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        bail!("{version} is not a version of Kubernetes");
    };
    let package = "k8s.io/component-base/version";
    Ok(format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    ))
}

/// The version that a go.mod requires of a module.
fn module_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line
            .trim()
            .trim_start_matches("require ")
            .split_whitespace();
        (words.next()? == module).then(|| words.next())?
    })
}

fn build_once(recipe: &Recipe, folder: &Path) -> anyhow::Result<()> {
    let beside = |ending: &str| {
        let mut name = OsString::from(folder);
        name.push(ending);
        PathBuf::from(name)
    };
    let lock_path = beside(".lock");
    let lock = File::create(&lock_path).with_context(|| format!("make {}", lock_path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("Another build of the control plane is under way; waiting for it");
            lock.lock()
                .with_context(|| format!("lock {}", lock_path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", lock_path.display()));
        }
    }
    if folder.is_dir() {
        return Ok(());
    }
    // Left by a build that was interrupted; nobody else builds here while we hold the lock.
    let partial = beside(".partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).context("remove an interrupted build")?;
    }
    crate::private::folder(&partial)?;
    eprintln!(
        "Building the Kubernetes control plane ({}) into {}; once, about ten minutes on two cores",
        recipe.go.version,
        folder.display()
    );
    for (number, program) in PROGRAMS.into_iter().enumerate() {
        build_one(recipe, &partial, number + 1, program)?;
    }
    std::fs::rename(&partial, folder).context("move the build to its place")
}

fn build_one(
    recipe: &Recipe,
    into: &Path,
    number: usize,
    (name, package): (&str, &str),
) -> anyhow::Result<()> {
    let title = format!("{name} ({number} of {})", PROGRAMS.len());
    let log = into.join(format!("{name}.log"));
    let log_file = File::create(&log).context("make the build's log")?;
    let watch = Stopwatch::start();
    eprintln!("  {title}: building");
    let mut build = go(&["build"])
        .args(recipe.flags())
        .arg("-o")
        .arg(into.join(name))
        .arg(package)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone().context("share the build's log")?)
        .stderr(log_file)
        .spawn()
        .context("run go build")?;
    let mut next = PROGRESS_EVERY;
    let status = loop {
        if let Some(status) = build.try_wait().context("wait for go build")? {
            break status;
        }
        if watch.elapsed() >= next {
            next += PROGRESS_EVERY;
            eprintln!(
                "  {title}: {} s, {}",
                watch.elapsed().as_secs(),
                progress(&log)
            );
        }
        std::thread::sleep(POLL_EVERY);
    };
    ensure!(
        status.success(),
        "go build of {name} failed ({status}). It needs 5 GB of disk and a Go module proxy that answers (go env GOPROXY); a repeated run goes on where this one stopped\n{}",
        tail(&log)
    );
    eprintln!("  {title}: done after {} s", watch.elapsed().as_secs());
    Ok(())
}

/// What go says with `-v`: a line per module fetched, then a line per package compiled.
fn progress(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let fetched = text
        .lines()
        .filter(|line| line.starts_with("go: downloading"))
        .count();
    let compiled = text.lines().filter(|line| !line.contains(' ')).count();
    match (compiled, fetched) {
        (0, 0) => "at work".to_owned(),
        (0, fetched) => format!("{fetched} modules fetched"),
        (compiled, _) => format!("{compiled} packages compiled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_kubernetes_is_read_from_go_mod() {
        let go_mod = "module m\n\nrequire (\n\tk8s.io/kubernetes-x v9.9.9\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\n";
        assert_eq!(module_version(go_mod, "k8s.io/kubernetes"), Some("v1.37.2"));
        assert_eq!(
            module_version("require k8s.io/kubernetes v1.38.0", "k8s.io/kubernetes"),
            Some("v1.38.0")
        );
        assert_eq!(module_version("module m", "k8s.io/kubernetes"), None);
    }

    #[test]
    fn the_server_is_told_its_version() {
        let flags = linker_flags("v1.37.2").unwrap();
        assert!(
            flags.contains("gitVersion=v1.37.2 ") && flags.ends_with("gitMinor=37"),
            "{flags}"
        );
        assert!(linker_flags("latest").is_err());
    }

    #[test]
    fn whatever_changes_the_build_changes_the_key() {
        let recipe = |go_mod: &str, go_sum: &str, version: &str| Recipe {
            go_mod: go_mod.to_owned(),
            go_sum: go_sum.to_owned(),
            go: GoEnvironment {
                version: version.to_owned(),
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
            },
            linker_flags: String::new(),
        };
        let key = recipe("a", "b", "go1.26.0").key();
        assert_eq!(key, recipe("a", "b", "go1.26.0").key());
        assert_ne!(key, recipe("ab", "", "go1.26.0").key());
        assert_ne!(key, recipe("a", "b", "go1.26.1").key());
    }

    #[test]
    fn a_named_folder_must_hold_all_three_programs() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["etcd", "kubectl"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let error = Binaries::in_folder(folder.path().into())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("no kube-apiserver in "), "{error}");
        std::fs::write(folder.path().join("kube-apiserver"), "").unwrap();
        assert!(Binaries::in_folder(folder.path().into()).is_ok());
    }
}
