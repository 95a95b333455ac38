//! Whatever a device says: never a panic, and nothing in a status that the API server would refuse.
//!
//! What once was of interest is kept in `tests/corpus/TARGET/` and tried first. `PROPTEST_CASES` sets how many more.

// What is judged with is a file for each thing, which the targets in `/fuzz` include.
mod event;
mod output;
mod registration;
mod stranger;

use std::{fs, path::Path};

use event::hear;
use output::prints;
use proptest::{prelude::*, test_runner::TestRunner};
use prost::Message;
use proto::node::{
    self, DeviceEvent, EnrollRequest, RegisterRequest, device_event, enroll_request,
};
use rcgen::CertificateParams;
use registration::registers;
use sha2::{Digest as _, Sha256};
use stranger::Stranger;

const CASES: u32 = 400;

fn fuzz<S: Strategy>(
    target: &str,
    kept: impl Fn(Vec<u8>) -> Option<S::Value>,
    strategy: S,
    check: impl Fn(S::Value),
) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
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
        config.cases = CASES;
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
fn whatever_a_device_sends_is_read_or_left_aside() {
    fuzz("device_event", Some, bytes(), |bytes| {
        let event = DeviceEvent::decode(&*bytes).ok();
        if let Some(event) = event.and_then(|event| event.event) {
            hear(event);
        }
    });
}

#[test]
fn whatever_a_device_registers_is_read_or_refused() {
    let keep = |bytes: Vec<u8>| RegisterRequest::decode(&*bytes).ok();
    let said = (bytes(), capabilities(), any::<u32>(), ".{0,300}");
    let said = said.prop_map(|(noise, capabilities, concurrency, hostname)| {
        RegisterRequest::decode(&*noise).unwrap_or(RegisterRequest {
            platform: Some(node::Platform {
                hostname,
                ..node::Platform::default()
            }),
            capabilities,
            concurrency,
        })
    });
    fuzz("register_request", keep, said, registers);
}

#[test]
fn whatever_a_stranger_says_proves_nothing_and_is_read_or_refused() {
    let stranger = Stranger::new();
    let csr = CertificateParams::default()
        .serialize_request(&stranger.pair)
        .unwrap()
        .der()
        .to_vec();
    let keep = |bytes: Vec<u8>| EnrollRequest::decode(&*bytes).ok()?.step;
    let begin = (
        "[A-Z0-9-]{0,8}|.{0,40}",
        one_of(&stranger.ke1),
        0_usize..100,
    )
        .prop_map(|(code_id, mut ke1, cut)| {
            ke1.truncate(ke1.len().saturating_sub(cut));
            enroll_request::Step::Begin(node::Begin { code_id, ke1 })
        });
    let proof = bytes().prop_map(|ke3| enroll_request::Step::Proof(node::Proof { ke3 }));
    let application = (
        one_of(&csr),
        ".{0,260}",
        any::<i32>(),
        any::<i32>(),
        capabilities(),
    );
    let application =
        application.prop_map(|(pkcs10, requested_name, kind, method, capabilities)| {
            enroll_request::Step::Application(node::Application {
                pkcs10,
                requested_name,
                client_kind: kind.rem_euclid(5),
                method: method.rem_euclid(4),
                capabilities,
                ..node::Application::default()
            })
        });
    let said = prop_oneof![1 => begin, 1 => proof, 2 => application];
    fuzz("enroll_request", keep, said, |step| stranger.says(step));
}

/// That, or that with one byte changed, or anything.
fn one_of(valid: &[u8]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let valid = valid.to_vec();
    let changed = (
        Just(valid.clone()),
        any::<prop::sample::Index>(),
        any::<u8>(),
    );
    let changed = changed.prop_map(|(mut bytes, at, by)| {
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        bytes
    });
    prop_oneof![Just(valid), changed, bytes()]
}

fn capabilities() -> impl Strategy<Value = Vec<node::Capability>> {
    let capability = (
        "[a-z.]{0,9}|.{0,80}",
        any::<i32>(),
        any::<i32>(),
        ".{0,200}",
    );
    let capability =
        capability.prop_map(
            |(name, execution, availability, input_schema)| node::Capability {
                name,
                execution: execution.rem_euclid(4),
                availability: availability.rem_euclid(4),
                input_schema: input_schema.into_bytes(),
                ..node::Capability::default()
            },
        );
    let vec = prop::collection::vec;
    prop_oneof![12 => vec(capability.clone(), 0..6), 1 => vec(capability, 120..140)]
}

fn said() -> impl Strategy<Value = device_event::Event> {
    let result = (
        any::<i32>(),
        any::<i32>(),
        ".{0,1200}",
        ".{0,300}",
        ".{0,600}",
        bytes(),
    );
    let result = result.prop_map(|(outcome, code, message, by, reason, output)| {
        device_event::Event::Result(node::Result {
            uid: by.clone(),
            name: reason.clone(),
            // Mostly those that there are.
            outcome: outcome.rem_euclid(9),
            output_sha256: Sha256::digest(&output).to_vec(),
            output,
            failure: Some(node::Failure {
                code: code.rem_euclid(20),
                message,
            }),
            duplicate_of: reason.clone(),
            mediation: Some(node::Mediation { by, reason }),
            ..node::Result::default()
        })
    });
    let progress = (any::<u32>(), ".{0,400}").prop_map(|(percent, message)| {
        device_event::Event::Progress(node::Progress {
            uid: String::new(),
            percent,
            message,
        })
    });
    let update = capabilities().prop_map(|capabilities| {
        device_event::Event::CapabilityUpdate(node::CapabilityUpdate { capabilities })
    });
    let renew = bytes().prop_map(|pkcs10| device_event::Event::Renew(node::Renew { pkcs10 }));
    let sizes = prop_oneof![any::<u64>(), 0_u64..20_000_000];
    let offer = (
        prop::collection::vec(any::<u8>(), 30..34),
        sizes.clone(),
        ".{0,140}",
    );
    let offer = offer.prop_map(|(sha256, size_bytes, media_type)| {
        device_event::Event::ArtefactOffer(node::ArtefactOffer {
            artefact: Some(node::Artefact {
                sha256,
                size_bytes,
                media_type,
            }),
            ..node::ArtefactOffer::default()
        })
    });
    let chunk = (sizes, bytes()).prop_map(|(offset, data)| {
        device_event::Event::ArtefactChunk(node::ArtefactChunk {
            offset,
            data,
            ..node::ArtefactChunk::default()
        })
    });
    prop_oneof![6 => result, 2 => progress, 1 => update, 1 => renew, 2 => offer, 2 => chunk]
}

#[test]
fn whatever_a_device_claims_is_kept_within_bounds() {
    fuzz("device_event", |_| None, said(), hear);
}

#[test]
fn whatever_a_capability_prints_is_an_output_or_a_failure() {
    let text = prop_oneof![
        bytes(),
        "[\\[\\]{}\",:0-9eE.+\\\\u-]{0,200}".prop_map(String::into_bytes),
        "\"(\\\\u[0-9a-f]{4}|[ -~])*\"".prop_map(String::into_bytes),
        "-?[0-9]{1,40}(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,6})?".prop_map(String::into_bytes),
    ];
    fuzz("capability_output", Some, text, prints);
}

/// What is kept of every kind of message is what that message is. `UPDATE_GENERATED=1` writes it anew.
fn keeps<M: Message>(target: &str, messages: &[(&str, M)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    for (name, message) in messages {
        let (file, encoded) = (folder.join(name), message.encode_to_vec());
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &encoded).unwrap();
        }
        let kept = fs::read(&file).unwrap_or_default();
        assert!(
            kept == encoded,
            "{target}/{name} is not that message any more"
        );
    }
}

fn example_capability() -> node::Capability {
    node::Capability {
        name: "door.open".to_owned(),
        execution: node::Execution::Mediated.into(),
        availability: node::Availability::Available.into(),
        version: "1.2".to_owned(),
        description: "Opens a door".to_owned(),
        input_schema: br#"{"properties":{"minutes":{"maximum":60}}}"#.to_vec(),
        output_schema: br#"{"type":"null"}"#.to_vec(),
        default_timeout_seconds: 10,
        max_timeout_seconds: 60,
        concurrency: 1,
    }
}

fn example_platform() -> node::Platform {
    node::Platform {
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        agent_version: "0.1.0".to_owned(),
        hostname: "lamp.example".to_owned(),
    }
}

#[test]
fn an_event_of_every_kind_is_kept() {
    use device_event::Event;

    let uid = "1a-2b".to_owned();
    let capabilities = vec![example_capability()];
    let registration = "00".repeat(16);
    let percent = 50;
    let message = "half".to_owned();
    let pkcs10 = vec![0x30, 0];
    let output = EXAMPLE_OUTPUT.to_vec();
    let offer = node::ArtefactOffer {
        uid: uid.clone(),
        name: "say-hi".to_owned(),
        artefact: Some(example_artefact()),
    };
    let chunk = node::ArtefactChunk {
        uid: uid.clone(),
        offset: 0,
        data: output,
    };
    let [result, refused, stored] = example_results();
    let progress = node::Progress {
        uid: uid.clone(),
        percent,
        message,
    };
    let asks = node::AwaitingMediation { uid: uid.clone() };
    let events = [
        ("hello", Event::Hello(node::Hello { registration })),
        ("heartbeat", Event::Heartbeat(node::Heartbeat {})),
        (
            "capability-update",
            Event::CapabilityUpdate(node::CapabilityUpdate { capabilities }),
        ),
        ("accepted", Event::Accepted(node::Accepted { uid })),
        ("result", Event::Result(result)),
        ("result-refused", Event::Result(refused)),
        ("result-stored", Event::Result(stored)),
        ("awaiting-mediation", Event::AwaitingMediation(asks)),
        ("progress", Event::Progress(progress)),
        ("renew", Event::Renew(node::Renew { pkcs10 })),
        ("artefact-offer", Event::ArtefactOffer(offer)),
        ("artefact-chunk", Event::ArtefactChunk(chunk)),
    ];
    let said = |(name, event)| (name, DeviceEvent { event: Some(event) });
    keeps("device_event", &events.map(said));
}

const EXAMPLE_OUTPUT: &[u8] = br#"{"said":"hi"}"#;

fn example_artefact() -> node::Artefact {
    node::Artefact {
        sha256: Sha256::digest(EXAMPLE_OUTPUT).to_vec(),
        size_bytes: EXAMPLE_OUTPUT.len() as u64,
        media_type: "application/json".to_owned(),
    }
}

/// One that succeeded, one that was refused, and one whose output is an artefact.
fn example_results() -> [node::Result; 3] {
    let result = node::Result {
        uid: "1a-2b".to_owned(),
        name: "say-hi".to_owned(),
        outcome: node::Outcome::Succeeded.into(),
        output: EXAMPLE_OUTPUT.to_vec(),
        output_sha256: Sha256::digest(EXAMPLE_OUTPUT).to_vec(),
        ..node::Result::default()
    };
    let refused = node::Result {
        outcome: node::Outcome::Refused.into(),
        output: Vec::new(),
        output_sha256: Vec::new(),
        failure: Some(node::Failure {
            code: node::FailureCode::Refused.into(),
            message: "joe said no".to_owned(),
        }),
        mediation: Some(node::Mediation {
            by: "joe".to_owned(),
            reason: "not now".to_owned(),
        }),
        duplicate_of: "said-hi".to_owned(),
        ..result.clone()
    };
    let stored = node::Result {
        output: Vec::new(),
        artefact: Some(example_artefact()),
        ..result.clone()
    };
    [result, refused, stored]
}

#[test]
fn a_registration_and_each_step_of_an_enrolment_is_kept() {
    use enroll_request::Step;

    let capabilities = vec![example_capability()];
    let request = RegisterRequest {
        platform: Some(example_platform()),
        capabilities: capabilities.clone(),
        concurrency: 40,
    };
    keeps("register_request", &[("register", request)]);
    let begin = node::Begin {
        code_id: "ABCD".to_owned(),
        ke1: vec![2; 96],
    };
    let application = node::Application {
        pkcs10: vec![0x30, 0],
        requested_name: "lamp".to_owned(),
        client_kind: node::ClientKind::Node.into(),
        method: node::PairingMethod::Pin.into(),
        platform: Some(example_platform()),
        capabilities,
    };
    let steps = [
        ("begin", Step::Begin(begin)),
        ("proof", Step::Proof(node::Proof { ke3: vec![3; 64] })),
        ("application", Step::Application(application)),
        ("resume", Step::Resume(node::Resume {})),
    ];
    let said = |(name, step)| (name, EnrollRequest { step: Some(step) });
    keeps("enroll_request", &steps.map(said));
}
