//! Names of gateways that have several addresses, of which some are of no use.

use std::{fs, net::SocketAddr, process::Stdio};

use node_agent::{
    state::Folder,
    upstream::{
        connect::{self, chain},
        dial::Dialer,
    },
};
use rustls::RootCertStore;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    process::Command,
    time::{Duration, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    gateway::{Authority, Gateway, Manners, soon},
    process::{Host, pair_by, text},
    skipped::skipped,
};

/// The hand that a stranger shakes gateways of this authority with.
fn tls(authority: &Authority) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().into()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = Folder::open(&folder.path().join("state"))
        .unwrap()
        .key()
        .unwrap();
    let verifier = connect::trusting(roots).unwrap();
    connect::tls(verifier, key.self_signed().unwrap()).unwrap()
}

/// Accepts connections, as the kernel does by itself, and says nothing.
async fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Accepts nothing: what asks for a connection is dropped, for the queue is full.
async fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
    }
    (listener, queued)
}

/// An address at which nobody listens.
async fn closed() -> SocketAddr {
    silent().await.local_addr().unwrap()
}

#[tokio::test]
async fn a_gateway_is_reached_past_addresses_that_are_closed_or_silent() {
    let authority = Authority::new("ours");
    let tls = tls(&authority);
    let gateway = Gateway::start(&authority, Manners::default()).await;
    let (silent, (full, _queued)) = (silent().await, full().await);
    let silent_at = silent.local_addr().unwrap();
    for first in [closed().await, silent_at, full.local_addr().unwrap()] {
        let dialer = Dialer::default();
        let addresses = vec![first, gateway.address];
        let opened = dialer.open_by_any(dialer.route("gateway.test:7443"), addresses, &tls);
        let stream = soon(opened).await.unwrap();
        assert_eq!(stream.get_ref().0.peer_addr().unwrap(), gateway.address);
    }
}

#[tokio::test]
async fn the_next_connection_begins_with_the_address_that_answered() {
    let authority = Authority::new("ours");
    let tls = tls(&authority);
    let gateway = Gateway::start(&authority, Manners::default()).await;
    let silent = silent().await;
    let dialer = Dialer::default();
    for _ in 0..3 {
        let addresses = vec![silent.local_addr().unwrap(), gateway.address];
        let opened = dialer.open_by_any(dialer.route("gateway.test:7443"), addresses, &tls);
        soon(opened).await.unwrap();
    }
    silent.accept().await.unwrap();
    let again = timeout(Duration::from_millis(50), silent.accept()).await;
    assert!(again.is_err(), "the silent address was tried again");
}

#[tokio::test]
async fn an_address_that_is_of_no_use_after_the_handshake_is_not_the_first_again() {
    let authority = Authority::new("ours");
    let tls = tls(&authority);
    let one = Gateway::start(&authority, Manners::default()).await;
    let other = Gateway::start(&authority, Manners::default()).await;
    let dialer = Dialer::default();
    let name = "gateway.test:7443";
    // Each session but the first is bad.
    for (expected, is_bad) in [
        (one.address, false),
        (one.address, true),
        (other.address, true),
        (one.address, true),
    ] {
        let addresses = vec![one.address, other.address];
        let opened = dialer.open_by_any(dialer.route(name), addresses, &tls);
        let stream = soon(opened).await.unwrap();
        assert_eq!(stream.get_ref().0.peer_addr().unwrap(), expected);
        if is_bad {
            dialer.begin_elsewhere(name);
        }
    }
}

#[tokio::test]
async fn where_no_address_answers_each_is_named_with_its_reason() {
    let authority = Authority::new("ours");
    let tls = tls(&authority);
    let dialer = Dialer::default();
    let addresses = vec![closed().await, closed().await];
    let opened = dialer.open_by_any(dialer.route("gateway.test:7443"), addresses.clone(), &tls);
    let error = chain(&soon(opened).await.unwrap_err());
    for address in addresses {
        assert!(error.contains(&format!("{address}: connect: ")), "{error}");
    }
}

/// As the process does it, with a name that the system's resolver knows.
#[tokio::test]
async fn pairing_and_doctor_go_by_the_second_address_of_a_name() {
    const ADDRESSES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
    let host = Host::new();
    let hosts = host.temporary.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 gateway.test\n127.0.0.2 gateway.test\n").unwrap();
    let named = |arguments: &[&str]| {
        let agent = host.command(arguments);
        let agent = agent.as_std();
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "sh",
                "-c",
                "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
            ])
            .arg(&hosts)
            .arg(agent.get_program())
            .args(agent.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    };
    let tried = named(&["--version"]).output().await;
    if !tried.is_ok_and(|output| output.status.success()) {
        skipped(
            "pairing by a name with several addresses",
            "it needs root and unshare (util-linux)",
        );
        return;
    }
    let silent = TcpListener::bind((ADDRESSES[0], 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let listener = TcpListener::bind((ADDRESSES[1], port)).await.unwrap();
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start_on(listener, &authority, &authority, Manners::default());
    let name = format!("gateway.test:{port}");
    let pairing = named(&["pair", "-", "--name", "lamp"]);
    pair_by(pairing, &name, &host, &mut gateway, &authority).await;

    let running = named(&["run"]).spawn().unwrap();
    let _stream = gateway.stream().await;
    let shown = text(&named(&["doctor"]).output().await.unwrap().stdout);
    assert!(
        shown.contains(&format!("{name} at 127.0.0.1:{port}: no answer")),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("{name} at 127.0.0.2:{port}: a gateway of")),
        "{shown}"
    );
    assert!(!shown.contains("FAILED"), "{shown}");
    drop(running);
}
