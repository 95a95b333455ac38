//! What those may hold who come, and what the others hear when it is all taken.

use std::time::Duration;

use gateway::listener::Limits;
use proto::{RETRY_AFTER, node::enroll_response::Step as Answer};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tonic::{Code, Status};

use crate::{
    authority::{DeviceKey, Identity},
    hub::{Hub, SOON, Tries},
    stranger::{Enrolling, Refused, channel_over, connect, register},
    wire::assert_served,
};

#[tokio::test]
async fn enrollees_are_bounded_and_leave_room_for_devices() {
    let hub = Hub::with_limits(Limits {
        strangers: 1,
        ..Limits::default()
    })
    .await;
    let _first = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .unwrap();
    let refused = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .err()
        .unwrap();
    assert_full(&refused);
    assert_served(&hub).await;
}

#[tokio::test]
async fn one_address_does_not_take_all_the_places_of_enrollees() {
    let hub = Hub::with_limits(Limits {
        strangers_per_address: 1,
        ..Limits::default()
    })
    .await;
    let first = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .unwrap();
    let refused = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .err()
        .unwrap();
    assert_full(&refused);
    assert!(refused.message().contains("address"), "{refused}");
    drop(first);
    // Its place is free when the gateway has noticed.
    timeout(SOON, async {
        while Enrolling::start(hub.address, &DeviceKey::generate())
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_who_waits_for_a_decision_gives_his_place_to_the_next_stranger() {
    let limits = Limits {
        strangers: 1,
        waiting: 1,
        turned_away: 8,
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let code = hub.add_code(5, 5);
    let key = DeviceKey::generate();
    let mut first = Enrolling::start(hub.address, &key).await.unwrap();
    first.prove(&code).await.unwrap();
    assert!(matches!(first.apply(&key).await, Ok(Answer::Pending(_))));

    let key = DeviceKey::generate();
    let mut second = Enrolling::start(hub.address, &key).await.unwrap();
    second.prove(&code).await.unwrap();
    // Its use is spent, so that it may come back; but there is no place to wait.
    assert_full(&second.next().await.unwrap_err());
    assert_eq!(hub.counts(), (0, 2));
    assert_served(&hub).await;
}

#[tokio::test]
async fn devices_are_bounded_and_told_when_to_come_back() {
    let hub = Hub::with_limits(Limits {
        devices: 1,
        ..Limits::default()
    })
    .await;
    let first = channel_over(connect(hub.address, hub.authority.device("lamp")).await).await;
    assert_full(
        &register(hub.address, hub.authority.device("fan"))
            .await
            .unwrap_err(),
    );
    drop(first);
    timeout(SOON, async {
        while register(hub.address, hub.authority.device("fan"))
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_device_does_not_take_the_places_of_all() {
    let limits = Limits {
        connections_per_device: 2,
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let one = hub.authority.device("lamp");
    let again = || Identity {
        chain: one.chain.clone(),
        key: one.key.clone_key(),
    };
    let _first = channel_over(connect(hub.address, again()).await).await;
    let _second = channel_over(connect(hub.address, again()).await).await;
    assert_full(&register(hub.address, again()).await.unwrap_err());
    assert_eq!(
        register(hub.address, hub.authority.device("fan"))
            .await
            .unwrap(),
        "fan"
    );
}

#[tokio::test]
async fn those_who_are_turned_away_do_not_linger() {
    let limits = Limits {
        devices: 1,
        turned_away_time: Duration::from_millis(200),
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let _first = channel_over(connect(hub.address, hub.authority.device("lamp")).await).await;
    let mut second = connect(hub.address, hub.authority.device("fan")).await;
    let mut rest = Vec::new();
    let _ = timeout(SOON, second.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
}

#[tokio::test]
async fn an_idle_enrollee_is_shown_out() {
    let hub = Hub::with_limits(Limits {
        stranger_time: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut idle = connect(hub.address, DeviceKey::generate().self_signed()).await;
    let mut rest = Vec::new();
    let _ = timeout(SOON, idle.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
}

#[tokio::test]
async fn silent_connections_of_one_address_leave_slots_to_others() {
    let limits = Limits {
        handshakes: 4,
        handshake_time: Duration::from_mins(5),
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(hub.address).await.unwrap());
    }
    // The third of this address is dropped at once, and no slot waits for it.
    let mut third = TcpStream::connect(hub.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(SOON, third.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
    drop(silent);
    timeout(SOON, async {
        loop {
            let device = hub.authority.device("lamp");
            let config = crate::stranger::config_of(device);
            if crate::stranger::handshake(hub.address, config)
                .await
                .is_ok()
            {
                return;
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn tries_of_codes_are_paced_per_address() {
    let hub = Hub::with(
        Limits::default(),
        Tries {
            all: 60_000,
            each: 1,
        },
    )
    .await;
    let code = hub.add_code(5, 1);
    let unknown = pairing::code::PairingCode::parse("0000-000000").unwrap();
    for _ in 0..10 {
        let mut enrolling = Enrolling::start(hub.address, &DeviceKey::generate())
            .await
            .unwrap();
        assert!(matches!(
            enrolling.challenge(&unknown).await,
            Err(Refused::ByDevice)
        ));
    }
    let mut enrolling = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .unwrap();
    let Err(Refused::ByGateway(refused)) = enrolling.challenge(&code).await else {
        panic!("an eleventh try in a row");
    };
    assert_full(&refused);
    assert_eq!(
        hub.counts(),
        (0, 0),
        "a try too many costs the code nothing"
    );
}

#[tokio::test]
async fn handshakes_are_paced_and_nobody_is_lost() {
    for (all, of_address) in [(5, 100), (100, 5)] {
        let limits = Limits {
            handshakes_per_second: all,
            handshakes_per_second_per_address: of_address,
            ..Limits::default()
        };
        let hub = Hub::with_limits(limits).await;
        for _ in 0..7 {
            assert_served(&hub).await;
        }
    }
}

/// Who opens connections by the hundred and says nothing costs the others neither slots nor pace.
#[tokio::test]
async fn one_address_that_floods_the_port_does_not_keep_devices_of_another_out() {
    let limits = Limits {
        handshakes: 8,
        handshake_time: Duration::from_mins(5),
        handshakes_per_second: 4,
        handshakes_per_second_per_address: 2,
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
    let dropped = flood.last_mut().unwrap();
    let _ = timeout(SOON, dropped.read_u8())
        .await
        .expect("what is too much is not kept");
}

fn assert_full(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let after = status
        .metadata()
        .get(RETRY_AFTER)
        .expect("it says when to come back");
    assert!(after.to_str().unwrap().parse::<u64>().is_ok());
}
