//! An idempotency key, over two gateways and a restart: one effect, and everybody hears of it.

use node_agent::journal::Journal;
use proto::node::{Dispatch, FailureCode, Outcome, gateway_event::Event as FromGateway};
use tokio::time::{Duration, sleep};

use super::{Device, ack, dispatch, failure};
use crate::gateway::{Authority, Gateway, Manners, StreamCall, soon};

async fn keyed(stream: &StreamCall, uid: &str, input: &str) {
    let keyed = Dispatch {
        idempotency_key: "order 66".to_owned(),
        ..dispatch(uid, input)
    };
    stream.send(FromGateway::Dispatch(keyed)).await;
}

async fn await_waiting(device: &Device, count: usize) {
    soon(async {
        while Journal::peek(&device.view().journal()).unwrap().0.waiting < count {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_that_comes_again_through_another_gateway_while_the_first_runs_runs_nothing() {
    let authority = Authority::new("ours");
    let mut gateways = [
        Gateway::start(&authority, Manners::default()).await,
        Gateway::start(&authority, Manners::default()).await,
    ];
    let device = Device::new(&authority, &[&gateways[0], &gateways[1]]);
    let process = device.start().await;
    let [a, b] = &mut gateways;
    let (is_a, stream) = tokio::select! {
        stream = a.stream() => (true, stream),
        stream = b.stream() => (false, stream),
    };
    keyed(&stream, "u1", "until told").await;
    device.await_effects(1).await;
    // That gateway dies, and the device goes to the other.
    let [a, b] = gateways;
    let (dead, mut alive) = if is_a { (a, b) } else { (b, a) };
    drop(dead);
    drop(stream);
    let mut stream = alive.stream().await;
    keyed(&stream, "u2", "until told").await;
    await_waiting(&device, 1).await;
    std::fs::write(device.view().journal().with_extension("go"), "").unwrap();
    let mut results = [stream.result().await, stream.result().await];
    results.sort_by(|a, b| a.uid.cmp(&b.uid));
    let [one, two] = results;
    assert_eq!(
        (one.outcome(), one.duplicate_of.as_str()),
        (Outcome::Succeeded, "")
    );
    assert_eq!(
        (two.outcome(), two.duplicate_of.as_str(), two.name.as_str()),
        (Outcome::Succeeded, "check-u1", "check-u2")
    );
    assert_eq!(
        (&one.output, &one.output_sha256),
        (&two.output, &two.output_sha256)
    );
    // And once more when all is done, acked, and the agent another one.
    ack(&stream, "u1").await;
    ack(&stream, "u2").await;
    drop(process);
    drop(stream);
    let _process = device.start().await;
    let mut stream = alive.stream().await;
    keyed(&stream, "u3", "until told").await;
    let three = loop {
        let result = stream.result().await;
        if result.uid == "u3" {
            break result;
        }
    };
    assert_eq!(
        (&three.output, three.duplicate_of.as_str()),
        (&one.output, "check-u1")
    );
    keyed(&stream, "u4", "another").await;
    let four = loop {
        let result = stream.result().await;
        if result.uid == "u4" {
            break result;
        }
    };
    assert_eq!(failure(&four), (Outcome::Failed, FailureCode::InvalidInput));
    assert_eq!(device.effects(), ["\"until told\""]);
}

#[tokio::test]
async fn who_follows_one_that_was_lost_is_lost_with_it() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let process = device.start().await;
    let stream = gateway.stream().await;
    keyed(&stream, "u1", "hang").await;
    keyed(&stream, "u2", "hang").await;
    device.await_effects(1).await;
    await_waiting(&device, 1).await;
    drop(process);
    drop(stream);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    let mut results = [stream.result().await, stream.result().await];
    results.sort_by(|a, b| a.uid.cmp(&b.uid));
    for (result, of) in results.iter().zip(["", "check-u1"]) {
        let unknown = (Outcome::Unknown, FailureCode::AgentRestarted);
        assert_eq!(
            (failure(result), result.duplicate_of.as_str()),
            (unknown, of)
        );
    }
    assert_eq!(device.effects(), ["\"hang\""]);
}
