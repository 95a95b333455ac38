//! Floods of connections from sixteen addresses of the loopback, bounded in count and in pace.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_rustls::TlsConnector;

use crate::stranger::Credulous;

/// Addresses that attack.
pub const SOURCES: u8 = 16;
/// The first of them, in the network from which honest devices come, too.
const FIRST: u8 = 200;
/// Between two bytes of a hello that trickles.
const TRICKLE: Duration = Duration::from_millis(100);
/// Pause after a connection that could not be opened.
const PAUSE: Duration = Duration::from_millis(50);

/// What the connections of a flood do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Attack {
    /// Nothing
    Silent,
    /// Send a ClientHello byte by byte
    Trickle,
    /// Send a ClientHello and nothing more
    Hello,
    /// Shake hands with a certificate of their own, and ask for nothing
    Strangers,
    /// Shake hands and hang up, again and again
    Storm,
}

/// A flood that goes on until it is stopped.
pub struct Flood {
    stop: watch::Sender<bool>,
    thread: JoinHandle<anyhow::Result<()>>,
    opened: Arc<AtomicUsize>,
}

impl Flood {
    /// Each address holds up to `connections` open and opens up to `rate` per second.
    pub fn start(
        attack: Attack,
        gateway: SocketAddr,
        connections: usize,
        rate: u32,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let opened = Arc::<AtomicUsize>::default();
        let flood = Source {
            attack,
            gateway,
            tls: Arc::new(tls()?),
            opened: Arc::clone(&opened),
        };
        let thread = std::thread::Builder::new()
            .name("flood".to_owned())
            .spawn(move || {
                // Of this thread alone, as Linux has it.
                rustix::process::nice(19).context("lower the priority")?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(flood.run(connections, rate, stopped));
                Ok(())
            })?;
        Ok(Self {
            stop,
            thread,
            opened,
        })
    }

    /// Ends it, and returns how many connections it opened.
    pub fn stop(self) -> usize {
        self.stop.send_replace(true);
        match self.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("The flood failed: {error:#}"),
            Err(_) => eprintln!("The flood failed"),
        }
        self.opened.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Source {
    attack: Attack,
    gateway: SocketAddr,
    tls: Arc<ClientConfig>,
    opened: Arc<AtomicUsize>,
}

impl Source {
    async fn run(self, connections: usize, rate: u32, mut stopped: watch::Receiver<bool>) {
        let mut all = JoinSet::new();
        for number in 0..SOURCES {
            let address = Ipv4Addr::new(127, 77, 0, FIRST + number);
            let mut pace = interval(Duration::from_secs(1) / rate.max(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let pace = Arc::new(Mutex::new(pace));
            for _ in 0..connections {
                all.spawn(self.clone().again_and_again(address, Arc::clone(&pace)));
            }
        }
        // Fails where the measurement is gone, too.
        let _ = stopped.wait_for(|stop| *stop).await;
        all.shutdown().await;
    }

    async fn again_and_again(self, address: Ipv4Addr, pace: Arc<Mutex<Interval>>) {
        loop {
            pace.lock().await.tick().await;
            if self.once(address).await.is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    async fn once(&self, address: Ipv4Addr) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((address, 0)))?;
        let mut tcp = socket.connect(self.gateway).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        match self.attack {
            Attack::Silent => until_closed(tcp).await,
            Attack::Trickle => {
                for byte in self.hello()? {
                    tcp.write_all(&[byte]).await?;
                    sleep(TRICKLE).await;
                }
                until_closed(tcp).await
            }
            Attack::Hello => {
                tcp.write_all(&self.hello()?).await?;
                until_closed(tcp).await
            }
            Attack::Strangers => until_closed(self.shake_hands(tcp).await?).await,
            Attack::Storm => self.shake_hands(tcp).await.map(drop),
        }
    }

    fn hello(&self) -> io::Result<Vec<u8>> {
        let mut client =
            ClientConnection::new(Arc::clone(&self.tls), name()?).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes)?;
        Ok(bytes)
    }

    async fn shake_hands(&self, tcp: TcpStream) -> io::Result<impl AsyncRead + Unpin + use<>> {
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name()?, tcp)
            .await
    }
}

fn name() -> io::Result<ServerName<'static>> {
    ServerName::try_from(proto::SERVER_NAME).map_err(io::Error::other)
}

async fn until_closed(mut stream: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut bytes = [0; 512];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

/// One certificate for all: strangers need no name.
fn tls() -> anyhow::Result<ClientConfig> {
    let key = KeyPair::generate()?;
    let own = CertificateParams::default().self_signed(&key)?;
    let mut tls = ClientConfig::builder_with_provider(pairing::crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_client_auth_cert(
            vec![own.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}
