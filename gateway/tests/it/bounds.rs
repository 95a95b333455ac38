//! What those may hold who come, and what the others hear when it is all taken.

use std::time::Duration;

use gateway::listener::Limits;
use proto::{
    RETRY_AFTER,
    node::{Proof, enroll_request::Step, enroll_response::Step as Answer},
};
use tokio::{io::AsyncReadExt as _, time::timeout};
use tonic::{Code, Status};

use crate::{
    authority::{DeviceKey, Identity},
    hub::{Hub, SOON, Tries},
    stranger::{Enrolling, Refused, channel_over, connect, register},
    wire::assert_served,
};

#[tokio::test]
async fn an_idle_enrollee_yields_its_place_to_the_next_one() {
    for limits in [
        Limits {
            strangers: 1,
            ..Limits::default()
        },
        Limits {
            strangers_per_address: 1,
            ..Limits::default()
        },
    ] {
        let hub = Hub::with_limits(limits).await;
        let code = hub.add_code(5, 5);
        let key = DeviceKey::generate();
        let mut idle = Enrolling::start(hub.address, &DeviceKey::generate())
            .await
            .unwrap();
        let mut next = Enrolling::start(hub.address, &key).await.unwrap();
        assert_full(&idle.next().await.unwrap_err());
        next.prove(&code).await.unwrap();
        assert!(matches!(next.apply(&key).await, Ok(Answer::Pending(_))));
        assert_served(&hub).await;
    }
}

#[tokio::test]
async fn an_enrollee_that_was_challenged_keeps_its_place_for_the_proof() {
    let limits = Limits {
        strangers: 1,
        ..Limits::default()
    };
    let hub = Hub::with_limits(limits).await;
    let code = hub.add_code(5, 5);
    let key = DeviceKey::generate();
    let mut first = Enrolling::start(hub.address, &key).await.unwrap();
    let ke3 = first.challenge(&code).await.unwrap();
    let refused = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .err()
        .unwrap();
    assert_full(&refused);
    first.send(Step::Proof(Proof { ke3 })).await;
    assert!(matches!(first.apply(&key).await, Ok(Answer::Pending(_))));
    assert_served(&hub).await;
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

fn assert_full(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let after = status
        .metadata()
        .get(RETRY_AFTER)
        .expect("it says when to come back");
    assert!(after.to_str().unwrap().parse::<u64>().is_ok());
}
