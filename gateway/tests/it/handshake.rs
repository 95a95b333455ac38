//! Who does not get past TLS. In TLS 1.3 the client learns of it with its first read.

use std::time::Duration;

use proto::node::{RegisterRequest, node_service_client::NodeServiceClient};
use rustls::{AlertDescription, Error};
use tokio::{io::AsyncReadExt as _, time::timeout};
use tonic::Code;

use crate::{
    authority::{Authority, DeviceKey, Identity, TRUST_DOMAIN, pretends_to_be_self_signed},
    hub::{Hub, SOON},
    stranger::{
        Enrolling, Tls, channel_over, config_of, connect, connect_without_certificate, handshake,
        register,
    },
};

#[tokio::test]
async fn a_device_is_known_by_its_certificate() {
    let hub = Hub::start().await;
    assert_eq!(
        register(hub.address, hub.authority.device("lamp"))
            .await
            .unwrap(),
        "lamp"
    );
}

#[tokio::test]
async fn who_has_no_certificate_of_ours_and_signed_none_himself_is_refused() {
    let hub = Hub::start().await;
    let uri = format!("spiffe://{TRUST_DOMAIN}/ns/kitchen/device/lamp");
    let elsewhere = "spiffe://elsewhere.example/ns/kitchen/device/lamp";
    let rows: [(&str, Identity, AlertDescription); 7] = [
        (
            "a foreign authority",
            Authority::new("foreign").client(&uri),
            AlertDescription::UnknownCA,
        ),
        // Found out by its signature.
        (
            "a foreign authority of our name",
            Authority::new("fairlead").client(&uri),
            AlertDescription::DecryptError,
        ),
        (
            "a copied issuer",
            pretends_to_be_self_signed(),
            AlertDescription::AccessDenied,
        ),
        (
            "a server",
            hub.authority.server().0,
            AlertDescription::AccessDenied,
        ),
        (
            "another trust domain",
            hub.authority.client(elsewhere),
            AlertDescription::AccessDenied,
        ),
        (
            "no device",
            hub.authority.client("https://home.example/"),
            AlertDescription::AccessDenied,
        ),
        (
            "two names",
            hub.authority.client_of_two_names(),
            AlertDescription::AccessDenied,
        ),
    ];
    for (row, identity, expected) in rows {
        assert_eq!(
            alert_on(connect(hub.address, identity).await).await,
            expected,
            "{row}"
        );
    }
    let stream = connect_without_certificate(hub.address).await;
    assert_eq!(
        alert_on(stream).await,
        AlertDescription::CertificateRequired
    );
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let hub = Hub::start().await;
    let hello = tls12_client_hello();
    let answer = crate::wire::answer_to(hub.address, &hello).await;
    // An alert record: handshake_failure or protocol_version, fatal.
    assert_eq!(answer.first(), Some(&0x15), "{answer:?}");
    assert_eq!(answer.get(5), Some(&2), "fatal: {answer:?}");
    assert_eq!(
        register(hub.address, hub.authority.device("lamp"))
            .await
            .unwrap(),
        "lamp"
    );
}

/// A ClientHello as clients sent it before TLS 1.3: without supported_versions.
fn tls12_client_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session; TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256; no compression.
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions = [
        // supported_groups: secp256r1
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        // signature_algorithms: ecdsa_secp256r1_sha256
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u16::try_from(body.len()).unwrap();
    let mut hello = vec![0x16, 3, 1];
    hello.extend((length + 4).to_be_bytes());
    hello.extend([1, 0]);
    hello.extend(length.to_be_bytes());
    hello.extend(body);
    hello
}

#[tokio::test]
async fn an_enrollee_is_no_device_and_a_device_does_not_enrol() {
    let hub = Hub::start().await;
    let refused = register(hub.address, DeviceKey::generate().self_signed())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("enrol first"), "{refused}");

    let stream = connect(hub.address, hub.authority.device("lamp")).await;
    let refused = Enrolling::over(stream).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("already enrolled"), "{refused}");
}

/// The handshake looks at the certificate once; the connection may last longer.
#[tokio::test]
async fn a_device_is_refused_on_a_connection_that_outlived_its_certificate() {
    let hub = Hub::start().await;
    let not_after = time::OffsetDateTime::now_utc() + Duration::from_secs(2);
    let device = hub.authority.brief_device("lamp", not_after);
    let channel = channel_over(connect(hub.address, device).await).await;
    let mut node = NodeServiceClient::new(channel);
    let refused = timeout(SOON, async {
        let mut served = 0;
        loop {
            match node.register(RegisterRequest::default()).await {
                Ok(_) => served += 1,
                Err(status) => return (served, status),
            }
        }
    });
    let (served, status) = refused.await.expect("it is served no longer");
    assert!(served > 0, "{status}");
    assert_eq!(status.code(), Code::PermissionDenied);
    let message = status.message();
    assert!(message.contains("the certificate expired at"), "{status}");
}

#[tokio::test]
async fn a_connection_is_never_resumed() {
    let hub = Hub::start().await;
    // Clones share what they remember of the gateway: a ticket would be used, as a careless client does.
    let config = config_of(hub.authority.device("lamp"));
    for _ in 0..2 {
        let mut stream = handshake(hub.address, config.clone()).await.unwrap();
        // The first bytes are the SETTINGS of HTTP/2; a ticket would have come before them.
        timeout(SOON, stream.read_u8()).await.unwrap().unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn certificate_and_roots_are_replaced_while_devices_come() {
    let mut hub = Hub::start().await;
    let before = hub.authority.device("lamp");
    hub.mark_loaded();
    let next = Authority::new("fairlead-2");
    next.write(hub.tls_dir.path());
    hub.reloaded().await;
    assert_eq!(
        register(hub.address, next.device("lamp")).await.unwrap(),
        "lamp"
    );
    let alert = alert_on(connect(hub.address, before).await).await;
    assert_eq!(alert, AlertDescription::UnknownCA);
    let stream = connect(hub.address, next.device("lamp")).await;
    let presented = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(
        presented.last(),
        Some(&next.certificate()),
        "the chain ends with the authority, for pins"
    );
}

async fn alert_on(mut stream: Tls) -> AlertDescription {
    let error = timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err();
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert but {error}"),
    }
}
