//! A device that begins more often than it may.

use proto::{
    RETRY_AFTER,
    node::{self, device_event},
};
use tonic::Code;

use super::world::{FakeDevice, World, register};

/// Opens streams and ends them at once, until one is refused. Returns how many were not, and the refusal.
async fn hammer(world: &World) -> (usize, tonic::Status) {
    for begun in 0..200 {
        let mut device = world.device("lamp-1").await;
        match device.next().await {
            Ok(_) => drop(device),
            Err(refused) => return (begun, refused),
        }
    }
    panic!("nothing is refused");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_opens_and_ends_streams_is_refused_and_its_last_end_is_written() {
    let world = World::new().await;
    let (begun, refused) = hammer(&world).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.metadata().contains_key(RETRY_AFTER));
    world
        .cluster
        .until("the end of the last session", |cluster| {
            !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null()
        })
        .await;
    // A beginning and an end of each, at most.
    let writes = world.cluster.log_of("devices");
    let writes = writes
        .iter()
        .filter(|line| line.starts_with("PATCH"))
        .count();
    assert!(writes <= 2 * begun, "{writes} writes of {begun} sessions");
    let epoch = &world.cluster.device("lamp-1")["status"]["session"]["epoch"];
    assert!(epoch.as_u64().unwrap() <= begun as u64, "{epoch}");

    let wait = refused.metadata().get(RETRY_AFTER).unwrap();
    let wait = wait.to_str().unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(wait.parse().unwrap())).await;
    world.welcomed("lamp-1").await.heartbeat().await;
}

/// A refused stream must not end the one that the device has.
#[tokio::test(start_paused = true)]
async fn a_refused_beginning_leaves_the_stream_that_is_there() {
    let world = World::new().await;
    hammer(&world).await;
    world.until_streams(0).await;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let mut device = world.welcomed("lamp-1").await;
    loop {
        let mut other = world.device("lamp-1").await;
        match other.next().await {
            Ok(_) => device = other,
            Err(refused) => {
                assert_eq!(refused.code(), Code::ResourceExhausted);
                break;
            }
        }
    }
    device.heartbeat().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_registers_or_declares_without_end_is_refused() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    for _ in 0..100 {
        let update = node::CapabilityUpdate::default();
        device
            .send(device_event::Event::CapabilityUpdate(update))
            .await;
    }
    let refused = device.end().await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let mut client = world.connect().await;
    let refused = register(&mut client, "lamp-1").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let mut other = FakeDevice::open(world.connect().await, "lamp-1")
        .await
        .unwrap();
    let registration = String::new();
    other
        .send(device_event::Event::Hello(node::Hello { registration }))
        .await;
    assert_eq!(other.end().await.code(), Code::FailedPrecondition);
}
