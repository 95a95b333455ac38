//! Whom the client believes.

use std::{net::SocketAddr, sync::Arc};

use axum::serve::Listener;
use client::{
    Category, ControlPlaneClient, Credentials, Retries, Roots, api::query::InventoryQuery,
};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::fake;

struct OverTls(TcpListener, TlsAcceptor);

impl Listener for OverTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            // Who does not believe us goes away in the middle.
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn alone(&self) -> Roots {
        Roots::Only(self.certificate.pem().into_bytes())
    }
}

async fn console(authority: &Authority) -> (String, JoinSet<()>) {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority.issuer)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let scene = fake::scene([fake::json(&fake::page(&["lamp"], None))]);
    let mut server = JoinSet::new();
    let listener = OverTls(listener, TlsAcceptor::from(Arc::new(config)));
    server.spawn(async move { axum::serve(listener, scene).await.unwrap() });
    (address, server)
}

fn client(address: &str, roots: Roots) -> ControlPlaneClient {
    ControlPlaneClient::builder(address)
        .roots(roots)
        .credentials(Credentials::token("t0ken").unwrap())
        .retries(Retries {
            attempts: 1,
            ..Retries::default()
        })
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_console_of_the_authority_that_was_given_is_believed_and_no_other() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (address, _server) = console(&ours).await;
    let stranger = client(&address, other.alone());
    let error = stranger
        .inventory(&InventoryQuery::default())
        .await
        .unwrap_err();
    assert_eq!(error.category(), Category::Transport, "{error:?}");

    let friend = client(&address, ours.alone());
    let page = friend.inventory(&InventoryQuery::default()).await.unwrap();
    assert_eq!(page.devices.len(), 1);
}
