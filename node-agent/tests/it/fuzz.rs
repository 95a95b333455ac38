//! Whatever comes from a gateway, a disk or a file: never a panic, and never something begun that is not recorded.
//!
//! What once was of interest is kept in `tests/corpus/TARGET/` and tried first. `PROPTEST_CASES` sets how many more.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use node_agent::{
    agent::{
        jobs::Jobs,
        order::{self, Wish},
        plan::{self, Effect, Event, Limits, Observed},
    },
    capability::{
        Offer,
        command::{
            account::Accounts,
            declaration::{self, Surroundings},
        },
    },
    config::{Config, document::Document},
    host::clock::Moment,
    journal::{Bounds, Journal, Ledger, Phase, Record, Uid},
    mediation::rules::Rules,
};
use pairing::uri::PairingUri;
use proptest::{prelude::*, test_runner::TestRunner};
use prost::Message as _;
use proto::node::{self, Availability, GatewayEvent, gateway_event};

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
    if std::env::var_os("PROPTEST_CASES").is_none() {
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

/// Decides about events with an empty journal, and looks that nothing starts unrecorded.
fn decide(events: &[gateway_event::Event]) {
    let now = Moment::from_millis(10_000);
    let events: Vec<Event> = events
        .iter()
        .filter_map(|event| order::parse(event.clone(), now))
        .filter_map(|wish| match wish {
            Wish::Dispatch(order) => Some(Event::Dispatch(Arc::from(order))),
            Wish::Cancel { uid, name } => Some(Event::Cancel { uid, name }),
            Wish::Ack(uid) => Some(Event::Ack(uid)),
            Wish::Stored(uid) => Some(Event::Stored(uid)),
            Wish::NotStored { uid, message } => Some(Event::NotStored { uid, message }),
            // Nothing is decided about it.
            Wish::Wanted { .. } => None,
        })
        .collect();
    let offer = Offer {
        availability: Availability::Available,
        concurrency: 2,
        is_mediated: false,
        capability: None,
    };
    let plan = plan::plan(&Observed {
        now,
        events: &events,
        ledger: &Ledger::default(),
        bounds: Bounds::default(),
        repeats: &[],
        jobs: &Jobs::default(),
        refused: &HashSet::new(),
        told: Some(&HashSet::new()),
        told_asked: &HashSet::new(),
        surface: &BTreeMap::from([("echo", offer)]),
        rules: &Rules::default(),
        limits: Limits::default(),
        stop_at: None,
    });
    let accepted: HashSet<&Uid> = plan
        .records
        .iter()
        .filter(|record| matches!(record, Record::Accepted { .. }))
        .map(Record::uid)
        .collect();
    let mut started = HashSet::new();
    for effect in &plan.effects {
        if let Effect::Start(order) = effect {
            assert!(accepted.contains(&order.uid), "it starts unrecorded");
            assert!(started.insert(order.uid.clone()), "it starts twice");
        }
    }
}

#[test]
fn whatever_a_gateway_sends_is_read_or_left_aside() {
    fuzz("gateway_event", CASES, Some, bytes(), |bytes| {
        let event = GatewayEvent::decode(&*bytes)
            .ok()
            .and_then(|event| event.event);
        decide(event.as_slice());
    });
}

fn wish() -> impl Strategy<Value = gateway_event::Event> {
    let uid = prop_oneof![3 => "[a-c]", 1 => ".{0,80}"];
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
    let ack = uid.prop_map(|uid| gateway_event::Event::ResultAck(node::ResultAck { uid }));
    prop_oneof![4 => dispatch, 1 => cancel, 1 => ack]
}

#[test]
fn whatever_a_gateway_wants_is_begun_once_and_recorded_first() {
    let wishes = prop::collection::vec(wish(), 0..12);
    fuzz(
        "gateway_event",
        CASES,
        |_| None,
        wishes,
        |wishes| decide(&wishes),
    );
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

/// A journal with three invocations that began, each recorded by itself.
fn journal(folder: &Path) -> (PathBuf, Vec<u8>) {
    let path = folder.join("journal");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut journal = Journal::open(&path, Bounds::default(), Moment::default()).unwrap();
    runtime.block_on(async {
        for text in ["a", "b", "c", "d"] {
            let accepted = Record::Accepted {
                uid: uid(text),
                name: format!("say-{text}"),
                mark: None,
            };
            let records = Arc::from([accepted]);
            journal.commit(records, 0, Moment::default()).await.unwrap();
        }
    });
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

#[test]
fn whatever_is_in_a_journal_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = (any::<bool>(), bytes()).prop_map(|(ours, mut bytes)| {
        if ours {
            bytes.splice(0..0, *b"FLJRNL01");
        }
        bytes
    });
    fuzz("journal", CASES, Some, journal, |bytes| {
        fs::write(&path, bytes).unwrap();
        // Either is fine.
        let _ = Journal::peek(&path);
    });
}

#[test]
fn a_damaged_journal_never_lets_an_effect_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (path, whole) = journal(folder.path());
    let length = whole.len();
    let damage = (0..length, any::<u8>(), bytes());
    fuzz(
        "journal",
        FEW,
        |_| None,
        damage,
        |(at, with, tail)| {
            let mut bytes = whole.clone();
            bytes[at] = with;
            bytes.extend(tail);
            fs::write(&path, bytes).unwrap();
            // Refused, or it knows all that was safe on the disk. Of the last record nobody can tell.
            if let Ok(journal) = Journal::open(&path, Bounds::default(), Moment::default()) {
                for text in ["a", "b", "c"] {
                    assert_eq!(
                        journal.ledger().phase(&uid(text)),
                        Some(Phase::Ended),
                        "{at}"
                    );
                }
            }
        },
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
    fuzz("pairing_uri", CASES, text, uri, |uri| {
        if let Ok(read) = uri.parse::<PairingUri>() {
            assert_eq!(read.expose().parse(), Ok(read));
        }
    });
}

#[test]
fn whatever_is_in_a_configuration_is_read_or_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.toml");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let text = prop_oneof![
        ".{0,300}",
        "(state_dir|capabilities_dir|max_concurrent|\\[desktop\\]|\\[mediation\\]|open_url) ?=? ?(\"/?[a-z./]{0,9}\"|-?[0-9]{0,20}|true|\\[\\])\n",
    ];
    let kept = |bytes| String::from_utf8(bytes).ok();
    fuzz("config", CASES, kept, text, |text| {
        fs::write(&path, text).unwrap();
        if let Err(problem) = Config::read(Some(&path)) {
            assert!(!problem.to_string().contains('\n'), "one line each");
        }
    });
}

#[test]
fn whatever_declares_capabilities_is_read_or_a_problem() {
    let surroundings = Surroundings {
        is_root: false,
        accounts: Accounts::default(),
    };
    let text = prop_oneof![
        ".{0,300}",
        "\\[\\[capability\\]\\]\nname = \"[a-z./]{0,9}\"\ncommand = \"/bin/[a-z]{0,5}\"\nargs = \\[\"[{}a-z/~01$]{0,12}\"\\]\n(timeout_seconds|memory_bytes|concurrency|grace_seconds) = -?[0-9]{1,19}\n",
    ];
    let kept = |bytes| String::from_utf8(bytes).ok();
    fuzz("capabilities", CASES, kept, text, |text| {
        let document = Document::of(Path::new("some.toml"), text);
        if let Err(problems) = declaration::read(&document, &surroundings) {
            assert!(!problems.is_empty());
        }
    });
}
