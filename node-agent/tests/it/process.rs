//! The binary itself: what a person or a script sees of it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
};

use node_agent::{
    exit::Exit,
    state::{Folder, Pairing, pairing::Method},
};
use pairing::{code::PairingCode, opaque::Setup, uri::PairingUri};
use proto::node::{
    Application, Challenge, Describe, Dispatch, HeartbeatAck, Issued, Outcome, Pending, ResultAck,
    device_event::Event as FromDevice, enroll_request::Step, enroll_response::Step as Answer,
    gateway_event::Event as FromGateway,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    time::sleep,
};

use crate::gateway::{Authority, Gateway, Manners, soon};

pub struct Host {
    pub temporary: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        Self {
            temporary: tempfile::tempdir().unwrap(),
        }
    }

    pub fn state(&self) -> PathBuf {
        self.temporary.path().join("state")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead-agent"));
        command
            .env_clear()
            .arg("--state-dir")
            .arg(self.state())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn call(&self, arguments: &[&str]) -> Output {
        soon(self.command(arguments).output()).await.unwrap()
    }

    pub async fn status(&self) -> Value {
        let output = self.call(&["status", "--output", "json"]).await;
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

pub fn is(status: ExitStatus, exit: Exit) -> bool {
    status.code() == Some(exit as i32)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub async fn terminate(mut child: Child) -> ExitStatus {
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    soon(child.wait()).await.unwrap()
}

#[tokio::test]
async fn what_cannot_be_done_has_an_exit_code_and_says_what_to_do() {
    let host = Host::new();
    for (arguments, exit, says) in [
        (&["run"][..], Exit::NotPaired, "fairlead-agent pair"),
        (&["unpair", "--yes"], Exit::NotPaired, "fairlead-agent pair"),
        (&["pair"], Exit::Usage, "FAIRLEAD_CODE"),
        (&["pair", "7KQ2-ABCDEF"], Exit::Usage, "--gateway"),
        (&["pair", "-"], Exit::Usage, "10 characters"),
        (&["nonsense"], Exit::Usage, "Usage"),
        (
            &["pair", "7KQ2-ABCDEF", "--gateway", "127.0.0.1:1"],
            Exit::Unreachable,
            "reach the gateway",
        ),
    ] {
        let output = host.call(arguments).await;
        let errors = text(&output.stderr);
        assert!(
            is(output.status, exit),
            "{arguments:?}: {} {errors}",
            output.status
        );
        assert!(errors.contains(says), "{arguments:?}: {errors}");
        assert!(!errors.contains("ABCDEF"), "{errors}");
        // `run` made the folder.
        if arguments == ["run"] {
            std::fs::remove_dir_all(host.state()).unwrap();
        }
    }
    let output = host.call(&["status"]).await;
    assert!(text(&output.stdout).contains("not paired"));

    let held = Folder::open(&host.state()).unwrap();
    let output = host.call(&["run"]).await;
    assert!(is(output.status, Exit::Busy), "{}", text(&output.stderr));
    drop(held);

    std::fs::set_permissions(host.state(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = host.call(&["run"]).await;
    assert!(is(output.status, Exit::State));
    assert!(text(&output.stderr).contains("chmod 0700"));
}

fn issued(authority: &Authority, application: &Application) -> Answer {
    Answer::Issued(Issued {
        chain: vec![
            authority.device(&application.pkcs10, "kitchen", "lamp"),
            authority.der(),
        ],
        signed_bundle: authority.own_bundle(),
        namespace: "kitchen".to_owned(),
        device: "lamp".to_owned(),
        gateways: Vec::new(),
    })
}

/// A pairing that an earlier process left behind after its proof.
fn interrupted(host: &Host, gateway: &str, authority: &Authority) {
    let folder = Folder::open(&host.state()).unwrap();
    folder.key().unwrap();
    folder
        .save_pairing(Pairing {
            gateway: gateway.to_owned(),
            authority: authority.pin(),
            method: Method::Pin,
            code_id: "7KQ2".to_owned(),
            requested_name: "lamp".to_owned(),
            request: None,
        })
        .unwrap();
}

#[tokio::test]
async fn who_waits_for_approval_can_be_stopped_and_goes_on_later() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    interrupted(&host, &gateway.address.to_string(), &authority);
    // Without a handler the signal would end them all the same; but not where they are process 1 of a container.
    for (command, exit) in [("run", Exit::Done), ("pair", Exit::Interrupted)] {
        let waiting = host.command(&[command]).spawn().unwrap();
        let mut call = gateway.enrolment().await;
        assert!(matches!(call.next().await, Step::Resume(_)));
        call.answer(Answer::Pending(Pending {
            namespace: "kitchen".to_owned(),
            request: "preq-1".to_owned(),
            expires_in_seconds: 900,
        }))
        .await;
        soon(async {
            while host.status().await["request"]["name"] != "preq-1" {
                sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
        let status = terminate(waiting).await;
        assert!(is(status, exit), "{command}: {status}");
        assert_eq!(host.status().await["standing"], "Pairing");
    }
}

#[tokio::test]
async fn an_interrupted_pairing_goes_on_at_the_gateway_that_is_named() {
    let authority = Authority::new("ours");
    for code in [None, Some("7KQ2-ABCDEF")] {
        let mut gateway = Gateway::start(&authority, Manners::default()).await;
        let host = Host::new();
        // Where it began, there is nobody any more.
        interrupted(&host, "127.0.0.1:1", &authority);
        let address = gateway.address.to_string();
        let arguments = ["pair"].into_iter().chain(code);
        let arguments: Vec<_> = arguments.chain(["--gateway", &address]).collect();
        let pairing = host.command(&arguments).spawn().unwrap();
        let mut call = gateway.enrolment().await;
        assert!(matches!(call.next().await, Step::Resume(_)));
        // A stop from here on must not lead back.
        assert_eq!(host.status().await["gateways"][0], address);
        call.answer(Answer::Describe(Describe {})).await;
        let Step::Application(application) = call.next().await else {
            unreachable!("the application is asked for");
        };
        call.answer(issued(&authority, &application)).await;
        let output = soon(pairing.wait_with_output()).await.unwrap();
        assert!(is(output.status, Exit::Done), "{}", text(&output.stderr));
    }

    let host = Host::new();
    interrupted(&host, "127.0.0.1:1", &authority);
    let output = host.call(&["pair", "--gateway", "nowhere"]).await;
    assert!(is(output.status, Exit::Usage), "{}", text(&output.stderr));
}

/// h2 counts small frames that were not read, and a gateway goes on while the device sleeps.
#[tokio::test]
async fn many_small_messages_while_the_agent_stands_still_do_not_end_its_stream() {
    const ACKS: usize = 1000;
    let authority = Authority::new("ours");
    let manners = Manners {
        heartbeat: std::time::Duration::from_millis(100),
        ..Manners::default()
    };
    let mut gateway = Gateway::start(&authority, manners).await;
    let host = Host::new();
    pair(&host, &mut gateway, &authority).await;
    let running = host.command(&["run"]).spawn().unwrap();
    let mut stream = gateway.stream().await;
    let pid = Pid::from_raw(running.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    for _ in 0..ACKS {
        stream
            .send(FromGateway::HeartbeatAck(HeartbeatAck {}))
            .await;
    }
    kill_process(pid, Signal::CONT).unwrap();
    // More than were under way before: they are of an agent that has read the acknowledgements.
    for _ in 0..20 {
        let event = stream.any_or_end().await;
        assert!(
            matches!(event, Some(FromDevice::Heartbeat(_))),
            "the agent hung up: {event:?}"
        );
        stream
            .send(FromGateway::HeartbeatAck(HeartbeatAck {}))
            .await;
    }
    assert!(is(terminate(running).await, Exit::Done));
}

/// `pair` with a URI on standard input.
pub async fn pair(host: &Host, gateway: &mut Gateway, authority: &Authority) {
    let command = host.command(&["pair", "-", "--name", "lamp"]);
    let address = gateway.address.to_string();
    pair_by(command, &address, host, gateway, authority).await;
}

/// The same by a command of one's own, with a URI that names the gateway so.
pub async fn pair_by(
    mut command: Command,
    name: &str,
    host: &Host,
    gateway: &mut Gateway,
    authority: &Authority,
) {
    let setup = Setup::generate();
    let code = PairingCode::parse("7KQ2-ABCDEF").unwrap();
    let password_file = setup.password_file(&code).unwrap();
    let uri = PairingUri {
        gateway: name.to_owned(),
        namespace: "kitchen".to_owned(),
        authority: authority.pin(),
        code,
    };
    let mut pairing = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = pairing.stdin.take().unwrap();
    let line = format!("{}\n", uri.expose());
    input.write_all(line.as_bytes()).await.unwrap();
    drop(input);
    let mut call = gateway.enrolment().await;
    let Step::Begin(begin) = call.next().await else {
        unreachable!("a device begins");
    };
    let (attempt, ke2) = setup
        .challenge(
            Some(&password_file),
            &begin.code_id,
            &begin.ke1,
            &call.exporter,
        )
        .unwrap();
    call.answer(Answer::Challenge(Challenge { ke2 })).await;
    let Step::Proof(proof) = call.next().await else {
        unreachable!("a proof is next");
    };
    attempt.verify(&proof.ke3).unwrap();
    let Step::Application(application) = call.next().await else {
        unreachable!("the application comes with the proof");
    };
    assert_eq!(host.status().await["standing"], "Pairing");
    call.answer(issued(authority, &application)).await;
    let output = soon(pairing.wait_with_output()).await.unwrap();
    assert!(is(output.status, Exit::Done), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Paired as kitchen/lamp"));
}

#[tokio::test]
async fn a_device_is_paired_serves_is_killed_serves_again_and_is_unpaired() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &authority).await;

    let output = host
        .call(&["pair", "7KQ2-000000", "--gateway", "127.0.0.1:1"])
        .await;
    assert!(is(output.status, Exit::AlreadyPaired));

    let mut running = host.command(&["run"]).spawn().unwrap();
    let mut stream = gateway.stream().await;
    let health = |uid: &str| {
        FromGateway::Dispatch(Dispatch {
            uid: uid.to_owned(),
            name: "check".to_owned(),
            capability: "system.health".to_owned(),
            remaining_ms: 30_000,
            ..Dispatch::default()
        })
    };
    stream.send(health("u1")).await;
    let result = stream.result().await;
    assert_eq!(result.outcome(), Outcome::Succeeded);
    let output: Value = serde_json::from_slice(&result.output).unwrap();
    assert!(
        output["memory"]["totalBytes"].as_u64().unwrap() > 0,
        "{output}"
    );

    let status = host.status().await;
    assert_eq!(status["standing"], "Paired");
    assert_eq!(status["session"]["state"], "Connected");
    stream
        .send(FromGateway::Dispatch(Dispatch {
            uid: "u0".to_owned(),
            name: "who".to_owned(),
            capability: "system.identity".to_owned(),
            remaining_ms: 30_000,
            ..Dispatch::default()
        }))
        .await;
    let about: Value = serde_json::from_slice(&stream.result().await.output).unwrap();
    assert_eq!(about["namespace"], "kitchen");
    assert_eq!(about["device"], "lamp");
    assert_eq!(about["publicKeySha256"], status["publicKeySha256"]);
    assert_eq!(about["os"], "linux");
    let uid = "u0".to_owned();
    stream.send(FromGateway::ResultAck(ResultAck { uid })).await;
    soon(async {
        while host.status().await["journal"]["unacked"] != 1 {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(status["device"]["name"], "lamp");
    assert_eq!(status["certificate"]["state"], "Valid");
    assert_eq!(status["journal"]["unacked"], 1);
    let output = host.call(&["run"]).await;
    assert!(is(output.status, Exit::Busy));

    // A power cut, as far as a process can tell.
    running.start_kill().unwrap();
    running.wait().await.unwrap();
    assert_eq!(host.status().await["session"]["state"], "Stopped");
    drop(stream);
    let running = host.command(&["run"]).spawn().unwrap();
    let mut stream = gateway.stream().await;
    assert_eq!(stream.result().await, result);
    let uid = "u1".to_owned();
    stream.send(FromGateway::ResultAck(ResultAck { uid })).await;
    soon(async {
        while host.status().await["journal"]["unacked"] != 0 {
            sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(is(terminate(running).await, Exit::Done));

    let output = host.call(&["unpair", "--yes"]).await;
    assert!(is(output.status, Exit::Done));
    assert!(text(&output.stdout).contains("revoke or delete"));
    let left: Vec<_> = std::fs::read_dir(host.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[tokio::test]
async fn a_declared_command_runs_and_a_new_one_is_declared_on_the_stream() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &authority).await;

    let folder = host.temporary.path().join("capabilities.d");
    std::fs::create_dir(&folder).unwrap();
    let config = host.temporary.path().join("agent.toml");
    let text = format!("capabilities_dir = \"{}\"\n", folder.display());
    std::fs::write(&config, text).unwrap();
    let declare = |file: &str, name: &str, keys: &str| {
        let text = format!(
            "[[capability]]\nname = \"{name}\"\ncommand = \"/bin/echo\"\nargs = [\"{{input.n}}\"]\n{keys}\n"
        );
        std::fs::write(folder.join(file), text).unwrap();
    };
    let dispatch = |uid: &str, capability: &str| {
        FromGateway::Dispatch(Dispatch {
            uid: uid.to_owned(),
            name: "check".to_owned(),
            capability: capability.to_owned(),
            input: b"{\"n\": 7}".to_vec(),
            remaining_ms: 30_000,
            ..Dispatch::default()
        })
    };
    declare("a.toml", "test.number", "");
    declare("b.toml", "test.asking", "mediation = \"mediated\"");
    let running = host
        .command(&["--config", config.to_str().unwrap(), "run"])
        .spawn()
        .unwrap();
    let mut stream = gateway.stream().await;
    stream.send(dispatch("u1", "test.number")).await;
    let result = stream.result().await;
    assert_eq!(result.outcome(), Outcome::Succeeded, "{result:?}");
    assert_eq!(result.output, b"7");
    stream.send(dispatch("u2", "test.asking")).await;
    let FromDevice::AwaitingMediation(asks) = stream.next().await else {
        unreachable!("somebody is asked");
    };
    assert_eq!(asks.uid, "u2");

    declare("c.toml", "test.new", "");
    let pid = Pid::from_raw(running.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    let update = loop {
        if let FromDevice::CapabilityUpdate(update) = stream.next().await {
            break update;
        }
    };
    let names: Vec<_> = update
        .capabilities
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(
        names,
        [
            "echo",
            "system.health",
            "system.identity",
            "test.asking",
            "test.new",
            "test.number"
        ]
    );
    stream.send(dispatch("u3", "test.new")).await;
    while stream.result().await.output != b"7" {}
    assert!(is(terminate(running).await, Exit::Done));
}
