//! `install` and `uninstall`, written into the root of an image; and what systemd's own tools say of the unit.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use node_agent::exit::Exit;

use crate::skipped::skipped;

const AGENT: &str = env!("CARGO_BIN_EXE_fairlead-agent");
const UNIT: &str = "etc/systemd/system/fairlead-agent.service";
const AS_ROOT: &str = "etc/systemd/system/fairlead-agent.service.d/10-as-root.conf";
/// The level that systemd-analyze calls OK ends below 4.
const MOST_EXPOSED: f64 = 3.0;

struct Image(tempfile::TempDir);

impl Image {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn call(&self, arguments: &[&str]) -> Output {
        // As a person whose files are private unless they say otherwise.
        Command::new("/bin/sh")
            .env_clear()
            .args(["-c", "umask 077 && exec \"$@\"", "sh", AGENT])
            .args(arguments)
            .arg("--root")
            .arg(self.root())
            .output()
            .unwrap()
    }

    /// What it said.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    /// Every file and link in it.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.root().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    let path = entry.path();
                    files.push(path.strip_prefix(self.root()).unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }
}

#[test]
fn an_image_gets_the_service_once_and_loses_it_again() {
    let image = Image::new();
    let said = image.done(&["install", "--dry-run"]);
    assert!(said.contains("would write /etc/systemd/system"), "{said}");
    assert_eq!(image.files(), [""; 0].map(PathBuf::from));

    image.done(&["install"]);
    let names = [
        "etc/fairlead/agent.toml",
        UNIT,
        "etc/systemd/system/multi-user.target.wants/fairlead-agent.service",
        "etc/sysusers.d/fairlead-agent.conf",
        "etc/tmpfiles.d/fairlead-agent.conf",
        "usr/local/bin/fairlead-agent",
    ];
    assert_eq!(image.files(), names.map(PathBuf::from));
    for name in names {
        let mode = fs::metadata(image.root().join(name)).map(|file| file.mode() & 0o7777);
        let expected = match name.split('/').collect::<Vec<_>>()[..] {
            // It leads to the installed system's file.
            [.., "multi-user.target.wants", _] => continue,
            ["etc", "fairlead", ..] => 0o640,
            ["usr", ..] => 0o755,
            _ => 0o644,
        };
        assert_eq!(mode.unwrap(), expected, "{name}");
    }
    for (folder, expected) in [
        ("etc", 0o755),
        ("etc/fairlead", 0o750),
        ("etc/fairlead/capabilities.d", 0o750),
        ("etc/systemd/system", 0o755),
        ("usr/local/bin", 0o755),
    ] {
        let mode = fs::metadata(image.root().join(folder)).unwrap().mode();
        assert_eq!(mode & 0o7777, expected, "{folder}");
    }
    let copy = fs::read(image.root().join("usr/local/bin/fairlead-agent")).unwrap();
    assert!(copy == fs::read(AGENT).unwrap());
    assert!(
        image
            .read("etc/tmpfiles.d/fairlead-agent.conf")
            .contains("0700 fairlead fairlead")
    );

    let said = image.done(&["install"]);
    assert!(said.contains("already"), "{said}");

    // What the administrator wrote stays; what is ours is repaired.
    let config = image.root().join("etc/fairlead/agent.toml");
    fs::write(&config, "max_concurrent = 2\n").unwrap();
    fs::write(image.root().join(UNIT), "[Service]\n").unwrap();
    fs::set_permissions(
        image.root().join("usr/local/bin/fairlead-agent"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    let said = image.done(&["install"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(image.read(UNIT).contains("User=fairlead"));
    assert_eq!(
        image.read("etc/fairlead/agent.toml"),
        "max_concurrent = 2\n"
    );

    let state = image.root().join("var/lib/fairlead/key.pem");
    fs::create_dir_all(state.parent().unwrap()).unwrap();
    fs::write(&state, "a key").unwrap();
    image.done(&["uninstall"]);
    let kept = ["etc/fairlead/agent.toml", "var/lib/fairlead/key.pem"];
    assert_eq!(image.files(), kept.map(PathBuf::from));
    let said = image.done(&["uninstall"]);
    assert!(said.contains("already"), "{said}");
    image.done(&["uninstall", "--purge"]);
    assert_eq!(image.files(), [""; 0].map(PathBuf::from));
}

/// Whether one of systemd's own tools did what it was told to in the image.
fn systemd(tool: &str, image: &Image, arguments: &[&str]) -> bool {
    let root = format!("--root={}", image.root().display());
    match Command::new(tool).arg(root).args(arguments).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            skipped(tool, said.trim());
            false
        }
        Err(error) => {
            skipped(tool, error);
            false
        }
    }
}

#[test]
fn after_the_first_boot_the_configuration_is_roots_and_the_agents_group_reads_it() {
    for arguments in [&["install"][..], &["install", "--as-root"]] {
        let image = Image::new();
        image.done(arguments);
        // As an earlier version had it.
        let config = image.root().join("etc/fairlead/agent.toml");
        fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
        if !systemd("systemd-sysusers", &image, &[])
            || !systemd("systemd-tmpfiles", &image, &["--create"])
        {
            return;
        }
        let groups = image.read("etc/group");
        let group = groups.lines().find(|line| line.starts_with("fairlead:"));
        let gid = group.unwrap().split(':').nth(2).unwrap().parse().unwrap();
        for (name, mode) in [
            ("etc/fairlead", 0o750),
            ("etc/fairlead/capabilities.d", 0o750),
            ("etc/fairlead/agent.toml", 0o640),
        ] {
            let found = fs::metadata(image.root().join(name)).unwrap();
            let found = (found.mode() & 0o7777, found.uid(), found.gid());
            assert_eq!(found, (mode, 0, gid), "{name}");
        }
    }
}

#[test]
fn as_root_is_a_drop_in_that_comes_and_goes() {
    let image = Image::new();
    image.done(&["install", "--as-root"]);
    assert!(image.read(AS_ROOT).contains("User=root"));
    assert!(
        image
            .read("etc/tmpfiles.d/fairlead-agent.conf")
            .contains("0700 root root")
    );
    image.done(&["install"]);
    assert!(!image.root().join(AS_ROOT).parent().unwrap().exists());
}

#[test]
fn a_link_in_an_image_leads_nobody_out_of_it() {
    let (image, elsewhere) = (Image::new(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), image.root().join("etc")).unwrap();
    let output = image.call(&["install"]);
    assert_eq!(output.status.code(), Some(Exit::Failed as i32));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("leads out of"), "{said}");
    for left in fs::read_dir(elsewhere.path()).unwrap() {
        let left = left.unwrap().path();
        // A folder may have been made on the way; never a file.
        assert!(
            left.is_dir() && fs::read_dir(&left).unwrap().next().is_none(),
            "{left:?}"
        );
    }
}

#[test]
fn a_host_that_systemd_does_not_run_is_refused() {
    if Path::new("/run/systemd/system").exists() {
        skipped(
            "a_host_that_systemd_does_not_run_is_refused",
            "systemd runs this host, and a test must not install anything there",
        );
        return;
    }
    for command in ["install", "uninstall"] {
        let output = Command::new(AGENT)
            .env_clear()
            .arg(command)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(Exit::Unfit as i32));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--root"), "{said}");
    }
}

/// `None` where there is no such tool here.
fn systemd_analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            skipped("systemd-analyze", format!("it cannot be run here: {error}"));
            None
        }
    }
}

#[test]
fn systemd_has_no_complaint_and_calls_the_exposure_ok() {
    for arguments in [&["install"][..], &["install", "--as-root"]] {
        let image = Image::new();
        image.done(arguments);
        let unit = image.root().join(UNIT);
        let path = unit.to_str().unwrap();
        let Some(output) = systemd_analyze(&["security", "--offline=true", "--no-pager", path])
        else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = said
            .lines()
            .rfind(|line| !line.is_empty())
            .unwrap_or_default();
        let level = last.split(": ").nth(1).unwrap_or_default();
        let (figure, word) = level.split_once(' ').unwrap_or_default();
        assert!(
            word.starts_with("OK"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(figure.parse::<f64>().unwrap() < MOST_EXPOSED, "{last}");
        println!("{arguments:?}: {last}");

        // Of the unit, not of this machine, which need not have the program where the unit starts it.
        let text = image.read(UNIT);
        fs::write(&unit, text.replace("/usr/local/bin/fairlead-agent", AGENT)).unwrap();
        let output = systemd_analyze(&["verify", "--man=no", path]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
