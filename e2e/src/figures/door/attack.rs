//! Floods of connections from sixteen addresses of the loopback, bounded in count and in pace.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::stranger::Credulous;

/// Addresses that attack.
pub const SOURCES: u8 = 16;
/// The first of them, in the network from which honest devices come, too.
const FIRST: u8 = 200;
/// Between two bytes of a hello that trickles.
const TRICKLE: Duration = Duration::from_millis(100);
/// A flood that nobody stops ends after this.
const LONGEST: Duration = Duration::from_mins(5);
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

/// How hard.
#[derive(Args, Clone, Copy, Debug)]
pub struct Force {
    /// Connections that each address tries to hold open
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Connections that each address opens per second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
}

/// A flood by another process, of the lowest priority, that goes on until it is stopped.
pub struct Flood(Child);

impl Flood {
    pub fn start(attack: Attack, gateway: SocketAddr, force: Force) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("find this program")?;
        let attack = attack.to_possible_value().context("name the attack")?;
        let child = Command::new("nice")
            .args(["-n", "19"])
            .arg(this)
            .args(["flood", &gateway.to_string(), attack.get_name()])
            .arg(format!("--connections={}", force.connections))
            .arg(format!("--rate={}", force.rate))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the flood")?;
        Ok(Self(child))
    }

    /// Ends it, and returns how many connections it opened.
    pub async fn stop(mut self) -> anyhow::Result<usize> {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().await.context("end the flood")?;
        ensure!(output.status.success(), "the flood failed");
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .context("read what the flood says")
    }
}

/// The flood itself: until standard input ends, and for some minutes at most.
pub async fn flood(gateway: SocketAddr, attack: Attack, force: Force) -> anyhow::Result<()> {
    let opened = Arc::<AtomicUsize>::default();
    let source = Source {
        attack,
        gateway,
        tls: Arc::new(tls()?),
        opened: Arc::clone(&opened),
    };
    let mut all = source.start(force);
    // What it ends with does not matter.
    let _ = timeout(LONGEST, tokio::io::stdin().read_u8()).await;
    all.shutdown().await;
    println!("{}", opened.load(Ordering::Relaxed));
    Ok(())
}

#[derive(Clone)]
struct Source {
    attack: Attack,
    gateway: SocketAddr,
    tls: Arc<ClientConfig>,
    opened: Arc<AtomicUsize>,
}

impl Source {
    fn start(self, force: Force) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for number in 0..SOURCES {
            let address = Ipv4Addr::new(127, 77, 0, FIRST + number);
            let mut pace = interval(Duration::from_secs(1) / force.rate.max(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let pace = Arc::new(Mutex::new(pace));
            for _ in 0..force.connections {
                all.spawn(self.clone().again_and_again(address, Arc::clone(&pace)));
            }
        }
        all
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
