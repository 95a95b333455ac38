//! HTTPS: the port, and what a connection may hold.
//!
//! TLS 1.3, HTTP/2 and HTTP/1.1. A connection is a stranger's until a request on it brings a user's credentials. Strangers
//! and users have a half of the connections each. When strangers use up theirs, the oldest of the address with the most
//! is closed, so that a new one always has room ([`Crowd`]). A handshake, the headers of a request, an answer that is not
//! read, idleness and age are timed ([`connection`], [`activity`]).

mod activity;
mod connection;

use std::{io, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use runtime::shutdown::Tasks;
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tokio_rustls::TlsAcceptor;

use self::connection::Service;
use crate::{
    guard::{
        crowd::Crowd,
        pool::Pool,
        rates::{Address, Pace},
    },
    metrics::{Closed, Metrics},
};

pub use activity::Patience;

/// What the port presents; `None` until it was mounted.
pub type Certificate = watch::Receiver<Option<Arc<CertifiedKey>>>;

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at once: a half for strangers, a half for users.
    pub most: usize,
    /// Connections at once of strangers from one address.
    pub per_address: usize,
    /// New connections from one address in a second.
    pub per_second: NonZeroU32,
    /// Longest time from the connection to the end of the handshake.
    pub handshake: Duration,
    /// Longest time from the arrival of a request to the last byte of its answer, unless the answer lasts as an event stream
    /// or a download does. `?wait=` is at most a minute.
    pub exchange: Duration,
    /// Longest time without a request.
    pub patience: Patience,
    /// Longest time of a connection. What is under way then has half a minute more.
    pub age: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            most: 8192,
            per_address: 512,
            per_second: NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN),
            handshake: Duration::from_secs(5),
            exchange: Duration::from_mins(2),
            patience: Patience {
                stranger: Duration::from_secs(15),
                user: Duration::from_mins(1),
            },
            age: Duration::from_hours(1),
        }
    }
}

/// Pause after an `accept` that failed for want of a resource. It would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Files that the process may have open, connections included, as the kernel says; `None` if it does not say.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Lowers the number of connections to a half of the open files: `accept` fails for everybody when they are used up, while
/// a bound of ours makes room.
fn within(limits: ConnectionLimits, open_files: Option<usize>) -> ConnectionLimits {
    let most = open_files.map_or(limits.most, |files| limits.most.min(files / 2).max(2));
    ConnectionLimits { most, ..limits }
}

/// The console's port.
pub struct Server {
    tcp: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    limits: ConnectionLimits,
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
        limits: ConnectionLimits,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let wanted = limits.most;
        let limits = within(limits, open_files());
        if limits.most < wanted {
            let most = limits.most;
            tracing::warn!(
                wanted,
                most,
                "Lowering --console-max-connections to a half of the open files: raise their limit"
            );
        }
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
            limits,
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
            limits,
            metrics,
        } = self;
        let stop = tasks.token();
        let strangers = Crowd::new(limits.most.div_ceil(2), limits.per_address);
        let pace = Pace::<Address>::new(limits.per_second);
        let service = Service {
            tls,
            router,
            limits,
            users: Pool::new(limits.most.div_ceil(2)),
            metrics: metrics.clone(),
        };
        loop {
            let accepted = tokio::select! {
                accepted = tcp.accept() => accepted,
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
            let address = Address::from(remote.ip());
            let member = pace
                .take(&address)
                .ok()
                .and_then(|()| strangers.enter(address));
            let Some(member) = member else {
                metrics.closed(Closed::Refused);
                continue;
            };
            let (service, stop) = (service.clone(), stop.clone());
            let open = metrics.connection();
            tasks.spawn(async move {
                let _open = open;
                let served = connection::serve(stream, remote, member, service, stop);
                if let Err(error) = served.await {
                    tracing::debug!(%remote, %error, "A connection ended early");
                }
            });
        }
    }
}

#[derive(Debug)]
struct Own(Certificate);

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests;
