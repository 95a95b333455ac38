//! A device whose certificate is about to end, at its gateways: a day in a minute.

use std::{process::Stdio, time::Duration};

use node_agent::{
    host::clock::wall,
    state::{Folder, Identity, identity::Der},
    status::Status,
};
use proto::node::{
    Drain, Renewed, device_event::Event as FromDevice, gateway_event::Event as FromGateway,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    process::{Child, Command},
    time::sleep,
};
use tonic::Status as Refusal;

use crate::{
    gateway::{Authority, Gateway, Manners, SEQUENCE, StreamCall},
    serving::{Device, ack, order},
};

const HOUR: u64 = 3600;

/// What a gateway makes of a request.
type Answer<'a> = &'a dyn Fn(&[u8]) -> Renewed;

fn now() -> u64 {
    u64::try_from(wall().as_second()).unwrap()
}

/// Gives the device a certificate of that length and that age, and returns it.
fn certified(device: &Device, authority: &Authority, length: u64, age: u64) -> Vec<u8> {
    let folder = Folder::open(&device.path()).unwrap();
    let pkcs10 = folder.key().unwrap().certificate_request().unwrap();
    let from = now() - age;
    let leaf = authority.device_for((from, from + length), &pkcs10, "kitchen", "lamp");
    let identity = folder.view().identity().unwrap().unwrap();
    let chain = [leaf.clone(), authority.der()];
    folder
        .save_identity(&Identity {
            chain: chain.map(|der| Der(CertificateDer::from(der))).into(),
            ..identity
        })
        .unwrap();
    leaf
}

/// The request of the next event.
async fn asked(stream: &mut StreamCall) -> Vec<u8> {
    match stream.next().await {
        FromDevice::Renew(renew) => renew.pkcs10,
        other => unreachable!("{other:?}"),
    }
}

/// A day from now on.
fn next(authority: &Authority, pkcs10: &[u8]) -> Renewed {
    let from = now() - 1;
    Renewed {
        chain: vec![
            authority.device_for((from, from + 24 * HOUR), pkcs10, "kitchen", "lamp"),
            authority.der(),
        ],
        signed_bundle: authority.own_bundle(),
    }
}

async fn answer(stream: &StreamCall, renewed: &Renewed) {
    stream.send(FromGateway::Renewed(renewed.clone())).await;
}

fn kept(device: &Device) -> Vec<u8> {
    let identity = device.view().identity().unwrap().unwrap();
    identity.chain().next().unwrap().to_vec()
}

#[tokio::test]
async fn a_certificate_of_a_minute_is_renewed_at_two_thirds_and_no_result_is_lost() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let old = certified(&device, &authority, 60, 39);
    let from = now() - 39;
    let status = Status::read(&device.path(), wall()).unwrap();
    let due: jiff::Timestamp = status.certificate.unwrap().renews_at.parse().unwrap();
    let due = u64::try_from(due.as_second()).unwrap();
    assert!((from + 39..=from + 46).contains(&due), "{due} - {from}");

    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    assert_eq!(stream.leaf, old);
    order(&stream, "u1", "a").await;
    let result = stream.result().await;
    let pkcs10 = asked(&mut stream).await;
    let asked_at = now();
    assert!(
        (due..=due + 5).contains(&asked_at),
        "{asked_at} instead of {due}"
    );
    let renewed = next(&authority, &pkcs10);
    answer(&stream, &renewed).await;

    let mut stream = gateway.stream().await;
    assert_eq!(stream.leaf, renewed.chain[0]);
    assert_eq!(kept(&device), renewed.chain[0]);
    // It was not acked on the stream that ended.
    assert_eq!(stream.result().await, result);
    ack(&stream, "u1").await;
    order(&stream, "u2", "b").await;
    assert_eq!(stream.result().await.uid, "u2");
    let shown = Status::read(&device.path(), wall()).unwrap().to_string();
    assert!(shown.contains("renewal:      asked for from 20"), "{shown}");
    let much_later = wall() + Duration::from_secs(48 * HOUR);
    let shown = Status::read(&device.path(), much_later)
        .unwrap()
        .to_string();
    assert!(shown.contains("pair it again"), "{shown}");
}

#[tokio::test]
async fn a_certificate_that_comes_from_a_gateway_that_goes_is_used_after_the_moment_that_it_named()
{
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    certified(&device, &authority, HOUR, HOUR - 300);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    let pkcs10 = asked(&mut stream).await;
    let reconnect_after_ms = 300;
    stream
        .send(FromGateway::Drain(Drain { reconnect_after_ms }))
        .await;
    let renewed = next(&authority, &pkcs10);
    answer(&stream, &renewed).await;
    // What is dispatched after it is answered all the same: the stream ends at the moment that was named.
    order(&stream, "u1", "a").await;
    assert_eq!(stream.result().await.uid, "u1");
    assert_eq!(kept(&device), renewed.chain[0]);
    assert_eq!(gateway.stream().await.leaf, renewed.chain[0]);
}

#[tokio::test]
async fn a_device_asks_on_every_stream_until_it_is_answered_and_then_no_more() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let device = Device::new(&authority, &[&gateway]);
    let old = certified(&device, &authority, HOUR, HOUR - 300);
    let process = device.start().await;
    let mut stream = gateway.stream().await;
    let first = asked(&mut stream).await;
    stream.fail(Refusal::unavailable("the gateway stops")).await;
    drop(stream);
    let mut stream = gateway.stream().await;
    assert_eq!(asked(&mut stream).await, first, "one request, asked again");
    drop(process);
    drop(stream);
    let _process = device.start().await;
    let mut stream = gateway.stream().await;
    assert_eq!(stream.leaf, old);
    let renewed = next(&authority, &asked(&mut stream).await);
    answer(&stream, &renewed).await;
    let mut stream = gateway.stream().await;
    assert_eq!(stream.leaf, renewed.chain[0]);
    order(&stream, "u1", "a").await;
    // And no question before it.
    assert!(matches!(
        stream.next().await,
        FromDevice::Accepted(_) | FromDevice::Result(_)
    ));
}

#[tokio::test]
async fn what_a_hostile_gateway_answers_is_kept_out_and_the_old_certificate_goes_on() {
    let (authority, foreign) = (Authority::new("ours"), Authority::new("theirs"));
    let stranger = node_agent::state::DeviceKey::generate().unwrap();
    let strangers = stranger.certificate_request().unwrap();
    let other = |by: &Authority, until: u64, pkcs10: &[u8], device: &str| Renewed {
        chain: vec![
            by.device_for((now() - 10, until), pkcs10, "kitchen", device),
            by.der(),
        ],
        signed_bundle: by.own_bundle(),
    };
    let (day, minute) = (now() + 24 * HOUR, now() + 60);
    let both = [&authority, &foreign];
    let with_bundle = |signed_bundle: Vec<u8>, ours: &[u8]| Renewed {
        signed_bundle,
        ..next(&authority, ours)
    };
    let cases: [(&str, Answer<'_>); 11] = [
        ("its own authority beside ours", &|ours| {
            with_bundle(foreign.signed_bundle(SEQUENCE + 1, &both), ours)
        }),
        (
            "an older bundle with an authority that was removed",
            &|ours| with_bundle(authority.signed_bundle(SEQUENCE - 1, &both), ours),
        ),
        ("another bundle of the same sequence", &|ours| {
            with_bundle(authority.signed_bundle(SEQUENCE, &both), ours)
        }),
        ("no bundle", &|ours| with_bundle(Vec::new(), ours)),
        ("half a bundle", &|ours| {
            with_bundle(authority.own_bundle()[..300].to_vec(), ours)
        }),
        ("another key", &|_| {
            other(&authority, day, &strangers, "lamp")
        }),
        ("another name", &|ours| other(&authority, day, ours, "oven")),
        ("a foreign authority", &|ours| {
            other(&foreign, day, ours, "lamp")
        }),
        ("an older one", &|ours| {
            other(&authority, minute, ours, "lamp")
        }),
        ("nothing", &|_| Renewed::default()),
        ("garbage", &|_| Renewed {
            chain: vec![b"garbage".to_vec(); 3],
            signed_bundle: vec![0; 60_000],
        }),
    ];
    for (case, hostile) in cases {
        let mut gateway = Gateway::start(&authority, Manners::default()).await;
        let device = Device::new(&authority, &[&gateway]);
        let old = certified(&device, &authority, HOUR, HOUR - 300);
        let _process = device.start().await;
        let mut stream = gateway.stream().await;
        let pkcs10 = asked(&mut stream).await;
        answer(&stream, &hostile(&pkcs10)).await;
        // Of no use any more: one answer for each question.
        answer(&stream, &next(&authority, &pkcs10)).await;
        order(&stream, "u1", "a").await;
        assert_eq!(stream.result().await.uid, "u1", "{case}");
        ack(&stream, "u1").await;
        assert_eq!(kept(&device), old, "{case}");
        let identity = device.view().identity().unwrap().unwrap();
        assert_eq!(identity.bundle_sequence, SEQUENCE, "{case}");
        let held: Vec<_> = identity.authorities();
        assert_eq!(held, [CertificateDer::from(authority.der())], "{case}");
        let shown = Status::read(&device.path(), wall()).unwrap().to_string();
        assert!(shown.contains("not accepted: "), "{case}: {shown}");
        stream.fail(Refusal::unavailable("the gateway stops")).await;
        drop(stream);
        let mut stream = gateway.stream().await;
        assert_eq!(stream.leaf, old, "{case}");
        let renewed = loop {
            match stream.next().await {
                FromDevice::Renew(renew) => break next(&authority, &renew.pkcs10),
                FromDevice::Result(_) => {}
                other => unreachable!("{other:?}"),
            }
        };
        answer(&stream, &renewed).await;
        assert_eq!(gateway.stream().await.leaf, renewed.chain[0], "{case}");
        assert_eq!(device.view().refused().unwrap(), None, "{case}");
    }
}

#[tokio::test]
async fn an_agent_that_dies_anywhere_in_a_renewal_comes_back_with_one_certificate_or_the_other() {
    let authority = Authority::new("ours");
    for millis in [0, 1, 2, 4, 8, 16, 32, 64] {
        let manners = Manners {
            heartbeat: Duration::from_millis(50),
            ..Manners::default()
        };
        let mut gateway = Gateway::start(&authority, manners).await;
        let device = Device::new(&authority, &[&gateway]);
        let old = certified(&device, &authority, HOUR, HOUR - 300);
        let process = device.start().await;
        let mut stream = gateway.stream().await;
        let renewed = next(&authority, &asked(&mut stream).await);
        let new = &renewed.chain[0];
        answer(&stream, &renewed).await;
        sleep(Duration::from_millis(millis)).await;
        drop(process);
        drop(stream);

        let left = kept(&device);
        assert!(left == old || left == *new, "{millis} ms");
        let _process = device.start().await;
        'streams: loop {
            let mut stream = gateway.stream().await;
            // One of the process that died ends by itself.
            while let Some(event) = stream.any_or_end().await {
                match event {
                    FromDevice::Renew(_) => {
                        assert_eq!(stream.leaf, old, "{millis} ms");
                        answer(&stream, &renewed).await;
                    }
                    _ if stream.leaf == *new => break 'streams,
                    _ => {}
                }
            }
        }
        assert_eq!(kept(&device), *new, "{millis} ms");
    }
}

/// The program itself, on a device's state.
fn spawn(device: &Device) -> Child {
    Command::new(env!("CARGO_BIN_EXE_fairlead-agent"))
        .env_clear()
        .arg("--state-dir")
        .arg(device.path())
        .arg("run")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_program_that_is_killed_in_a_renewal_comes_back_with_one_certificate_or_the_other() {
    let authority = Authority::new("ours");
    for micros in [0, 200, 500, 1_000, 2_000, 4_000, 8_000, 30_000] {
        let manners = Manners {
            heartbeat: Duration::from_millis(50),
            ..Manners::default()
        };
        let mut gateway = Gateway::start(&authority, manners).await;
        let device = Device::new(&authority, &[&gateway]);
        let old = certified(&device, &authority, HOUR, HOUR - 300);
        let mut process = spawn(&device);
        let mut stream = gateway.stream().await;
        let renewed = next(&authority, &asked(&mut stream).await);
        let new = &renewed.chain[0];
        answer(&stream, &renewed).await;
        sleep(Duration::from_micros(micros)).await;
        process.start_kill().unwrap();
        process.wait().await.unwrap();
        drop(stream);

        let left = kept(&device);
        assert!(left == old || left == *new, "{micros} µs");
        let _process = spawn(&device);
        'streams: loop {
            let mut stream = gateway.stream().await;
            while let Some(event) = stream.any_or_end().await {
                match event {
                    FromDevice::Renew(_) => {
                        assert_eq!(stream.leaf, old, "{micros} µs");
                        answer(&stream, &renewed).await;
                    }
                    _ if stream.leaf == *new => break 'streams,
                    _ => {}
                }
            }
        }
        assert_eq!(kept(&device), *new, "{micros} µs");
    }
}
