//! A proxy between the agent and its gateways, which alone can find them.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use node_agent::exit::Exit;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    gateway::{Authority, Gateway, Manners, soon},
    process::{Host, is, pair_by, terminate, text},
};

/// Of `ada:s3cret`.
const AUTHORIZATION: &str = "Proxy-Authorization: Basic YWRhOnMzY3JldA==";
const NAME: &str = "gateway.test:7443";

/// Connects those who know the password to the gateways that it knows.
struct Proxy {
    address: SocketAddr,
    /// The first line of each request.
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn start(gateways: &[(&'static str, SocketAddr)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let gateways: Arc<HashMap<_, _>> = Arc::new(gateways.iter().copied().collect());
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut tunnels = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tunnels.spawn(tunnel(stream, Arc::clone(&gateways), Arc::clone(&seen)));
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    fn url(&self) -> String {
        format!("http://ada:s3cret@{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn tunnel(
    mut device: TcpStream,
    gateways: Arc<HashMap<&'static str, SocketAddr>>,
    asked: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(device.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let gateway = line.split(' ').nth(1).and_then(|name| gateways.get(name));
    asked.lock().unwrap().push(line.clone());
    if !head.contains(AUTHORIZATION) {
        return device
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            .await;
    }
    let Some(gateway) = gateway else {
        return device.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
    };
    let mut gateway = TcpStream::connect(gateway).await?;
    device
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    copy_bidirectional(&mut device, &mut gateway)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_device_is_paired_and_serves_through_the_proxy_of_its_environment() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let proxy = Proxy::start(&[(NAME, gateway.address)]).await;
    let host = Host::new();
    let mut pairing = host.command(&["pair", "-", "--name", "lamp"]);
    pairing.env("HTTPS_PROXY", proxy.url());
    pair_by(pairing, NAME, &host, &mut gateway, &authority).await;
    assert_eq!(proxy.asked(), [format!("CONNECT {NAME} HTTP/1.1")]);

    let mut run = host.command(&["run"]);
    let running = run.env("https_proxy", proxy.url()).spawn().unwrap();
    let _stream = gateway.stream().await;
    let mut doctor = host.command(&["doctor"]);
    let output = soon(doctor.env("HTTPS_PROXY", proxy.url()).output())
        .await
        .unwrap();
    let shown = text(&output.stdout);
    assert!(is(output.status, Exit::Done), "{shown}");
    let subject = format!("{NAME} through http://{}: ", proxy.address);
    assert!(
        shown.contains(&format!("{subject}a gateway of the authority")),
        "{shown}"
    );
    assert!(!shown.contains("s3cret"), "{shown}");
    let pid = running.id().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let output = soon(running.wait_with_output()).await.unwrap();
    let logs = text(&output.stderr);
    assert!(logs.contains("Connected"), "{logs}");
    assert!(!logs.contains("s3cret") && !logs.contains("ada"), "{logs}");
}

#[tokio::test]
async fn the_configuration_counts_more_than_the_environment_and_no_error_shows_a_password() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let proxy = Proxy::start(&[(NAME, gateway.address)]).await;
    let host = Host::new();
    let config = host.temporary.path().join("agent.toml");
    let write = |text: String| fs::write(&config, text).unwrap();
    let configured = |arguments: &[&str]| {
        let mut command =
            host.command(&[&["--config", config.to_str().unwrap()], arguments].concat());
        command.env("HTTPS_PROXY", "http://ada:s3cret@127.0.0.1:1");
        command
    };
    write(format!("proxy = \"{}\"\n", proxy.url()));
    let pairing = configured(&["pair", "-", "--name", "lamp"]);
    pair_by(pairing, NAME, &host, &mut gateway, &authority).await;
    let running = configured(&["run"]).spawn().unwrap();
    let _stream = gateway.stream().await;
    assert!(is(terminate(running).await, Exit::Done));

    let elsewhere = Host::new();
    let config_path = config.to_str().unwrap();
    for (text, arguments, exit, says) in [
        (
            proxy.url().replace("s3cret", "s3cret2"),
            &[][..],
            Exit::Unreachable,
            "asks for a user",
        ),
        (
            "ftp://ada:s3cret@x".to_owned(),
            &[],
            Exit::Config,
            "agent.toml:1: proxy: ",
        ),
        (String::new(), &[], Exit::Config, "not a valid proxy URL"),
        (
            proxy.url(),
            &["--proxy", "socks5://ada:s3cret@x"],
            Exit::Usage,
            "--proxy: the agent speaks",
        ),
        (
            proxy.url(),
            &["--proxy", "http://ada:s3cret@a b"],
            Exit::Usage,
            "not a valid proxy URL",
        ),
        (
            proxy.url(),
            &["--gateway", "other.test:1"],
            Exit::Unreachable,
            "403 Forbidden",
        ),
    ] {
        write(format!("proxy = \"{text}\"\n"));
        let base = ["--config", config_path, "pair", "7KQ2-ABCDEF"];
        let gateway = ["--gateway", NAME];
        let gateway = if arguments.contains(&"--gateway") {
            &[][..]
        } else {
            &gateway
        };
        let output = elsewhere.call(&[&base, gateway, arguments].concat()).await;
        let errors = crate::process::text(&output.stderr);
        assert!(is(output.status, exit), "{text} {arguments:?}: {errors}");
        assert!(errors.contains(says), "{text} {arguments:?}: {errors}");
        assert!(!errors.contains("s3cret"), "{errors}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_an_exception_is_connected_to_directly() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    let mut pairing = host.command(&["pair", "-", "--name", "lamp"]);
    // Nobody listens there; and this machine is always an exception.
    pairing.env("HTTPS_PROXY", "http://127.0.0.1:1");
    let address = gateway.address.to_string();
    pair_by(pairing, &address, &host, &mut gateway, &authority).await;
}
