//! What waits in the gateway, because its device is busy or was away: it is cancelled and ends in time all the same, nobody's
//! silence keeps it waiting, and it is sent in order.

use crds::names::MAX_OPEN_PER_DEVICE;
use proto::node::{self, device_event, gateway_event::Event};
use serde_json::{Value, json};

use super::{
    growth::declares,
    truth::a_minute_ago,
    world::{FakeDevice, World, invocation, settings, succeeded, uid},
};

/// With a device that runs `echo` once at a time.
async fn busy() -> (World, FakeDevice) {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    declares(&mut device, &[("echo", "", 1)]).await;
    device.heartbeat().await;
    (world, device)
}

fn add(world: &World, name: &str, timeout_seconds: i64, key: Option<&str>) {
    let mut made = invocation(name, "lamp-1");
    made.spec.timeout_seconds = timeout_seconds;
    made.spec.idempotency_key = key.map(str::to_owned);
    world.cluster.add_invocation(&made);
}

fn cancel(world: &World, name: &str) {
    world
        .cluster
        .edit("capabilityinvocations", name, |invocation| {
            invocation["spec"]["cancel"] = json!("Requested");
        });
}

fn requests_for(world: &World, name: &str) -> Vec<String> {
    let mut log = world.cluster.log_of("capabilityinvocations");
    log.retain(|line| line.contains(&format!("/{name}")));
    log
}

fn code(invocation: &Value) -> &str {
    invocation["status"]["error"]["code"].as_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_place_is_cancelled_at_once() {
    let (world, mut device) = busy().await;
    add(&world, "a", 600, None);
    add(&world, "b", 600, None);
    assert_eq!(device.dispatch().await.name, "a");
    cancel(&world, "b");
    let cancelled = world.cluster.until_phase("b", "Cancelled").await;
    assert_eq!(code(&cancelled), "Cancelled");
    // Anything that the device is told of it would come before.
    device.heartbeat().await;
    assert_eq!(
        requests_for(&world, "b"),
        ["PATCH capabilityinvocations/b/status"]
    );
}

#[tokio::test(start_paused = true)]
async fn those_beyond_the_bound_of_a_device_end_and_the_others_wait() {
    let (world, mut device) = busy().await;
    // More than are kept, so that some are known by name alone for a while.
    let (most, too_many) = (MAX_OPEN_PER_DEVICE, 40);
    for number in 0..most + too_many {
        add(&world, &format!("n{number:03}"), 600, None);
    }
    let first = device.dispatch().await;
    assert_eq!(first.name, "n000");
    for number in most..most + too_many {
        let over = world
            .cluster
            .until_phase(&format!("n{number}"), "Failed")
            .await;
        assert_eq!(code(&over), "QueueFull");
    }
    device.result(succeeded(&first, "1")).await;
    assert_eq!(device.ack().await, first.uid);
    assert_eq!(device.dispatch().await.name, "n001");
    let last = format!("n{}", most - 1);
    assert_eq!(requests_for(&world, &last), Vec::<String>::new());
}

/// In real time, for deadlines are.
#[tokio::test]
async fn one_that_waits_for_a_place_past_its_deadline_was_never_sent() {
    let (world, mut device) = busy().await;
    add(&world, "a", 600, None);
    add(&world, "b", 1, None);
    assert_eq!(device.dispatch().await.name, "a");
    let over = world.cluster.until_phase("b", "Failed").await;
    assert_eq!(code(&over), "DeadlineBeforeStart");
    device.heartbeat().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_and_that_the_device_may_have_is_the_devices_to_cancel() {
    let mut settings = settings();
    settings.in_flight = 1;
    let world = World::with(settings).await;
    for name in ["a", "b"] {
        let waited = a_minute_ago(&invocation(name, "lamp-1"));
        world.cluster.add_invocation(&waited);
    }
    let mut device = world.welcomed("lamp-1").await;
    assert_eq!(device.dispatch().await.name, "a");
    cancel(&world, "b");
    let Ok(Event::Cancel(told)) = device.next().await else {
        panic!("it may run there");
    };
    assert_eq!(told.uid, uid("b"));
    let dispatch = node::Dispatch {
        uid: told.uid,
        name: told.name,
        ..node::Dispatch::default()
    };
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    assert_eq!(
        world.cluster.invocation("b")["status"]["phase"],
        "Succeeded",
        "it had run"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_person_takes_no_place_of_what_runs() {
    let (world, mut device) = busy().await;
    for name in ["a", "b", "c"] {
        add(&world, name, 600, None);
    }
    let asked = device.dispatch().await;
    assert_eq!(asked.name, "a");
    let uid = asked.uid.clone();
    let asks = node::AwaitingMediation { uid: uid.clone() };
    device
        .send(device_event::Event::AwaitingMediation(asks))
        .await;
    let second = device.dispatch().await;
    assert_eq!(second.name, "b");
    // The person says yes: from here on it runs.
    device
        .send(device_event::Event::Accepted(node::Accepted { uid }))
        .await;
    device.result(succeeded(&second, "1")).await;
    device.ack().await;
    // A dispatch would come before.
    device.heartbeat().await;
    device.result(succeeded(&asked, "1")).await;
    device.ack().await;
    assert_eq!(device.dispatch().await.name, "c");
}

#[tokio::test(start_paused = true)]
async fn one_with_a_key_that_the_device_has_waits_there() {
    let (world, mut device) = busy().await;
    add(&world, "first", 600, Some("order 66"));
    assert_eq!(device.dispatch().await.name, "first");
    add(&world, "alone", 600, None);
    add(&world, "other", 600, Some("order 67"));
    add(&world, "second", 600, Some("order 66"));
    let second = device.dispatch().await;
    assert_eq!(second.name, "second");
    cancel(&world, "second");
    assert!(matches!(device.next().await, Ok(Event::Cancel(told)) if told.uid == second.uid));
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_for_the_end_of_another_leave_a_place_to_what_runs() {
    let mut settings = settings();
    settings.in_flight = 3;
    let world = World::with(settings).await;
    world.cluster.edit("devices", "lamp-1", |device| {
        device["spec"]["grants"]["capabilities"] = json!(["echo", "other"]);
    });
    let mut device = world.welcomed("lamp-1").await;
    declares(&mut device, &[("echo", "", 1), ("other", "", 1)]).await;
    device.heartbeat().await;
    for name in ["first", "second", "third"] {
        add(&world, name, 600, Some("order 66"));
    }
    let mut other = invocation("other", "lamp-1");
    other.spec.capability = "other".to_owned();
    world.cluster.add_invocation(&other);
    for name in ["first", "second", "other"] {
        assert_eq!(device.dispatch().await.name, name);
    }
}

/// Three that waited for their device, of which the first takes long to be marked.
async fn back_after_a_while() -> (World, FakeDevice) {
    let world = World::new().await;
    for name in ["first", "second", "third"] {
        let waited = a_minute_ago(&invocation(name, "lamp-1"));
        world.cluster.add_invocation(&waited);
    }
    world.cluster.slow_down("first");
    let device = world.welcomed("lamp-1").await;
    (world, device)
}

#[tokio::test(start_paused = true)]
async fn what_waited_is_sent_in_order_though_one_takes_long_to_be_marked() {
    let (world, mut device) = back_after_a_while().await;
    world.cluster.until_phase("third", "Dispatched").await;
    assert_eq!(
        world.cluster.invocation("first")["status"]["phase"],
        Value::Null,
        "they are marked side by side"
    );
    for name in ["first", "second", "third"] {
        assert_eq!(device.dispatch().await.name, name);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_new_waits_for_what_is_older_and_is_being_marked() {
    let (world, mut device) = back_after_a_while().await;
    world.cluster.until_phase("third", "Dispatched").await;
    add(&world, "new", 600, None);
    for name in ["first", "second", "third", "new"] {
        assert_eq!(device.dispatch().await.name, name);
    }
}
