//! What a flood of strangers costs an honest request, and what it costs in memory.
//!
//! `cargo run --release -p console --example flood_figures [ROUNDS]`. A console with a pretended API server listens on
//! loopback. Honest requests, each over a connection of its own, take turns without and with a flood from 16 other
//! addresses: silent connections, half-sent logins, and ten random tokens a second each. Attackers, console and
//! the honest client share the machine, so the ratio is an upper bound.
#![expect(clippy::print_stdout, reason = "what is printed is the figure")]

mod pretended;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use console::{
    Console, Limits, Parts,
    http::router,
    metrics::Metrics,
    serve::{ConnectionLimits, Server},
};
use runtime::shutdown::Supervisor;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Requests of a turn.
const REQUESTS: usize = 100;
const ATTACKERS: u8 = 16;
/// Pause between the random tokens of one attacker. A console with its usual limits accepts 20 a second.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections of each attacker that say nothing, and that send half a login.
const SILENT: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

#[derive(Clone)]
struct Port {
    address: SocketAddr,
    connector: TlsConnector,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(5), |rounds| rounds.parse())?;
    let supervisor = Supervisor::new();
    let (_presented, port) = open(&supervisor).await?;
    // Warms what is built once.
    turn(&port).await?;
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    let (mut before, mut most) = (resident_kib()?, 0);
    for _ in 0..rounds {
        quiet.extend(turn(&port).await?);
        before = before.max(resident_kib()?);
        let flood = flood(&port).await;
        most = most.max(resident_kib()?);
        flooded.extend(turn(&port).await?);
        most = most.max(resident_kib()?);
        drop(flood);
    }
    let (quiet, flooded) = (p99(quiet)?, p99(flooded)?);
    println!(
        "flood: honest p99 {:.1} ms quiet, {:.1} ms flooded, ratio {:.2}; memory {before} KiB quiet, {most} KiB flooded, both sides",
        quiet.as_secs_f64() * 1e3,
        flooded.as_secs_f64() * 1e3,
        flooded.as_secs_f64() / quiet.as_secs_f64(),
    );
    Ok(())
}

async fn open(
    supervisor: &Supervisor,
) -> anyhow::Result<(watch::Sender<Option<Arc<CertifiedKey>>>, Port)> {
    let made = rcgen::generate_simple_self_signed(vec!["console".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!(error))?;
    let presented = CertifiedKey::from_der(vec![certificate.clone()], key, &pairing::crypto())?;
    let (sender, presented) = watch::channel(Some(Arc::new(presented)));
    let tasks = supervisor.tasks();
    let parts = Parts {
        client: pretended::client(),
        without_credentials: pretended::client(),
        namespace: "fairlead-system".to_owned(),
        keys: watch::channel(None).1,
        artefacts: None,
        limits: Limits {
            requests_per_second_per_address: u32::MAX.try_into()?,
            requests_per_second_per_user: u32::MAX.try_into()?,
            ..Limits::default()
        },
        metrics: Metrics::unread(),
    };
    let console = Console::start(parts, &tasks);
    let limits = ConnectionLimits {
        per_second: u32::MAX.try_into()?,
        ..ConnectionLimits::default()
    };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::bind(any, presented, router(console), limits, Metrics::unread()).await?;
    let address = server.local_addr()?;
    tasks.spawn_essential("console", server.run(tasks.clone()));
    Ok((
        sender,
        Port {
            address,
            connector: connector(certificate)?,
        },
    ))
}

fn connector(certificate: CertificateDer<'static>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let config = ClientConfig::builder_with_provider(pairing::crypto())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Port {
    async fn tcp(&self, from: Ipv4Addr) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        Ok(socket.connect(self.address).await?)
    }

    async fn tls(&self, from: Ipv4Addr) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("console")?;
        Ok(self.connector.connect(name, self.tcp(from).await?).await?)
    }

    /// The status of an answer.
    async fn ask(&self, from: Ipv4Addr, token: &str) -> anyhow::Result<[u8; 12]> {
        let mut stream = self.tls(from).await?;
        let request = format!(
            "GET /console/v1/auth/session HTTP/1.1\r\nhost: console\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok(status)
    }
}

/// How long each honest request took, from the connection to the status.
async fn turn(port: &Port) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        let status = timeout(PATIENCE, port.ask(HONEST, "ada"))
            .await
            .context("wait for an answer")??;
        ensure!(
            status == *b"HTTP/1.1 200",
            "{}",
            String::from_utf8_lossy(&status)
        );
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// Attacks until it is dropped. Returns once every attacker holds what it may.
async fn flood(port: &Port) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for attacker in 0..ATTACKERS {
        let from = Ipv4Addr::new(127, 0, attacker + 10, 1);
        let (port, (ready, mut is_ready)) = (port.clone(), watch::channel(false));
        tasks.spawn(async move {
            let mut held = Vec::new();
            for _ in 0..SILENT {
                let silent = port.tcp(from).await.ok();
                let half = async {
                    let mut stream = port.tls(from).await?;
                    stream.write_all(b"POST /console/v1/auth/login HTTP/1.1\r\nhost: console\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{").await?;
                    anyhow::Ok(stream)
                };
                held.push((silent, half.await.ok()));
            }
            ready.send_replace(true);
            for number in 0_u64.. {
                let token = format!("random-{attacker}-{number}");
                let _ = port.ask(from, &token).await;
                sleep(PAUSE).await;
            }
        });
        let _ = is_ready.wait_for(|ready| *ready).await;
    }
    tasks
}

fn p99(mut took: Vec<Duration>) -> anyhow::Result<Duration> {
    took.sort_unstable();
    let at = took.len() * 99 / 100;
    took.get(at).copied().context("no request was made")
}

fn resident_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(resident.context("the kernel tells no VmRSS")?.parse()?)
}
