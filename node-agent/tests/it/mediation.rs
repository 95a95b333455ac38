//! The person at the device: asked by the agent, answering by the command line, over a real socket.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use node_agent::{
    exit::Exit,
    mediation::{
        question::Shown,
        wire::{self, Refused, Request, Response, Said},
    },
};
use proto::node::{
    Cancel, Dispatch, FailureCode, Mediation, Outcome, device_event::Event as FromDevice,
    gateway_event::Event as FromGateway,
};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::Child,
    time::sleep,
};
use tonic::Status;

use crate::{
    gateway::{Authority, Gateway, Manners, StreamCall, soon},
    process::{Host, is, pair, terminate, text},
    skipped::skipped,
};

/// A device with one capability that a person must allow, and which leaves a file.
pub struct Desk {
    pub host: Host,
    config: PathBuf,
    pub gateway: Gateway,
}

impl Desk {
    pub async fn new(mediation: &str) -> Self {
        let authority = Authority::new("ours");
        let mut gateway = Gateway::start(&authority, Manners::default()).await;
        let host = Host::new();
        pair(&host, &mut gateway, &authority).await;
        let capabilities = host.temporary.path().join("capabilities.d");
        fs::create_dir(&capabilities).unwrap();
        let script = host.temporary.path().join("act.sh");
        fs::write(
            &script,
            "touch done; echo 'fairlead-progress 50 half' >&2; sleep \"$1\"; echo 7",
        )
        .unwrap();
        let declared = format!(
            "[[capability]]\nname = \"test.act\"\ndescription = \"does it\"\ncommand = \"/bin/sh\"\n\
             args = [\"{}\", \"{{input.seconds}}\"]\nworking_directory = \"{}\"\nenv = [\"PATH\"]\n\
             mediation = \"mediated\"\n",
            script.display(),
            host.temporary.path().display()
        );
        fs::write(capabilities.join("act.toml"), declared).unwrap();
        let config = host.temporary.path().join("agent.toml");
        let desk = Self {
            host,
            config,
            gateway,
        };
        desk.configure(mediation);
        desk
    }

    pub fn configure(&self, mediation: &str) {
        let capabilities = self.at("capabilities.d");
        let text = format!(
            "capabilities_dir = \"{}\"\n{mediation}",
            capabilities.display()
        );
        fs::write(&self.config, text).unwrap();
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.host.temporary.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.host.state().join("agent.sock")
    }

    /// `run`, until its stream is there.
    pub async fn run(&mut self) -> (Child, StreamCall) {
        let config = self.config.to_str().unwrap();
        let mut command = self.host.command(&["--config", config, "run"]);
        // What is not read must not fill a pipe.
        command
            .env("PATH", "/usr/bin:/bin")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let running = command.spawn().unwrap();
        (running, self.gateway.stream().await)
    }

    pub async fn call(&self, arguments: &[&str]) -> std::process::Output {
        let config = ["--config", self.config.to_str().unwrap()];
        let arguments: Vec<_> = config.iter().chain(arguments).copied().collect();
        self.host.call(&arguments).await
    }

    /// What is asked, once that is so many.
    pub async fn asked(&self, count: usize) -> Vec<Shown> {
        soon(async {
            loop {
                let output = self.call(&["pending", "--output", "json"]).await;
                assert!(is(output.status, Exit::Done), "{}", text(&output.stderr));
                let asked: Vec<Shown> = serde_json::from_slice(&output.stdout).unwrap();
                if asked.len() == count {
                    return asked;
                }
                sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await
    }

    pub fn has_run(&self) -> bool {
        self.at("done").exists()
    }
}

pub fn dispatch(uid: &str, seconds: f32, remaining_ms: u32) -> FromGateway {
    FromGateway::Dispatch(Dispatch {
        uid: uid.to_owned(),
        name: format!("act-{uid}"),
        capability: "test.act".to_owned(),
        input: format!("{{\"seconds\": {seconds}}}").into_bytes(),
        remaining_ms,
        max_output_bytes: 1_000,
        requested_by: "jane@example.org".to_owned(),
        ..Dispatch::default()
    })
}

pub async fn awaits(stream: &mut StreamCall, uid: &str) {
    let event = stream.next().await;
    assert!(
        matches!(&event, FromDevice::AwaitingMediation(asks) if asks.uid == uid),
        "{event:?}"
    );
}

pub fn end(result: &proto::node::Result) -> (Outcome, Option<FailureCode>) {
    let code = result.failure.as_ref().map(proto::node::Failure::code);
    (result.outcome(), code)
}

async fn said(path: &Path, request: &Request) -> Response {
    let mut stream = BufReader::new(UnixStream::connect(path).await.unwrap());
    wire::write(&mut stream, request).await.unwrap();
    soon(wire::read(&mut stream, wire::MAX_REPLY_BYTES))
        .await
        .unwrap()
        .unwrap()
}

pub fn me() -> String {
    let output = std::process::Command::new("id")
        .arg("-un")
        .output()
        .unwrap();
    text(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_person_is_asked_on_every_stream_and_an_allow_makes_it_run() {
    let mut desk = Desk::new("").await;
    let settings = format!(
        "[mediation]\non_pending = [\"/bin/sh\", \"-c\", \"cat > {0}.new && mv {0}.new {0}\"]\n",
        desk.at("rung").display()
    );
    desk.configure(&settings);
    let output = desk.call(&["pending"]).await;
    assert!(
        is(output.status, Exit::NotRunning),
        "{}",
        text(&output.stderr)
    );

    let (running, mut stream) = desk.run().await;
    stream.send(dispatch("u1", 0.0, 60_000)).await;
    awaits(&mut stream, "u1").await;
    stream.fail(Status::unavailable("the gateway stops")).await;
    drop(stream);
    let mut stream = desk.gateway.stream().await;
    awaits(&mut stream, "u1").await;

    let asked = desk.asked(1).await;
    let question = &asked[0];
    assert_eq!(
        (question.capability.as_str(), question.description.as_str()),
        ("test.act", "does it")
    );
    assert_eq!(
        (question.requested_by.as_str(), question.input.as_str()),
        ("jane@example.org", "{\"seconds\": 0}")
    );
    let shown = text(&desk.call(&["pending"]).await.stdout);
    for part in [&question.id, "test.act", "jane@example.org", "seconds"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let rung = soon(async {
        loop {
            if let Ok(rung) = fs::read(desk.at("rung")) {
                return serde_json::from_slice::<Shown>(&rung).unwrap();
            }
            sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(rung.digest, question.digest);

    // An answer to what was not shown, or to nothing, counts for nothing.
    let answer = |uid: &str, digest: &str| Request::Answer {
        uid: uid.to_owned(),
        digest: digest.to_owned(),
        decision: Said::Allow,
        reason: String::new(),
    };
    for (request, expected) in [
        (answer("u1", &"0".repeat(64)), Refused::Changed),
        (answer("u2", &question.digest), Refused::NotAsked),
        (answer("u1", "7"), Refused::Malformed),
    ] {
        let response = said(&desk.socket(), &request).await;
        assert!(
            matches!(&response, Response::Refused { why, .. } if *why == expected),
            "{response:?}"
        );
    }
    let mut odd = BufReader::new(UnixStream::connect(desk.socket()).await.unwrap());
    odd.write_all(b"GET / HTTP/1.1\n").await.unwrap();
    let response: Option<Response> = soon(wire::read(&mut odd, 10_000)).await.unwrap();
    assert!(matches!(
        response,
        Some(Response::Refused {
            why: Refused::Malformed,
            ..
        })
    ));
    let output = desk.call(&["allow", "0000-0000"]).await;
    assert!(
        is(output.status, Exit::NotAnswered),
        "{}",
        text(&output.stderr)
    );
    assert!(!desk.has_run());

    let output = desk.call(&["allow", &question.id.to_uppercase()]).await;
    assert!(is(output.status, Exit::Done), "{}", text(&output.stderr));
    let result = stream.result().await;
    assert_eq!(end(&result), (Outcome::Succeeded, None));
    let mediation = Mediation {
        by: me(),
        reason: String::new(),
    };
    assert_eq!(result.mediation, Some(mediation));
    assert!(desk.has_run());
    assert_eq!(desk.asked(0).await, []);
    let output = desk.call(&["deny", &question.id]).await;
    assert!(is(output.status, Exit::NotAnswered));

    let mode = fs::metadata(desk.socket()).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(is(terminate(running).await, Exit::Done));
    assert!(!desk.socket().exists());
}

#[tokio::test]
async fn nobody_is_asked_about_an_input_that_the_command_cannot_take() {
    let mut desk = Desk::new("").await;
    let (running, mut stream) = desk.run().await;
    let FromGateway::Dispatch(right) = dispatch("u1", 0.0, 60_000) else {
        unreachable!("it is a dispatch");
    };
    let wrong = Dispatch {
        input: b"{\"seconds\": []}".to_vec(),
        ..right
    };
    stream.send(FromGateway::Dispatch(wrong)).await;
    // The very first word about it.
    let event = stream.next().await;
    let FromDevice::Result(result) = event else {
        panic!("{event:?}");
    };
    assert_eq!(
        end(&result),
        (Outcome::Failed, Some(FailureCode::InvalidInput))
    );
    let message = result.failure.unwrap().message;
    assert!(message.contains("input.seconds"), "{message}");
    assert_eq!(desk.asked(0).await, []);
    assert!(!desk.has_run());
    assert!(is(terminate(running).await, Exit::Done));
}

#[tokio::test]
async fn a_deny_silence_a_cancel_and_a_crash_leave_it_not_run() {
    let mut desk = Desk::new("").await;
    let (mut running, mut stream) = desk.run().await;
    stream.send(dispatch("u1", 0.0, 60_000)).await;
    awaits(&mut stream, "u1").await;
    let id = desk.asked(1).await[0].id.clone();
    let output = desk.call(&["deny", &id, "--reason", "not\nnow"]).await;
    assert!(is(output.status, Exit::Done), "{}", text(&output.stderr));
    let result = stream.result().await;
    assert_eq!(end(&result), (Outcome::Refused, Some(FailureCode::Refused)));
    let mediation = result.mediation.unwrap();
    assert_eq!((mediation.by, mediation.reason.as_str()), (me(), "not now"));

    stream.send(dispatch("u2", 0.0, 50)).await;
    awaits(&mut stream, "u2").await;
    let result = stream.result().await;
    assert_eq!(
        end(&result),
        (Outcome::TimedOut, Some(FailureCode::NoDecision))
    );

    stream.send(dispatch("u3", 0.0, 60_000)).await;
    awaits(&mut stream, "u3").await;
    let cancel = Cancel {
        uid: "u3".to_owned(),
        name: "act-u3".to_owned(),
    };
    stream.send(FromGateway::Cancel(cancel)).await;
    let result = stream.result().await;
    assert_eq!(
        end(&result),
        (Outcome::Cancelled, Some(FailureCode::Cancelled))
    );

    stream.send(dispatch("u4", 0.0, 60_000)).await;
    awaits(&mut stream, "u4").await;
    running.start_kill().unwrap();
    let killed = running.wait().await.unwrap();
    assert_eq!(killed.signal(), Some(9));
    drop(stream);
    // What the killed one left of its socket is in nobody's way.
    assert!(desk.socket().exists());
    let (running, mut stream) = desk.run().await;
    let result = soon(async {
        loop {
            let result = stream.result().await;
            if result.uid == "u4" {
                return result;
            }
        }
    })
    .await;
    assert_eq!(
        end(&result),
        (Outcome::Failed, Some(FailureCode::AgentRestarted))
    );
    assert_eq!(desk.asked(0).await, []);
    assert!(!desk.has_run());
    assert!(is(terminate(running).await, Exit::Done));
}

#[tokio::test]
async fn a_rule_that_comes_with_a_hangup_decides_about_what_is_asked_already() {
    let mut desk = Desk::new("").await;
    let (running, mut stream) = desk.run().await;
    stream.send(dispatch("u1", 0.0, 60_000)).await;
    awaits(&mut stream, "u1").await;
    let rule = |decision: &str| {
        format!(
            "[[mediation.rule]]\ncapability = \"test.*\"\nrequester = \"*@example.org\"\n\
             decision = \"{decision}\"\nreason = \"a rule\"\n"
        )
    };
    let pid = Pid::from_raw(running.id().unwrap().cast_signed()).unwrap();
    desk.configure(&rule("deny"));
    kill_process(pid, Signal::HUP).unwrap();
    let result = stream.result().await;
    assert_eq!(end(&result), (Outcome::Refused, Some(FailureCode::Refused)));
    let expected = |verdict: &str| {
        Some(Mediation {
            by: format!("rule 1: {verdict} test.* for *@example.org"),
            reason: "a rule".to_owned(),
        })
    };
    assert_eq!(result.mediation, expected("deny"));

    desk.configure("");
    kill_process(pid, Signal::HUP).unwrap();
    // Asked about, and so not denied any more.
    let mut asked = 0;
    let mut next = 2;
    while asked == 0 {
        stream
            .send(dispatch(&format!("u{next}"), 0.0, 60_000))
            .await;
        next += 1;
        match stream.next().await {
            FromDevice::AwaitingMediation(_) => asked += 1,
            FromDevice::Result(result) => assert_eq!(result.outcome(), Outcome::Refused),
            other => unreachable!("{other:?}"),
        }
    }
    desk.configure(&rule("allow"));
    kill_process(pid, Signal::HUP).unwrap();
    let result = stream.result().await;
    assert_eq!(end(&result), (Outcome::Succeeded, None));
    assert_eq!(result.mediation, expected("allow"));
    assert!(is(terminate(running).await, Exit::Done));
}

#[tokio::test]
async fn how_far_it_is_is_told_while_it_runs_and_not_of_what_is_short() {
    let mut desk =
        Desk::new("[[mediation.rule]]\ncapability = \"*\"\ndecision = \"allow\"\n").await;
    let (running, mut stream) = desk.run().await;
    stream.send(dispatch("u1", 0.0, 60_000)).await;
    assert_eq!(end(&stream.result().await), (Outcome::Succeeded, None));
    stream.send(dispatch("u2", 30.0, 60_000)).await;
    let progress = soon(async {
        loop {
            match stream.next().await {
                FromDevice::Progress(progress) => return progress,
                FromDevice::Accepted(_) => {}
                other => unreachable!("{other:?}"),
            }
        }
    })
    .await;
    assert_eq!(
        (
            progress.uid.as_str(),
            progress.percent,
            progress.message.as_str()
        ),
        ("u2", 50, "half")
    );
    assert!(is(terminate(running).await, Exit::Done));
}

#[tokio::test]
async fn an_address_is_shown_as_it_will_be_opened() {
    let mut desk = Desk::new("[desktop]\nopen_url = true\n").await;
    let (running, mut stream) = desk.run().await;
    stream
        .send(FromGateway::Dispatch(Dispatch {
            uid: "u1".to_owned(),
            name: "open-u1".to_owned(),
            capability: "desktop.open_url".to_owned(),
            input: "{\"url\": \"https://\u{0430}pple.com/\"}".into(),
            remaining_ms: 60_000,
            ..Dispatch::default()
        }))
        .await;
    awaits(&mut stream, "u1").await;
    let asked = desk.asked(1).await;
    assert_eq!(asked[0].input, "{\"url\":\"https://xn--pple-43d.com/\"}");
    assert!(is(terminate(running).await, Exit::Done));
}

#[tokio::test]
async fn who_may_not_answer_is_told_so_and_a_strange_socket_is_not_believed() {
    let mut desk = Desk::new("").await;
    let folder = desk.at("run");
    let socket = folder.join("agent.sock");
    desk.configure(&format!("[mediation]\nsocket = \"{}\"\n", socket.display()));
    let (running, mut stream) = desk.run().await;
    stream.send(dispatch("u1", 0.0, 60_000)).await;
    awaits(&mut stream, "u1").await;
    desk.asked(1).await;

    // In a folder that others may write to, anybody can have put it there.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let output = desk.call(&["pending"]).await;
    assert!(is(output.status, Exit::NotAllowed));
    assert!(
        text(&output.stderr).contains("chmod go-w"),
        "{}",
        text(&output.stderr)
    );
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();

    if geteuid().is_root() {
        // As if somebody had opened the door; who comes in is looked at all the same.
        let open = fs::Permissions::from_mode(0o666);
        fs::set_permissions(&socket, open).unwrap();
        fs::set_permissions(
            desk.host.temporary.path(),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        let mut command = desk
            .host
            .command(&["pending", "--socket", socket.to_str().unwrap()]);
        command.uid(65_533).gid(65_533).current_dir("/");
        match command.output().await {
            Ok(output) => {
                let errors = text(&output.stderr);
                assert!(
                    is(output.status, Exit::NotAllowed),
                    "{}: {errors}",
                    output.status
                );
                assert!(errors.contains("may not answer"), "{errors}");
            }
            Err(error) => skipped(
                "who_may_not_answer",
                format!("another user cannot run the agent here: {error}"),
            ),
        }
    } else {
        skipped(
            "who_may_not_answer",
            "only root can try what another user may do",
        );
    }
    assert!(is(terminate(running).await, Exit::Done));
}
