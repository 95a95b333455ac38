//! What is too large for a resource.

use axum::{body::Body, response::Response};
use client::{Category, Error, api::ObjectId};
use http::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::fake::{self, Fake, header, problem, with};

const WHOLE: &[u8] = b"0123456789";

fn named(sha256: &str, size: usize) -> Response {
    let mut invocation = fake::invocation("Succeeded");
    invocation["artefact"] =
        json!({"sizeBytes": size, "sha256": sha256, "mediaType": "text/plain"});
    fake::json(&invocation)
}

fn of_whole() -> Response {
    named(&hex::encode(Sha256::digest(WHOLE)), WHOLE.len())
}

fn part(range: &str, body: &'static [u8]) -> Response {
    header(
        with(StatusCode::PARTIAL_CONTENT, Body::from(body)),
        "content-range",
        range,
    )
}

fn id() -> ObjectId {
    "kitchen.inv-1".parse().unwrap()
}

async fn fetch(fake: &Fake) -> (client::Result<()>, Vec<u8>) {
    let mut written = Vec::new();
    let outcome = fake.client().artefact(&id(), &mut written).await;
    (outcome.map(drop), written)
}

#[tokio::test]
async fn it_is_written_and_checked() {
    let fake = Fake::plays([of_whole(), with(StatusCode::OK, Body::from(WHOLE))]).await;
    let (outcome, written) = fetch(&fake).await;
    outcome.unwrap();
    assert_eq!(written, WHOLE);
    assert_eq!(
        fake.asked()[1],
        "GET /console/v1/invocations/kitchen.inv-1/artefact"
    );
    assert_eq!(fake.seen()[1].header("range"), None);
}

#[tokio::test]
async fn what_is_missing_after_a_break_is_asked_for_and_nothing_else() {
    let fake = Fake::plays([
        of_whole(),
        with(StatusCode::OK, fake::broken_after(b"0123")),
        problem(503, "Unavailable", true),
        part("bytes 4-9/10", b"456789"),
    ])
    .await;
    let (outcome, written) = fetch(&fake).await;
    outcome.unwrap();
    assert_eq!(written, WHOLE);
    let seen = fake.seen();
    assert_eq!(seen[2].header("range"), Some("bytes=4-"));
    assert_eq!(seen[3].header("range"), Some("bytes=4-"));
}

#[tokio::test]
async fn who_knows_no_ranges_sends_it_all_again_and_it_is_not_written_twice() {
    let fake = Fake::plays([
        of_whole(),
        with(StatusCode::OK, fake::broken_after(b"0123")),
        with(StatusCode::OK, Body::from(WHOLE)),
    ])
    .await;
    let (outcome, written) = fetch(&fake).await;
    outcome.unwrap();
    assert_eq!(written, WHOLE);
}

#[tokio::test]
async fn what_is_not_what_the_invocation_names_is_not_called_whole() {
    let digest = hex::encode(Sha256::digest(WHOLE));
    for (what, size, body) in [
        ("other bytes", 10, b"0123456780".as_slice()),
        ("longer", 9, WHOLE),
        ("shorter", 11, WHOLE),
    ] {
        let fake =
            Fake::plays([named(&digest, size), with(StatusCode::OK, Body::from(body))]).await;
        let (outcome, _) = fetch(&fake).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{what}: {error:?}");
        assert!(!error.retryable(), "{what}");
    }
}

#[tokio::test]
async fn a_range_with_a_hole_before_it_is_refused() {
    let fake = Fake::plays([
        of_whole(),
        with(StatusCode::OK, fake::broken_after(b"0123")),
        part("bytes 6-9/10", b"6789"),
    ])
    .await;
    let (outcome, _) = fetch(&fake).await;
    assert!(matches!(outcome, Err(Error::Corrupt(_))), "{outcome:?}");
}

#[tokio::test]
async fn breaks_without_any_progress_come_to_an_end() {
    let broken = || with(StatusCode::OK, fake::broken_after(b""));
    let fake = Fake::plays([of_whole(), broken(), broken(), broken(), broken()]).await;
    let (outcome, written) = fetch(&fake).await;
    assert_eq!(outcome.unwrap_err().category(), Category::Transport);
    assert!(written.is_empty());
    assert_eq!(fake.seen().len(), 4, "the invocation, and three tries");
}

#[tokio::test]
async fn an_output_in_the_invocation_itself_is_no_artefact() {
    let fake = Fake::plays([fake::json(&fake::invocation("Succeeded"))]).await;
    let (outcome, _) = fetch(&fake).await;
    assert!(matches!(outcome, Err(Error::NoArtefact)), "{outcome:?}");
}
