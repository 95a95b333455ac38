//! Runs in control groups of their own, on a real tree that is given to a real agent as systemd gives it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use node_agent::exit::Exit;
use proto::node::{Dispatch, FailureCode, Outcome, gateway_event::Event as FromGateway};
use rustix::fs::{XattrFlags, setxattr};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::sleep,
};

use crate::{
    gateway::{Authority, Gateway, Manners, soon},
    process::{Host, is, pair, terminate, text},
    skipped::skipped,
};

/// A part of the tree, marked as given to a service.
struct Delegated(PathBuf);

impl Delegated {
    /// `None` where there is no tree, or this user may not change it.
    fn make(name: &str) -> Option<Self> {
        let made = (|| {
            let mounts = fs::read_to_string("/proc/self/mountinfo")?;
            let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
            let point = mount.and_then(|line| line.split(' ').nth(4));
            let point = point.ok_or(io::ErrorKind::NotFound)?;
            let path = Path::new(point).join(format!("fairlead-{name}-{}", std::process::id()));
            fs::create_dir(&path)?;
            let group = Self(path);
            setxattr(&group.0, "user.delegate", b"1", XattrFlags::empty())?;
            Ok::<_, io::Error>(group)
        })();
        if let Err(error) = &made {
            skipped(name, format!("no control group can be made here: {error}"));
        }
        made.ok()
    }

    /// Whether the host gives it to keep bounds with, or to its own groups once an agent has divided it.
    fn has(&self, file: &str, controller: &str) -> bool {
        let found = fs::read_to_string(self.0.join(file)).unwrap_or_default();
        found.split_whitespace().any(|one| one == controller)
    }

    /// Starts an agent in it, as systemd would.
    fn start(&self, host: &Host, config: &Path) -> Child {
        let config = config.to_str().unwrap();
        let agent = host.command(&["--config", config, "run"]);
        let agent = agent.as_std();
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .arg("-c")
            .arg("echo $$ > \"$0/cgroup.procs\" && exec \"$@\"")
            .arg(&self.0)
            .arg(agent.get_program())
            .args(agent.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command.spawn().unwrap()
    }

    /// The groups of runs.
    fn runs(&self) -> usize {
        let entries = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        let runs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("run-"));
        runs.count()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..200 {
            for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Whether a process is no more, or waits to be reaped.
fn is_gone(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    state.map_or(true, |stat| {
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z'))
    })
}

async fn await_gone(pid: &str) {
    soon(async {
        while !is_gone(pid) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn read(path: &Path) -> String {
    soon(async {
        loop {
            match fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                Ok(_) | Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

fn dispatch(uid: &str, capability: &str) -> FromGateway {
    FromGateway::Dispatch(Dispatch {
        uid: uid.to_owned(),
        name: format!("check-{uid}"),
        capability: capability.to_owned(),
        remaining_ms: 30_000,
        ..Dispatch::default()
    })
}

#[tokio::test]
async fn what_a_run_starts_and_takes_is_bounded_over_all_of_its_processes() {
    let Some(group) = Delegated::make("bounds") else {
        return;
    };
    // Each of those who are started keeps 40 MB for as long as the others need to do the same.
    let hog = "head -c 40000000 /dev/zero; sleep 2";
    let runs = [
        (
            "pids",
            "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo 1".to_owned(),
            "max_processes = 20",
            "ork",
        ),
        (
            "memory",
            format!(
                "for i in 1 2 3 4 5 6 7 8; do ({hog}) | tail -c 40000000 > /dev/null & done; wait; echo 1"
            ),
            "memory_bytes = 134217728",
            "memory_bytes",
        ),
    ];
    let (kept, not_kept): (Vec<_>, Vec<_>) = runs
        .into_iter()
        .partition(|(controller, ..)| group.has("cgroup.controllers", controller));
    for (controller, ..) in not_kept {
        skipped(
            &format!("bounds of a whole run: {controller}"),
            "this host gives control groups of version 2 no such controller",
        );
    }
    if kept.is_empty() {
        return;
    }
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &authority).await;
    let folder = host.temporary.path().join("capabilities.d");
    fs::create_dir(&folder).unwrap();
    for (controller, script, keys, _) in &kept {
        let declared = format!(
            "[[capability]]\nname = \"test.{controller}\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", '''{script}''']\n\
             env = [\"PATH\"]\n{keys}\n"
        );
        fs::write(folder.join(format!("{controller}.toml")), declared).unwrap();
    }
    let config = host.temporary.path().join("agent.toml");
    let text_of = format!("capabilities_dir = \"{}\"\n", folder.display());
    fs::write(&config, text_of).unwrap();
    let running = group.start(&host, &config);
    let mut stream = gateway.stream().await;
    for (controller, _, _, says) in &kept {
        let capability = format!("test.{controller}");
        stream.send(dispatch(controller, &capability)).await;
        let result = stream.result().await;
        let failure = result.failure.unwrap();
        assert_eq!(failure.code(), FailureCode::CapabilityFailed);
        assert!(failure.message.contains(says), "{failure:?}");
    }
    assert!(is(terminate(running).await, Exit::Done));
}

#[tokio::test]
async fn what_escapes_its_process_group_dies_with_the_run_and_with_the_agent() {
    let Some(group) = Delegated::make("runs") else {
        return;
    };
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &authority).await;
    let at = |name: &str| host.temporary.path().join(name);
    let escape = |name: &str, then: &str| {
        let script = format!(
            "setsid sh -c 'echo $$ > {0}; exec sleep 1000' > /dev/null 2>&1 & \
             while ! [ -s {0} ]; do sleep 0.01; done; grep -c /run- /proc/self/cgroup; {then}",
            at(name).display()
        );
        format!(
            "[[capability]]\nname = \"test.{name}\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", '''{script}''']\n\
             env = [\"PATH\"]\nmax_processes = 20\n"
        )
    };
    fs::create_dir(at("capabilities.d")).unwrap();
    let declarations = escape("ends", ":") + &escape("stays", "echo $$ > leader; sleep 1000");
    let declarations = declarations.replace("> leader", &format!("> {}", at("leader").display()));
    fs::write(at("capabilities.d/it.toml"), declarations).unwrap();
    let config = at("agent.toml");
    let text_of = format!(
        "capabilities_dir = \"{}\"\n",
        at("capabilities.d").display()
    );
    fs::write(&config, text_of).unwrap();

    let mut running = group.start(&host, &config);
    let mut stream = gateway.stream().await;
    stream.send(dispatch("u1", "test.ends")).await;
    let result = stream.result().await;
    assert_eq!(result.outcome(), Outcome::Succeeded, "{result:?}");
    // It was in its group from its first instruction on.
    assert_eq!(result.output, b"1");
    await_gone(&read(&at("ends")).await).await;

    let output = host.call(&["doctor", "--output", "json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let found = checks
        .iter()
        .find(|check| check["name"] == "ControlGroups")
        .unwrap();
    let has = |controller| group.has("cgroup.subtree_control", controller);
    let (verdict, said) = if has("memory") && has("pids") {
        (
            "Ok",
            "each run of a command has its own, with its own bounds",
        )
    } else {
        (
            "Warning",
            "each run has its own, and not all bounds can be kept: memory_bytes of a whole run, max_processes",
        )
    };
    let found = (found["result"].as_str(), found["found"].as_str());
    assert_eq!(
        found,
        (Some(verdict), Some(said)),
        "{}",
        text(&output.stdout)
    );

    stream.send(dispatch("u2", "test.stays")).await;
    let (leader, escaped) = (read(&at("leader")).await, read(&at("stays")).await);
    running.start_kill().unwrap();
    running.wait().await.unwrap();
    // The kernel ends what the agent itself started; nobody can end the other one, but the next agent.
    await_gone(&leader).await;
    assert!(!is_gone(&escaped));
    assert_eq!(group.runs(), 1);
    drop(stream);
    let running = group.start(&host, &config);
    let mut stream = gateway.stream().await;
    assert!(is_gone(&escaped));
    assert_eq!(group.runs(), 0);
    assert_eq!(stream.result().await.uid, "u1");
    assert!(is(terminate(running).await, Exit::Done));
}
