//! Those who do not speak our language, or speak too much of it. They are cut off, and nobody else notices.

use std::{net::SocketAddr, time::Duration};

use futures::TryStreamExt as _;
use gateway::listener::Limits;
use proto::node::{
    Begin, DeviceEvent, EnrollRequest, Heartbeat, device_event, enroll_request::Step,
    enrollment_client::EnrollmentClient, node_service_client::NodeServiceClient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Request, metadata::MetadataValue};

use crate::{
    authority::DeviceKey,
    hub::{Hub, SOON},
    stranger::{channel_over, connect, register},
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn plain_http_and_garbage_are_cut_off() {
    let limits = Limits {
        // Else all of them would end by that, whatever they said.
        handshake_time: Duration::from_mins(5),
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"[..],
        PREFACE,
        &[0; 1024],
        &[0xff; 16 * 1024],
        // A TLS record that announces more than a record may hold.
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        answer_to(hub.address, bytes).await;
    }
    assert_served(&hub).await;
}

/// What comes back until the connection is closed; fails where it stays open.
pub async fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Fails where the gateway was quicker to close than we to write.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("the connection stays open");
    answer
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_frees_its_slot() {
    let limits = Limits {
        handshakes: 2,
        handshake_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let mut silent = TcpStream::connect(hub.address).await.unwrap();
    let mut slow = TcpStream::connect(hub.address).await.unwrap();
    slow.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    for stream in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut rest))
            .await
            .expect("the connection stays open");
    }
    assert_served(&hub).await;
}

#[tokio::test]
async fn a_device_that_sends_nothing_after_its_handshake_frees_its_place() {
    let limits = Limits {
        devices: 1,
        handshake_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let mut silent = connect(hub.address, hub.authority.device("fan")).await;
    let mut rest = Vec::new();
    let _ = timeout(SOON, silent.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    timeout(SOON, async {
        while register(hub.address, hub.authority.device("lamp"))
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("its place stays taken");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_with_a_clear_status() {
    let hub = Hub::start().await;
    let channel =
        channel_over(connect(hub.address, DeviceKey::generate().self_signed()).await).await;
    let begin = Begin {
        code_id: "7KQ2".to_owned(),
        ke1: vec![0; 40 * 1024],
    };
    let request = EnrollRequest {
        step: Some(Step::Begin(begin)),
    };
    let mut answers = EnrollmentClient::new(channel)
        .enroll(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let refused = timeout(SOON, answers.message()).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(refused.message().contains("too large"), "{refused}");
    assert_served(&hub).await;
}

/// What a device may send is more than a stranger may make us hold.
#[tokio::test]
async fn what_a_stranger_sends_to_services_for_devices_is_not_even_read() {
    let hub = Hub::start().await;
    let stream = connect(hub.address, DeviceKey::generate().self_signed()).await;
    let mut node = NodeServiceClient::new(channel_over(stream).await);
    let endless = futures::stream::repeat_with(|| DeviceEvent { event: None });
    let refused = timeout(SOON, node.event_stream(endless))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_served(&hub).await;
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let hub = Hub::start().await;
    let channel =
        channel_over(connect(hub.address, DeviceKey::generate().self_signed()).await).await;
    let mut request = Request::new(tokio_stream::empty());
    let giant = MetadataValue::try_from("x".repeat(12 * 1024)).unwrap();
    request.metadata_mut().insert("giant", giant);
    // HTTP/2 answers 431, which gRPC makes the error of the first message.
    let mut enrollment = EnrollmentClient::new(channel);
    let refused = timeout(SOON, async {
        enrollment
            .enroll(request)
            .await?
            .into_inner()
            .message()
            .await
    });
    let refused = refused.await.unwrap().unwrap_err();
    assert!(refused.message().contains("431"), "{refused}");
    assert_served(&hub).await;
}

#[tokio::test]
async fn an_http_2_frame_that_is_too_large_ends_the_connection() {
    let hub = Hub::start().await;
    let mut stream = connect(hub.address, hub.authority.device("lamp")).await;
    stream.write_all(PREFACE).await.unwrap();
    // DATA of 16 MiB on stream 1.
    stream
        .write_all(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    assert_served(&hub).await;
}

/// As after a pause of the gateway: all of it is there when it reads again. h2 counts small frames that were not read.
#[tokio::test]
async fn many_small_messages_in_one_write_do_not_end_a_connection() {
    const HEARTBEATS: usize = 1000;
    let hub = Hub::start().await;
    let stream = connect(hub.address, hub.authority.device("lamp")).await;
    let mut node = NodeServiceClient::new(channel_over(stream).await);
    let heartbeat = || DeviceEvent {
        event: Some(device_event::Event::Heartbeat(Heartbeat {})),
    };
    let burst: Vec<_> = std::iter::repeat_with(heartbeat).take(HEARTBEATS).collect();
    let acks = timeout(SOON, async {
        let answers = node.event_stream(futures::stream::iter(burst)).await?;
        answers.into_inner().try_collect::<Vec<_>>().await
    });
    let acks = acks.await.unwrap().unwrap();
    assert_eq!(acks.len(), HEARTBEATS);
}

/// It makes the gateway write and reads nothing, until nothing more can be written.
#[tokio::test]
async fn an_enrollee_that_never_reads_is_shown_out_in_time() {
    let limits = Limits {
        stranger_time: Duration::from_millis(700),
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let mut stream = connect(hub.address, DeviceKey::generate().self_signed()).await;
    stream.write_all(PREFACE).await.unwrap();
    let pings = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(1000);
    // Until the gateway hears us no more, for its answers are stuck; then until it is rid of us.
    let flood = async { while stream.write_all(&pings).await.is_ok() {} };
    timeout(SOON, flood)
        .await
        .expect("the gateway never gave up");
    assert_served(&hub).await;
}

pub async fn assert_served(hub: &Hub) {
    assert_eq!(
        register(hub.address, hub.authority.device("lamp"))
            .await
            .unwrap(),
        "lamp"
    );
}
