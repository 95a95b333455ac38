//! What is sent again and what is not, and what is read of an answer.

use std::time::Duration;

use axum::body::Body;
use client::{
    Category, Error, Limits, Retries, Timeouts, Waited,
    api::{
        ObjectId,
        inventory::Presence,
        invocation::{NewInvocation, Phase},
        problem::ProblemCode,
        query::InventoryQuery,
    },
};
use futures::TryStreamExt as _;
use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use super::fake::{self, Fake, header, problem, with};

fn lamp() -> ObjectId {
    "kitchen.lamp".parse().unwrap()
}

fn new_invocation() -> NewInvocation {
    serde_json::from_value(json!({"device": "kitchen.lamp", "capability": "system.health"}))
        .unwrap()
}

#[tokio::test]
async fn what_only_reads_is_asked_again_where_the_failure_may_pass() {
    let fake = Fake::plays([
        problem(503, "Unavailable", true),
        with(StatusCode::BAD_GATEWAY, Body::from("<html>")),
        fake::json(&fake::page(&["lamp"], None)),
    ])
    .await;
    let page = fake
        .client()
        .inventory(&InventoryQuery::default())
        .await
        .unwrap();
    assert_eq!(page.devices.len(), 1);
    assert_eq!(fake.seen().len(), 3);
    assert!(
        fake.seen()
            .iter()
            .all(|seen| seen.header("authorization") == Some("Bearer t0ken"))
    );
}

#[tokio::test]
async fn what_will_not_pass_is_not_asked_again() {
    let fake = Fake::plays([problem(403, "Forbidden", false)]).await;
    let error = fake.client().device(&lamp()).await.unwrap_err();
    assert_eq!(error.code(), Some(ProblemCode::Forbidden));
    assert_eq!(
        (error.category(), error.retryable()),
        (Category::Authorization, false)
    );
    assert_eq!(
        fake.asked(),
        ["GET /console/v1/inventory/devices/kitchen.lamp"]
    );
}

#[tokio::test]
async fn what_changes_something_is_sent_once_whatever_happens() {
    let fake = Fake::plays([problem(503, "Unavailable", true)]).await;
    let error = fake.client().suspend(&lamp(), Some("7")).await.unwrap_err();
    assert!(error.retryable(), "the caller may");
    let [seen] = fake.seen().try_into().unwrap();
    assert_eq!(seen.header("if-match"), Some("\"7\""));
    assert_eq!(seen.header("idempotency-key"), None);
}

#[tokio::test]
async fn a_create_is_sent_again_with_the_same_key() {
    let made = || {
        let mut made = fake::json(&fake::invocation("Queued"));
        *made.status_mut() = StatusCode::CREATED;
        made
    };
    let fake = Fake::plays([
        problem(503, "Unavailable", true),
        with(StatusCode::OK, fake::broken_after(b"{\"id\":")),
        made(),
        made(),
    ])
    .await;
    let client = fake.client();
    let first = client.invoke(&new_invocation()).await.unwrap();
    assert_eq!(first.summary.phase, Phase::Queued);
    client.invoke(&new_invocation()).await.unwrap();
    let keys: Vec<_> = fake
        .seen()
        .iter()
        .map(|seen| seen.header("idempotency-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0], keys[2]);
    assert_ne!(keys[0], keys[3], "another invocation is another one");
}

#[tokio::test]
async fn the_tries_are_counted() {
    let fake = Fake::plays((0..9).map(|_| problem(503, "Unavailable", true))).await;
    let error = fake.client().device(&lamp()).await.unwrap_err();
    assert_eq!(error.category(), Category::Unavailable);
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn nobody_comes_back_sooner_than_asked() {
    let busy = |seconds: &str| {
        header(
            problem(429, "TooManyRequests", true),
            "retry-after",
            seconds,
        )
    };
    let fake = Fake::plays([busy("1"), fake::json(&fake::page(&[], None)), busy("3600")]).await;
    let client = fake.client();
    let began = Instant::now();
    client.inventory(&InventoryQuery::default()).await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );

    let error = client
        .inventory(&InventoryQuery::default())
        .await
        .unwrap_err();
    assert_eq!(error.category(), Category::Throttled);
    assert_eq!(
        error.retry_after(),
        Some(Duration::from_hours(1)),
        "for the caller to decide"
    );
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let long = || " ".repeat(5000);
    let fake = Fake::plays([
        with(StatusCode::OK, Body::from(long())),
        with(StatusCode::OK, fake::held_open(vec![long(), long()])),
    ])
    .await;
    let limits = Limits {
        answer_bytes: 8000,
        ..Limits::default()
    };
    let client = fake.builder().limits(limits).build().unwrap();
    let declared = Limits {
        answer_bytes: 4000,
        ..limits
    };
    let strict = fake.builder().limits(declared).build().unwrap();
    assert!(matches!(
        strict.device(&lamp()).await,
        Err(Error::TooLarge(4000))
    ));
    assert!(matches!(
        client.device(&lamp()).await,
        Err(Error::TooLarge(8000))
    ));
    assert_eq!(fake.seen().len(), 2, "the next one would be no smaller");
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let fake = Fake::plays([fake::silent()]).await;
    let timeouts = Timeouts {
        request: Duration::from_millis(100),
        ..Timeouts::default()
    };
    let once = Retries {
        attempts: 1,
        ..Retries::default()
    };
    let client = fake
        .builder()
        .timeouts(timeouts)
        .retries(once)
        .build()
        .unwrap();
    let error = client.device(&lamp()).await.unwrap_err();
    assert_eq!(error.category(), Category::Timeout, "{error:?}");
}

#[tokio::test]
async fn what_a_newer_console_says_is_read_as_far_as_it_is_known() {
    let mut page = fake::page(&["lamp"], None);
    page["devices"][0]["presence"] = json!("Levitating");
    page["devices"][0]["mood"] = json!({"of": "the day"});
    let fake = Fake::plays([fake::json(&page), problem(409, "FromTheFuture", false)]).await;
    let client = fake.client();
    let page = client.inventory(&InventoryQuery::default()).await.unwrap();
    assert_eq!(page.devices[0].presence, Some(Presence::Other));
    let error = client
        .inventory(&InventoryQuery::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.category()),
        (Some(ProblemCode::Other), Category::Conflict)
    );
}

#[tokio::test]
async fn nothing_is_sent_where_a_redirect_points() {
    let elsewhere = Fake::plays([fake::json(&fake::page(&[], None))]).await;
    let redirect = header(
        with(StatusCode::FOUND, Body::empty()),
        "location",
        &elsewhere.address,
    );
    let fake = Fake::plays([redirect]).await;
    let error = fake
        .client()
        .inventory(&InventoryQuery::default())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Status {
                status: StatusCode::FOUND,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn pages_follow_one_another_and_keep_the_filters() {
    let fake = Fake::plays([
        fake::json(&fake::page(&["a", "b"], Some("c1"))),
        fake::json(&fake::page(&["c"], None)),
    ])
    .await;
    let query = InventoryQuery {
        namespace: Some("kitchen".to_owned()),
        labels: Some("site=a,tier!=b".to_owned()),
        ..InventoryQuery::default()
    };
    let devices: Vec<_> = fake.client().devices(&query).try_collect().await.unwrap();
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let asked = fake.asked();
    assert!(
        asked[0].contains("labels=site%3Da%2Ctier%21%3Db"),
        "{asked:?}"
    );
    assert!(
        asked[1].contains("namespace=kitchen") && asked[1].contains("cursor=c1"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_console_that_goes_round_in_circles_is_left() {
    let same = || fake::json(&fake::page(&["a"], Some("c1")));
    let fake = Fake::plays([same(), same(), same()]).await;
    let error = fake
        .client()
        .devices(&InventoryQuery::default())
        .try_collect::<Vec<_>>()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Incomplete(_)), "{error:?}");
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn waiting_polls_until_the_end_or_until_the_time_is_over() {
    let id: ObjectId = "kitchen.inv-1".parse().unwrap();
    let fake = Fake::plays([
        fake::json(&fake::invocation("Dispatched")),
        fake::json(&fake::invocation("Succeeded")),
        fake::json(&fake::invocation("FromTheFuture")),
        fake::json(&fake::invocation("Queued")),
    ])
    .await;
    let client = fake.client();
    let Waited::Ended(ended) = client.wait(&id, Duration::from_secs(90)).await.unwrap() else {
        panic!("it has ended")
    };
    assert_eq!(ended.summary.phase, Phase::Succeeded);
    assert!(fake.asked()[0].ends_with("?wait=60"), "{:?}", fake.asked());
    let Waited::Open(_) = client.wait(&id, Duration::from_millis(240)).await.unwrap() else {
        panic!("nobody said that it has ended")
    };
}
