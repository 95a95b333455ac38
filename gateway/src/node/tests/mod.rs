//! Devices in memory against the service, and the service against an API server in memory. The clock is paused: what
//! takes a minute costs nothing, and what happens first happens first every time.

mod artefacts;
mod cluster;
mod growth;
mod noise;
mod pace;
mod schedules;
mod truth;
mod underway;
mod waiting;
mod world;

use std::time::Duration;

use proto::{
    SmallBufferCodec,
    node::{self, DeviceEvent, GatewayEvent, device_event, gateway_event::Event},
};
use serde_json::json;
use tokio::time::sleep;
use tonic::{Code, Streaming, codec::Codec as _};

use self::{
    cluster::Fault,
    world::{
        BRIEF, FakeDevice, GATEWAY, World, device, invocation, register, settings, succeeded, uid,
    },
};
use crate::domain::device::DeviceKey;

const WRITE: &str = "PATCH capabilityinvocations/say-hi/status";
const READ: &str = "GET capabilityinvocations/say-hi";

#[tokio::test(start_paused = true)]
async fn hello_without_a_registration_is_refused() {
    let world = World::new().await;
    let mut stranger = FakeDevice::open(world.connect().await, "lamp-1")
        .await
        .unwrap();
    let registration = "made up".to_owned();
    stranger
        .send(device_event::Event::Hello(node::Hello { registration }))
        .await;
    assert_eq!(stranger.end().await.code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_begin_with_hello_is_refused() {
    let world = World::new().await;
    let mut hasty = FakeDevice::open(world.connect().await, "lamp-1")
        .await
        .unwrap();
    hasty
        .send(device_event::Event::Heartbeat(node::Heartbeat {}))
        .await;
    assert_eq!(hasty.end().await.code(), Code::FailedPrecondition);

    let mut silent = FakeDevice::open(world.connect().await, "lamp-1")
        .await
        .unwrap();
    assert_eq!(silent.end().await.code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn a_registration_of_one_device_is_of_no_use_to_another() {
    let world = World::new().await;
    let registration = register(&mut world.connect().await, "lamp-1")
        .await
        .unwrap();
    let mut thief = FakeDevice::open(world.connect().await, "lamp-2")
        .await
        .unwrap();
    thief
        .send(device_event::Event::Hello(node::Hello { registration }))
        .await;
    assert_eq!(thief.end().await.code(), Code::FailedPrecondition);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_trusted_may_not_register() {
    let world = World::new().await;
    let mut client = world.connect().await;
    let unknown = register(&mut client, "lamp-9").await.unwrap_err();
    assert_eq!(unknown.code(), Code::PermissionDenied);
    world.cluster.edit("devices", "lamp-1", |device| {
        device["spec"]["trust"] = json!("Suspended");
    });
    sleep(Duration::from_millis(1)).await;
    let suspended = register(&mut client, "lamp-1").await.unwrap_err();
    assert_eq!(suspended.code(), Code::PermissionDenied);
    assert!(
        suspended.message().contains("suspended"),
        "{}",
        suspended.message()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_certificate_that_it_came_with() {
    let world = World::new().await;
    world.cluster.add_device(&device(BRIEF));
    let mut device = world.welcomed(BRIEF).await;
    for _ in 0..3 {
        sleep(Duration::from_secs(15)).await;
        device.heartbeat().await;
    }
    let end = device.end().await;
    assert_eq!(end.code(), Code::PermissionDenied, "{end}");
    assert!(
        end.message().contains("the certificate expired at"),
        "{end}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_made_a_moment_ago_is_waited_for() {
    let world = World::new().await;
    let cluster = world.cluster.clone();
    let mut client = world.connect().await;
    let later = async {
        sleep(Duration::from_millis(300)).await;
        cluster.add_device(&device("lamp-3"));
    };
    let (registered, ()) = tokio::join!(register(&mut client, "lamp-3"), later);
    assert!(registered.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_written_when_it_starts_and_when_it_ends_and_never_for_a_heartbeat() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let welcome = device.welcome.take().unwrap();
    assert_eq!((welcome.epoch, welcome.heartbeat_interval_ms), (1, 15_000));
    assert_eq!(welcome.gateways, ["gateway-a.example:7443"]);
    let status = world.cluster.device("lamp-1")["status"].clone();
    assert_eq!(status["session"]["gateway"], GATEWAY);
    assert_eq!(status["presence"], "Online");
    assert_eq!(status["capabilities"][0]["granted"], "Granted");

    for _ in 0..100 {
        sleep(Duration::from_secs(15)).await;
        device.heartbeat().await;
    }
    assert_eq!(
        world.cluster.log_of("devices"),
        ["PATCH devices/lamp-1/status"]
    );

    drop(device);
    world
        .cluster
        .until("the session has ended", |cluster| {
            !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null()
        })
        .await;
    let status = world.cluster.device("lamp-1")["status"].clone();
    assert_eq!(status["presence"], "Degraded");
    assert_eq!(status["conditions"][0]["status"], "False");
    assert_eq!(world.cluster.log_of("devices").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_falls_silent_is_cut() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    assert_eq!(device.end().await.code(), Code::DeadlineExceeded);
    world.until_streams(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_short_invocation_costs_one_write_and_no_read() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    assert_eq!(
        (dispatch.capability.as_str(), dispatch.max_output_bytes),
        ("echo", 65536)
    );
    assert!(
        (29_000..=30_000).contains(&dispatch.remaining_ms),
        "{}",
        dispatch.remaining_ms
    );

    device
        .result(succeeded(&dispatch, r#"{"load":null,"up":[1,2.5]}"#))
        .await;
    assert_eq!(device.ack().await, uid("say-hi"));
    let status = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(
        status["output"],
        json!({"load": null, "up": [1, 2.5]}),
        "nulls are kept"
    );
    assert_eq!(status["gateway"], GATEWAY);
    assert_eq!(status["conditions"][0]["status"], "True");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [WRITE]);
}

#[tokio::test(start_paused = true)]
async fn a_longer_invocation_costs_two_writes_and_no_read() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    let status = world.cluster.until_phase("say-hi", "Dispatched").await["status"].clone();
    assert_eq!(status["gateway"], GATEWAY);
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    let ended = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(ended["phase"], "Succeeded");
    assert_eq!(ended["dispatchedAt"], status["dispatchedAt"]);
    assert_eq!(
        world.cluster.log_of("capabilityinvocations"),
        [WRITE, WRITE]
    );
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_while_dispatched_is_written_is_written_after_it() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.set_fault(Some(Fault::Silent));
    world
        .cluster
        .until("Dispatched is being written", |cluster| {
            cluster.log_of("capabilityinvocations") == [WRITE]
        })
        .await;
    device.result(succeeded(&dispatch, "1")).await;
    sleep(Duration::from_secs(1)).await;
    world.cluster.set_fault(None);
    assert_eq!(device.ack().await, uid("say-hi"));
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded"
    );
}

#[tokio::test(start_paused = true)]
async fn invocations_that_wait_are_sent_when_the_device_comes_in_order() {
    let world = World::new().await;
    for name in ["first", "second", "third"] {
        world.cluster.add_invocation(&invocation(name, "lamp-1"));
    }
    let mut device = world.welcomed("lamp-1").await;
    for name in ["first", "second", "third"] {
        assert_eq!(device.dispatch().await.name, name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_has_no_more_at_once_than_it_may() {
    let mut settings = settings();
    settings.in_flight = 2;
    let world = World::with(settings).await;
    let mut device = world.welcomed("lamp-1").await;
    for name in ["a", "b", "c"] {
        world.cluster.add_invocation(&invocation(name, "lamp-1"));
    }
    let first = device.dispatch().await;
    assert_eq!(device.dispatch().await.name, "b");
    device.heartbeat().await;
    device.result(succeeded(&first, "1")).await;
    let mut next = [device.next().await.unwrap(), device.next().await.unwrap()].into_iter();
    assert!(next.any(|event| matches!(event, Event::Dispatch(dispatch) if dispatch.name == "c")));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_run_is_refused_without_the_device() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let mut not_granted = invocation("say-hi", "lamp-1");
    not_granted.spec.capability = "door.open".to_owned();
    world.cluster.add_invocation(&not_granted);
    let status = world.cluster.until_phase("say-hi", "Failed").await["status"].clone();
    assert_eq!(status["error"]["code"], "CapabilityNotDeclared");
    assert_eq!(status["conditions"][1]["type"], "Finished");
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [WRITE]);
    device.heartbeat().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_of_another_device_is_not_written() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let mut other = world.welcomed("lamp-2").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;

    other.result(succeeded(&dispatch, r#""forged""#)).await;
    assert_eq!(other.ack().await, dispatch.uid, "so that it forgets it");
    assert_ne!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded"
    );

    device.result(succeeded(&dispatch, r#""true""#)).await;
    device.ack().await;
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["output"],
        "true"
    );
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_earlier_invocation_of_that_name_is_not_written() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let mut dispatch = device.dispatch().await;
    dispatch.uid = uid("earlier");
    device.result(succeeded(&dispatch, "1")).await;
    assert_eq!(device.ack().await, uid("earlier"));
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [READ]);
}

#[tokio::test(start_paused = true)]
async fn a_result_of_what_is_gone_or_over_is_acked() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let dispatch = node::Dispatch {
        uid: uid("say-hi"),
        name: "say-hi".into(),
        ..Default::default()
    };
    device.result(succeeded(&dispatch, "1")).await;
    assert_eq!(device.ack().await, uid("say-hi"), "gone");

    let mut over = serde_json::to_value(invocation("say-hi", "lamp-1")).unwrap();
    over["status"] = json!({"phase": "Cancelled"});
    world
        .cluster
        .add_invocation(&serde_json::from_value(over).unwrap());
    device.result(succeeded(&dispatch, "1")).await;
    assert_eq!(device.ack().await, uid("say-hi"), "over");
    assert_eq!(
        world.cluster.log_of("capabilityinvocations"),
        [READ, READ, WRITE],
        "what was so is kept"
    );
}

#[tokio::test(start_paused = true)]
async fn results_of_what_nobody_knows_are_looked_up_at_a_pace() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let before = tokio::time::Instant::now();
    for number in 0..40 {
        let dispatch = node::Dispatch {
            uid: format!("{number:x}"),
            name: format!("made-up-{number}"),
            ..Default::default()
        };
        device.result(succeeded(&dispatch, "1")).await;
    }
    for _ in 0..40 {
        device.ack().await;
    }
    assert!(
        before.elapsed() >= Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(world.cluster.log_of("capabilityinvocations").len(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_there_is_no_memory_for_is_asked_for_again() {
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
    let again = device.dispatch().await;
    assert_eq!(again.uid, dispatch.uid);
    drop(taken);
    device.result(succeeded(&again, "1")).await;
    device.ack().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_small() {
    let world = World::new().await;
    let (outbox, _outgoing) = super::outbox::new();
    let caller = super::stream::Caller {
        key: DeviceKey::new("kitchen", "lamp-1"),
        fingerprint: world::key_of("lamp-1"),
        not_after: jiff::Timestamp::MAX,
        hang_up: crate::hang_up::HangUp::default(),
    };
    let decoder = SmallBufferCodec::<GatewayEvent, DeviceEvent>::default().decoder();
    let inbound = Streaming::new_request(decoder, axum::body::Body::empty(), None, None);
    let shared = world.node.shared.clone();
    let stream = super::stream::run(super::stream::Arrival {
        shared,
        caller,
        inbound,
        outbox,
    });
    let bytes = std::mem::size_of_val(&stream);
    let bytes = bytes + super::stream::RESIDENT;
    assert!(bytes <= 2048, "{bytes} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_result_is_acked_only_once_it_is_in_kubernetes() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.set_fault(Some(Fault::Down));
    device.result(succeeded(&dispatch, "1")).await;
    for _ in 0..4 {
        sleep(Duration::from_secs(10)).await;
        // Any ack would come before the answer to a heartbeat.
        device.heartbeat().await;
    }
    world.cluster.set_fault(None);
    assert_eq!(device.ack().await, uid("say-hi"));
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded"
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_overtaken_is_written_to_what_is_there_now() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.set_fault(Some(Fault::Overtaken));
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded"
    );
    assert_eq!(
        world.cluster.log_of("capabilityinvocations"),
        [WRITE, READ, WRITE]
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_api_server_refuses_becomes_a_failure_that_says_so() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world.cluster.set_fault(Some(Fault::Invalid));
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    let status = world.cluster.invocation("say-hi")["status"].clone();
    assert_eq!(
        (&status["phase"], &status["error"]["code"]),
        (&json!("Failed"), &json!("Internal"))
    );
    assert!(status["output"].is_null());
}

#[tokio::test(start_paused = true)]
async fn one_that_ended_elsewhere_is_stopped_at_the_device() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    device.dispatch().await;
    world.cluster.delete("capabilityinvocations", "say-hi");
    assert!(
        matches!(device.next().await, Ok(Event::Cancel(cancel)) if cancel.uid == uid("say-hi"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_reaches_the_device_and_its_answer_decides() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let dispatch = device.dispatch().await;
    world
        .cluster
        .edit("capabilityinvocations", "say-hi", |invocation| {
            invocation["spec"]["cancel"] = json!("Requested");
        });
    assert!(matches!(device.next().await, Ok(Event::Cancel(cancel)) if cancel.uid == dispatch.uid));
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded",
        "it was too late"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_an_earlier_stream_carried_is_sent_again() {
    let world = World::new().await;
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let mut device = world.welcomed("lamp-1").await;
    device.dispatch().await;
    world.cluster.until_phase("say-hi", "Dispatched").await;
    drop(device);
    world.until_streams(0).await;
    let mut device = world.welcomed("lamp-1").await;
    let dispatch = device.dispatch().await;
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    assert_eq!(
        world.cluster.log_of("capabilityinvocations"),
        [WRITE, WRITE]
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_just_came_is_heard_out_before_its_invocation_is_given_up() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let mut late = serde_json::to_value(invocation("say-hi", "lamp-1")).unwrap();
    late["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
    late["status"] = json!({"phase": "Dispatched", "dispatchedAt": "2020-01-01T00:00:00Z"});
    world
        .cluster
        .add_invocation(&serde_json::from_value(late).unwrap());
    device.heartbeat().await;
    assert_eq!(
        world.cluster.log_of("capabilityinvocations"),
        Vec::<String>::new()
    );
    let dispatch = node::Dispatch {
        uid: uid("say-hi"),
        name: "say-hi".into(),
        ..Default::default()
    };
    device.result(succeeded(&dispatch, "1")).await;
    device.ack().await;
    assert_eq!(
        world.cluster.invocation("say-hi")["status"]["phase"],
        "Succeeded"
    );
    assert_eq!(world.cluster.log_of("capabilityinvocations"), [WRITE]);
}

#[tokio::test(start_paused = true)]
async fn a_second_stream_of_a_device_takes_the_place_of_the_first() {
    let world = World::new().await;
    let mut first = world.welcomed("lamp-1").await;
    let mut second = world.welcomed("lamp-1").await;
    assert_eq!(first.end().await.code(), Code::Aborted);
    assert_eq!(second.welcome.take().unwrap().epoch, 2);
    second.heartbeat().await;
    world.until_streams(1).await;
    let session = world.cluster.device("lamp-1")["status"]["session"].clone();
    assert_eq!(
        (&session["epoch"], &session["endedAt"]),
        (&json!(2), &json!(null))
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_moved_to_another_gateway_is_let_go_without_a_write() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    world.cluster.clear_log();
    world.cluster.edit("devices", "lamp-1", |device| {
        device["status"]["session"] = json!({"gateway": "gateway-b", "epoch": 2});
    });
    assert_eq!(device.end().await.code(), Code::Aborted);
    world.until_streams(0).await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(world.cluster.log_of("devices"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_no_longer_trusted_is_cut_at_once() {
    let suspended = |world: &World| {
        world.cluster.edit("devices", "lamp-1", |device| {
            device["spec"]["trust"] = json!("Suspended");
        });
    };
    let revoked = |world: &World| {
        world.cluster.edit("devices", "lamp-1", |device| {
            device["spec"]["trust"] = json!("Revoked");
        });
    };
    let another_key = |world: &World| {
        world.cluster.edit("devices", "lamp-1", |device| {
            device["spec"]["publicKeySha256"] = json!("0".repeat(64));
        });
    };
    let deleted = |world: &World| world.cluster.delete("devices", "lamp-1");
    for (cut, says) in [
        (&suspended as &dyn Fn(&World), "suspended"),
        (&revoked, "revoked"),
        (&another_key, "another key"),
        (&deleted, "not known"),
    ] {
        let world = World::new().await;
        let mut device = world.welcomed("lamp-1").await;
        let mut other = world.welcomed("lamp-2").await;
        let before = tokio::time::Instant::now();
        cut(&world);
        let end = device.end().await;
        assert_eq!(end.code(), Code::PermissionDenied);
        assert!(end.message().contains(says), "{end}");
        assert!(
            before.elapsed() < Duration::from_millis(100),
            "{:?}",
            before.elapsed()
        );
        let again = register(&mut world.connect().await, "lamp-1").await;
        let again = again.unwrap_err();
        assert_eq!(again.code(), Code::PermissionDenied);
        assert!(again.message().contains(says), "{again}");
        other.heartbeat().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_read_is_bounded_and_cut() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let mut other = world.welcomed("lamp-2").await;
    for number in 0..20 {
        let mut invocation = invocation(&format!("big-{number}"), "lamp-1");
        invocation.spec.input = Some(json!("x".repeat(30_000)));
        world.cluster.add_invocation(&invocation);
    }
    for _ in 0..4 {
        sleep(Duration::from_secs(5)).await;
        other.heartbeat().await;
        device
            .send(device_event::Event::Heartbeat(node::Heartbeat {}))
            .await;
    }
    world.until_streams(1).await;
    world
        .cluster
        .until("the session has ended", |cluster| {
            !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_giant_message_ends_its_own_stream_and_no_other() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let mut other = world.welcomed("lamp-2").await;
    let result = node::Result {
        output: vec![b'1'; proto::MAX_DEVICE_MESSAGE_BYTES + 1],
        ..Default::default()
    };
    device.result(result).await;
    let status = device.end().await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    other.heartbeat().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_capability_is_written_once_and_refused_from_then_on() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let available = [
        node::Availability::Unavailable,
        node::Availability::Available,
    ];
    for availability in available.into_iter().cycle().take(21) {
        let mut echo = node::Capability {
            name: "echo".to_owned(),
            ..Default::default()
        };
        echo.set_availability(availability);
        let update = node::CapabilityUpdate {
            capabilities: vec![echo],
        };
        device
            .send(device_event::Event::CapabilityUpdate(update))
            .await;
        sleep(Duration::from_millis(200)).await;
    }
    device.heartbeat().await;
    world
        .cluster
        .until("it is degraded", |cluster| {
            cluster.device("lamp-1")["status"]["presence"] == "Degraded"
        })
        .await;
    assert_eq!(world.cluster.log_of("devices").len(), 2);
    world
        .cluster
        .add_invocation(&invocation("say-hi", "lamp-1"));
    let status = world.cluster.until_phase("say-hi", "Failed").await["status"].clone();
    assert_eq!(status["error"]["code"], "CapabilityUnavailable");
}

#[tokio::test(start_paused = true)]
async fn a_capability_that_cannot_be_named_ends_the_stream() {
    let world = World::new().await;
    let mut device = world.welcomed("lamp-1").await;
    let update = node::CapabilityUpdate {
        capabilities: vec![node::Capability {
            name: "Not A Name".to_owned(),
            ..Default::default()
        }],
    };
    device
        .send(device_event::Event::CapabilityUpdate(update))
        .await;
    assert_eq!(device.end().await.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_changed_grant_shows_in_the_status() {
    let world = World::new().await;
    let _device = world.welcomed("lamp-1").await;
    world.cluster.edit("devices", "lamp-1", |device| {
        device["spec"]["grants"]["capabilities"] = json!([]);
    });
    world
        .cluster
        .until("it is not granted", |cluster| {
            cluster.device("lamp-1")["status"]["capabilities"][0]["granted"] == "NotGranted"
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn welcome_does_not_wait_for_an_api_server_that_is_away() {
    for fault in [Fault::Down, Fault::Silent] {
        let world = World::new().await;
        world.cluster.set_fault(Some(fault));
        let before = tokio::time::Instant::now();
        let mut device = world.welcomed("lamp-1").await;
        assert!(
            before.elapsed() <= Duration::from_millis(2100),
            "{:?}",
            before.elapsed()
        );
        assert_eq!(device.welcome.take().unwrap().epoch, 1);
        for _ in 0..2 {
            sleep(Duration::from_secs(14)).await;
            device.heartbeat().await;
        }
        world.cluster.set_fault(None);
        world
            .cluster
            .until("the session is written", |cluster| {
                cluster.device("lamp-1")["status"]["session"]["epoch"] == 1
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_written_once_the_api_server_is_back() {
    let world = World::new().await;
    let device = world.welcomed("lamp-1").await;
    world.cluster.set_fault(Some(Fault::Down));
    drop(device);
    sleep(Duration::from_mins(2)).await;
    world.cluster.set_fault(None);
    world
        .cluster
        .until("the session has ended", |cluster| {
            !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_arrives_late_does_not_outlive_its_session() {
    let world = World::new().await;
    world.cluster.set_fault(Some(Fault::Late));
    let device = world.welcomed("lamp-1").await;
    drop(device);
    world.until_streams(0).await;
    world.cluster.set_fault(None);
    sleep(Duration::from_secs(30)).await;
    let session = world.cluster.device("lamp-1")["status"]["session"].clone();
    assert!(!session["endedAt"].is_null(), "{session}");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_leaves_before_anything_was_written_costs_no_write() {
    let world = World::new().await;
    let places = world.node.shared.requests.take_session_places();
    let device = world.welcomed("lamp-1").await;
    drop(device);
    world.until_streams(0).await;
    drop(places);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.cluster.log_of("devices"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_overtaken_is_written_to_what_is_there_now() {
    let world = World::new().await;
    world.cluster.set_fault(Some(Fault::Overtaken));
    let mut device = world.welcomed("lamp-1").await;
    assert_eq!(device.welcome.take().unwrap().epoch, 1);
    assert_eq!(
        world.cluster.log_of("devices"),
        [
            "PATCH devices/lamp-1/status",
            "GET devices/lamp-1",
            "PATCH devices/lamp-1/status"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_stops_sends_its_devices_away_and_ends_their_sessions() {
    let world = World::new().await;
    let mut devices = [
        world.welcomed("lamp-1").await,
        world.welcomed("lamp-2").await,
    ];
    let node = world.node.clone();
    let drained = async { node.drain().await };
    let left = async {
        for device in &mut devices {
            assert!(matches!(device.next().await, Ok(Event::Drain(_))));
            assert_eq!(device.end().await.code(), Code::Unavailable);
        }
    };
    tokio::join!(drained, left);
    for name in ["lamp-1", "lamp-2"] {
        assert!(
            !world.cluster.device(name)["status"]["session"]["endedAt"].is_null(),
            "{name}"
        );
    }
    let registration = register(&mut world.connect().await, "lamp-1")
        .await
        .unwrap();
    let mut late = FakeDevice::open(world.connect().await, "lamp-1")
        .await
        .unwrap();
    late.send(device_event::Event::Hello(node::Hello { registration }))
        .await;
    assert_eq!(late.end().await.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_stops_does_not_wait_for_ever_for_an_api_server_that_is_away() {
    let world = World::new().await;
    let _device = world.welcomed("lamp-1").await;
    world.cluster.set_fault(Some(Fault::Silent));
    let before = tokio::time::Instant::now();
    world.node.drain().await;
    assert!(before.elapsed() <= settings().drain_within + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn sessions_of_an_earlier_life_of_the_gateway_are_ended() {
    let cluster = cluster::Cluster::new();
    let mut orphan = device("lamp-1");
    orphan.status = Some(
        serde_json::from_value(json!({
            "session": { "gateway": GATEWAY, "epoch": 7, "connectedAt": "2026-01-01T00:00:00Z" },
        }))
        .unwrap(),
    );
    cluster.add_device(&orphan);
    orphan.metadata.name = Some("lamp-2".to_owned());
    if let Some(session) = orphan
        .status
        .as_mut()
        .and_then(|status| status.session.as_mut())
    {
        session.gateway = "gateway-b".to_owned();
    }
    cluster.add_device(&orphan);
    let supervisor = runtime::shutdown::Supervisor::new();
    let mut registry = prometheus_client::registry::Registry::default();
    let _node = super::Node::start(
        cluster.client(),
        settings(),
        world::renewals(&cluster),
        &supervisor.tasks(),
        &mut registry,
    );
    cluster
        .until("the session has ended", |cluster| {
            !cluster.device("lamp-1")["status"]["session"]["endedAt"].is_null()
        })
        .await;
    sleep(Duration::from_mins(1)).await;
    assert_eq!(cluster.log_of("devices"), ["PATCH devices/lamp-1/status"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_life_may_have_sent_is_marked_before_its_sessions_end() {
    let cluster = cluster::Cluster::new();
    let mut orphan = device("lamp-1");
    orphan.status = Some(
        serde_json::from_value(json!({
            "session": { "gateway": GATEWAY, "epoch": 7, "connectedAt": "2026-01-01T00:00:00Z" },
        }))
        .unwrap(),
    );
    cluster.add_device(&orphan);
    cluster.add_invocation(&truth::a_minute_ago(&invocation("say-hi", "lamp-1")));
    let supervisor = runtime::shutdown::Supervisor::new();
    let mut registry = prometheus_client::registry::Registry::default();
    let _node = super::Node::start(
        cluster.client(),
        settings(),
        world::renewals(&cluster),
        &supervisor.tasks(),
        &mut registry,
    );
    cluster
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
async fn there_are_no_more_streams_than_may_be() {
    let mut settings = settings();
    settings.max_streams = 1;
    let world = World::with(settings).await;
    let _first = world.welcomed("lamp-1").await;
    let mut second = world.device("lamp-2").await;
    let status = second.end().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.metadata().contains_key(proto::RETRY_AFTER));
}
