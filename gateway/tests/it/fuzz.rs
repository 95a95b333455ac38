//! Whatever a device says: never a panic, and nothing in a status that the API server would refuse.
//!
//! What once was of interest is kept in `tests/corpus/TARGET/` and tried first. `PROPTEST_CASES` sets how many more.

use std::{fs, path::Path};

use gateway::domain::{register, result::End, underway};
use proptest::{prelude::*, test_runner::TestRunner};
use prost::Message as _;
use proto::node::{self, DeviceEvent, device_event};
use sha2::{Digest as _, Sha256};

const CASES: u32 = 400;
const MAX_OUTPUT: i64 = 262_144;

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

/// Reads an event as a stream does, and looks at what would be written of it.
fn hear(event: device_event::Event) {
    match event {
        device_event::Event::Result(result) => {
            let end = End::reported(&result, MAX_OUTPUT);
            assert!(end.phase.is_terminal());
            let message = end.error.map(|error| error.message).unwrap_or_default();
            assert!(message.chars().count() <= 1024);
            if let Some(mediation) = end.mediation {
                assert!(mediation.by.chars().count() <= 253);
                assert!(mediation.reason.unwrap_or_default().chars().count() <= 512);
            }
        }
        device_event::Event::CapabilityUpdate(update) => {
            if let Ok(read) = register::read_capabilities(update.capabilities) {
                assert!(read.len() <= register::MAX_CAPABILITIES);
            }
        }
        device_event::Event::Progress(progress) => {
            let progress = underway::progress(&progress);
            assert!((0..=100).contains(&progress.percent));
            assert!(progress.message.unwrap_or_default().chars().count() <= 256);
        }
        device_event::Event::Hello(_)
        | device_event::Event::Heartbeat(_)
        | device_event::Event::Accepted(_)
        | device_event::Event::AwaitingMediation(_)
        | device_event::Event::Renew(_)
        | device_event::Event::ArtefactOffer(_)
        | device_event::Event::ArtefactChunk(_) => {}
    }
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
    let update = prop::collection::vec(capability, 0..140).prop_map(|capabilities| {
        device_event::Event::CapabilityUpdate(node::CapabilityUpdate { capabilities })
    });
    prop_oneof![6 => result, 2 => progress, 1 => update]
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
    fuzz("capability_output", Some, text, |output| {
        let mut result = node::Result {
            output_sha256: Sha256::digest(&output).to_vec(),
            output,
            ..node::Result::default()
        };
        result.set_outcome(node::Outcome::Succeeded);
        let end = End::reported(&result, MAX_OUTPUT);
        let Some(value) = end.output else {
            return assert!(end.error.is_some() || result.output.is_empty());
        };
        // It goes to the API server and comes back.
        let written = serde_json::to_vec(&value).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(serde_json::to_vec(&read).unwrap(), written);
    });
}
