//! A device that declares more than was granted, and how much of it runs at once.

use proto::node::{self, device_event};
use serde_json::json;
use surface::digest;

use super::world::{FakeDevice, World, invocation, succeeded};

const SMALL: &str = r#"{"maximum":5}"#;
const LARGE: &str = r#"{"maximum":9}"#;

pub async fn declares(device: &mut FakeDevice, capabilities: &[(&str, &str, u32)]) {
    let capabilities = capabilities
        .iter()
        .map(|(name, schema, concurrency)| node::Capability {
            name: (*name).to_owned(),
            input_schema: schema.as_bytes().to_vec(),
            concurrency: *concurrency,
            ..node::Capability::default()
        })
        .collect();
    let update = node::CapabilityUpdate { capabilities };
    device
        .send(device_event::Event::CapabilityUpdate(update))
        .await;
}

fn grants(world: &World, schema: &str) {
    world.cluster.edit("devices", "lamp-1", |device| {
        device["spec"]["grants"]["surfaces"] = json!({"echo": digest("Automatic", Some(schema))});
    });
}

/// Until the Device shows that, with what is accepted beside it.
async fn until_shown(world: &World, granted: &str, accepted: Option<&str>) {
    world
        .cluster
        .until(granted, |cluster| {
            let echo = &cluster.device("lamp-1")["status"]["capabilities"][0];
            echo["granted"] == granted && echo["accepted"]["inputSchema"].as_str() == accepted
        })
        .await;
}

fn asks(world: &World, name: &str, input: i64) {
    let mut asked = invocation(name, "lamp-1");
    asked.spec.input = Some(json!(input));
    world.cluster.add_invocation(&asked);
}

#[tokio::test(start_paused = true)]
async fn what_grows_waits_while_what_was_granted_goes_on() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    grants(&world, SMALL);
    until_shown(&world, "Pending", None).await;
    asks(&world, "unlike", 1);
    let unlike = world.cluster.until_phase("unlike", "Failed").await;
    assert_eq!(unlike["status"]["error"]["code"], "CapabilityNotGranted");
    declares(&mut device, &[("echo", SMALL, 0)]).await;
    until_shown(&world, "Granted", None).await;

    declares(&mut device, &[("echo", LARGE, 0)]).await;
    until_shown(&world, "Pending", Some(SMALL)).await;
    let counts = &world.cluster.device("lamp-1")["status"]["capabilityCounts"];
    assert_eq!(*counts, json!({"declared": 1, "granted": 0, "pending": 1}));
    asks(&world, "more", 9);
    let more = world.cluster.until_phase("more", "Failed").await;
    assert_eq!(more["status"]["error"]["code"], "InvalidInput");
    let message = more["status"]["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("more than was granted of echo: must be at most 5"),
        "{message}"
    );
    asks(&world, "as-before", 5);
    let dispatch = device.dispatch().await;
    assert_eq!(
        (dispatch.name.as_str(), dispatch.mediate),
        ("as-before", false)
    );
    device.result(succeeded(&dispatch, "5")).await;
    device.ack().await;

    grants(&world, LARGE);
    until_shown(&world, "Granted", None).await;
    asks(&world, "granted", 9);
    let dispatch = device.dispatch().await;
    assert_eq!(dispatch.name, "granted");
}

#[tokio::test(start_paused = true)]
async fn a_capability_that_is_taken_holds_up_its_own_and_no_other() {
    let world = World::new().await;
    world.cluster.edit("devices", "lamp-1", |device| {
        device["spec"]["grants"]["capabilities"] = json!(["echo", "other"]);
    });
    let mut device = world.welcomed("lamp-1").await;
    declares(&mut device, &[("echo", "", 1), ("other", "", 1)]).await;
    device.heartbeat().await;
    for (name, capability) in [("a", "echo"), ("b", "echo"), ("c", "echo"), ("d", "other")] {
        let mut asked = invocation(name, "lamp-1");
        asked.spec.capability = capability.to_owned();
        world.cluster.add_invocation(&asked);
    }
    let first = device.dispatch().await;
    assert_eq!(first.name, "a");
    assert_eq!(device.dispatch().await.name, "d");
    device.result(succeeded(&first, "1")).await;
    device.ack().await;
    assert_eq!(device.dispatch().await.name, "b", "in order");
}

/// As [`asks`], of a capability.
fn asks_for(world: &World, name: &str, capability: &str, input: &str) {
    let mut asked = invocation(name, "lamp-1");
    asked.spec.capability = capability.to_owned();
    asked.spec.input = Some(json!(input));
    world.cluster.add_invocation(&asked);
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_to_read_or_to_check_holds_up_what_comes_after_it_and_nothing_else() {
    let world = World::new().await;
    world.cluster.edit("devices", "lamp-1", |device| {
        device["spec"]["grants"]["capabilities"] = json!(["echo", "other"]);
    });
    let mut device = world.welcomed("lamp-1").await;
    // Too long to be read where it arises, and a pattern that takes its time for each character.
    let title = "x".repeat(3000);
    let slow = json!({"pattern": "[a-z]{1,253}[0-9]", "title": title}).to_string();
    let long = json!({"title": title, "type": "string"}).to_string();
    declares(&mut device, &[("echo", &slow, 0), ("other", &long, 0)]).await;
    device.heartbeat().await;
    let schemas = |cluster: &crate::node::tests::cluster::Cluster| {
        let shown = &cluster.device("lamp-1")["status"]["capabilities"];
        [0, 1].map(|place| shown[place]["inputSchema"].clone())
    };
    let is_shown = |cluster: &_| schemas(cluster) == [json!(slow), json!(long)];
    world.cluster.until("both schemas", is_shown).await;

    asks_for(&world, "a", "echo", &format!("{}1", "a".repeat(250)));
    asks_for(&world, "b", "other", "b");
    asks_for(&world, "c", "echo", &"c".repeat(250));
    asks_for(&world, "d", "other", "d");
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(device.dispatch().await.name);
    }
    assert_eq!(names, ["a", "b", "d"], "in order");
    let misfit = world.cluster.until_phase("c", "Failed").await;
    assert_eq!(misfit["status"]["error"]["code"], "InvalidInput");
    asks_for(&world, "e", "echo", &"e".repeat(30_000));
    let costly = world.cluster.until_phase("e", "Failed").await;
    let message = costly["status"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("cannot be checked"), "{message}");
}
