//! The way to a gateway: its name, its addresses, and the proxy, where there is one.
//!
//! A name may have several addresses, of which some are silent. Attempts begin one shortly after the other, each has a time
//! of its own, and the first that has shaken hands is taken (RFC 8305).
//!
//! - [`order`] says which address is next. Pure;
//! - `race` runs the attempts;
//! - `tunnel` has a proxy connect.

pub mod order;
mod race;
mod tunnel;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::proxy::{Proxies, ProxyUrl, Scheme};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::{order::Start, race::Reached};
use super::connect::{Error, handshake};

/// How long one address may take, handshake and all.
const DIRECT_TIME: Duration = Duration::from_secs(5);
/// The same through a proxy, which looks the name up and may try several addresses itself.
const PROXIED_TIME: Duration = Duration::from_secs(15);
/// How long a look-up may take.
const LOOK_UP_TIME: Duration = Duration::from_secs(5);
/// Names whose last address is remembered: those of all gateways that are kept, and some more.
const MAX_NAMES: usize = 64;

/// How this device connects to gateways.
#[derive(Debug, Default)]
pub struct Dialer {
    proxies: Proxies,
    /// Where to begin, for each `HOST:PORT` that was connected to.
    starts: Mutex<BTreeMap<String, Start>>,
}

/// Whom to connect to first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// `HOST:PORT` of the gateway.
    gateway: String,
    proxy: Option<ProxyUrl>,
}

impl Route {
    /// The proxy, where there is one. Its text shows no credentials.
    pub fn proxy(&self) -> Option<&ProxyUrl> {
        self.proxy.as_ref()
    }

    /// `HOST:PORT` whose addresses this device looks up.
    pub fn first_hop(&self) -> String {
        let proxy = self.proxy.as_ref();
        proxy.map_or_else(|| self.gateway.clone(), ProxyUrl::address)
    }

    /// The addresses of the first hop, in the order of the system's resolver.
    ///
    /// # Errors
    /// Where the name is unknown, has no address, or nobody answers in time.
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let hop = self.first_hop();
        let found = timeout(LOOK_UP_TIME, lookup_host(hop.clone())).await;
        let found: Vec<_> = found
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            .flatten()
            .map_err(|source| Error::LookUp {
                hop: hop.clone(),
                source,
            })?
            .collect();
        if found.is_empty() {
            let source = io::Error::other("the name has no address");
            return Err(Error::LookUp { hop, source });
        }
        Ok(found)
    }

    /// Connects to one address of the first hop, and closes the connection.
    ///
    /// # Errors
    /// Where it refuses or says nothing in time.
    pub async fn knock(&self, address: SocketAddr) -> Result<(), Error> {
        within(DIRECT_TIME, async {
            let connected = TcpStream::connect(address).await;
            connected.map(drop).map_err(Error::Tcp)
        })
        .await
    }

    /// Connects to the gateway by one address of the first hop.
    ///
    /// # Errors
    /// Where that address does not lead to it in time.
    pub async fn open_by(
        &self,
        address: SocketAddr,
        tls: &TlsConnector,
    ) -> Result<TlsStream<TcpStream>, Error> {
        self.attempt(address, tls, &Reached::unheard()).await
    }

    async fn attempt(
        &self,
        address: SocketAddr,
        tls: &TlsConnector,
        reached: &Reached,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let time = match self.proxy {
            None => DIRECT_TIME,
            Some(_) => PROXIED_TIME,
        };
        within(time, async {
            let mut tcp = TcpStream::connect(address).await.map_err(Error::Tcp)?;
            reached.report();
            tcp.set_nodelay(true).map_err(Error::Tcp)?;
            if let Some(proxy) = &self.proxy {
                tunnel::open(&mut tcp, &self.gateway, proxy).await?;
            }
            handshake(tcp, tls).await
        })
        .await
    }
}

async fn within<T>(
    time: Duration,
    attempt: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(time, attempt)
        .await
        .unwrap_or_else(|_| Err(Error::TooSlow(time)))
}

impl Dialer {
    /// A dialer that follows `proxies`, of which only those that speak `CONNECT` over plain TCP are supported
    /// ([`is_supported`]).
    pub fn new(proxies: Proxies) -> Self {
        Self {
            proxies,
            starts: Mutex::default(),
        }
    }

    /// The way to a gateway, which is `HOST:PORT`.
    pub fn route(&self, gateway: &str) -> Route {
        let (host, port) = gateway.rsplit_once(':').unwrap_or((gateway, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().unwrap_or(443);
        Route {
            gateway: gateway.to_owned(),
            proxy: self.proxies.towards(host, port).cloned(),
        }
    }

    /// Connects to a gateway by whichever address answers first.
    ///
    /// # Errors
    /// Where none does. Where several were tried, the error names each with its reason.
    pub async fn open(
        &self,
        gateway: &str,
        tls: &TlsConnector,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let route = self.route(gateway);
        let found = route.addresses().await?;
        self.open_by_any(route, found, tls).await
    }

    /// The same, with these addresses of the first hop.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_by_any(
        &self,
        route: Route,
        found: Vec<SocketAddr>,
        tls: &TlsConnector,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let hop = route.first_hop();
        let start = self.starts().get(&hop).copied();
        let addresses = order::of(found, start);
        let attempts = addresses.clone().into_iter().map(|address| {
            let (route, tls) = (route.clone(), tls.clone());
            move |reached: Reached| async move { route.attempt(address, &tls, &reached).await }
        });
        let outcome = race::run(attempts).await;
        let next = match &outcome {
            Ok((index, _)) => addresses.get(*index).copied().map(Start::With),
            Err(_) => addresses.first().copied().map(Start::After),
        };
        self.remember(hop, next);
        match outcome {
            Ok((_, stream)) => Ok(stream),
            Err(failed) => Err(sum_up(&addresses, failed)),
        }
    }

    /// Begins with another address the next time: the last one accepted a connection and then was of no use.
    pub fn begin_elsewhere(&self, gateway: &str) {
        let hop = self.route(gateway).first_hop();
        let start = self.starts().get(&hop).copied();
        self.remember(hop, start.map(Start::elsewhere));
    }

    fn remember(&self, hop: String, start: Option<Start>) {
        let mut starts = self.starts();
        if starts.len() >= MAX_NAMES && !starts.contains_key(&hop) {
            starts.clear();
        }
        match start {
            Some(start) => drop(starts.insert(hop, start)),
            None => drop(starts.remove(&hop)),
        }
    }

    /// Poisoning is harmless: every critical section leaves the map consistent.
    fn starts(&self) -> MutexGuard<'_, BTreeMap<String, Start>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a dialer can use this proxy.
pub fn is_supported(proxy: &ProxyUrl) -> bool {
    proxy.scheme == Scheme::Http
}

/// One error for all attempts.
fn sum_up(addresses: &[SocketAddr], mut failed: Vec<(usize, Error)>) -> Error {
    if failed.len() == 1
        && let Some((_, only)) = failed.pop()
    {
        return only;
    }
    let is_untrusted = |error: &Error| matches!(error, Error::Untrusted(_));
    // More than a broken connection: somebody answered who is not a gateway of ours.
    if let Some(index) = failed.iter().position(|(_, error)| is_untrusted(error)) {
        return failed.swap_remove(index).1;
    }
    let reasons = failed.iter().filter_map(|(index, error)| {
        let address = addresses.get(*index)?;
        Some(format!("{address}: {}", super::connect::chain(error)))
    });
    let mut reasons: Vec<_> = reasons.collect();
    // The order of the attempts is another one each time, and what is said twice is logged once.
    reasons.sort();
    Error::NoneAnswered(reasons.join("; "))
}
