//! Outputs that go to the store of the gateways: whatever dies, they are sent from where they are kept, and the
//! capability never runs again.

use std::fs;

use proto::node::{
    Artefact, ArtefactRefused, ArtefactStored, ArtefactWanted, FailureCode, Outcome, ResultAck,
    device_event::Event as FromDevice, gateway_event::Event as FromGateway,
};
use sha2::{Digest as _, Sha256};

use super::{ARTEFACT_BYTES, Device, failure, order};
use crate::gateway::{Authority, Gateway, Manners, StreamCall, soon};

const UID: &str = "u1";
const WINDOW: u32 = 100_000;
const NOT_STORED: (Outcome, FailureCode) = (Outcome::Failed, FailureCode::ArtefactNotStored);

async fn offered(stream: &mut StreamCall) -> Artefact {
    loop {
        match stream.next().await {
            FromDevice::ArtefactOffer(offer) => {
                assert_eq!((offer.uid.as_str(), offer.name.as_str()), (UID, "check-u1"));
                return offer.artefact.unwrap();
            }
            FromDevice::Accepted(_) => {}
            other => unreachable!("{other:?}"),
        }
    }
}

async fn want(stream: &StreamCall, offset: u64) {
    stream
        .send(FromGateway::ArtefactWanted(ArtefactWanted {
            uid: UID.to_owned(),
            offset,
            window_bytes: WINDOW,
        }))
        .await;
}

/// What comes from there on, up to a size, asked for piece by piece.
async fn receive(stream: &mut StreamCall, from: u64, until: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    want(stream, from).await;
    loop {
        let next = from + bytes.len() as u64;
        if next >= until {
            return bytes;
        }
        match stream.next().await {
            FromDevice::ArtefactChunk(chunk) => {
                assert_eq!((chunk.uid.as_str(), chunk.offset), (UID, next));
                assert!(chunk.data.len() <= 65_536);
                bytes.extend(chunk.data);
                want(stream, from + bytes.len() as u64).await;
            }
            other => unreachable!("{other:?}"),
        }
    }
}

async fn stored(stream: &StreamCall) {
    let uid = UID.to_owned();
    stream
        .send(FromGateway::ArtefactStored(ArtefactStored { uid }))
        .await;
}

async fn ack(stream: &StreamCall) {
    let uid = UID.to_owned();
    stream.send(FromGateway::ResultAck(ResultAck { uid })).await;
}

async fn await_empty(device: &Device) {
    soon(async {
        while fs::read_dir(device.artefacts()).is_ok_and(|mut files| files.next().is_some()) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_output_is_sent_as_it_is_asked_for_and_told_when_it_is_stored() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, UID, "artefact").await;
    let artefact = offered(&mut stream).await;
    assert_eq!(artefact.size_bytes, ARTEFACT_BYTES);
    let bytes = receive(&mut stream, 0, ARTEFACT_BYTES).await;
    assert_eq!(Sha256::digest(&bytes).to_vec(), artefact.sha256);
    stored(&stream).await;
    let result = stream.result().await;
    assert_eq!(result.outcome(), Outcome::Succeeded);
    assert_eq!(result.output_sha256, artefact.sha256);
    assert_eq!(result.artefact, Some(artefact));
    assert!(device.artefacts().join(UID).exists(), "until it is acked");
    ack(&stream).await;
    await_empty(&device).await;
    assert_eq!(device.effects().len(), 1);
}

#[tokio::test]
async fn after_a_crash_the_output_is_offered_again_and_the_capability_does_not_run() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, UID, "artefact").await;
    let first = offered(&mut stream).await;
    receive(&mut stream, 0, 65_536).await;
    drop((process, stream));
    fs::write(device.artefacts().join("orphan"), b"of an earlier life").unwrap();

    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    assert_eq!(offered(&mut stream).await, first);
    assert!(!device.artefacts().join("orphan").exists());
    let rest = receive(&mut stream, 65_536, ARTEFACT_BYTES).await;
    assert_eq!(rest.len() as u64, ARTEFACT_BYTES - 65_536);
    stored(&stream).await;
    let result = stream.result().await;
    assert_eq!(result.artefact, Some(first));
    ack(&stream).await;
    assert_eq!(device.effects().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_the_end_and_says_that_it_ran() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, UID, "artefact").await;
    offered(&mut stream).await;
    stream
        .send(FromGateway::ArtefactRefused(ArtefactRefused {
            uid: UID.to_owned(),
            message: "the store is full".to_owned(),
        }))
        .await;
    let result = stream.result().await;
    assert_eq!(failure(&result), NOT_STORED);
    let message = result.failure.unwrap().message;
    assert!(
        message.contains("it ran") && message.contains("full"),
        "{message}"
    );
    await_empty(&device).await;
}

#[tokio::test]
async fn a_file_that_is_gone_is_told_and_not_made_up() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    order(&stream, UID, "artefact").await;
    offered(&mut stream).await;
    fs::remove_file(device.artefacts().join(UID)).unwrap();
    want(&stream, 0).await;
    let result = stream.result().await;
    assert_eq!(failure(&result), NOT_STORED);
}
