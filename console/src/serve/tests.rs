//! Real connections on loopback, from several addresses, to a console with a pretended API server.

use std::{collections::BTreeMap, net::Ipv4Addr};

use console_api::routes;
use futures::future::join_all;
use http::StatusCode;
use runtime::shutdown::Supervisor;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::http::tests::fake::{Scene, scene};

/// Longest wait of a test: far longer than anything takes.
const DEADLINE: Duration = Duration::from_mins(1);
/// A limit that a test waits for.
const SHORTLY: Duration = Duration::from_millis(200);
/// A limit that no test reaches.
const LONG: Duration = Duration::from_hours(1);

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

struct Port {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    scene: Scene,
    _presented: watch::Sender<Option<Arc<CertifiedKey>>>,
    _supervisor: Supervisor,
}

impl Port {
    async fn open(limits: ConnectionLimits) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["console".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let presented =
            CertifiedKey::from_der(vec![certificate.clone()], key, &pairing::crypto()).unwrap();
        let (sender, presented) = watch::channel(Some(Arc::new(presented)));
        let scene = scene().await;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let router = scene.router.clone();
        let server = Server::bind(any, presented, router, limits, Metrics::unread())
            .await
            .unwrap();
        let address = server.local_addr().unwrap();
        let supervisor = Supervisor::new();
        let tasks = supervisor.tasks();
        tasks.spawn_essential("console", server.run(tasks.clone()));
        Self {
            address,
            certificate,
            scene,
            _presented: sender,
            _supervisor: supervisor,
        }
    }

    async fn tcp(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// `None` where the console hangs up.
    async fn connect(&self, from: Ipv4Addr, protocol: &str) -> Option<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(pairing::crypto())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("console").unwrap();
        connector.connect(name, self.tcp(from).await).await.ok()
    }

    /// An answer over a connection of its own; `None` where the console hangs up.
    async fn ask(&self, from: Ipv4Addr, request: &str) -> Option<StatusCode> {
        let mut stream = self.connect(from, "http/1.1").await?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.ok()?;
        let status = answer.strip_prefix(b"HTTP/1.1 ")?;
        StatusCode::from_bytes(status).ok()
    }

    async fn log_in(&self, from: Ipv4Addr) -> Option<StatusCode> {
        self.ask(from, &login(r#"{"token":"ada"}"#, 15)).await
    }

    async fn who(&self, from: Ipv4Addr) -> Option<StatusCode> {
        self.ask(from, &get(routes::SESSION, Some("ada"))).await
    }
}

fn login(body: &str, length: usize) -> String {
    let path = routes::LOGIN;
    format!(
        "POST {path} HTTP/1.1\r\nhost: console\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn get(path: &str, user: Option<&str>) -> String {
    let who = user.map_or_else(String::new, |user| {
        format!("authorization: Bearer {user}\r\n")
    });
    format!("GET {path} HTTP/1.1\r\nhost: console\r\n{who}\r\n")
}

/// No limit that a test does not set is reached.
fn limits() -> ConnectionLimits {
    ConnectionLimits {
        per_second: NonZeroU32::MAX,
        handshake: LONG,
        exchange: LONG,
        patience: Patience {
            stranger: LONG,
            user: LONG,
        },
        age: LONG,
        ..ConnectionLimits::default()
    }
}

/// All that comes until the console hangs up.
async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut all = Vec::new();
    // A connection may end without close_notify.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut all))
        .await
        .expect("the console hangs up");
    all
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![high, middle, low, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// Kinds of the frames in what the console sent.
fn frames(mut bytes: &[u8]) -> BTreeMap<u8, usize> {
    let mut kinds = BTreeMap::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        *kinds.entry(head[3]).or_default() += 1;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        bytes = rest
            .get(usize::try_from(length).unwrap()..)
            .unwrap_or_default();
    }
    kinds
}

#[tokio::test]
async fn half_sent_bodies_of_one_address_keep_nobody_out() {
    let port = Port::open(ConnectionLimits {
        per_address: 1000,
        ..limits()
    })
    .await;
    // More than there are places for requests.
    let mut half_sent = Vec::new();
    for _ in 0..12 {
        let begun = join_all((0..50).map(async |_| {
            let mut stream = port.connect(ATTACKER, "http/1.1").await?;
            stream.write_all(login("{", 1000).as_bytes()).await.ok()?;
            Some(stream)
        }));
        half_sent.extend(begun.await);
        assert_eq!(port.who(HONEST).await, Some(StatusCode::OK));
        assert_eq!(port.log_in(HONEST).await, Some(StatusCode::OK));
    }
    assert_eq!(half_sent.iter().flatten().count(), 600);
}

#[tokio::test]
async fn silent_addresses_that_fill_the_port_make_room_for_the_next_one() {
    let port = Port::open(ConnectionLimits {
        most: 24,
        per_address: 4,
        ..limits()
    })
    .await;
    let mut silent = Vec::new();
    for address in 10..20 {
        let from = Ipv4Addr::new(127, 0, address, 1);
        for number in 0..6 {
            // Before the handshake, within it, and in the middle of the headers.
            if number % 2 == 0 {
                silent.push((Some(port.tcp(from).await), None));
            } else if let Some(mut stream) = port.connect(from, "http/1.1").await {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: con").await;
                silent.push((None, Some(stream)));
            }
        }
        assert_eq!(port.log_in(HONEST).await, Some(StatusCode::OK), "{address}");
    }
}

#[tokio::test]
async fn a_connection_with_a_user_is_not_evicted() {
    let port = Port::open(ConnectionLimits {
        most: 8,
        per_address: 4,
        ..limits()
    })
    .await;
    let request = get(routes::SESSION, Some("ada"));
    let mut stream = port.connect(HONEST, "http/1.1").await.unwrap();
    let mut answer = [0; 12];
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut answer).await.unwrap();
    let mut silent = Vec::new();
    for address in 10..30 {
        silent.push(port.tcp(Ipv4Addr::new(127, 0, address, 1)).await);
    }
    // The last one is in: whoever had to go for it is gone.
    assert_eq!(port.who(ATTACKER).await, Some(StatusCode::OK));
    stream
        .write_all(get("/healthz", None).as_bytes())
        .await
        .unwrap();
    stream
        .write_all(b"GET /none HTTP/1.1\r\nhost: console\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let rest = read_to_end(&mut stream).await;
    let rest = String::from_utf8_lossy(&rest);
    assert_eq!(rest.matches("HTTP/1.1 ").count(), 2, "{rest}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_whatever_it_speaks() {
    let port = Port::open(ConnectionLimits {
        patience: Patience {
            stranger: SHORTLY,
            user: SHORTLY,
        },
        ..limits()
    })
    .await;
    let mut silent = port.connect(HONEST, "h2").await.unwrap();
    read_to_end(&mut silent).await;
    let mut idle = port.connect(HONEST, "h2").await.unwrap();
    idle.write_all(PREFACE).await.unwrap();
    idle.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let sent = read_to_end(&mut idle).await;
    assert!(frames(&sent).contains_key(&GOAWAY), "{:?}", frames(&sent));
    let mut half = port.connect(HONEST, "http/1.1").await.unwrap();
    half.write_all(b"GET / HT").await.unwrap();
    read_to_end(&mut half).await;
    let mut kept_alive = port.connect(HONEST, "http/1.1").await.unwrap();
    kept_alive
        .write_all(get(routes::SESSION, Some("ada")).as_bytes())
        .await
        .unwrap();
    let answered = read_to_end(&mut kept_alive).await;
    assert!(answered.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() {
    let port = Port::open(ConnectionLimits {
        handshake: SHORTLY,
        ..limits()
    })
    .await;
    let mut silent = port.tcp(HONEST).await;
    let ended = timeout(DEADLINE, silent.read(&mut [0; 16]))
        .await
        .expect("the console hangs up");
    assert_eq!(ended.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_peer_that_does_not_read_an_answer_is_hung_up_on() {
    let port = Port::open(ConnectionLimits {
        exchange: SHORTLY,
        ..limits()
    })
    .await;
    let mut stream = port.connect(HONEST, "h2").await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE 0: no byte of a body may be sent.
    stream
        .write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .await
        .unwrap();
    let mut block = vec![0x82, 0x87, 0x04, 13];
    block.extend_from_slice(b"/openapi.json");
    // END_STREAM and END_HEADERS.
    stream
        .write_all(&frame(HEADERS, 5, 1, &block))
        .await
        .unwrap();
    let sent = frames(&read_to_end(&mut stream).await);
    assert!(sent.contains_key(&HEADERS), "{sent:?}");
}

#[tokio::test]
async fn an_event_stream_ends_with_its_connection_and_says_when_to_come_back() {
    let port = Port::open(ConnectionLimits {
        age: 5 * SHORTLY,
        ..limits()
    })
    .await;
    let path = format!("{}?namespace=kitchen", routes::EVENTS);
    let mut stream = port.connect(HONEST, "http/1.1").await.unwrap();
    stream
        .write_all(get(&path, Some("ada")).as_bytes())
        .await
        .unwrap();
    let told = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    assert!(
        told.contains("event: hello") && told.contains("retry: "),
        "{told}"
    );
    // The end of a chunked body: it was not cut off.
    assert!(told.ends_with("0\r\n\r\n"), "{told}");
    assert!(!port.scene.console.stop.is_cancelled());
}

#[tokio::test]
async fn an_address_that_connects_too_often_is_turned_away_and_no_other() {
    let port = Port::open(ConnectionLimits {
        per_second: NonZeroU32::MIN,
        ..limits()
    })
    .await;
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(port.who(ATTACKER).await.is_none());
    }
    assert!(refused > 0);
    assert_eq!(port.who(HONEST).await, Some(StatusCode::OK));
}

#[test]
fn connections_leave_room_among_the_open_files() {
    let most = |files| within(ConnectionLimits::default(), files).most;
    assert_eq!(
        [None, Some(1_000_000), Some(1024), Some(0)].map(most),
        [8192, 8192, 512, 2]
    );
    assert!(open_files().is_some_and(|files| files > 0) || !cfg!(target_os = "linux"));
}

#[tokio::test]
async fn addresses_that_do_not_read_what_anybody_may_ask_keep_nobody_from_logging_in() {
    let port = Port::open(limits()).await;
    let mut slow = Vec::new();
    for address in 10..16 {
        let from = Ipv4Addr::new(127, 0, address, 1);
        let begun = join_all((0..100).map(async |_| {
            let mut stream = port.connect(from, "http/1.1").await?;
            stream
                .write_all(get("/openapi.json", None).as_bytes())
                .await
                .ok()?;
            Some(stream)
        }));
        slow.extend(begun.await);
        assert_eq!(port.log_in(HONEST).await, Some(StatusCode::OK), "{address}");
        assert_eq!(
            port.ask(HONEST, &get("/healthz", None)).await,
            Some(StatusCode::OK)
        );
    }
}
