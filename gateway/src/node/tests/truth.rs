//! What an invocation's status says is so, whatever was lost, late or odd on the way.

use std::time::Duration;

use crds::{names::ADVERTISE_ANNOTATION, v1alpha1::capability_invocation::Cancel};
use proto::node::{self, gateway_event::Event};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    READ, WRITE,
    cluster::{Cluster, Fault},
    world::{GATEWAY, World, device, invocation, settings, succeeded, uid},
};
use crate::{
    clock::now,
    domain::device::DeviceKey,
    node::{
        api,
        metrics::{Kind, Outcome},
    },
};

/// As an API server stamps what was made a minute ago.
pub fn a_minute_ago(invocation: &crds::CapabilityInvocation) -> crds::CapabilityInvocation {
    let mut invocation = invocation.clone();
    if let Some(created) = &mut invocation.metadata.creation_timestamp {
        created.0 -= Duration::from_mins(1);
    }
    invocation.spec.timeout_seconds = 600;
    invocation
}

fn late(world: &World) -> Vec<Value> {
    let status = world.cluster.invocation("say-hi")["status"].clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions
        .into_iter()
        .filter(|condition| condition["type"] == "AnsweredLate")
        .collect()
}

/// As the operator does when nobody has answered in time.
fn give_up(world: &World) {
    world
        .cluster
        .edit("capabilityinvocations", "say-hi", |invocation| {
            invocation["status"]["phase"] = json!("Unknown");
            invocation["status"]["error"] = json!({"code": "NoAnswer", "message": "nobody knows"});
        });
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_name_is_known_by_its_uid() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let mut dispatch = device.dispatch().await;
    dispatch.name.clear();
    device.result(succeeded(&dispatch, "1")).await;
    assert_eq!(device.ack().await, uid("say-hi"));
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_can_place_is_acked_and_ends_nothing() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    for name in ["", "?watch=1", "say-hi/status", "../../pods", "Say-Hi"] {
        let dispatch = node::Dispatch {
            uid: uid("nobody"),
            name: name.to_owned(),
            ..node::Dispatch::default()
        };
        device.result(succeeded(&dispatch, "1")).await;
        assert_eq!(device.ack().await, uid("nobody"), "{name}");
    }
    let dispatch = node::Dispatch {
        uid: "?watch=1".to_owned(),
        name: "say-hi".to_owned(),
        ..node::Dispatch::default()
    };
    device.result(succeeded(&dispatch, "1")).await;
    device.heartbeat().await;
    assert_eq!(
        world.cluster.log_of("capabilityinvocations"),
        Vec::<String>::new(),
        "nothing that a device says becomes part of a request"
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_is_asked_for_nowhere() {
    let world = World::new().await;
    let requests = &world.node.shared.requests;
    for (namespace, name) in [("kitchen", "?watch=1"), ("a/b", "say-hi"), ("kitchen", "")] {
        let found = requests.invocation(namespace, name).await;
        assert!(matches!(found, Err(api::Error::Gone)), "{found:?}");
        let found = requests.device(&DeviceKey::new(namespace, name)).await;
        assert!(matches!(found, Err(api::Error::Gone)), "{found:?}");
    }
    assert_eq!(world.cluster.log(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_names_what_it_cancels() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    device.dispatch().await;
    world.cluster.delete("capabilityinvocations", "say-hi");
    assert!(matches!(device.next().await, Ok(Event::Cancel(cancel)) if cancel.name == "say-hi"));
}

#[tokio::test(start_paused = true)]
async fn what_a_device_says_after_the_end_is_kept_before_it_is_acked() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.until_phase("say-hi", "Dispatched").await;
    world.cluster.set_fault(Some(Fault::Down));
    device.result(succeeded(&dispatch, "1")).await;
    for _ in 0..4 {
        sleep(Duration::from_secs(10)).await;
        device.heartbeat().await;
    }
    // The API server is back, and the operator is first.
    give_up(&world);
    world.cluster.set_fault(None);
    let before = tokio::time::Instant::now();
    let mut said = device.next().await.unwrap();
    if let Event::Cancel(_) = said {
        said = device.next().await.unwrap();
    }
    assert!(
        matches!(&said, Event::ResultAck(ack) if ack.uid == uid("say-hi")),
        "{said:?}"
    );
    assert!(
        before.elapsed() <= Duration::from_secs(3),
        "{:?}",
        before.elapsed()
    );
    let status = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(status["phase"], "Unknown", "an end is final");
    let told = late(&world)[0].clone();
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("True"), &json!("Succeeded"))
    );

    let events = || {
        world
            .cluster
            .log()
            .iter()
            .filter(|line| *line == "POST events")
            .count()
    };
    assert_eq!(events(), 1);

    // It is told once.
    world.cluster.clear_log();
    device.result(succeeded(&dispatch, "2")).await;
    device.ack().await;
    assert_eq!(late(&world), [told]);
    assert_eq!(events(), 0);
    assert!(
        !world
            .cluster
            .log_of("capabilityinvocations")
            .contains(&WRITE.to_owned())
    );
}

/// Of a late answer, and what the gateway counted of it. `waits`: how long as many are told as may be.
async fn told_late(waits: Duration) -> (Vec<String>, [u64; 2]) {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.until_phase("say-hi", "Dispatched").await;
    give_up(&world);
    assert!(matches!(device.next().await, Ok(Event::Cancel(_))));
    let shared = &world.node.shared;
    let places = shared.requests.take_minor_places();
    device.result(succeeded(&dispatch, "1")).await;
    sleep(waits).await;
    drop(places);
    device.ack().await;
    assert_eq!(late(&world).len(), 1);
    let mut log = world.cluster.log();
    log.retain(|line| line == "POST events");
    let counted = [Outcome::Written, Outcome::Unavailable]
        .map(|outcome| shared.metrics.written(Kind::Event, outcome));
    (log, counted)
}

#[tokio::test(start_paused = true)]
async fn the_event_of_a_late_answer_waits_a_moment_for_its_place() {
    let (events, counted) = told_late(Duration::from_secs(1)).await;
    assert_eq!((events.len(), counted), (1, [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_left_out_is_counted() {
    let (events, counted) = told_late(Duration::from_secs(5)).await;
    assert_eq!((events.len(), counted), (0, [0, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_not_acked_while_it_cannot_be_kept() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.until_phase("say-hi", "Dispatched").await;
    give_up(&world);
    assert!(matches!(device.next().await, Ok(Event::Cancel(_))));
    world.cluster.set_fault(Some(Fault::Down));
    device.result(succeeded(&dispatch, "1")).await;
    for _ in 0..3 {
        sleep(Duration::from_secs(10)).await;
        // An ack would come before.
        device.heartbeat().await;
    }
    world.cluster.set_fault(None);
    device.ack().await;
    assert_eq!(late(&world)[0]["reason"], "Succeeded");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_marked_before_the_session_ends() {
    for fault in [None, Some(Fault::Down)] {
        let world = World::new().await;
        let mut device = world.welcomed("lamp-1").await;
        world
            .cluster
            .add_invocation(&invocation("say-hi", "lamp-1"));
        device.dispatch().await;
        world.cluster.clear_log();
        world.cluster.set_fault(fault);
        drop(device);
        world.until_streams(0).await;
        sleep(Duration::from_secs(20)).await;
        world.cluster.set_fault(None);
        world
            .cluster
            .until("the session has ended", |cluster| {
                !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null()
            })
            .await;
        assert_eq!(
            world.cluster.invocation("say-hi")["status"]["phase"],
            "Dispatched"
        );
        let log = world.cluster.log();
        let marked = log.iter().position(|line| line == WRITE);
        let ended = log.iter().position(|line| line.contains(" devices/"));
        assert!(marked < ended, "{log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_cancelled_before_the_device_came_is_the_devices_to_end() {
    let world = World::new().await;
    let mut cancelled = a_minute_ago(&invocation("say-hi", "lamp-1"));
    cancelled.spec.cancel = Some(Cancel::Requested);
    world.cluster.add_invocation(&cancelled);
    let mut device = world.welcomed("lamp-1").await;
    let Ok(Event::Cancel(cancel)) = device.next().await else {
        panic!("it may run there");
    };
    let dispatch = node::Dispatch {
        uid: cancel.uid,
        name: cancel.name,
        ..node::Dispatch::default()
    };
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded",
        "it had run"
    );
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_memory_for_is_not_decided_anew() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    let memory = &world.node.shared.result_memory;
    let all = u32::try_from(memory.available_permits()).unwrap();
    let taken = memory.try_acquire_many(all).unwrap();
    device.result(succeeded(&dispatch, "1")).await;
    // What would refuse it, were it decided on again.
    world.cluster.edit("devices", "lamp-1", |device| {
        device["spec"]["grants"]["capabilities"] = json!([]);
    });
    let again = device.dispatch().await;
    assert_eq!(again.uid, dispatch.uid);
    drop(taken);
    device.result(succeeded(&again, "1")).await;
    device.ack().await;
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_device_answers_while_our_own_end_is_written_is_not_lost() {
    let not_granted = || {
        let mut invocation = invocation("say-hi", "lamp-1");
        invocation.spec.capability = "door.open".to_owned();
        invocation
    };
    // Another gateway had sent it.
    let dispatch = node::Dispatch {
        uid: uid("say-hi"),
        name: "say-hi".to_owned(),
        ..node::Dispatch::default()
    };
    for (fault, phase, told) in [
        (Fault::Silent, "Succeeded", None),
        (Fault::Late, "Failed", Some(json!("Succeeded"))),
    ] {
        let world = World::new().await;
        let mut device = world.welcomed("lamp-1").await;
        world.cluster.set_fault(Some(fault));
        world.cluster.add_invocation(&not_granted());
        world
            .cluster
            .until("our end is being written", |cluster| {
                cluster.log_of("capabilityinvocations") == [WRITE]
            })
            .await;
        device.result(succeeded(&dispatch, "1")).await;
        sleep(Duration::from_secs(1)).await;
        world.cluster.set_fault(None);
        assert_eq!(device.ack().await, uid("say-hi"));
        let status = world.cluster.invocation("say-hi")["status"].clone();
        assert_eq!(status["phase"], phase, "{fault:?}");
        let late = late(&world);
        let reason = late.first().map(|late| &late["reason"]);
        assert_eq!(reason, told.as_ref(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_that_the_stream_after_it_never_took_over() {
    let world = World::new().await;
    let first = world.welcomed("lamp-1").await;
    let places = world.node.shared.requests.take_session_places();
    let second = world.welcomed("lamp-1").await;
    drop((first, second));
    world.until_streams(0).await;
    drop(places);
    world
        .cluster
        .until("the session has ended", |cluster| {
            !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null()
        })
        .await;
}

/// Of a device that comes from a gateway that is gone, and leaves before it said what it has. `waits`: for the write of
/// its session's start.
async fn came_and_went(waits: bool) {
    let cluster = Cluster::new();
    let mut left_open = device("lamp-1");
    left_open.status = Some(
        serde_json::from_value(json!({
            "session": { "gateway": GATEWAY, "epoch": 7, "connectedAt": "2026-01-01T00:00:00Z" },
        }))
        .unwrap(),
    );
    cluster.add_device(&left_open);
    let mut sent = a_minute_ago(&invocation("say-hi", "lamp-1"));
    sent.spec.timeout_seconds = 1;
    cluster.add_invocation(&sent);
    let world = World::at(cluster, settings()).await;
    let places = waits.then(|| world.node.shared.requests.take_session_places());
    drop(world.welcomed("lamp-1").await);
    world.until_streams(0).await;
    drop(places);
    world
        .cluster
        .until("the session has ended", |cluster| {
            let ended = !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null();
            let phase = &cluster.invocation("say-hi")["status"]["phase"];
            assert!(
                !ended || phase == "Dispatched",
                "whoever sees the end takes it for never sent"
            );
            ended
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_gateway_before_may_have_sent_is_marked_before_the_session_ends() {
    came_and_went(false).await;
    came_and_went(true).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_stream_before_still_writes_of_is_marked_before_the_session_ends() {
    let world = World::new().await;
    let mut first = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = first.dispatch().await;
    world.cluster.slow_down("say-hi");
    first.result(succeeded(&dispatch, "1")).await;
    world
        .cluster
        .until("its end is being written", |cluster| {
            cluster.log_of("capabilityinvocations") == [WRITE]
        })
        .await;
    drop(first);
    world.until_streams(0).await;
    world
        .cluster
        .edit("capabilityinvocations", "say-hi", |invocation| {
            invocation["spec"]["cancel"] = json!("Requested");
        });
    let mut second = world.welcomed("lamp-1").await;
    assert!(matches!(second.next().await, Ok(Event::Cancel(_))));
    drop(second);
    world
        .cluster
        .until("the session has ended", |cluster| {
            let ended = !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null();
            let phase = &cluster.invocation("say-hi")["status"]["phase"];
            assert!(
                !ended || !phase.is_null(),
                "whoever sees the end takes it for never sent"
            );
            ended
        })
        .await;
    world.cluster.until_phase("say-hi", "Succeeded").await;
}

#[tokio::test(start_paused = true)]
async fn an_input_that_is_too_large_is_refused_and_takes_no_room() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let mut large = invocation("say-hi", "lamp-1");
    large.spec.input = Some(json!("x".repeat(1_000_000)));
    world.cluster.add_invocation(&large);
    let status = world.cluster.until_phase("say-hi", "Failed").await["status"].clone();
    assert_eq!(status["error"]["code"], "InputTooLarge");
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [WRITE]);
    device.heartbeat().await;
}

#[test]
fn devices_are_sent_away_no_later_than_the_gateway_goes() {
    let seconds = Duration::from_secs;
    let spread = |streams| crate::node::spread(streams, seconds(20));
    assert_eq!(spread(0), seconds(0));
    assert_eq!(spread(400), seconds(2));
    assert_eq!(spread(20_000), seconds(16), "and a moment to go");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_what_ended_as_it_says_is_acked_without_a_write() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let mut over = serde_json::to_value(invocation("say-hi", "lamp-1")).unwrap();
    over["status"] = json!({"phase": "Succeeded"});
    world
        .cluster
        .add_invocation(&serde_json::from_value(over).unwrap());
    let dispatch = node::Dispatch {
        uid: uid("say-hi"),
        name: "say-hi".to_owned(),
        ..node::Dispatch::default()
    };
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [READ]);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_queued_is_sent_before_the_session_shows() {
    let world = World::new().await;
    let places = world.node.shared.requests.take_session_places();
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    for _ in 0..3 {
        sleep(Duration::from_secs(10)).await;
        // A dispatch would come before.
        device.heartbeat().await;
    }
    drop(places);
    let dispatch = device.dispatch().await;
    assert_eq!(dispatch.name, "say-hi");
    assert_eq!(
        world.cluster.device("lamp-1")["status"]["session"]["epoch"],
        1
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_waited_for_its_device_is_marked_before_it_is_sent() {
    let world = World::new().await;
    let waited = a_minute_ago(&invocation("say-hi", "lamp-1"));
    world.cluster.add_invocation(&waited);
    let mut device = world.welcomed("lamp-1").await;
    let dispatch = device.dispatch().await;
    assert_eq!(dispatch.name, "say-hi");
    assert!(!dispatch.mediate, "it is granted as it is declared");
    let status = &world.cluster.invocation("say-hi")["status"];
    assert_eq!(status["phase"], "Dispatched", "whoever ends it first wins");
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [WRITE]);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_the_session_is_marked_first_though_clock_and_watch_are_behind() {
    let world = World::new().await;
    world.cluster.hide("lamp-1");
    let places = world.node.shared.requests.take_session_places();
    let mut device = world.welcomed("lamp-1").await;
    // By this gateway's clock it is made later than all that is.
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    device.heartbeat().await;
    drop(places);
    assert_eq!(device.dispatch().await.name, "say-hi");
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Dispatched",
        "whoever took the device for absent may have ended it"
    );
}

/// Another gateway writes that it sent it.
fn sent_by_another(world: &World) {
    world
        .cluster
        .edit("capabilityinvocations", "say-hi", |invocation| {
            invocation["status"] = json!({
                "phase": "Dispatched", "gateway": "gateway-b", "dispatchedAt": now().to_string(),
            });
        });
}

/// Waits for that request.
async fn until_asked(world: &World, request: &str) {
    let is_asked = |cluster: &Cluster| {
        let log = cluster.log_of("capabilityinvocations");
        log.iter().any(|line| line == request)
    };
    world.cluster.until(request, is_asked).await;
}

/// Something is cancelled that nobody has sent, its end cannot be written, and meanwhile another gateway sends it.
async fn sent_while_the_end_is_not_written(fault: Fault) {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world.cluster.set_fault(Some(fault));
    let mut cancelled = invocation("say-hi", "lamp-1");
    cancelled.spec.cancel = Some(Cancel::Requested);
    world.cluster.add_invocation(&cancelled);
    until_asked(&world, WRITE).await;
    sent_by_another(&world);
    let Ok(Event::Cancel(told)) = device.next().await else {
        panic!("it may run there");
    };
    assert_eq!(told.name, "say-hi");
    world.cluster.set_fault(None);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Dispatched"
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_that_could_not_be_written_is_decided_anew_when_another_gateway_sent_it() {
    sent_while_the_end_is_not_written(Fault::Down).await;
    sent_while_the_end_is_not_written(Fault::Silent).await;
}

/// In real time, for deadlines are.
#[tokio::test]
async fn what_has_no_time_left_for_a_mark_is_not_marked() {
    let world = World::new().await;
    let _device = world.welcomed("lamp-1").await;
    let mut waited = invocation("say-hi", "lamp-1");
    if let Some(created) = &mut waited.metadata.creation_timestamp {
        created.0 = now() - Duration::from_millis(59_700);
    }
    waited.spec.timeout_seconds = 60;
    world.cluster.add_invocation(&waited);
    // A device that has it says so within a moment.
    let over = world.cluster.until_phase("say-hi", "Failed").await;
    assert_eq!(over["status"]["error"]["code"], "DeadlineBeforeStart");
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [WRITE]);
}

/// What becomes of one that the device answers with that, once another gateway has sent it, too.
async fn answered_before_another_sent_it(code: Option<node::FailureCode>) -> Value {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.hide("say-hi");
    sent_by_another(&world);
    let mut result = succeeded(&dispatch, "1");
    if let Some(code) = code {
        result = node::Result {
            uid: dispatch.uid.clone(),
            name: dispatch.name.clone(),
            ..node::Result::default()
        };
        result.set_outcome(node::Outcome::Failed);
        let mut failure = node::Failure::default();
        failure.set_code(code);
        result.failure = Some(failure);
    }
    device.result(result).await;
    until_asked(&world, READ).await;
    sleep(Duration::from_secs(1)).await;
    world.cluster.invocation("say-hi")["status"]["phase"].clone()
}

#[tokio::test(start_paused = true)]
async fn that_a_journal_failed_is_not_said_of_what_another_gateway_sent_since() {
    use node::FailureCode::{CapabilityFailed, JournalUnavailable};
    assert_eq!(
        answered_before_another_sent_it(Some(JournalUnavailable)).await,
        "Dispatched",
        "it may run by now"
    );
    for (code, phase) in [(Some(CapabilityFailed), "Failed"), (None, "Succeeded")] {
        assert_eq!(
            answered_before_another_sent_it(code).await,
            phase,
            "it is in the journal"
        );
    }
}

/// The phase that something new has when the device hears of it. `renewed`: how long ago the gateway's Lease was.
async fn phase_when_sent(renewed: Duration) -> Value {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let lease = json!({
        "metadata": { "name": GATEWAY, "annotations": { ADVERTISE_ANNOTATION: "a:7443" } },
        "spec": { "leaseDurationSeconds": 15, "renewTime": format!("{:.6}", now() - renewed) },
    });
    let lease = serde_json::from_value(lease).unwrap();
    world.node.shared.index.gateways.insert(lease, now());
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    device.dispatch().await;
    world.cluster.invocation("say-hi")["status"]["phase"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_others_may_take_for_gone_marks_before_it_sends() {
    assert_eq!(phase_when_sent(Duration::from_secs(1)).await, Value::Null);
    assert_eq!(
        phase_when_sent(Duration::from_secs(11)).await,
        "Dispatched",
        "whoever took the gateway for gone may have ended it"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_waited_and_cannot_be_marked_is_not_sent() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world.cluster.set_fault(Some(Fault::Down));
    let waited = a_minute_ago(&invocation("say-hi", "lamp-1"));
    world.cluster.add_invocation(&waited);
    for _ in 0..3 {
        sleep(Duration::from_secs(10)).await;
        // A dispatch would come before.
        device.heartbeat().await;
    }
    world.cluster.set_fault(None);
    assert_eq!(device.dispatch().await.name, "say-hi");
}
