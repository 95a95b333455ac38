//! Floods from sixteen addresses that hold what they can and do nothing with it. Devices and strangers of other addresses
//! are served all the same.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use gateway::listener::Limits;
use proto::node::enroll_response::Step as Answer;
use rustls::ClientConnection;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    authority::DeviceKey,
    hub::{Hub, SOON},
    stranger::{Enrolling, channel_over, config_of, handshake_from},
    wire::assert_served,
};

/// Sources of the flood. Honest peers come from 127.0.0.1.
fn attackers() -> impl Iterator<Item = [u8; 4]> {
    (2..18).map(|last| [127, 0, 0, last])
}

/// Few places, though more than there are attackers, and no time in which one would become free by itself.
fn tight() -> Limits {
    Limits {
        silent: 64,
        handshakes: 64,
        handshake_time: Duration::from_mins(5),
        handshakes_per_second: 100_000,
        strangers: 8,
        strangers_per_address: 4,
        turned_away: 4,
        turned_away_time: Duration::from_mins(5),
        stranger_time: Duration::from_mins(5),
        ..Limits::default()
    }
}

/// Twenty connections of each attacker, each of which sends that and no more.
async fn flood(hub: &Hub, bytes: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..20 {
        for source in attackers() {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((source, 0).into()).unwrap();
            let mut stream = socket.connect(hub.address).await.unwrap();
            // Fails where it was ended already.
            let _ = stream.write_all(bytes).await;
            open.push(stream);
        }
    }
    open
}

fn client_hello() -> Vec<u8> {
    let mut config = config_of(DeviceKey::generate().self_signed());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = proto::SERVER_NAME.try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

async fn assert_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
}

#[tokio::test]
async fn silent_connections_of_sixteen_addresses_keep_no_device_out() {
    let hub = Hub::with_limits(tight()).await;
    let open = flood(&hub, &[]).await;
    for _ in 0..5 {
        assert_served(&hub).await;
    }
    drop(open);
}

#[tokio::test]
async fn connections_that_send_a_part_of_a_hello_keep_no_device_out() {
    let hub = Hub::with_limits(tight()).await;
    let hello = client_hello();
    let mut open = flood(&hub, &hello[..hello.len() / 2]).await;
    for piece in hello[hello.len() / 2..].chunks(40).take(5) {
        for stream in &mut open {
            let _ = stream.write_all(&piece[..1]).await;
        }
        assert_served(&hub).await;
    }
}

#[tokio::test]
async fn connections_that_say_hello_and_no_more_keep_no_device_out() {
    let hub = Hub::with_limits(tight()).await;
    let open = flood(&hub, &client_hello()).await;
    for _ in 0..5 {
        assert_served(&hub).await;
    }
    drop(open);
}

/// More than all that is kept: the rest is closed at once, though none of it is late.
#[tokio::test]
async fn what_is_kept_of_a_flood_is_bounded() {
    let limits = Limits {
        silent: 4,
        ..tight()
    };
    let hub = Hub::with_limits(limits).await;
    let mut open = flood(&hub, &[]).await;
    let all = open.len();
    let ends: FuturesUnordered<_> = open.iter_mut().map(|stream| stream.read_u8()).collect();
    let closed = ends.take(all - limits.silent).count();
    let closed = timeout(SOON, closed).await.expect("more is kept");
    assert_eq!(closed, all - limits.silent);
}

#[tokio::test]
async fn strangers_of_sixteen_addresses_keep_neither_a_stranger_nor_a_device_out() {
    let hub = Hub::with_limits(tight()).await;
    let code = hub.add_code(5, 5);
    let mut idle = Vec::new();
    for _ in 0..3 {
        for source in attackers() {
            let config = config_of(DeviceKey::generate().self_signed());
            idle.push(handshake_from(source, hub.address, config).await.unwrap());
        }
    }
    let key = DeviceKey::generate();
    let mut honest = Enrolling::start(hub.address, &key).await.unwrap();
    honest.prove(&code).await.unwrap();
    let Ok(Answer::Pending(pending)) = honest.apply(&key).await else {
        panic!("not pending");
    };
    assert_served(&hub).await;
    // The flood goes on, and does not end what waits for a decision.
    for source in attackers() {
        let config = config_of(DeviceKey::generate().self_signed());
        let stream = handshake_from(source, hub.address, config).await.unwrap();
        idle.push(stream);
    }
    hub.decide(&pending.request, &json!({ "phase": "Expired" }));
    assert!(matches!(honest.next().await, Ok(Answer::Expired(_))));
}

/// Enrollees with a call that leads nowhere.
#[tokio::test]
async fn calls_of_strangers_that_say_nothing_keep_no_stranger_out() {
    let hub = Hub::with_limits(tight()).await;
    let code = hub.add_code(5, 5);
    let mut idle = Vec::new();
    for source in attackers() {
        let config = config_of(DeviceKey::generate().self_signed());
        let stream = handshake_from(source, hub.address, config).await.unwrap();
        idle.push(Enrolling::over(stream).await.unwrap());
    }
    let key = DeviceKey::generate();
    let mut honest = Enrolling::start(hub.address, &key).await.unwrap();
    honest.prove(&code).await.unwrap();
    assert!(matches!(honest.apply(&key).await, Ok(Answer::Pending(_))));
}

/// Who opens connections faster than its address may is dropped before it costs anything.
#[tokio::test]
async fn one_address_that_floods_the_port_does_not_keep_devices_of_another_out() {
    let limits = Limits {
        handshakes_per_second: 4,
        handshakes_per_second_per_address: 2,
        handshake_time: Duration::from_mins(5),
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let mut flood = Vec::new();
    for _ in 0..300 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        flood.push(socket.connect(hub.address).await.unwrap());
    }
    assert_served(&hub).await;
    assert_closed(flood.last_mut().unwrap()).await;
}

#[tokio::test]
async fn a_device_is_served_while_devices_without_a_place_are_turned_away() {
    let limits = Limits {
        devices: 1,
        turned_away: 2,
        ..tight()
    };
    let hub = Hub::with_limits(limits).await;
    let first = handshake_from(
        [127, 0, 0, 2],
        hub.address,
        config_of(hub.authority.device("lamp")),
    );
    let first = channel_over(first.await.unwrap()).await;
    let mut others = Vec::new();
    for n in 0..6 {
        let config = config_of(hub.authority.device(&format!("fan-{n}")));
        others.push(
            handshake_from([127, 0, 0, 3], hub.address, config)
                .await
                .unwrap(),
        );
    }
    // The last one has the answer that it cannot be served, however many came before.
    let status = crate::stranger::register(hub.address, hub.authority.device("clock"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    drop((first, others));
}
