//! The agent as process 1 of a container.

use std::{fs, process::Stdio};

use node_agent::exit::Exit;
use proto::node::{Dispatch, Outcome, gateway_event::Event as FromGateway};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::{
    gateway::{Authority, Gateway, Manners, StreamCall, soon},
    process::{Host, is, pair},
    skipped::skipped,
};

/// What a run of the capability answers.
async fn answer(stream: &mut StreamCall, number: usize, capability: &str) -> String {
    let dispatch = Dispatch {
        uid: format!("u{number}"),
        name: format!("run-{number}"),
        capability: capability.to_owned(),
        remaining_ms: 30_000,
        ..Dispatch::default()
    };
    stream.send(FromGateway::Dispatch(dispatch)).await;
    let result = stream.result().await;
    assert_eq!(result.outcome(), Outcome::Succeeded, "{:?}", result.failure);
    String::from_utf8(result.output).unwrap()
}

#[tokio::test]
async fn as_process_1_the_agent_reaps_what_its_commands_leave_behind() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &authority).await;
    let folder = host.temporary.path().join("capabilities.d");
    fs::create_dir(&folder).unwrap();
    // The second shell ends before what it started, which is nobody's then.
    let leave = "sh -c \"sleep 1000 &\"";
    let count = "grep -sl \"^State:.Z\" /proc/[0-9]*/status | wc -l";
    for (name, script) in [("leave", leave), ("count", count)] {
        let declared = format!(
            "[[capability]]\nname = \"test.{name}\"\ncommand = \"/bin/sh\"\n\
             args = [\"-c\", '''{script}''']\nenv = [\"PATH\"]\n"
        );
        fs::write(folder.join(format!("{name}.toml")), declared).unwrap();
    }
    let config = host.temporary.path().join("agent.toml");
    fs::write(
        &config,
        format!("capabilities_dir = \"{}\"\n", folder.display()),
    )
    .unwrap();

    let agent = host.command(&["--config", config.to_str().unwrap(), "run"]);
    let agent = agent.as_std();
    let isolated = |program: &std::ffi::OsStr| {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .arg(program)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    };
    let tried = isolated("true".as_ref()).output().await;
    if !tried.is_ok_and(|output| output.status.success()) {
        skipped(
            "the agent as process 1",
            "it needs root and unshare (util-linux)",
        );
        return;
    }
    let mut command = isolated(agent.get_program());
    let running = command.args(agent.get_args()).spawn().unwrap();
    let mut stream = gateway.stream().await;
    for number in 0..3 {
        assert_eq!(answer(&mut stream, number, "test.leave").await, "null");
    }
    soon(async {
        let mut number = 3;
        while answer(&mut stream, number, "test.count").await != "0" {
            number += 1;
        }
    })
    .await;

    // A signal to process 1 is for the agent, whose exit code is that of process 1.
    let unshare = running.id().unwrap();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let first = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    kill_process(first, Signal::TERM).unwrap();
    let output = soon(running.wait_with_output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(is(output.status, Exit::Done), "{} {errors}", output.status);
}
