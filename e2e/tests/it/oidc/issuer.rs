//! An identity provider as small as one can be: a discovery document and its keys over HTTPS, and signed ID tokens.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A key that signs tokens (ES256).
pub struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    pub fn new(id: &'static str) -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .context("make a key for tokens")?;
        Ok(Self { id, pair })
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.id });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .context("sign a token")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The public half, as providers publish it.
    fn published(&self) -> anyhow::Result<Value> {
        // Uncompressed: a byte that says so, and the two coordinates.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point
            .split_first()
            .and_then(|(_, coordinates)| coordinates.split_at_checked(32))
            .context("read a public key")?;
        Ok(json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }))
    }
}

/// A provider that serves until it is dropped.
pub struct Issuer {
    url: String,
    authority: String,
    key: Key,
    _serving: JoinSet<()>,
}

impl Issuer {
    pub async fn start() -> anyhow::Result<Self> {
        let tcp = TcpListener::bind("127.0.0.1:0")
            .await
            .context("find a port for the provider")?;
        let url = format!("https://{}", tcp.local_addr()?);
        let key = Key::new("first")?;
        let (authority, tls) = certified()?;
        let discovery = json!({
            "issuer": url,
            "jwks_uri": format!("{url}/keys"),
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let keys = json!({ "keys": [key.published()?] });
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(document(&discovery)),
            )
            .route("/keys", get(document(&keys)));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let failed = axum::serve(Https { tcp, tls }, router).await;
            eprintln!("the identity provider ended: {failed:?}");
        });
        Ok(Self {
            url,
            authority,
            key,
            _serving: serving,
        })
    }

    /// What tokens and the cluster call it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate that its own is signed by, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The key that it publishes.
    pub fn key(&self) -> &Key {
        &self.key
    }
}

fn document(
    content: &Value,
) -> impl Fn() -> std::future::Ready<axum::response::Response> + Clone + Send + Sync + 'static {
    let text = content.to_string();
    move || {
        let answer = ([("content-type", "application/json")], text.clone());
        std::future::ready(answer.into_response())
    }
}

/// An authority of its own, and what presents a certificate by it for where the provider is.
fn certified() -> anyhow::Result<(String, TlsAcceptor)> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "identity provider CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)
        .context("sign the provider's authority")?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?
        .signed_by(&key, &authority)
        .context("sign the provider's certificate")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((authority.as_ref().pem(), Arc::new(config).into()))
}

/// One handshake at a time: the API server alone asks.
struct Https {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for Https {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, remote) = axum::serve::Listener::accept(&mut self.tcp).await;
            match self.tls.accept(stream).await {
                Ok(stream) => return (stream, remote),
                Err(error) => eprintln!("the identity provider heard no TLS: {error}"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
