//! A control group of its own for each run, where the host gives the agent a part of that tree (cgroup v2, delegated by
//! systemd with `Delegate=`): bounds over all processes of a run together, and an end for those that left its process
//! group.
//!
//! Where the host does not, commands run without, bounded by rlimits and their process group.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{fs::getxattr, process::Pid};

use crate::app::init;

/// Where the agent itself is: a group that has groups below it may have no process of its own.
const OWN: &str = "agent";
const RUN_PREFIX: &str = "run-";
/// What systemd writes on a part of the tree that it leaves to a service; for root, and for the service's own user.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];
/// How long what an agent left behind that was killed may take to go.
const LEFTOVERS_TIME: Duration = Duration::from_secs(2);
const LEFTOVERS_STEP: Duration = Duration::from_millis(20);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("this host has no control groups of version 2, or does not show them")]
    None,
    #[error("{} is not the agent's to divide: have it started by a unit with Delegate=yes", .0.display())]
    NotDelegated(PathBuf),
    #[error("divide {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The agent's part of the tree.
#[derive(Debug)]
pub struct Groups {
    folder: PathBuf,
    controllers: Controllers,
    next: AtomicU64,
    /// Killed, and not gone yet.
    leftovers: Mutex<Vec<PathBuf>>,
}

/// What can be bounded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Controllers {
    pub memory: bool,
    pub pids: bool,
}

/// Bounds over all processes of one run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    pub memory_bytes: Option<u64>,
    pub processes: Option<u64>,
}

impl Groups {
    /// Makes this process's own group one that can have others below it, and clears what an earlier agent left in them.
    /// To be called once, before anything else of this process starts others.
    pub fn take() -> Result<Self, Unavailable> {
        let own = own_group("self").ok_or(Unavailable::None)?;
        Self::take_at(own)
    }

    fn take_at(folder: PathBuf) -> Result<Self, Unavailable> {
        if !is_delegated(&folder) {
            return Err(Unavailable::NotDelegated(folder));
        }
        let io = |source| Unavailable::Io {
            path: folder.clone(),
            source,
        };
        clear(&folder).map_err(io)?;
        let own = folder.join(OWN);
        make(&own).map_err(io)?;
        // All of this process; and the one that reaps for it, for a group that is divided has no process of its own.
        fs::write(own.join("cgroup.procs"), "0").map_err(io)?;
        if init::is_parent() {
            fs::write(own.join("cgroup.procs"), "1").map_err(io)?;
        }
        let enable = |name: &str| {
            // Fails where this host has it elsewhere, or somebody else is in the group.
            fs::write(folder.join("cgroup.subtree_control"), format!("+{name}")).is_ok()
        };
        let controllers = Controllers {
            memory: enable("memory"),
            pids: enable("pids"),
        };
        Ok(Self {
            folder,
            controllers,
            next: AtomicU64::new(0),
            leftovers: Mutex::default(),
        })
    }

    pub fn controllers(&self) -> Controllers {
        self.controllers
    }

    /// A new one. What cannot be bounded here is not.
    pub(super) fn add(&self, bounds: Bounds) -> io::Result<Group<'_>> {
        self.sweep();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{RUN_PREFIX}{number}"));
        make(&path)?;
        let group = Group { groups: self, path };
        if let Some(bytes) = bounds.memory_bytes
            && self.controllers.memory
        {
            group.write("memory.max", &bytes.to_string())?;
            // All of it or nothing: half a command says nothing that can be relied on.
            group.write("memory.oom.group", "1")?;
            // There is none where the host has no swap.
            let _ = group.write("memory.swap.max", "0");
        }
        if let Some(count) = bounds.processes
            && self.controllers.pids
        {
            group.write("pids.max", &count.to_string())?;
        }
        Ok(group)
    }

    fn sweep(&self) {
        let mut leftovers = self
            .leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        leftovers.retain(|path| !is_removed(path));
    }
}

/// The group of one run. Killed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Group<'a> {
    groups: &'a Groups,
    path: PathBuf,
}

impl Group<'_> {
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(file), text)
    }

    /// Puts a process into it, and whatever that starts from then on.
    pub(super) fn take_in(&self, process: Pid) -> io::Result<()> {
        self.write("cgroup.procs", &process.as_raw_nonzero().to_string())
    }

    /// Whether memory is bounded over all processes in it.
    pub(super) fn bounds_memory(&self) -> bool {
        self.groups.controllers.memory
    }

    /// Whether the kernel ended it because it took more memory than it may.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        value_of(&events, "oom_kill").is_some_and(|count| count > 0)
    }

    /// Everything in it, wherever it went.
    pub(super) fn kill(&self) {
        kill(&self.path);
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.kill();
        // What was killed takes a moment to go.
        if !is_removed(&self.path) {
            let mut leftovers = self
                .groups
                .leftovers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            leftovers.push(self.path.clone());
        }
    }
}

/// What a process that is an agent has, for who looks from outside; `None` where it has no groups for its commands.
pub fn of_process(process: u32) -> Option<Controllers> {
    let own = own_group(&process.to_string())?;
    let folder = own
        .parent()
        .filter(|_| own.file_name().is_some_and(|name| name == OWN))?;
    if !is_delegated(folder) {
        return None;
    }
    let enabled = fs::read_to_string(folder.join("cgroup.subtree_control")).ok()?;
    let has = |name| enabled.split_whitespace().any(|one| one == name);
    Some(Controllers {
        memory: has("memory"),
        pids: has("pids"),
    })
}

fn own_group(process: &str) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    // This process's own view of the tree, whoever is looked at.
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    group_in(&groups, &mounts)
}

/// The folder of a group, from what `/proc/PID/cgroup` and `/proc/self/mountinfo` say.
fn group_in(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        if file_system.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

fn is_delegated(folder: &Path) -> bool {
    MARKS.iter().any(|mark| {
        let mut value = [0; 8];
        let length = getxattr(folder.as_os_str().as_bytes(), *mark, &mut value[..]);
        matches!(length, Ok(1)) && value.first() == Some(&b'1')
    })
}

/// Kills what is left in the groups of earlier runs, and waits a moment for it to go.
fn clear(folder: &Path) -> io::Result<()> {
    let mut left = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_run = entry
            .file_name()
            .as_bytes()
            .starts_with(RUN_PREFIX.as_bytes());
        if is_run && entry.file_type()?.is_dir() {
            kill(&entry.path());
            left.push(entry.path());
        }
    }
    let mut waited = Duration::ZERO;
    loop {
        left.retain(|path| !is_removed(path));
        if left.is_empty() {
            return Ok(());
        }
        if waited >= LEFTOVERS_TIME {
            let first = left.first().map(|path| path.display().to_string());
            let message = format!("{} cannot be emptied", first.unwrap_or_default());
            return Err(io::Error::other(message));
        }
        std::thread::sleep(LEFTOVERS_STEP);
        waited += LEFTOVERS_STEP;
    }
}

/// Kernels before 5.14 cannot; then the process group is all that is killed.
fn kill(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
}

fn is_removed(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Of a file of lines such as `oom_kill 1`.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
                           31 25 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
    const HYBRID: &str = "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                          32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_wherever_the_tree_is() {
        let service = "0::/system.slice/fairlead-agent.service\n";
        let both = "4:memory:/elsewhere\n0::/a b/c\n";
        for (groups, mounts, expected) in [
            (
                service,
                UNIFIED,
                Some("/sys/fs/cgroup/system.slice/fairlead-agent.service"),
            ),
            (both, HYBRID, Some("/sys/fs/cgroup/unified/a b/c")),
            ("0::/\n", HYBRID, Some("/sys/fs/cgroup/unified/")),
            ("4:memory:/x\n", UNIFIED, None),
            (service, "25 30 0:23 / /sys rw - sysfs sysfs rw\n", None),
            // A container that is shown a part of the tree which it is not in.
            (
                service,
                "1 2 0:3 /other /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
                None,
            ),
            (
                "0::/pod/x\n",
                "1 2 0:3 /pod /cg rw - cgroup2 cgroup2 rw\n",
                Some("/cg/x"),
            ),
            ("", "", None),
            ("0::", " - cgroup2", None),
        ] {
            assert_eq!(
                group_in(groups, mounts),
                expected.map(PathBuf::from),
                "{groups}"
            );
        }
    }

    #[test]
    fn what_nobody_gave_the_agent_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Groups::take_at(folder.path().to_owned()).unwrap_err();
        assert!(refused.to_string().contains("Delegate="), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn bounds_are_written_where_they_can_be_kept() {
        let bounds = Bounds {
            memory_bytes: Some(1 << 24),
            processes: Some(9),
        };
        for (memory, pids) in [(false, false), (true, false), (true, true)] {
            let folder = tempfile::tempdir().unwrap();
            let groups = Groups {
                folder: folder.path().to_owned(),
                controllers: Controllers { memory, pids },
                next: AtomicU64::new(3),
                leftovers: Mutex::default(),
            };
            let group = groups.add(bounds).unwrap();
            let read = |name| fs::read_to_string(folder.path().join("run-3").join(name)).ok();
            assert_eq!(read("memory.max"), memory.then(|| "16777216".to_owned()));
            assert_eq!(read("memory.oom.group"), memory.then(|| "1".to_owned()));
            assert_eq!(read("pids.max"), pids.then(|| "9".to_owned()));
            group.kill();
            assert_eq!(read("cgroup.kill").as_deref(), Some("1"));
        }
    }

    #[test]
    fn memory_that_ran_out_is_told_from_other_ends() {
        assert_eq!(value_of("low 0\noom 2\noom_kill 1\n", "oom_kill"), Some(1));
        assert_eq!(value_of("oom_kill_x 1\noom_kill x", "oom_kill"), None);
        assert_eq!(value_of("", "oom_kill"), None);
    }
}
