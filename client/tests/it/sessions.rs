//! The session that a client keeps.

use axum::response::Response;
use client::{
    Authentication, Category, ControlPlaneClient,
    api::{ObjectId, query::InventoryQuery},
};
use http::StatusCode;
use serde_json::json;

use super::fake::{self, Fake, Seen, header, problem, with};

const COOKIE: &str = "__Host-fairlead-session";

fn login(cookie: &str) -> Response {
    let session = json!({"user": "ada", "groups": [], "csrfToken": format!("csrf-of-{cookie}")});
    let set = format!("{COOKIE}={cookie}; Path=/; HttpOnly; Secure; SameSite=Strict");
    header(fake::json(&session), "set-cookie", &set)
}

fn page() -> Response {
    fake::json(&fake::page(&[], None))
}

fn client(fake: &Fake) -> ControlPlaneClient {
    fake.builder()
        .authentication(Authentication::Session)
        .build()
        .unwrap()
}

fn cookies(seen: &[Seen]) -> Vec<Option<&str>> {
    seen.iter().map(|seen| seen.header("cookie")).collect()
}

async fn read(client: &ControlPlaneClient) -> client::Result<()> {
    client.inventory(&InventoryQuery::default()).await.map(drop)
}

#[tokio::test]
async fn the_token_is_sent_once_and_what_changes_something_carries_the_csrf_token() {
    let fake = Fake::plays([login("one"), page(), fake::json(&fake::device("lamp"))]).await;
    let client = client(&fake);
    read(&client).await.unwrap();
    let lamp: ObjectId = "kitchen.lamp".parse().unwrap();
    client.suspend(&lamp, None).await.unwrap();

    let [login, read, change] = fake.seen().try_into().unwrap();
    assert_eq!(login.path, "/console/v1/auth/login");
    assert_eq!(login.body, r#"{"token":"t0ken"}"#);
    let cookie = format!("{COOKIE}=one");
    for seen in [&read, &change] {
        assert_eq!(seen.header("cookie"), Some(cookie.as_str()));
        assert_eq!(seen.header("authorization"), None);
    }
    assert_eq!(
        read.header("x-csrf-token"),
        None,
        "it is for what changes something"
    );
    assert_eq!(change.header("x-csrf-token"), Some("csrf-of-one"));
    assert_eq!(
        change.header("origin"),
        None,
        "browsers say that; a proxy before the console would make it wrong"
    );
}

#[tokio::test]
async fn many_at_once_make_one_session() {
    let fake = Fake::plays([login("one"), page(), page(), page(), page()]).await;
    let client = client(&fake);
    let all = futures::future::join_all((0..4).map(|_| read(&client))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    let logins = fake
        .asked()
        .iter()
        .filter(|asked| asked.contains("login"))
        .count();
    assert_eq!(logins, 1);
}

#[tokio::test]
async fn a_session_that_has_ended_is_made_again_once() {
    let ended = || problem(401, "SessionExpired", false);
    let fake = Fake::plays([
        login("one"),
        page(),
        ended(),
        login("two"),
        page(),
        ended(),
        login("three"),
        ended(),
    ])
    .await;
    let client = client(&fake);
    read(&client).await.unwrap();
    read(&client).await.unwrap();
    let seen = fake.seen();
    assert_eq!(cookies(&seen)[4], Some("__Host-fairlead-session=two"));
    // Twice in one request: then it is the console's fault, or the token's, and nobody tries for ever.
    let error = read(&client).await.unwrap_err();
    assert_eq!(error.category(), Category::Authentication);
    assert_eq!(fake.seen().len(), 8);
}

#[tokio::test]
async fn what_was_not_looked_at_is_sent_again_though_it_changes_something() {
    let fake = Fake::plays([
        login("one"),
        problem(401, "SessionExpired", false),
        login("two"),
        fake::json(&fake::device("lamp")),
    ])
    .await;
    let lamp: ObjectId = "kitchen.lamp".parse().unwrap();
    client(&fake).suspend(&lamp, None).await.unwrap();
    let [.., last] = fake.seen().try_into().map(|seen: [Seen; 4]| seen).unwrap();
    assert_eq!(last.header("x-csrf-token"), Some("csrf-of-two"));
}

#[tokio::test]
async fn a_cookie_that_is_sealed_anew_is_the_one_that_is_sent() {
    let renewed = header(page(), "set-cookie", &format!("{COOKIE}=renewed; Path=/"));
    let fake = Fake::plays([login("one"), renewed, page()]).await;
    let client = client(&fake);
    read(&client).await.unwrap();
    read(&client).await.unwrap();
    assert_eq!(
        cookies(&fake.seen())[2],
        Some("__Host-fairlead-session=renewed")
    );
}

#[tokio::test]
async fn a_logout_ends_the_session_and_the_next_request_makes_another() {
    let removed = header(
        with(StatusCode::NO_CONTENT, axum::body::Body::empty()),
        "set-cookie",
        &format!("{COOKIE}=; Path=/; Max-Age=0"),
    );
    let fake = Fake::plays([login("one"), page(), removed, login("two"), page()]).await;
    let client = client(&fake);
    client.logout().await.unwrap();
    assert!(fake.seen().is_empty(), "there is none to end");
    read(&client).await.unwrap();
    client.logout().await.unwrap();
    read(&client).await.unwrap();
    let asked = fake.asked();
    assert_eq!(asked[2], "POST /console/v1/auth/logout");
    assert_eq!(fake.seen()[2].header("x-csrf-token"), Some("csrf-of-one"));
    assert_eq!(asked[3], "POST /console/v1/auth/login");
}

#[tokio::test]
async fn a_login_without_a_cookie_is_no_login() {
    let fake = Fake::plays([fake::json(&json!({"user": "ada", "groups": []}))]).await;
    let error = read(&client(&fake)).await.unwrap_err();
    assert_eq!(error.category(), Category::Answer, "{error:?}");
}
