//! A paired agent at its gateways: at most once, whatever dies.

mod artefacts;
mod once;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use node_agent::{
    agent::{self, plan::Limits},
    capability::{About, Call, Capability, Registry, Running, live::Live, spool::Spools},
    host::{
        Facts,
        clock::{self, Moment},
    },
    journal::{Bounds, Counts, Journal},
    mediation::desk::Desk,
    state::{Folder, Identity, View, identity::Der, session::State},
    upstream::{Upstream, Word, dial::Dialer},
};
use proto::node::{
    Cancel, Dispatch, Drain, FailureCode, Outcome, ResultAck, device_event::Event as FromDevice,
    gateway_event::Event as FromGateway,
};
use runtime::shutdown::Supervisor;
use rustls::pki_types::CertificateDer;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::gateway::{Authority, Gateway, Manners, SEQUENCE, StreamCall, soon};

/// What a capability did to the world, and what the journal said when it did.
type Effects = Arc<Mutex<Vec<(String, Counts)>>>;

/// Of an output that goes to the store.
const ARTEFACT_BYTES: u64 = 400_000;

/// Notes its effect; then ends, hangs, or blocks a thread, as its input says.
struct Probe {
    journal: PathBuf,
    effects: Effects,
}

impl Capability for Probe {
    fn name(&self) -> &'static str {
        "test.probe"
    }

    fn run(&self, call: Call) -> Running {
        let (journal, effects) = (self.journal.clone(), Arc::clone(&self.effects));
        Box::pin(async move {
            let input = String::from_utf8(call.input).unwrap();
            let (counts, _) = Journal::peek(&journal).unwrap();
            effects.lock().unwrap().push((input.clone(), counts));
            match input.as_str() {
                "\"hang\"" => std::future::pending().await,
                "\"block\"" => {
                    let stopped = call.stopped;
                    let block = move || {
                        while !stopped.is_cancelled() {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    };
                    tokio::task::spawn_blocking(block).await.unwrap();
                    Ok(b"1".to_vec())
                }
                "\"until told\"" => {
                    while !journal.with_extension("go").exists() {
                        sleep(Duration::from_millis(1)).await;
                    }
                    Ok(b"[1,2]".to_vec())
                }
                "\"artefact\"" => {
                    let mut writer = call.spool.unwrap().begin().unwrap();
                    while writer.length() < ARTEFACT_BYTES {
                        writer.write(&[b'7'; 1000]).unwrap();
                    }
                    writer.finish().unwrap().keep();
                    Ok(Vec::new())
                }
                "\"large\"" => Ok(vec![b'1'; call.max_output_bytes + 1]),
                _ => Ok(input.into_bytes()),
            }
        })
    }
}

/// A paired device.
pub struct Device {
    temporary: tempfile::TempDir,
    effects: Effects,
    limits: Limits,
    bounds: Bounds,
}

impl Device {
    pub fn new(authority: &Authority, gateways: &[&Gateway]) -> Self {
        let device = Self {
            temporary: tempfile::tempdir().unwrap(),
            effects: Effects::default(),
            limits: Limits::default(),
            bounds: Bounds::default(),
        };
        let folder = Folder::open(&device.path()).unwrap();
        let key = folder.key().unwrap();
        let pkcs10 = key.certificate_request().unwrap();
        let der = |der: Vec<u8>| Der(CertificateDer::from(der));
        let addresses: Vec<_> = gateways.iter().map(|g| g.address.to_string()).collect();
        folder
            .save_identity(&Identity {
                namespace: "kitchen".to_owned(),
                device: "lamp".to_owned(),
                chain: vec![
                    der(authority.device(&pkcs10, "kitchen", "lamp")),
                    der(authority.der()),
                ],
                bundle: vec![der(authority.der())],
                bundle_sequence: SEQUENCE,
                paired_at: addresses[0].clone(),
                gateways: addresses,
            })
            .unwrap();
        device
    }

    pub fn path(&self) -> PathBuf {
        self.temporary.path().join("state")
    }

    pub fn artefacts(&self) -> PathBuf {
        self.path().join("artefacts")
    }

    fn effects(&self) -> Vec<String> {
        let effects = self.effects.lock().unwrap();
        effects.iter().map(|(input, _)| input.clone()).collect()
    }

    /// Waits until a capability has had so many effects.
    async fn await_effects(&self, count: usize) {
        soon(async {
            while self.effects().len() < count {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    pub fn view(&self) -> View {
        View::of(&self.path()).unwrap().unwrap()
    }

    async fn await_session(&self, state: State) {
        soon(async {
            while self
                .view()
                .session()
                .unwrap()
                .is_none_or(|s| s.state != state)
            {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Starts the process, as `run` does.
    pub async fn start(&self) -> Process {
        // A process that was killed may take a moment to let go of the folder.
        let folder = soon(async {
            loop {
                match Folder::open(&self.path()) {
                    Ok(folder) => return folder,
                    Err(_) => sleep(Duration::from_millis(1)).await,
                }
            }
        })
        .await;
        let identity = folder.view().identity().unwrap().unwrap();
        let key = folder.key().unwrap();
        let journal_path = folder.view().journal();
        let journal = Journal::open(&journal_path, self.bounds, clock::now()).unwrap();
        let mut registry = Registry::built_in(About::default());
        registry.add(Arc::new(Probe {
            journal: journal_path,
            effects: Arc::clone(&self.effects),
        }));
        let capabilities = Live::from(registry);
        let (words, upstream) = mpsc::channel(32);
        let connecting = Upstream {
            folder: Arc::new(folder),
            dialer: Dialer::default(),
            key,
            identity,
            platform: Facts::read().to_platform(),
            capabilities: capabilities.clone(),
            concurrency: 8,
            words,
        };
        let parts = agent::Parts {
            journal,
            capabilities,
            limits: self.limits,
            desk: Desk::unattended(),
            spools: Spools::new(self.artefacts(), 1 << 30),
            upstream,
            tasks: Supervisor::new().tasks(),
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(agent::run(parts, stop.clone()));
        tasks.spawn(connecting.run());
        Process { tasks, stop }
    }
}

/// A running agent. Dropping it is SIGKILL.
pub struct Process {
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Process {
    /// SIGTERM, and waits.
    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = soon(self.tasks.join_next()).await {
            ended.unwrap().unwrap();
        }
    }
}

fn dispatch(uid: &str, input: &str) -> Dispatch {
    Dispatch {
        uid: uid.to_owned(),
        name: format!("check-{uid}"),
        capability: "test.probe".to_owned(),
        input: format!("\"{input}\"").into_bytes(),
        remaining_ms: 60_000,
        max_output_bytes: 1_000,
        requested_by: "jane".to_owned(),
        ..Dispatch::default()
    }
}

pub async fn order(stream: &StreamCall, uid: &str, input: &str) {
    stream
        .send(FromGateway::Dispatch(dispatch(uid, input)))
        .await;
}

pub async fn ack(stream: &StreamCall, uid: &str) {
    let uid = uid.to_owned();
    stream.send(FromGateway::ResultAck(ResultAck { uid })).await;
}

fn failure(result: &proto::node::Result) -> (Outcome, FailureCode) {
    (result.outcome(), result.failure.as_ref().unwrap().code())
}

#[tokio::test]
async fn what_is_dispatched_twice_runs_once_and_is_in_the_journal_before() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u1", "once").await;
    order(&stream, "u1", "once").await;
    let first = stream.result().await;
    assert_eq!(first.outcome(), Outcome::Succeeded);
    assert_eq!(
        (first.name.as_str(), first.output.as_slice()),
        ("check-u1", &b"\"once\""[..])
    );
    order(&stream, "u1", "once").await;
    // Once more for each time that it was asked for, and always the same.
    assert_eq!(stream.result().await, first);
    ack(&stream, "u1").await;
    order(&stream, "u2", "next").await;
    while stream.result().await.uid != "u2" {}
    assert_eq!(device.effects(), ["\"once\"", "\"next\""]);
    let effects = device.effects.lock().unwrap();
    assert!(
        effects.iter().all(|(_, counts)| counts.running == 1),
        "{effects:?}"
    );
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_journal_is_written_is_kept_all_the_same() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    // Asked about before its time is over, or not; some of these are over when that is on the disk, and nothing else
    // happens then.
    for number in 0..40_u32 {
        let (uid, remaining_ms) = (format!("u{number}"), number % 8);
        let asked = Dispatch {
            remaining_ms,
            mediate: true,
            ..dispatch(&uid, "asked")
        };
        stream.send(FromGateway::Dispatch(asked)).await;
        loop {
            match stream.next().await {
                FromDevice::Result(result) if result.uid == uid => {
                    assert_eq!(result.outcome(), Outcome::TimedOut, "{result:?}");
                    break;
                }
                FromDevice::Result(_) | FromDevice::AwaitingMediation(_) => {}
                other => unreachable!("{other:?}"),
            }
        }
        ack(&stream, &uid).await;
    }
    assert_eq!(device.effects(), [""; 0]);
}

#[tokio::test]
async fn a_result_is_sent_on_every_stream_until_it_is_acked() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u1", "a").await;
    let first = stream.result().await;
    // The stream breaks before the ack.
    stream.fail(Status::unavailable("the gateway stops")).await;
    drop(stream);
    let mut stream = gateway.stream().await;
    assert_eq!(stream.result().await, first);
    // The process dies before the ack.
    drop(process);
    drop(stream);
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    assert_eq!(stream.result().await, first);
    ack(&stream, "u1").await;
    order(&stream, "u2", "b").await;
    assert_eq!(stream.result().await.uid, "u2");
    ack(&stream, "u2").await;
    soon(async {
        while Journal::peek(&device.view().journal()).unwrap().0.unacked > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(process);
    drop(stream);
    // Nothing is left to say.
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u3", "c").await;
    assert_eq!(stream.result().await.uid, "u3");
    process.stop().await;
    assert_eq!(device.effects(), ["\"a\"", "\"b\"", "\"c\""]);
}

#[tokio::test]
async fn what_ran_when_the_agent_was_killed_is_unknown_and_never_runs_again() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let mut device = Device::new(&authority, &[&gateway]);
    device.limits.running = 1;
    let process = device.start().await;
    let stream = gateway.stream().await;
    order(&stream, "u1", "hang").await;
    order(&stream, "u2", "waits").await;
    device.await_effects(1).await;
    soon(async {
        while Journal::peek(&device.view().journal()).unwrap().0.waiting == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(process);
    drop(stream);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    let mut results = [stream.result().await, stream.result().await];
    results.sort_by(|a, b| a.uid.cmp(&b.uid));
    assert_eq!(
        results.each_ref().map(failure),
        [
            (Outcome::Unknown, FailureCode::AgentRestarted),
            (Outcome::Failed, FailureCode::AgentRestarted)
        ]
    );
    order(&stream, "u1", "hang").await;
    assert_eq!(stream.result().await, results[0]);
    assert_eq!(device.effects(), ["\"hang\""]);
}

#[tokio::test]
async fn cancel_and_deadline_stop_what_runs() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u1", "hang").await;
    device.await_effects(1).await;
    let uid = "u1".to_owned();
    stream
        .send(FromGateway::Cancel(Cancel {
            uid,
            ..Cancel::default()
        }))
        .await;
    assert_eq!(
        failure(&stream.result().await),
        (Outcome::Cancelled, FailureCode::Cancelled)
    );
    let short = Dispatch {
        remaining_ms: 50,
        ..dispatch("u2", "hang")
    };
    stream.send(FromGateway::Dispatch(short)).await;
    assert_eq!(
        failure(&stream.result().await),
        (Outcome::TimedOut, FailureCode::DeadlineExceeded)
    );
    let over = Dispatch {
        remaining_ms: 0,
        ..dispatch("u3", "x")
    };
    stream.send(FromGateway::Dispatch(over)).await;
    assert_eq!(
        failure(&stream.result().await),
        (Outcome::TimedOut, FailureCode::DeadlineBeforeStart)
    );
    assert_eq!(device.effects().len(), 2);
}

#[tokio::test]
async fn what_was_cancelled_before_it_came_is_said_by_name_and_not_run_after_a_restart() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    let cancel = Cancel {
        uid: "u1".to_owned(),
        name: "check-u1".to_owned(),
    };
    stream.send(FromGateway::Cancel(cancel)).await;
    let result = stream.result().await;
    assert_eq!(
        failure(&result),
        (Outcome::Cancelled, FailureCode::Cancelled)
    );
    assert_eq!(result.name, "check-u1");
    drop(process);
    drop(stream);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    assert_eq!(stream.result().await, result);
    order(&stream, "u1", "late").await;
    assert_eq!(stream.result().await, result);
    assert!(device.effects().is_empty());
}

#[tokio::test]
async fn time_that_a_dispatch_waits_for_the_loop_is_its_own() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("journal");
    let (words, upstream) = mpsc::channel(4);
    let (outbound, mut sent) = mpsc::channel(4);
    // It was received long ago, when this machine started, and waited since: behind a disk that hung.
    let received_at = Moment::default();
    let event = FromGateway::Dispatch(Dispatch {
        capability: "echo".to_owned(),
        remaining_ms: 1,
        ..dispatch("u1", "x")
    });
    let opened = Word::Opened {
        outbound,
        max_artefact_bytes: 0,
    };
    words.send(opened).await.unwrap();
    words.send(Word::Event(event, received_at)).await.unwrap();
    let parts = agent::Parts {
        journal: Journal::open(&path, Bounds::default(), clock::now()).unwrap(),
        capabilities: Registry::built_in(About::default()).into(),
        limits: Limits::default(),
        desk: Desk::unattended(),
        spools: Spools::new(temporary.path().join("artefacts"), 0),
        upstream,
        tasks: Supervisor::new().tasks(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(agent::run(parts, CancellationToken::new()));
    let event = soon(sent.recv()).await.unwrap().event.unwrap();
    let FromDevice::Result(result) = event else {
        unreachable!("it does not start: {event:?}");
    };
    assert_eq!(
        failure(&result),
        (Outcome::TimedOut, FailureCode::DeadlineBeforeStart)
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    for (uid, dispatch, expected) in [
        (
            "u1",
            Dispatch {
                capability: "oven.light".to_owned(),
                ..dispatch("u1", "x")
            },
            FailureCode::NotDeclared,
        ),
        (
            "u2",
            Dispatch {
                input: b"{no json".to_vec(),
                ..dispatch("u2", "x")
            },
            FailureCode::InvalidInput,
        ),
        ("u3", dispatch("u3", "large"), FailureCode::OutputTooLarge),
    ] {
        stream.send(FromGateway::Dispatch(dispatch)).await;
        let result = stream.result().await;
        assert_eq!(result.uid, uid);
        assert_eq!(failure(&result), (Outcome::Failed, expected));
    }
    // A uid that is none cannot be answered, and harms nobody.
    stream
        .send(FromGateway::Dispatch(dispatch("../..", "x")))
        .await;
    order(&stream, "u4", "fine").await;
    assert_eq!(stream.result().await.uid, "u4");
}

#[tokio::test]
async fn a_full_journal_refuses_and_says_so_and_what_is_acked_makes_room() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let mut device = Device::new(&authority, &[&gateway]);
    device.bounds.open = 1;
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u1", "a").await;
    assert_eq!(stream.result().await.uid, "u1");
    order(&stream, "u2", "b").await;
    let refused = (Outcome::Failed, FailureCode::JournalUnavailable);
    assert_eq!(failure(&stream.result().await), refused);
    ack(&stream, "u1").await;
    order(&stream, "u3", "c").await;
    assert_eq!(stream.result().await.uid, "u3");
    // Somebody was told that it does not run.
    order(&stream, "u2", "b").await;
    assert_eq!(failure(&stream.result().await), refused);
    assert_eq!(device.effects(), ["\"a\"", "\"c\""]);
}

#[tokio::test]
async fn what_was_acked_and_forgotten_does_not_run_again_after_a_restart_either() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let mut device = Device::new(&authority, &[&gateway]);
    device.bounds.acked = 0;
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u1", "a").await;
    assert_eq!(stream.result().await.outcome(), Outcome::Succeeded);
    ack(&stream, "u1").await;
    soon(async {
        while Journal::peek(&device.view().journal()).unwrap().0.acked == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    // Its end is in Kubernetes: nothing that could be said without it is true.
    order(&stream, "u1", "a").await;
    order(&stream, "u2", "b").await;
    assert_eq!(stream.result().await.uid, "u2");
    process.stop().await;
    drop(stream);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u1", "a").await;
    order(&stream, "u3", "c").await;
    while stream.result().await.uid != "u3" {}
    assert_eq!(device.effects(), ["\"a\"", "\"b\"", "\"c\""]);
}

#[tokio::test]
async fn many_at_once_all_end_once_and_results_wait_for_room_on_the_stream() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    // As many as may wait, while none of the answers is read.
    for index in 0..60 {
        order(&stream, &format!("u{index}"), "x").await;
    }
    device.await_effects(60).await;
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < 60 {
        let result = stream.result().await;
        assert_eq!(result.outcome(), Outcome::Succeeded);
        ack(&stream, &result.uid).await;
        ended.insert(result.uid);
    }
    assert_eq!(device.effects().len(), 60);
}

#[tokio::test]
async fn heartbeats_go_on_while_capabilities_run_and_block() {
    let authority = Authority::new("ours");
    let manners = Manners {
        heartbeat: Duration::from_millis(50),
        ..Manners::default()
    };
    let mut gateway = Gateway::start(&authority, manners).await;
    let device = Device::new(&authority, &[&gateway]);
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u1", "hang").await;
    order(&stream, "u2", "block").await;
    device.await_effects(2).await;
    let mut heartbeats = 0;
    while heartbeats < 6 {
        if let FromDevice::Heartbeat(_) = stream.any().await {
            heartbeats += 1;
            let ack = FromGateway::HeartbeatAck(proto::node::HeartbeatAck {});
            stream.send(ack).await;
        }
    }
    let uid = "u2".to_owned();
    stream
        .send(FromGateway::Cancel(Cancel {
            uid,
            ..Cancel::default()
        }))
        .await;
    assert_eq!(stream.result().await.uid, "u2");
    drop(process);
}

#[tokio::test]
async fn a_gateway_that_answers_no_heartbeat_is_left() {
    let authority = Authority::new("ours");
    let manners = Manners {
        heartbeat: Duration::from_millis(50),
        ..Manners::default()
    };
    let mut gateway = Gateway::start(&authority, manners).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let _silent = gateway.stream().await;
    gateway.stream().await;
    device.await_session(State::Connected).await;
}

#[tokio::test]
async fn a_killed_gateway_costs_a_moment_and_the_next_one_hears_the_result() {
    let authority = Authority::new("ours");
    let mut gateways = [
        Gateway::start(&authority, Manners::default()).await,
        Gateway::start(&authority, Manners::default()).await,
    ];
    let device = Device::new(&authority, &[&gateways[0], &gateways[1]]);
    let _process = device.start().await;
    let [a, b] = &mut gateways;
    let (first, mut stream) = tokio::select! {
        stream = a.stream() => (0, stream),
        stream = b.stream() => (1, stream),
    };
    order(&stream, "u1", "a").await;
    let result = stream.result().await;
    let [a, b] = gateways;
    let (dead, mut alive) = if first == 0 { (a, b) } else { (b, a) };
    let killed = clock::now();
    drop(dead);
    drop(stream);
    let mut stream = alive.stream().await;
    assert!(clock::now().since(killed) < Duration::from_secs(2));
    assert_eq!(stream.result().await, result);
    assert_eq!(device.effects().len(), 1);
}

#[tokio::test]
async fn a_device_that_is_not_let_in_says_why_and_stays_away() {
    let authority = Authority::new("ours");
    let manners = Manners {
        refuses: Some(Status::permission_denied("suspended by jane")),
        ..Manners::default()
    };
    let mut gateway = Gateway::start(&authority, manners).await;
    let device = Device::new(&authority, &[&gateway]);
    let process = device.start().await;
    device.await_session(State::Refused).await;
    let session = device.view().session().unwrap().unwrap();
    assert!(session.last_error.unwrap().contains("suspended by jane"));
    sleep(Duration::from_millis(300)).await;
    let mut registrations = 0;
    while gateway.registrations.try_recv().is_ok() {
        registrations += 1;
    }
    assert_eq!(registrations, 1);
    process.stop().await;
    let session = device.view().session().unwrap().unwrap();
    assert_eq!(session.state, State::Stopped);
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_is_a_refusal() {
    let ours = Authority::new("ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // The gateway's own certificate is right; it just lets in devices of another authority only.
    let gateway = Gateway::start_on(
        listener,
        &ours,
        &Authority::new("theirs"),
        Manners::default(),
    );
    let device = Device::new(&ours, &[&gateway]);
    let _process = device.start().await;
    device.await_session(State::Refused).await;
    let session = device.view().session().unwrap().unwrap();
    let error = session.last_error.unwrap();
    assert!(
        error.contains("does not accept this device's certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn a_gateway_of_another_authority_hears_nothing() {
    let mut theirs = Gateway::start(&Authority::new("ours"), Manners::default()).await;
    let device = Device::new(&Authority::new("ours"), &[&theirs]);
    let _process = device.start().await;
    soon(async {
        loop {
            let session = device.view().session().unwrap();
            if session.is_some_and(|s| s.last_error.is_some_and(|e| e.contains("certificate"))) {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(theirs.registrations.try_recv().is_err());
}

#[tokio::test]
async fn a_gateway_that_goes_names_the_moment_and_the_next_one_is_remembered() {
    let authority = Authority::new("ours");
    let mut next = Gateway::start(&authority, Manners::default()).await;
    let manners = Manners {
        gateways: vec![next.address.to_string(), "nonsense".to_owned()],
        ..Manners::default()
    };
    let mut first = Gateway::start(&authority, manners).await;
    let device = Device::new(&authority, &[&first]);
    let _process = device.start().await;
    let mut stream = first.stream().await;
    // What runs goes on meanwhile.
    order(&stream, "u1", "a").await;
    assert_eq!(stream.result().await.uid, "u1");
    let drain = Drain {
        reconnect_after_ms: 100,
    };
    stream.send(FromGateway::Drain(drain)).await;
    let mut stream = next.stream().await;
    assert_eq!(stream.result().await.uid, "u1");
    let identity = device.view().identity().unwrap().unwrap();
    let reached = [&next, &first].map(|gateway| gateway.address.to_string());
    assert_eq!(identity.gateways, reached);
    // The address that it was paired at stays known.
    assert_eq!(identity.paired_at, first.address.to_string());
}

#[tokio::test]
async fn an_address_that_a_gateway_tells_survives_a_restart_only_once_a_gateway_proved_itself_there()
 {
    let authority = Authority::new("ours");
    let foreign = Gateway::start(&Authority::new("theirs"), Manners::default()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut next = Gateway::start(&authority, Manners::default()).await;
    let told = [
        foreign.address.to_string(),
        silent.local_addr().unwrap().to_string(),
        next.address.to_string(),
    ];
    let manners = Manners {
        gateways: told.to_vec(),
        ..Manners::default()
    };
    let mut first = Gateway::start(&authority, manners).await;
    let device = Device::new(&authority, &[&first]);
    let process = device.start().await;
    let stream = first.stream().await;
    let known = || device.view().identity().unwrap().unwrap().addresses();
    assert_eq!(known(), [first.address.to_string()], "none was reached yet");
    let reached = [&next, &first].map(|gateway| gateway.address.to_string());
    drop((stream, first));
    // In this run, it is where it was told.
    let stream = next.stream().await;
    soon(async {
        while known() != reached {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop((process, stream));
    let _process = device.start().await;
    let _stream = next.stream().await;
    assert_eq!(known(), reached);
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_lets_what_runs_end_and_says_so() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, "u1", "hang").await;
    device.await_effects(1).await;
    let (result, ()) = tokio::join!(
        async {
            let result = stream.result().await;
            ack(&stream, "u1").await;
            result
        },
        process.stop()
    );
    assert_eq!(
        failure(&result),
        (Outcome::Unknown, FailureCode::AgentRestarted)
    );
    let (counts, _) = Journal::peek(&device.view().journal()).unwrap();
    assert_eq!((counts.unacked, counts.acked), (0, 1));
}
