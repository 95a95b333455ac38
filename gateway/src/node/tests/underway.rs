//! What a status shows while its device has an invocation: that a person is asked, how far it came, and by whom it was
//! decided.

use std::time::Duration;

use proto::node::{self, FailureCode, Outcome, device_event};
use serde_json::json;
use tokio::time::sleep;
use tonic::Code;

use super::{
    WRITE,
    cluster::Fault,
    world::{FakeDevice, World, invocation, settings, succeeded, uid},
};

async fn asks(device: &mut FakeDevice, name: &str) {
    let asks = node::AwaitingMediation { uid: uid(name) };
    device
        .send(device_event::Event::AwaitingMediation(asks))
        .await;
}

async fn progress(device: &mut FakeDevice, percent: u32) {
    let progress = node::Progress {
        uid: uid("say-hi"),
        percent,
        message: format!("step {percent}"),
    };
    device.send(device_event::Event::Progress(progress)).await;
}

#[tokio::test(start_paused = true)]
async fn that_a_person_is_asked_costs_one_write_and_who_decided_is_kept() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    asks(&mut device, "say-hi").await;
    let status = world
        .cluster
        .until_phase("say-hi", "AwaitingMediation")
        .await["status"]
        .clone();
    assert!(!status["dispatchedAt"].is_null(), "{status}");
    asks(&mut device, "say-hi").await;
    device.heartbeat().await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [WRITE]);

    let mut refused = succeeded(&dispatch, "");
    refused.set_outcome(Outcome::Refused);
    refused.mediation = Some(node::Mediation {
        by: "ada".to_owned(),
        reason: "not now".to_owned(),
    });
    device.result(refused).await;
    device.ack().await;
    let status = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(status["phase"], "Refused");
    assert_eq!(
        status["mediation"],
        json!({"by": "ada", "reason": "not now"})
    );
    assert_eq!(
        world.cluster.log_of("capabilityinvocations"),
        [WRITE, WRITE]
    );
}

#[tokio::test(start_paused = true)]
async fn that_a_person_is_asked_may_be_said_after_dispatched() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.until_phase("say-hi", "Dispatched").await;
    asks(&mut device, "say-hi").await;
    world
        .cluster
        .until_phase("say-hi", "AwaitingMediation")
        .await;
    let mut silence = succeeded(&dispatch, "");
    silence.set_outcome(Outcome::TimedOut);
    let mut failure = node::Failure::default();
    failure.set_code(FailureCode::NoDecision);
    silence.failure = Some(failure);
    device.result(silence).await;
    device.ack().await;
    let status = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(
        (&status["phase"], &status["error"]["code"]),
        (&json!("TimedOut"), &json!("NoDecision"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_asks_already_when_it_comes_is_believed_once_it_has_its_turn() {
    let mut settings = settings();
    settings.in_flight = 1;
    let world = World::with(settings).await;
    let mut device = world.welcomed("lamp-1").await;
    world.cluster.add_invocation(&invocation("a", "lamp-1"));
    world.cluster.add_invocation(&invocation("b", "lamp-1"));
    let first = device.dispatch().await;
    asks(&mut device, "b").await;
    asks(&mut device, "made-up").await;
    device.heartbeat().await;
    device.result(succeeded(&first, "1")).await;
    world.cluster.until_phase("b", "AwaitingMediation").await;
}

#[tokio::test(start_paused = true)]
async fn progress_is_written_every_five_seconds_at_most() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    for step in 0..110 {
        progress(&mut device, step).await;
        sleep(Duration::from_millis(100)).await;
        if step % 50 == 0 {
            device.heartbeat().await;
        }
    }
    let status = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(status["phase"], "Dispatched");
    let percent = status["progress"]["percent"].as_i64().unwrap();
    assert!((95..=100).contains(&percent), "{status}");
    assert_eq!(
        world.cluster.log_of("capabilityinvocations"),
        [WRITE, WRITE, WRITE],
        "Dispatched, and two"
    );
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    let status = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(status["phase"], "Succeeded");
    progress(&mut device, 7).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(
        world.cluster.log_of("capabilityinvocations").len(),
        4,
        "none after the end"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_over_soon_has_no_progress() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    progress(&mut device, 50).await;
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [WRITE]);
}

#[tokio::test(start_paused = true)]
async fn an_end_does_not_wait_long_for_a_progress_that_hangs() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.until_phase("say-hi", "Dispatched").await;
    world.cluster.set_fault(Some(Fault::Silent));
    progress(&mut device, 50).await;
    world
        .cluster
        .until("progress is being written", |cluster| {
            cluster.log_of("capabilityinvocations").len() == 2
        })
        .await;
    world.cluster.set_fault(None);
    let before = tokio::time::Instant::now();
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    assert!(
        before.elapsed() <= Duration::from_millis(2100),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_key_of_an_invocation_is_sent_and_what_ran_instead_is_named() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let mut keyed = invocation("say-hi", "lamp-1");
    keyed.spec.idempotency_key = Some("order 66".to_owned());
    world.cluster.add_invocation(&keyed);
    let dispatch = device.dispatch().await;
    assert_eq!(dispatch.idempotency_key, "order 66");
    let mut result = succeeded(&dispatch, "1");
    "said-hi".clone_into(&mut result.duplicate_of);
    device.result(result).await;
    device.ack().await;
    let status = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(
        (&status["phase"], &status["duplicateOf"]),
        (&json!("Succeeded"), &json!("said-hi"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_certificate_is_read_and_keeps_nothing_else_waiting() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let renew = node::Renew {
        pkcs10: b"no request".to_vec(),
    };
    device.send(device_event::Event::Renew(renew)).await;
    device.heartbeat().await;
    let end = device.end().await;
    assert_eq!(end.code(), Code::InvalidArgument, "{end}");
}
