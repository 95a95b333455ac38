//! HTTPS: the port, and what a connection may hold.
//!
//! TLS 1.3, HTTP/2 and HTTP/1.1. Connections are counted, together and by address; a handshake, the headers of a request
//! and silence are timed.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use http::Request;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use runtime::shutdown::Tasks;
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    guard::{
        bounds::{MAX_HEADER_COUNT, MAX_HEADERS},
        rates::Address,
        shares::Shares,
    },
    http::Remote,
    metrics::Metrics,
};

/// What the port presents; `None` until it was mounted.
pub type Certificate = watch::Receiver<Option<Arc<CertifiedKey>>>;

/// Connections at once; an address may have a half of them.
const CONNECTIONS: usize = 8192;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// From the connection to the end of the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// From the connection, or the end of the request before, to the end of the headers.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// A peer that says nothing is asked as often whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(10);
/// Bytes that wait to be sent on one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// How long what is under way may take once it is time to stop.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Pause after an `accept` that failed for want of a resource. It would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The console's port.
pub struct Server {
    tcp: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    metrics: Metrics,
}

impl Server {
    /// Binds the port, so that one that is in use fails the start.
    ///
    /// # Errors
    /// When it is in use, or TLS cannot be set up.
    pub async fn bind(
        address: SocketAddr,
        certificate: Certificate,
        router: Router,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind(address)
            .await
            .with_context(|| format!("bind --console-address {address}"))?;
        let mut tls = ServerConfig::builder_with_provider(pairing::crypto())
            .with_protocol_versions(&[&TLS13])
            .context("prepare TLS")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Own(certificate)));
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets would have to be shared by all gateways to be of use.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Self {
            tcp,
            tls: Arc::new(tls).into(),
            router,
            metrics,
        })
    }

    /// # Errors
    /// When the port is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Accepts until told to stop.
    ///
    /// # Errors
    /// Never: what fails is a connection.
    pub async fn run(self, tasks: Tasks) -> anyhow::Result<()> {
        let Self {
            tcp,
            tls,
            router,
            metrics,
        } = self;
        let stop = tasks.token();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let origins = Shares::<Address>::new(CONNECTIONS / 2);
        loop {
            let next = async {
                // More wait in the kernel's backlog.
                let place = Arc::clone(&room).acquire_owned().await?;
                anyhow::Ok((place, tcp.accept().await))
            };
            let (place, accepted) = tokio::select! {
                next = next => next?,
                () = stop.cancelled() => return Ok(()),
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "Accepting failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(of_origin) = origins.enter(remote.ip().into()) else {
                continue;
            };
            let (tls, router) = (tls.clone(), router.clone());
            let (open, stop) = (metrics.connection(), stop.clone());
            tasks.spawn(async move {
                let _held = (place, of_origin, open);
                if let Err(error) = connection(stream, remote, tls, router, stop).await {
                    tracing::debug!(%remote, %error, "A connection ended early");
                }
            });
        }
    }
}

async fn connection(
    tcp: TcpStream,
    remote: SocketAddr,
    tls: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let stream = tokio::select! {
        stream = timeout(HANDSHAKE_TIME, tls.accept(tcp)) => stream.context("shake hands")??,
        () = stop.cancelled() => return Ok(()),
    };
    let service = router.map_request(move |request| with_remote(request, remote));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADERS)
        .max_headers(MAX_HEADER_COUNT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEADERS).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIME);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            match timeout(STOP_TIME, served).await {
                Ok(ended) => ended,
                Err(_) => return Ok(()),
            }
        }
    };
    ended.map_err(|error| anyhow::anyhow!(error))
}

fn with_remote<B>(mut request: Request<B>, remote: SocketAddr) -> Request<B> {
    request.extensions_mut().insert(Remote(remote));
    request
}

#[derive(Debug)]
struct Own(Certificate);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}
