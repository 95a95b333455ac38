//! One in the middle who knows no code: he ends TLS on both sides and passes gRPC along.

use std::{net::SocketAddr, sync::Arc};

use pairing::crypto;
use runtime::shutdown::Supervisor;
use rustls::{ServerConfig, version::TLS13};
use tokio::{io::copy_bidirectional, net::TcpListener, sync::oneshot, time::timeout};
use tokio_rustls::TlsAcceptor;

use crate::{
    authority::{DeviceKey, Identity},
    hub::{Hub, SOON},
    stranger::{Enrolling, Refused, connect},
};

#[tokio::test]
async fn a_relay_in_the_middle_gets_nothing_even_from_one_who_knows_the_code() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let supervisor = Supervisor::new();
    let (relay, carried) = relay(&supervisor, &hub).await;

    let mut through = Enrolling::start(relay, &DeviceKey::generate())
        .await
        .unwrap();
    assert!(matches!(
        through.challenge(&code).await,
        Err(Refused::ByDevice)
    ));
    assert_eq!(hub.counts(), (1, 0), "the relay spent an attempt");
    drop(through);
    let (to_hub, to_device) = timeout(SOON, carried).await.unwrap().unwrap();
    assert!(to_hub > 0 && to_device > 0, "the relay did relay");

    let mut direct = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .unwrap();
    assert!(direct.challenge(&code).await.is_ok());
}

/// Its address, and the bytes that it carried each way.
async fn relay(supervisor: &Supervisor, hub: &Hub) -> (SocketAddr, oneshot::Receiver<(u64, u64)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let Identity { chain, key } = DeviceKey::generate().self_signed();
    let mut tls = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let mut hub_side = connect(hub.address, DeviceKey::generate().self_signed()).await;
    let (done, carried) = oneshot::channel();
    supervisor.tasks().spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut device_side = TlsAcceptor::from(Arc::new(tls)).accept(tcp).await.unwrap();
        // Whoever hangs up first need not say goodbye.
        let counts = copy_bidirectional(&mut device_side, &mut hub_side)
            .await
            .unwrap_or((1, 1));
        let _ = done.send(counts);
    });
    (address, carried)
}
