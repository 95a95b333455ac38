//! A disk that is full, under the real program: new work is refused, nothing is lost, and with room again it goes on.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use node_agent::exit::Exit;
use proto::node::{
    Dispatch, FailureCode, Outcome, ResultAck, device_event::Event as FromDevice,
    gateway_event::Event as FromGateway,
};
use tokio::time::sleep;

use crate::{
    gateway::{Authority, Gateway, Manners, StreamCall, soon},
    process::{Host, is, pair, terminate},
    skipped::skipped,
};

/// More than this device's state needs, and less than a handful of large results.
const DISK: &str = "size=1m,mode=0700";
/// What most results may take here: one of them has room on a disk that is not full.
const LARGE: u32 = 256 * 1024;

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount.
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "fairlead-test"]);
        match mount.arg(path).output() {
            Ok(output) if output.status.success() => Some(Self(path.to_owned())),
            refused => {
                skipped(
                    "a full disk",
                    format!("no file system can be mounted here: {refused:?}"),
                );
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// To the last byte.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let full = loop {
            if let Err(error) = ballast.write_all(&[7; 512]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn dispatch(uid: &str, capability: &str) -> FromGateway {
    FromGateway::Dispatch(Dispatch {
        uid: uid.to_owned(),
        name: format!("check-{uid}"),
        capability: capability.to_owned(),
        input: b"7".to_vec(),
        remaining_ms: 30_000,
        max_output_bytes: LARGE,
        ..Dispatch::default()
    })
}

fn ack(uid: &str) -> FromGateway {
    let uid = uid.to_owned();
    FromGateway::ResultAck(ResultAck { uid })
}

async fn await_accepted(stream: &mut StreamCall, uid: &str) {
    loop {
        if let FromDevice::Accepted(accepted) = stream.next().await {
            assert_eq!(accepted.uid, uid);
            return;
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_work_keeps_what_it_has_and_recovers() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    let Some(disk) = Disk::mount(&host.state()) else {
        return;
    };
    pair(&host, &mut gateway, &authority).await;
    let folder = host.temporary.path().join("capabilities.d");
    fs::create_dir(&folder).unwrap();
    let go = host.temporary.path().join("go");
    let script = format!(
        "while ! [ -e {} ]; do sleep 0.02; done; echo 8",
        go.display()
    );
    let declaration = format!(
        "[[capability]]\nname = \"test.wait\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"{script}\"]\nenv = [\"PATH\"]\n"
    );
    fs::write(folder.join("wait.toml"), declaration).unwrap();
    let config = host.temporary.path().join("agent.toml");
    let text = format!("capabilities_dir = \"{}\"\n", folder.display());
    fs::write(&config, text).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let run = || {
        let mut command = host.command(&["--config", config.to_str().unwrap(), "run"]);
        command.env("PATH", &path).spawn().unwrap()
    };

    let mut running = run();
    let mut stream = gateway.stream().await;
    stream.send(dispatch("before", "test.wait")).await;
    await_accepted(&mut stream, "before").await;
    disk.fill();

    for uid in ["new-1", "new-2"] {
        stream.send(dispatch(uid, "echo")).await;
        let result = stream.result().await;
        assert_eq!(
            (result.uid.as_str(), result.outcome()),
            (uid, Outcome::Failed)
        );
        let failure = result.failure.unwrap();
        assert_eq!(failure.code(), FailureCode::JournalUnavailable);
    }
    // What ran has room for its result.
    fs::write(&go, "").unwrap();
    let result = stream.result().await;
    assert_eq!(
        (result.uid.as_str(), result.outcome()),
        ("before", Outcome::Succeeded)
    );
    assert_eq!(result.output, b"8");

    // Killed and started again on the full disk, it has not forgotten, and still refuses.
    running.start_kill().unwrap();
    running.wait().await.unwrap();
    drop(stream);
    let running = run();
    let mut stream = gateway.stream().await;
    assert_eq!(stream.result().await, result);
    // What was set aside for the one that ended is enough for another one, and not for two.
    fs::remove_file(&go).unwrap();
    stream.send(dispatch("within", "test.wait")).await;
    await_accepted(&mut stream, "within").await;
    stream.send(dispatch("new-3", "echo")).await;
    let refused = stream.result().await;
    assert_eq!(refused.uid, "new-3");
    assert_eq!(
        refused.failure.unwrap().code(),
        FailureCode::JournalUnavailable
    );
    fs::write(&go, "").unwrap();
    assert_eq!(stream.result().await.output, b"8");

    disk.free();
    stream.send(ack("before")).await;
    stream.send(ack("within")).await;
    stream.send(dispatch("after", "echo")).await;
    let result = stream.result().await;
    assert_eq!(
        (result.uid.as_str(), result.outcome()),
        ("after", Outcome::Succeeded)
    );
    stream.send(ack("after")).await;
    // Who was told that it did not run asks again, and it did not run meanwhile either.
    stream.send(dispatch("new-3", "echo")).await;
    let refused = stream.result().await.failure.unwrap();
    assert_eq!(refused.code(), FailureCode::JournalUnavailable);
    soon(async {
        while host.status().await["journal"]["unacked"] != 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(is(terminate(running).await, Exit::Done));
}
