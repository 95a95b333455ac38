//! The stream of changes.

use std::time::Duration;

use axum::{body::Body, response::Response};
use client::{
    Category, Error, Limits, Timeouts,
    api::{event::ConsoleEvent, query::ScopeQuery},
};
use futures::{StreamExt as _, TryStreamExt as _};
use http::StatusCode;

use super::fake::{self, Fake, header, problem, with};

fn stream(body: Body) -> Response {
    header(
        with(StatusCode::OK, body),
        "content-type",
        "text/event-stream",
    )
}

fn event(name: &str, id: &str, data: &str) -> String {
    format!("event: {name}\nid: {id}\ndata: {data}\n\n")
}

fn gone(id: &str) -> String {
    event("device.deleted", id, r#"{"id":"kitchen.lamp"}"#)
}

fn all() -> ScopeQuery {
    ScopeQuery::default()
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_after_the_last_event() {
    let fake = Fake::plays([
        stream(Body::from(event("hello", "1", "{}") + &gone("2"))),
        problem(503, "Unavailable", true),
        stream(fake::held_open(vec![
            event("hello", "2", "{}") + &gone("3"),
        ])),
    ])
    .await;
    let events: Vec<_> = fake
        .client()
        .events(&all())
        .take(4)
        .try_collect()
        .await
        .unwrap();
    let ids: Vec<_> = events
        .iter()
        .map(|received| received.id.as_deref().unwrap())
        .collect();
    assert_eq!(ids, ["1", "2", "2", "3"]);
    let last_ids: Vec<_> = fake
        .seen()
        .iter()
        .map(|seen| seen.header("last-event-id").map(str::to_owned))
        .collect();
    assert_eq!(last_ids, [None, Some("2".to_owned()), Some("2".to_owned())]);
}

#[tokio::test]
async fn a_stream_can_be_taken_up_where_another_one_ended() {
    let fake = Fake::plays([stream(fake::held_open(vec![gone("8")]))]).await;
    let scope = ScopeQuery {
        namespace: Some("kitchen".to_owned()),
    };
    let received = fake
        .client()
        .events_after(&scope, Some("7"))
        .next()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(received.id.as_deref(), Some("8"));
    assert_eq!(fake.seen()[0].header("last-event-id"), Some("7"));
    assert_eq!(fake.asked(), ["GET /console/v1/events?namespace=kitchen"]);
}

#[tokio::test]
async fn a_resync_is_told_and_what_is_not_known_is_left_out() {
    let future = event("weather.changed", "5", "not even JSON");
    let comment = ": still here\n\n".to_owned();
    let fake = Fake::plays([stream(fake::held_open(vec![
        event("hello", "4", "{}"),
        comment,
        future,
        // Split in the middle of a line.
        "event: res".to_owned(),
        "ync\nid: 6\ndata: {}\n\n".to_owned(),
    ]))])
    .await;
    let events: Vec<_> = fake
        .client()
        .events(&all())
        .take(2)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(events[0].event, ConsoleEvent::Hello);
    assert_eq!(events[1].event, ConsoleEvent::Resync);
}

#[tokio::test]
async fn a_right_that_is_gone_ends_the_stream() {
    let denied = "event: denied\ndata: {}\n\n".to_owned();
    let fake = Fake::plays([stream(fake::held_open(vec![
        event("hello", "1", "{}"),
        denied,
    ]))])
    .await;
    let events: Vec<_> = fake.client().events(&all()).try_collect().await.unwrap();
    assert_eq!(events.last().unwrap().event, ConsoleEvent::Denied);
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn what_will_not_pass_ends_it_and_what_passes_is_tried_for_so_long() {
    let fake = Fake::plays([problem(403, "Forbidden", false)]).await;
    let mut events = fake.client().events(&all());
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.category(), Category::Authorization);
    assert!(events.next().await.is_none());

    let fake = Fake::plays((0..20).map(|_| problem(503, "Unavailable", true))).await;
    let mut events = fake.client().events(&all());
    assert!(events.next().await.unwrap().is_err());
    assert!(events.next().await.is_none());
    assert_eq!(fake.seen().len(), 4, "the first, and three more");
}

#[tokio::test]
async fn a_console_that_says_hello_and_breaks_is_left_in_the_end() {
    let fake = Fake::plays((0..20).map(|_| stream(Body::from(event("hello", "1", "{}"))))).await;
    // Connections that break at once are none that lasted.
    let retries = client::Retries {
        reconnects: 3,
        first_pause: Duration::from_micros(1),
        longest_pause: Duration::from_mins(1),
        ..client::Retries::default()
    };
    let client = fake.builder().retries(retries).build().unwrap();
    let events: Vec<_> = client.events(&all()).collect().await;
    assert!(
        matches!(events.last(), Some(Err(Error::Ended))),
        "{:?}",
        events.last()
    );
    assert_eq!(fake.seen().len(), 4);
}

#[tokio::test]
async fn a_silent_stream_is_left_for_another() {
    let fake = Fake::plays([
        stream(fake::held_open(vec![event("hello", "1", "{}")])),
        stream(fake::held_open(vec![gone("2")])),
    ])
    .await;
    let timeouts = Timeouts {
        silence: Duration::from_millis(100),
        ..Timeouts::default()
    };
    let client = fake.builder().timeouts(timeouts).build().unwrap();
    let events: Vec<_> = client.events(&all()).take(2).try_collect().await.unwrap();
    assert_eq!(events[1].id.as_deref(), Some("2"));
}

#[tokio::test]
async fn an_event_without_end_is_refused() {
    let endless = (0..64)
        .map(|_| format!("data: {}\n", "x".repeat(1000)))
        .collect();
    let fake = Fake::plays([stream(fake::held_open(endless))]).await;
    let limits = Limits {
        event_bytes: 10_000,
        ..Limits::default()
    };
    let client = fake.builder().limits(limits).build().unwrap();
    let error = client.events(&all()).next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::TooLarge(10_000)), "{error:?}");
}
