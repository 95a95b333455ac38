//! The keys' Secret, against a pretended API server.

use jiff::SignedDuration;
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::*;
use crate::{metrics::Metrics, pretended::Server};

const SECRET: &str = "secrets/fairlead-console-keys";

fn noon() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

async fn look(server: &Server, now: Timestamp) -> anyhow::Result<Timestamp> {
    let metrics = Metrics::register(&mut Registry::default());
    let report = Report::new(server.client(), "operator-0", metrics);
    keep(&store(server), &report, now).await
}

fn store(server: &Server) -> Store {
    Store {
        client: server.client(),
        namespace: "system".to_owned(),
    }
}

/// The current key and the previous one, as a gateway would read them.
fn keys(server: &Server) -> (Vec<u8>, Option<Vec<u8>>) {
    let secret: Secret = serde_json::from_value(server.get(SECRET).unwrap()).unwrap();
    let mut data = secret.data.unwrap();
    let current = data.remove(CONSOLE_KEY_CURRENT).unwrap().0;
    let previous = data.remove(CONSOLE_KEY_PREVIOUS).map(|key| key.0);
    assert_eq!(data.len(), 0);
    (current, previous)
}

#[tokio::test]
async fn the_keys_are_made_once() {
    let server = Server::default();
    let until = look(&server, noon()).await.unwrap();
    assert_eq!(until, noon() + hours(24));
    let (current, previous) = keys(&server);
    assert_eq!((current.len(), &previous), (CONSOLE_KEY_BYTES, &None));
    assert_ne!(current, [0; CONSOLE_KEY_BYTES]);
    // The operator starts again.
    assert_eq!(look(&server, noon() + hours(23)).await.unwrap(), until);
    assert_eq!(keys(&server), (current, None));
    assert_eq!(server.writes("secrets").len(), 1);
    assert_eq!(server.events(), [""; 0]);
}

#[tokio::test]
async fn of_two_operators_that_start_at_once_one_makes_the_keys() {
    let server = Server::default();
    server.another_is_quicker_with(fresh(&store(&server), noon()));
    look(&server, noon()).await.unwrap();
    let theirs = keys(&server);
    look(&server, noon()).await.unwrap();
    assert_eq!(keys(&server), theirs);
    assert_eq!(server.writes("secrets").len(), 1);
}

#[tokio::test]
async fn after_a_day_the_current_key_becomes_the_previous_one() {
    let server = Server::default();
    look(&server, noon()).await.unwrap();
    let (first, _) = keys(&server);
    let tomorrow = noon() + hours(24);
    assert_eq!(look(&server, tomorrow).await.unwrap(), tomorrow + hours(24));
    let (second, previous) = keys(&server);
    assert_eq!(previous.as_ref(), Some(&first));
    assert_ne!(second, first);
    look(&server, tomorrow + hours(24)).await.unwrap();
    let (third, previous) = keys(&server);
    assert_eq!(previous, Some(second.clone()));
    assert!(third != second && third != first);
    assert_eq!(server.events(), [""; 0], "nobody loses a session");
}

#[tokio::test]
async fn of_two_operators_that_rotate_at_once_one_does() {
    let server = Server::default();
    look(&server, noon()).await.unwrap();
    let seen: Secret = serde_json::from_value(server.get(SECRET).unwrap()).unwrap();
    let tomorrow = noon() + hours(24);
    look(&server, tomorrow).await.unwrap();
    let rotated = keys(&server);
    // It saw what was there before.
    rotate(&store(&server), &seen, tomorrow).await.unwrap();
    assert_eq!(keys(&server), rotated);
    look(&server, tomorrow).await.unwrap();
    assert_eq!(keys(&server), rotated);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_replaced_and_that_is_told() {
    let server = Server::default();
    look(&server, noon()).await.unwrap();
    let (lost, _) = keys(&server);
    let mut damaged = server.get(SECRET).unwrap();
    damaged["data"][CONSOLE_KEY_CURRENT] = Value::from("c2hvcnQ=");
    server.put(SECRET, damaged);
    let later = noon() + hours(1);
    assert_eq!(look(&server, later).await.unwrap(), later + hours(24));
    let (current, previous) = keys(&server);
    assert_eq!((current.len(), previous), (CONSOLE_KEY_BYTES, None));
    assert_ne!(current, lost);
    assert_eq!(server.events(), ["ConsoleKeysReplaced"]);
    let events = format!("{:?}", server.writes("events"));
    for secret in [&current[..], &lost] {
        assert!(!events.contains(&STANDARD.encode(secret)), "a key was told");
    }
}
