//! `doctor`, on real devices with real troubles.

use std::{
    fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, process::Output, time::Duration,
};

use node_agent::{exit::Exit, state::Folder};
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};

use crate::{
    gateway::{Authority, Gateway, Manners, soon},
    process::{Host, is, pair, terminate, text},
};

/// The result of each check, by its name.
fn results(output: &Output) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    checks
        .map(|check| (word(&check["name"]), word(&check["result"])))
        .collect()
}

fn result(output: &Output, name: &str) -> String {
    let results = results(output).into_iter();
    let mut found = results.filter(|(found, _)| found == name);
    found
        .next()
        .unwrap_or_else(|| unreachable!("{name} is looked at"))
        .1
}

/// Once who listened there is gone.
async fn bind(address: SocketAddr) -> TcpListener {
    soon(async {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

const JSON: [&str; 3] = ["doctor", "--output", "json"];

#[tokio::test]
async fn a_paired_device_is_looked_at_while_it_serves_and_is_not_disturbed() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &authority).await;
    let running = host.command(&["run"]).spawn().unwrap();
    let _stream = gateway.stream().await;

    let output = host.call(&JSON).await;
    assert!(is(output.status, Exit::Done), "{}", text(&output.stdout));
    for name in [
        "StateFolder",
        "Pairing",
        "Journal",
        "Process",
        "Certificate",
        "Dns",
        "Port",
        "Tls",
        "Clock",
    ] {
        assert_eq!(
            result(&output, name),
            "Ok",
            "{name}: {}",
            text(&output.stdout)
        );
    }
    // It was the gateway's own clock that was compared.
    let shown = text(&host.call(&["doctor"]).await.stdout);
    assert!(shown.contains("as the gateways do"), "{shown}");
    assert_eq!(host.status().await["session"]["state"], "Connected");
    assert!(is(terminate(running).await, Exit::Done));

    // Nobody is there any more.
    drop(gateway);
    let output = host.call(&JSON).await;
    assert!(is(output.status, Exit::Failed), "{}", text(&output.stdout));
    assert_eq!(result(&output, "Port"), "Failed");
    assert_eq!(result(&output, "Tls"), "Skipped");
    assert_eq!(result(&output, "Clock"), "Skipped");
    assert_eq!(result(&output, "Process"), "Warning");
}

#[tokio::test]
async fn a_gateway_of_another_authority_is_found_out() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let mut gateway = Gateway::start(&ours, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &ours).await;
    let address = gateway.address;
    drop(gateway);
    let listener = bind(address).await;
    let _impostor = Gateway::start_on(listener, &theirs, &theirs, Manners::default());
    let output = host.call(&JSON).await;
    assert!(is(output.status, Exit::Failed));
    assert_eq!(result(&output, "Tls"), "Failed");
    assert!(text(&output.stdout).contains("not from the authority"));
}

#[tokio::test]
async fn a_gateway_that_refuses_this_device_is_told_from_one_that_is_broken() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let mut gateway = Gateway::start(&ours, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &ours).await;
    let address = gateway.address;
    drop(gateway);
    let listener = bind(address).await;
    let _refuses = Gateway::start_on(listener, &ours, &others, Manners::default());
    let output = host.call(&JSON).await;
    assert!(is(output.status, Exit::Failed));
    assert!(
        text(&output.stdout).contains("refused this device's certificate"),
        "{}",
        text(&output.stdout)
    );
}

#[tokio::test]
async fn a_device_that_is_not_paired_fails_nothing_and_what_is_damaged_does() {
    let host = Host::new();
    let output = host.call(&JSON).await;
    assert!(is(output.status, Exit::Done), "{}", text(&output.stdout));
    assert_eq!(result(&output, "Pairing"), "Warning");
    assert!(!host.state().exists(), "nothing is made by looking");

    // Somebody else uses the folder, and keeps it.
    let held = Folder::open(&host.state()).unwrap();
    let output = host.call(&JSON).await;
    assert_eq!(result(&output, "Process"), "Ok");
    drop(held);

    let journal = host.state().join("journal");
    fs::write(&journal, "something else entirely").unwrap();
    let output = host.call(&JSON).await;
    assert!(is(output.status, Exit::Failed));
    assert_eq!(result(&output, "Journal"), "Failed");
    fs::remove_file(journal).unwrap();

    fs::set_permissions(host.state(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = host.call(&["doctor"]).await;
    assert!(is(output.status, Exit::Failed));
    assert!(
        text(&output.stdout).contains("chmod 0700"),
        "{}",
        text(&output.stdout)
    );

    let config = host.temporary.path().join("agent.toml");
    fs::write(&config, "x = 1\n").unwrap();
    let output = host
        .call(&["--config", config.to_str().unwrap(), "doctor"])
        .await;
    assert!(is(output.status, Exit::Failed));
    assert!(text(&output.stdout).contains("agent.toml:1: "));
}

#[tokio::test]
async fn an_agent_that_opens_things_and_has_no_screen_is_told_so() {
    let authority = Authority::new("ours");
    let mut gateway = Gateway::start(&authority, Manners::default()).await;
    let host = Host::new();
    pair(&host, &mut gateway, &authority).await;
    let config = host.temporary.path().join("agent.toml");
    let config = config.to_str().unwrap();
    let look = async || {
        host.call(&[&["--config", config][..], &JSON].concat())
            .await
    };
    fs::write(config, "").unwrap();
    assert_eq!(result(&look().await, "Screen"), "Skipped");

    fs::write(config, "[desktop]\nopen_path_roots = [\"/srv\"]\n").unwrap();
    // Of who asks, while no agent runs.
    assert_eq!(result(&look().await, "Screen"), "Warning");
    for (variable, expected) in [("XDISPLAY", "Warning"), ("WAYLAND_DISPLAY", "Ok")] {
        let mut command = host.command(&["--config", config, "run"]);
        let running = command.env(variable, "wayland-0").spawn().unwrap();
        let stream = gateway.stream().await;
        let output = look().await;
        assert_eq!(result(&output, "Screen"), expected, "{variable}");
        assert!(is(output.status, Exit::Done), "{}", text(&output.stdout));
        assert!(is(terminate(running).await, Exit::Done));
        drop(stream);
    }
}
