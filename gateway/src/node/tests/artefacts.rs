//! Outputs that go to the store: whatever breaks in between, what the status names is whole and right.

use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
use proto::node::{self, device_event, gateway_event::Event};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::sleep};

use super::{
    cluster::Fault,
    world::{FakeDevice, World, invocation, settings, succeeded, uid},
};
use crate::{
    artefact::{Artefacts, store::Store, sweep::Sweeper},
    clock::now,
    domain::artefact::PART,
    node::Settings,
};

const CHUNK: usize = 64 * 1024;
const MOST: u64 = 64 * 1024 * 1024;

fn with(artefacts: Artefacts) -> Settings {
    Settings {
        artefacts: Some(artefacts),
        ..settings()
    }
}

/// Three parts and a bit.
fn output() -> Vec<u8> {
    let length = 3 * PART + 77_777;
    (0..length)
        .map(|at| u8::try_from(at % 249).unwrap())
        .collect()
}

fn artefact(bytes: &[u8]) -> node::Artefact {
    node::Artefact {
        sha256: Sha256::digest(bytes).to_vec(),
        size_bytes: bytes.len() as u64,
        media_type: "application/octet-stream".to_owned(),
    }
}

/// A gateway with that store, and a device that was sent `say-hi`.
async fn sent(store: &Store) -> (World, FakeDevice, node::Dispatch) {
    sent_for(store, 30).await
}

async fn sent_for(store: &Store, timeout_seconds: i64) -> (World, FakeDevice, node::Dispatch) {
    let world = World::with(with(Artefacts::new(store.clone(), MOST))).await;
    let mut device = world.welcomed("lamp-1").await;
    assert_eq!(device.welcome.as_ref().unwrap().max_artefact_bytes, MOST);
    let mut made = invocation("say-hi", "lamp-1");
    made.spec.timeout_seconds = timeout_seconds;
    world.cluster.add_invocation(&made);
    let dispatch = device.dispatch().await;
    (world, device, dispatch)
}

impl FakeDevice {
    async fn offer(&mut self, dispatch: &node::Dispatch, artefact: node::Artefact) {
        self.send(device_event::Event::ArtefactOffer(node::ArtefactOffer {
            uid: dispatch.uid.clone(),
            name: dispatch.name.clone(),
            artefact: Some(artefact),
        }))
        .await;
    }

    async fn chunk(&mut self, uid: &str, offset: usize, data: &[u8]) {
        self.send(device_event::Event::ArtefactChunk(node::ArtefactChunk {
            uid: uid.to_owned(),
            offset: offset as u64,
            data: data.to_vec(),
        }))
        .await;
    }

    async fn wanted(&mut self) -> u64 {
        match self.next().await {
            Ok(Event::ArtefactWanted(wanted)) => wanted.offset,
            other => panic!("{other:?} is no wish for an artefact"),
        }
    }

    async fn refused(&mut self) -> String {
        match self.next().await {
            Ok(Event::ArtefactRefused(refused)) => refused.message,
            other => panic!("{other:?} is no refusal of an artefact"),
        }
    }

    /// Sends what is asked for until it is stored; where it was asked to begin.
    async fn upload(&mut self, uid: &str, bytes: &[u8]) -> u64 {
        let (mut begun, mut at) = (None, 0);
        loop {
            match self.next().await {
                Ok(Event::ArtefactWanted(wanted)) => {
                    let offset = usize::try_from(wanted.offset).unwrap();
                    begun.get_or_insert_with(|| {
                        at = offset;
                        wanted.offset
                    });
                    let most = (offset + wanted.window_bytes as usize).min(bytes.len());
                    while at < most {
                        let end = (at + CHUNK).min(most);
                        self.chunk(uid, at, &bytes[at..end]).await;
                        at = end;
                    }
                }
                Ok(Event::ArtefactStored(stored)) => {
                    assert_eq!(stored.uid, uid);
                    return begun.expect("it was asked for");
                }
                other => panic!("{other:?} while an artefact is sent"),
            }
        }
    }
}

fn named(dispatch: &node::Dispatch, artefact: node::Artefact) -> node::Result {
    node::Result {
        output: Vec::new(),
        output_sha256: artefact.sha256.clone(),
        artefact: Some(artefact),
        ..succeeded(dispatch, "")
    }
}

async fn phase_and_code(world: &World, phase: &str) -> Value {
    world.cluster.until_phase("say-hi", phase).await["status"].clone()
}

#[tokio::test(start_paused = true)]
async fn an_output_in_the_store_is_named_in_the_status_and_costs_one_write() {
    let store = Store::over(InMemory::new());
    let (world, mut device, dispatch) = sent(&store).await;
    let bytes = output();
    device.offer(&dispatch, artefact(&bytes)).await;
    assert_eq!(device.upload(&dispatch.uid, &bytes).await, 0);
    device.result(named(&dispatch, artefact(&bytes))).await;
    assert_eq!(device.ack().await, dispatch.uid);
    let status = world.cluster.invocation("say-hi")["status"].clone();
    let digest = crate::domain::result::hex(&Sha256::digest(&bytes));
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(status["outputSha256"], digest);
    assert_eq!(status["artefact"]["sha256"], digest);
    assert_eq!(status["artefact"]["sizeBytes"], bytes.len());
    assert_eq!(status["artefact"]["mediaType"], "application/octet-stream");
    let key = format!("artefacts/kitchen/say-hi_{}/{digest}", uid("say-hi"));
    assert_eq!(status["artefact"]["key"], key);
    assert_eq!(status["output"], Value::Null);
    assert_eq!(store.read(&key).await, bytes);
    assert_eq!(store.names().await, [key], "its parts are gone");
    let writes = world.cluster.log_of("capabilityinvocations");
    assert!(
        writes
            .iter()
            .filter(|line| line.starts_with("PATCH"))
            .count()
            <= 2,
        "{writes:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_gateway_goes_on_where_the_first_one_was_cut() {
    let store = Store::over(InMemory::new());
    let (world, mut device, dispatch) = sent(&store).await;
    let bytes = output();
    let part = usize::try_from(PART).unwrap();
    device.offer(&dispatch, artefact(&bytes)).await;
    assert_eq!(device.wanted().await, 0);
    for at in (0..part + CHUNK).step_by(CHUNK) {
        device
            .chunk(&dispatch.uid, at, &bytes[at..at + CHUNK])
            .await;
    }
    assert_eq!(device.wanted().await, PART);
    drop(device);

    let other = Settings {
        gateway: "gateway-b".to_owned(),
        ..with(Artefacts::new(store.clone(), MOST))
    };
    let other = World::at(world.cluster.clone(), other).await;
    let mut device = other.welcomed("lamp-1").await;
    device.offer(&dispatch, artefact(&bytes)).await;
    let dispatch = device.dispatch().await;
    assert_eq!(device.upload(&dispatch.uid, &bytes).await, PART);
    device.result(named(&dispatch, artefact(&bytes))).await;
    assert_eq!(device.ack().await, dispatch.uid);
    let status = phase_and_code(&other, "Succeeded").await;
    let key = status["artefact"]["key"].as_str().unwrap();
    assert_eq!(store.read(key).await, bytes);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_there_is_not_asked_for_again() {
    let store = Store::over(InMemory::new());
    let (_world, mut device, dispatch) = sent(&store).await;
    let bytes = b"[1]".to_vec();
    device.offer(&dispatch, artefact(&bytes)).await;
    device.upload(&dispatch.uid, &bytes).await;
    // The word was lost.
    device.offer(&dispatch, artefact(&bytes)).await;
    assert!(matches!(device.next().await, Ok(Event::ArtefactStored(_))));
}

#[tokio::test(start_paused = true)]
async fn bytes_with_another_digest_are_refused_and_nothing_of_them_stays() {
    let store = Store::over(InMemory::new());
    let (_world, mut device, dispatch) = sent(&store).await;
    device
        .offer(&dispatch, artefact(b"what was announced"))
        .await;
    assert_eq!(device.wanted().await, 0);
    device.chunk(&dispatch.uid, 0, b"what is being sent").await;
    let message = device.refused().await;
    assert!(message.contains("digest"), "{message}");
    assert_eq!(store.names().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn chunks_that_come_in_another_order_are_refused() {
    let store = Store::over(InMemory::new());
    let (_world, mut device, dispatch) = sent(&store).await;
    device.offer(&dispatch, artefact(&output())).await;
    assert_eq!(device.wanted().await, 0);
    device.chunk(&dispatch.uid, 0, &[0; 10]).await;
    device.chunk(&dispatch.uid, 20, &[0; 10]).await;
    let message = device.refused().await;
    assert!(message.contains("order"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_and_what_nobody_stores_is_refused() {
    let store = Store::over(InMemory::new());
    let (_world, mut device, dispatch) = sent(&store).await;
    let large = node::Artefact {
        size_bytes: MOST + 1,
        ..artefact(b"x")
    };
    device.offer(&dispatch, large).await;
    let message = device.refused().await;
    assert!(message.contains(&MOST.to_string()), "{message}");

    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    assert_eq!(device.welcome.as_ref().unwrap().max_artefact_bytes, 0);
    device.offer(&dispatch, artefact(b"x")).await;
    let message = device.refused().await;
    assert!(message.contains("no store"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_device_stores_nothing_for_the_invocation_of_another() {
    let store = Store::over(InMemory::new());
    let (world, _device, dispatch) = sent(&store).await;
    let mut thief = world.welcomed("lamp-2").await;
    thief.offer(&dispatch, artefact(b"x")).await;
    let message = thief.refused().await;
    assert!(message.contains("no open invocation"), "{message}");
    assert_eq!(store.names().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_sends_nothing_gives_its_place_to_others_and_is_asked_again() {
    let artefacts = Artefacts {
        places: Arc::new(Semaphore::new(1)),
        ..Artefacts::new(Store::over(InMemory::new()), MOST)
    };
    let world = World::with(with(artefacts)).await;
    let (mut silent, mut other) = (
        world.welcomed("lamp-1").await,
        world.welcomed("lamp-2").await,
    );
    for (name, device) in [("one", "lamp-1"), ("two", "lamp-2")] {
        let mut invocation = invocation(name, device);
        invocation.spec.timeout_seconds = 600;
        world.cluster.add_invocation(&invocation);
    }
    let (first, second) = (silent.dispatch().await, other.dispatch().await);
    silent.offer(&first, artefact(b"first")).await;
    assert_eq!(silent.wanted().await, 0);
    other.offer(&second, artefact(b"second")).await;
    for _ in 0..2 {
        sleep(Duration::from_secs(14)).await;
        silent.heartbeat().await;
        other.heartbeat().await;
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(other.upload(&second.uid, b"second").await, 0);
    assert_eq!(silent.upload(&first.uid, b"first").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_names_what_is_not_in_the_store_is_not_believed() {
    let store = Store::over(InMemory::new());
    let (world, mut device, dispatch) = sent(&store).await;
    device.result(named(&dispatch, artefact(b"made up"))).await;
    assert_eq!(device.ack().await, dispatch.uid);
    let status = phase_and_code(&world, "Failed").await;
    assert_eq!(status["error"]["code"], "ArtefactNotStored");
    assert_eq!(status["artefact"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_keeps_nothing_else_waiting() {
    let hangs = ThrottleConfig {
        wait_put_per_call: Duration::from_hours(1),
        ..ThrottleConfig::default()
    };
    let store = Store::over(ThrottledStore::new(InMemory::new(), hangs));
    let (world, mut device, dispatch) = sent(&store).await;
    let bytes = b"[1]".to_vec();
    device.offer(&dispatch, artefact(&bytes)).await;
    assert_eq!(device.wanted().await, 0);
    device.chunk(&dispatch.uid, 0, &bytes).await;
    device.heartbeat().await;
    world.cluster.add_invocation(&invocation("other", "lamp-1"));
    let other = device.dispatch().await;
    device.result(succeeded(&other, "1")).await;
    assert_eq!(device.ack().await, other.uid);
    // Its time is over, and the device says so.
    let mut late = node::Result {
        failure: Some(node::Failure::default()),
        ..named(&dispatch, artefact(&bytes))
    };
    late.set_outcome(node::Outcome::Failed);
    late.failure
        .as_mut()
        .unwrap()
        .set_code(node::FailureCode::ArtefactNotStored);
    device.result(late).await;
    assert_eq!(device.ack().await, dispatch.uid);
    let status = phase_and_code(&world, "Failed").await;
    assert_eq!(status["error"]["code"], "ArtefactNotStored");
}

/// A store in that folder which fails, for something is in the way.
fn blocked(folder: &tempfile::TempDir) -> (Store, PathBuf) {
    let in_the_way = folder.path().join("parts");
    std::fs::write(&in_the_way, b"in the way").unwrap();
    let store = Store::open(&format!("file://{}", folder.path().display())).unwrap();
    (store, in_the_way)
}

/// In real time, for deadlines are.
#[tokio::test]
async fn a_store_that_fails_until_the_end_is_told_without_its_insides() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = blocked(&folder);
    let (_world, mut device, dispatch) = sent_for(&store, 3).await;
    device.offer(&dispatch, artefact(b"x")).await;
    let message = device.refused().await;
    assert!(message.contains("store"), "{message}");
    assert!(!message.contains('/'), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_while_costs_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let (store, in_the_way) = blocked(&folder);
    let (world, mut device, dispatch) = sent_for(&store, 600).await;
    device.offer(&dispatch, artefact(b"[1]")).await;
    for _ in 0..4 {
        sleep(Duration::from_secs(10)).await;
        // A refusal would come before.
        device.heartbeat().await;
    }
    std::fs::remove_file(in_the_way).unwrap();
    assert_eq!(device.upload(&dispatch.uid, b"[1]").await, 0);
    device.result(named(&dispatch, artefact(b"[1]"))).await;
    assert_eq!(device.ack().await, dispatch.uid);
    let status = phase_and_code(&world, "Succeeded").await;
    assert_eq!(status["artefact"]["sizeBytes"], 3);
}

#[tokio::test(start_paused = true)]
async fn an_output_is_taken_though_the_watch_does_not_have_its_invocation_yet() {
    let store = Store::over(InMemory::new());
    let (world, device, dispatch) = sent(&store).await;
    world.cluster.until_phase("say-hi", "Dispatched").await;
    drop(device);
    world.until_streams(0).await;
    world.cluster.hide("say-hi");
    let other = Settings {
        gateway: "gateway-b".to_owned(),
        ..with(Artefacts::new(store.clone(), MOST))
    };
    let other = World::at(world.cluster.clone(), other).await;
    let mut device = other.welcomed("lamp-1").await;
    other.cluster.set_fault(Some(Fault::Down));
    device.offer(&dispatch, artefact(b"[1]")).await;
    sleep(Duration::from_secs(10)).await;
    device.heartbeat().await;
    other.cluster.set_fault(None);
    assert_eq!(device.wanted().await, 0);
    // The stream looks again, and has not heard of it yet.
    other.cluster.edit("devices", "lamp-1", |device| {
        device["spec"]["displayName"] = json!("Lamp");
    });
    device.heartbeat().await;
    device.chunk(&dispatch.uid, 0, b"[1]").await;
    assert!(matches!(device.next().await, Ok(Event::ArtefactStored(_))));
    device.result(named(&dispatch, artefact(b"[1]"))).await;
    assert_eq!(device.ack().await, dispatch.uid);
    phase_and_code(&other, "Succeeded").await;
}

/// As a device answers whose first with that key has an artefact.
fn has_none_of_its_own(dispatch: &node::Dispatch) -> node::Result {
    let mut result = succeeded(dispatch, "");
    result.set_outcome(node::Outcome::Failed);
    let mut failure = node::Failure::default();
    failure.set_code(node::FailureCode::ArtefactNotStored);
    result.failure = Some(failure);
    "first".clone_into(&mut result.duplicate_of);
    result
}

#[tokio::test(start_paused = true)]
async fn one_with_the_key_of_another_names_the_artefact_of_that() {
    let store = Store::over(InMemory::new());
    let world = World::with(with(Artefacts::new(store.clone(), MOST))).await;
    let mut device = world.welcomed("lamp-1").await;
    for name in ["first", "second", "third"] {
        let mut keyed = invocation(name, "lamp-1");
        keyed.spec.idempotency_key = Some("order 66".to_owned());
        world.cluster.add_invocation(&keyed);
    }
    let first = device.dispatch().await;
    let (second, third) = (device.dispatch().await, device.dispatch().await);
    device.offer(&first, artefact(b"[1]")).await;
    device.upload(&first.uid, b"[1]").await;
    // It comes before the end of the first is there.
    device.result(has_none_of_its_own(&second)).await;
    device.heartbeat().await;
    device.result(named(&first, artefact(b"[1]"))).await;
    let mut acked = [device.ack().await, device.ack().await];
    acked.sort();
    let mut expected = [first.uid, second.uid];
    expected.sort();
    assert_eq!(acked, expected);
    let of = |name: &str| world.cluster.invocation(name)["status"].clone();
    assert_eq!(of("second")["phase"], "Succeeded");
    assert_eq!(of("second")["duplicateOf"], "first");
    assert_eq!(of("second")["artefact"], of("first")["artefact"]);
    assert_eq!(of("second")["outputSha256"], of("first")["outputSha256"]);

    world.cluster.delete("capabilityinvocations", "first");
    device.result(has_none_of_its_own(&third)).await;
    device.ack().await;
    assert_eq!(of("third")["phase"], "Failed");
    assert_eq!(of("third")["error"]["code"], "ArtefactNotStored");
}

#[tokio::test(start_paused = true)]
async fn an_artefact_stays_as_long_as_its_invocation() {
    let store = Store::over(InMemory::new());
    let (world, mut device, dispatch) = sent(&store).await;
    let bytes = b"[1]".to_vec();
    device.offer(&dispatch, artefact(&bytes)).await;
    device.upload(&dispatch.uid, &bytes).await;
    device.result(named(&dispatch, artefact(&bytes))).await;
    assert_eq!(device.ack().await, dispatch.uid);
    let sweeper = Sweeper {
        artefacts: Artefacts::new(store.clone(), MOST),
        client: world.cluster.client(),
        index: Arc::default(),
        gateway: "gateway-a".to_owned(),
    };
    let (soon, later) = (now().as_second(), now().as_second() + 2 * 3600);
    let name = store.names().await.remove(0);
    assert_eq!(
        sweeper.sweep(later).await.unwrap(),
        0,
        "it has ended, and is there"
    );
    world.cluster.delete("capabilityinvocations", "say-hi");
    assert_eq!(sweeper.sweep(soon).await.unwrap(), 0, "too young");
    assert_eq!(store.names().await, [name]);
    assert_eq!(sweeper.sweep(later).await.unwrap(), 1);
    assert_eq!(store.names().await, [""; 0]);
    assert_eq!(sweeper.sweep(later).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_costs_the_api_server_nothing() {
    let world = World::new().await;
    let sweeper = Sweeper {
        artefacts: Artefacts::new(Store::over(InMemory::new()), MOST),
        client: world.cluster.client(),
        index: Arc::default(),
        gateway: "gateway-a".to_owned(),
    };
    world.cluster.clear_log();
    assert_eq!(sweeper.sweep(i64::MAX).await.unwrap(), 0);
    assert_eq!(world.cluster.log(), [""; 0]);
}
