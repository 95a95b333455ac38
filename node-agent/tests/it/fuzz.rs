//! Whatever comes from a gateway, a disk or a file: never a panic, and never something begun that is not recorded.
//!
//! What once was of interest is kept in `tests/corpus/TARGET/` and tried first. `PROPTEST_CASES` sets how many more. What is
//! private to the agent – certificates, what a command says – is tried beside the code.

// What is judged with is a file for each thing, which the targets in `/fuzz` include.
mod bundle;
mod decision;
mod disk;
mod settings;
mod uri;

use std::{
    cell::RefCell,
    env, fs,
    path::{Path, PathBuf},
};

use bundle::is_not_trusted;
use decision::{Known, decide, in_a_row};
use disk::Disk;
use proptest::{prelude::*, test_runner::TestRunner};
use prost::Message as _;
use proto::node::{self, GatewayEvent, device_event, gateway_event};
use settings::{Settings, declares};
use uri::scans;

use crate::{
    gateway::{Authority, Gateway, Manners, StreamCall, soon},
    serving::{Device, Process},
};

const CASES: u32 = 200;
/// For what waits for a disk.
const FEW: u32 = 40;

/// Tries what is kept, then so many more; more where the environment says so.
fn fuzz<S: Strategy>(
    target: &str,
    cases: u32,
    kept: impl Fn(Vec<u8>) -> Option<S::Value>,
    strategy: S,
    check: impl Fn(S::Value),
) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing is kept for {target}");
    for value in files
        .into_iter()
        .filter_map(|file| kept(fs::read(file).unwrap()))
    {
        check(value);
    }
    let mut config = ProptestConfig::default();
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    config.failure_persistence = None;
    let mut runner = TestRunner::new(config);
    runner
        .run(&strategy, |value| {
            check(value);
            Ok(())
        })
        .unwrap();
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

#[test]
fn whatever_a_gateway_sends_is_read_or_left_aside() {
    let known = Known::new();
    fuzz("gateway_event", CASES, Some, message(), |bytes| {
        let event = GatewayEvent::decode(&*bytes)
            .ok()
            .and_then(|event| event.event);
        decide(&known, event.as_slice());
    });
}

/// Any bytes; or a message with some of its bytes changed and some more behind it.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<usize>(), any::<u8>()), 0..4);
    let altered = (0..KINDS.len(), changes, bytes()).prop_map(|(kind, changes, tail)| {
        let mut bytes = encoded(KINDS[kind]);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.extend(tail);
        bytes
    });
    prop_oneof![bytes(), altered]
}

/// The files of the corpus, one for each kind of message.
const KINDS: [&str; 10] = [
    "welcome",
    "dispatch",
    "result-ack",
    "cancel",
    "drain",
    "heartbeat-ack",
    "renewed",
    "artefact-wanted",
    "artefact-stored",
    "artefact-refused",
];

/// Whoever adds a kind is led here, and by the test below to the corpus.
fn kind(event: &gateway_event::Event) -> &'static str {
    use gateway_event::Event;
    match event {
        Event::Welcome(_) => "welcome",
        Event::Dispatch(_) => "dispatch",
        Event::ResultAck(_) => "result-ack",
        Event::Cancel(_) => "cancel",
        Event::Drain(_) => "drain",
        Event::HeartbeatAck(_) => "heartbeat-ack",
        Event::Renewed(_) => "renewed",
        Event::ArtefactWanted(_) => "artefact-wanted",
        Event::ArtefactStored(_) => "artefact-stored",
        Event::ArtefactRefused(_) => "artefact-refused",
    }
}

fn example(kind: &str) -> gateway_event::Event {
    use gateway_event::Event;
    let uid = "a".to_owned();
    match kind {
        "welcome" => Event::Welcome(node::Welcome {
            heartbeat_interval_ms: 15_000,
            epoch: 7,
            gateway: "gateway-0".to_owned(),
            gateways: vec!["gateway.example:7443".to_owned()],
            max_artefact_bytes: 1 << 30,
        }),
        "dispatch" => Event::Dispatch(node::Dispatch {
            uid: "new".to_owned(),
            name: "check-new".to_owned(),
            capability: "echo".to_owned(),
            input: b"1".to_vec(),
            remaining_ms: 30_000,
            max_output_bytes: 65_536,
            requested_by: "jane".to_owned(),
            idempotency_key: "b".to_owned(),
            mediate: false,
        }),
        "result-ack" => Event::ResultAck(node::ResultAck { uid }),
        "cancel" => Event::Cancel(node::Cancel {
            uid,
            name: "check-a".to_owned(),
        }),
        "drain" => Event::Drain(node::Drain {
            reconnect_after_ms: 300,
        }),
        "heartbeat-ack" => Event::HeartbeatAck(node::HeartbeatAck {}),
        "renewed" => Event::Renewed(node::Renewed {
            chain: vec![vec![0x30, 3, 2, 1, 1], vec![0x30, 0]],
            signed_bundle: vec![1, 0, 0],
        }),
        "artefact-wanted" => Event::ArtefactWanted(node::ArtefactWanted {
            uid: "f".to_owned(),
            offset: 65_536,
            window_bytes: 1 << 20,
        }),
        "artefact-stored" => Event::ArtefactStored(node::ArtefactStored {
            uid: "f".to_owned(),
        }),
        "artefact-refused" => Event::ArtefactRefused(node::ArtefactRefused {
            uid: "f".to_owned(),
            message: "too large".to_owned(),
        }),
        other => unreachable!("{other} is no kind"),
    }
}

fn encoded(kind: &str) -> Vec<u8> {
    let event = Some(example(kind));
    GatewayEvent { event }.encode_to_vec()
}

#[test]
fn the_corpus_has_a_message_of_every_kind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/gateway_event");
    for name in KINDS {
        assert_eq!(kind(&example(name)), name);
        let path = folder.join(name);
        if env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(&path, encoded(name)).unwrap();
        }
        let kept = fs::read(&path).unwrap_or_default();
        assert_eq!(
            kept,
            encoded(name),
            "UPDATE_GENERATED=1 cargo test -p node-agent corpus"
        );
    }
}

fn wish() -> impl Strategy<Value = gateway_event::Event> {
    let uid = prop_oneof![3 => "[a-i]", 1 => ".{0,80}"];
    let name = prop_oneof![3 => "[a-c]", 1 => ".{0,300}"];
    let key = prop_oneof![2 => Just(String::new()), 2 => "[ab]", 1 => ".{0,200}"];
    let dispatch = (
        uid.clone(),
        name.clone(),
        prop_oneof![3 => Just("echo".to_owned()), 1 => ".{0,300}"],
        bytes(),
        any::<u32>(),
        any::<u32>(),
        key,
        any::<bool>(),
    );
    let dispatch = dispatch.prop_map(
        |(
            uid,
            name,
            capability,
            input,
            remaining_ms,
            max_output_bytes,
            idempotency_key,
            mediate,
        )| {
            gateway_event::Event::Dispatch(node::Dispatch {
                uid,
                name,
                capability,
                input,
                remaining_ms,
                max_output_bytes,
                idempotency_key,
                mediate,
                ..node::Dispatch::default()
            })
        },
    );
    let cancel = (uid.clone(), name)
        .prop_map(|(uid, name)| gateway_event::Event::Cancel(node::Cancel { uid, name }));
    let of_uid = |make: fn(String) -> gateway_event::Event| uid.clone().prop_map(make);
    let ack = of_uid(|uid| gateway_event::Event::ResultAck(node::ResultAck { uid }));
    let stored = of_uid(|uid| gateway_event::Event::ArtefactStored(node::ArtefactStored { uid }));
    let wanted = (uid.clone(), any::<u64>(), any::<u32>());
    let wanted = wanted.prop_map(|(uid, offset, window_bytes)| {
        gateway_event::Event::ArtefactWanted(node::ArtefactWanted {
            uid,
            offset,
            window_bytes,
        })
    });
    let refused = (uid, ".{0,700}").prop_map(|(uid, message)| {
        gateway_event::Event::ArtefactRefused(node::ArtefactRefused { uid, message })
    });
    prop_oneof![
        6 => dispatch,
        1 => cancel,
        1 => ack,
        1 => stored,
        1 => wanted,
        1 => refused
    ]
}

/// What is for the connection and not for the plan.
fn of_the_connection() -> impl Strategy<Value = gateway_event::Event> {
    use gateway_event::Event;
    let certificates = || prop::collection::vec(bytes(), 0..20);
    let renewed = (certificates(), bytes()).prop_map(|(chain, signed_bundle)| {
        Event::Renewed(node::Renewed {
            chain,
            signed_bundle,
        })
    });
    // Not for minutes: it is waited for.
    let drain = prop_oneof![0_u32..50, Just(u32::MAX)]
        .prop_map(|reconnect_after_ms| Event::Drain(node::Drain { reconnect_after_ms }));
    let welcome = (
        any::<u32>(),
        any::<u64>(),
        ".{0,300}",
        prop::collection::vec(".{0,300}", 0..40),
    );
    let welcome = welcome.prop_map(|(heartbeat_interval_ms, number, gateway, gateways)| {
        Event::Welcome(node::Welcome {
            heartbeat_interval_ms,
            epoch: number,
            gateway,
            gateways,
            max_artefact_bytes: number,
        })
    });
    let ack = Just(Event::HeartbeatAck(node::HeartbeatAck {}));
    prop_oneof![renewed, drain, welcome, ack]
}

/// A gateway that sends whatever it likes, and its device.
struct Played {
    gateway: Gateway,
    stream: StreamCall,
    _process: Process,
    _device: Device,
    asked: u32,
}

impl Played {
    async fn start() -> Self {
        let authority = Authority::new("ours");
        let mut gateway = Gateway::start(&authority, Manners::default()).await;
        let device = Device::new(&authority, &[&gateway]);
        let process = device.start().await;
        Self {
            stream: gateway.stream().await,
            gateway,
            _process: process,
            _device: device,
            asked: 0,
        }
    }

    /// Sends all of it, and then something that must be answered, on this stream or on the next.
    async fn send(&mut self, events: Vec<gateway_event::Event>) {
        for event in events {
            if !self.stream.try_send(event).await {
                self.stream = self.gateway.stream().await;
            }
        }
        self.asked += 1;
        let uid = format!("asked-{}", self.asked);
        loop {
            let dispatch = node::Dispatch {
                uid: uid.clone(),
                name: "check".to_owned(),
                capability: "echo".to_owned(),
                input: b"7".to_vec(),
                remaining_ms: 60_000,
                ..node::Dispatch::default()
            };
            let dispatch = gateway_event::Event::Dispatch(dispatch);
            // Where it is not, the stream is at its end below.
            self.stream.try_send(dispatch).await;
            while let Some(event) = self.stream.any_or_end().await {
                if let device_event::Event::Result(result) = event
                    && result.uid == uid
                {
                    assert_eq!(result.output, b"7", "{result:?}");
                    let ack = gateway_event::Event::ResultAck(node::ResultAck { uid });
                    self.stream.try_send(ack).await;
                    return;
                }
            }
            self.stream = self.gateway.stream().await;
        }
    }
}

#[test]
fn whatever_its_gateway_sends_an_agent_goes_on_serving() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let played = RefCell::new(runtime.block_on(Played::start()));
    let events = prop::collection::vec(prop_oneof![wish(), of_the_connection()], 0..12);
    let kept = |bytes: Vec<u8>| {
        GatewayEvent::decode(&*bytes)
            .ok()?
            .event
            .map(|one| vec![one])
    };
    fuzz("gateway_event", FEW, kept, events, |events| {
        runtime.block_on(soon(played.borrow_mut().send(events)));
    });
}

#[test]
fn whatever_a_gateway_wants_is_begun_once_and_recorded_first() {
    let wishes = prop::collection::vec(wish(), 0..12);
    let known = Known::new();
    fuzz(
        "gateway_event",
        CASES,
        |bytes| Some(in_a_row(&bytes)),
        wishes,
        |wishes| decide(&known, &wishes),
    );
}

#[test]
fn whatever_is_in_a_journal_is_read_or_refused() {
    let disk = Disk::new();
    let journal = (any::<bool>(), bytes()).prop_map(|(ours, mut bytes)| {
        if ours {
            bytes.splice(0..0, *b"FLJRNL01");
        }
        bytes
    });
    fuzz("journal", CASES, Some, journal, |bytes| disk.holds(&bytes));
}

#[test]
fn a_damaged_journal_never_lets_an_effect_be_repeated() {
    let disk = Disk::new();
    let damage = (0..disk.len(), any::<u8>(), bytes());
    fuzz(
        "journal",
        FEW,
        |bytes| disk.damage(&bytes),
        damage,
        |(at, with, tail)| disk.is_damaged(at, with, &tail),
    );
}

#[test]
fn whatever_is_scanned_or_typed_is_a_pairing_uri_or_none() {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    let uri = prop_oneof![
        ".{0,200}",
        "fairlead://[a-z0-9.:\\[\\]%@]{0,40}/\\?[a-z=&%0-9]{0,90}#.{0,20}",
        "fairlead://[a-z]{1,9}:[0-9]{1,6}/\\?ns=[a-z-]{0,70}&ca=[0-9a-f]{64}#[0-9A-Z]{4}-[0-9A-Z]{6}",
    ];
    fuzz("pairing_uri", CASES, text, uri, |uri| scans(&uri));
}

#[test]
fn whatever_a_gateway_sends_as_a_trust_bundle_is_trusted_by_nobody_who_holds_no_signer() {
    let kept = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/corpus/signed_bundle/two-authorities"
    );
    let good = fs::read(kept).unwrap();
    let changes = prop::collection::vec((any::<usize>(), any::<u8>()), 0..4);
    let altered = (changes, bytes(), any::<bool>()).prop_map(move |(changes, tail, is_longer)| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if is_longer {
            bytes.extend(tail);
        }
        bytes
    });
    let strategy = prop_oneof![bytes(), altered];
    fuzz("signed_bundle", CASES, Some, strategy, |bytes| {
        is_not_trusted(&bytes);
    });
}

#[test]
fn whatever_is_in_a_configuration_is_read_or_a_problem() {
    let settings = Settings::new();
    let text = prop_oneof![
        ".{0,300}",
        "(state_dir|capabilities_dir|max_concurrent|\\[desktop\\]|\\[mediation\\]|open_url) ?=? ?(\"/?[a-z./]{0,9}\"|-?[0-9]{0,20}|true|\\[\\])\n",
    ];
    let kept = |bytes| String::from_utf8(bytes).ok();
    fuzz("config", CASES, kept, text, |text| settings.are(&text));
}

#[test]
fn whatever_declares_capabilities_is_read_or_a_problem() {
    let text = prop_oneof![
        ".{0,300}",
        "\\[\\[capability\\]\\]\nname = \"[a-z./]{0,9}\"\ncommand = \"/bin/[a-z]{0,5}\"\nargs = \\[\"[{}a-z/~01$]{0,12}\"\\]\n(timeout_seconds|memory_bytes|concurrency|grace_seconds) = -?[0-9]{1,19}\n",
    ];
    let kept = |bytes| String::from_utf8(bytes).ok();
    fuzz("capabilities", CASES, kept, text, declares);
}
