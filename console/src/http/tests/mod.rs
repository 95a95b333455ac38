//! Every route against a fake API server: who is let in, and who is not. The table says which routes there are and what
//! they take, so a new one is covered by being in it.

pub mod fake;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use console_api::{
    problem::{Problem, ProblemCode},
    session::{CSRF_HEADER, SESSION_COOKIE},
};
use futures::StreamExt as _;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use object_store::{ObjectStoreExt as _, memory::InMemory};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use self::fake::{Scene, scene, scene_with};
use super::*;
use crate::{
    caller::Token,
    clock::now,
    registry::{Need, Permission, Route, Scope},
    session::{Sealed, SessionId, csrf, life, seal},
};

/// A request to a route, about something of that namespace.
fn request(id: RouteId, namespace: &str) -> http::request::Builder {
    let route = id.route();
    let path = route.path.replace("{id}", &format!("{namespace}.thing"));
    let query = match route.scope {
        Scope::Query => format!("?namespace={namespace}"),
        Scope::Nothing | Scope::Path | Scope::Body => String::new(),
    };
    let mut request = Request::builder()
        .method(route.method.method())
        .uri(format!("{path}{query}"));
    if route.takes_body {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request
}

/// What the route takes.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "those that take a body are told by the table, and fail here"
)]
fn body(id: RouteId, namespace: &str) -> Body {
    let text = match id {
        RouteId::Login => r#"{"token":"ada"}"#.to_owned(),
        RouteId::CodeCreate => format!(r#"{{"namespace":"{namespace}"}}"#),
        RouteId::RequestApprove => format!(r#"{{"specDigest":"{}"}}"#, "0".repeat(64)),
        RouteId::RequestDeny => r#"{"reason":"no"}"#.to_owned(),
        RouteId::DeviceRename => r#"{"displayName":"Lamp"}"#.to_owned(),
        RouteId::DeviceGrant => r#"{"capabilities":["echo"]}"#.to_owned(),
        RouteId::InvocationCreate => {
            format!(r#"{{"device":"{namespace}.thing","capability":"echo"}}"#)
        }
        id => {
            assert!(
                !id.route().takes_body,
                "{id:?} takes a body: say here which"
            );
            String::new()
        }
    };
    Body::from(text)
}

async fn problem(response: Response) -> Problem {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = to_bytes(response).await;
    assert_eq!(
        kind.unwrap(),
        "application/problem+json",
        "{status}: {bytes:?}"
    );
    let problem: Problem = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(problem.status, status.as_u16());
    problem
}

async fn to_bytes(response: Response) -> bytes::Bytes {
    axum::body::to_bytes(response.into_body(), 1024 * 1024)
        .await
        .unwrap()
}

fn bearer(request: http::request::Builder, user: &str) -> http::request::Builder {
    request.header(header::AUTHORIZATION, format!("Bearer {user}"))
}

fn session(user: &str, begun: jiff::Timestamp) -> Sealed {
    life::begin(
        SessionId::from_bytes([7; 16]),
        Token::new(user).unwrap(),
        begun,
        None,
    )
    .unwrap()
}

fn cookie(scene: &Scene, session: &Sealed) -> String {
    let sealed = seal::seal(session, &scene.keys.current, seal::nonce());
    format!("{SESSION_COOKIE}={sealed}")
}

async fn ask(scene: &Scene, request: http::request::Builder, body: Body) -> Response {
    scene
        .router
        .clone()
        .oneshot(request.body(body).unwrap())
        .await
        .unwrap()
}

fn routes() -> impl Iterator<Item = (RouteId, Route)> {
    RouteId::ALL.into_iter().map(|id| (id, id.route()))
}

#[tokio::test]
async fn without_credentials_only_what_is_open_answers() {
    let scene = scene().await;
    for (id, route) in routes() {
        let response = ask(&scene, request(id, "kitchen"), body(id, "kitchen")).await;
        match route.need {
            // The token in the body is a good one.
            Need::Nobody | Need::Token => assert_eq!(response.status(), StatusCode::OK, "{id:?}"),
            Need::Identity | Need::Permission(_) => {
                assert_eq!(
                    problem(response).await.code,
                    ProblemCode::Unauthenticated,
                    "{id:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn who_the_cluster_does_not_know_is_nobody() {
    let scene = scene().await;
    for (id, route) in
        routes().filter(|(_, route)| !matches!(route.need, Need::Nobody | Need::Token))
    {
        let response = ask(
            &scene,
            bearer(request(id, "kitchen"), "stranger"),
            body(id, "kitchen"),
        )
        .await;
        assert_eq!(
            problem(response).await.code,
            ProblemCode::Unauthenticated,
            "{id:?} {route:?}"
        );
    }
}

#[tokio::test]
async fn who_lacks_the_right_is_told_which() {
    let scene = scene().await;
    for (id, route) in routes() {
        // Everybody whom the cluster knows may ask what he may.
        let Some(permission) = route
            .permission()
            .filter(|permission| *permission != Permission::AccessRead)
        else {
            continue;
        };
        let response = ask(
            &scene,
            bearer(request(id, "kitchen"), "bob"),
            body(id, "kitchen"),
        )
        .await;
        let problem = problem(response).await;
        assert_eq!(problem.code, ProblemCode::Forbidden, "{id:?}");
        assert_eq!(
            problem.permission.as_deref(),
            Some(permission.as_str()),
            "{id:?}"
        );
        assert_eq!(
            problem.rule.unwrap().namespace.as_deref(),
            Some("kitchen"),
            "{id:?}"
        );
    }
}

#[tokio::test]
async fn who_has_the_right_is_answered_in_that_namespace_and_in_no_other() {
    let scene = scene().await;
    for (id, route) in routes() {
        let response = ask(
            &scene,
            bearer(request(id, "kitchen"), "ada"),
            body(id, "kitchen"),
        )
        .await;
        let status = response.status();
        assert!(
            status.is_success() || matches!(status.as_u16(), 404 | 503),
            "{id:?}: {status} {:?}",
            to_bytes(response).await
        );
        if route
            .permission()
            .is_some_and(|permission| permission != Permission::AccessRead)
        {
            let response = ask(
                &scene,
                bearer(request(id, "cellar"), "ada"),
                body(id, "cellar"),
            )
            .await;
            assert_eq!(
                problem(response).await.code,
                ProblemCode::Forbidden,
                "{id:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_right_to_one_namespace_is_none_to_all() {
    let scene = scene().await;
    for (id, route) in routes().filter(|(_, route)| route.scope == Scope::Query) {
        if route.permission() == Some(Permission::AccessRead) {
            continue;
        }
        let all = Request::builder().uri(route.path);
        let response = ask(&scene, bearer(all, "ada"), Body::empty()).await;
        let problem = problem(response).await;
        assert_eq!(problem.code, ProblemCode::Forbidden, "{id:?}");
        assert_eq!(problem.rule.unwrap().namespace, None, "{id:?}");
    }
}

#[tokio::test]
async fn a_session_changes_nothing_without_its_csrf_token() {
    let scene = scene().await;
    let session = session("ada", now());
    let (cookie, right) = (cookie(&scene, &session), csrf::token(&session.id));
    for (id, _) in routes().filter(|(_, route)| route.changes() && route.need != Need::Token) {
        let with = |token: Option<&str>| {
            let request = request(id, "kitchen").header(header::COOKIE, &cookie);
            match token {
                Some(token) => request.header(CSRF_HEADER, token),
                None => request,
            }
        };
        let other = csrf::token(&SessionId::from_bytes([8; 16]));
        for wrong in [None, Some(""), Some("wrong"), Some(other.as_str())] {
            let response = ask(&scene, with(wrong), body(id, "kitchen")).await;
            assert_eq!(
                problem(response).await.code,
                ProblemCode::InvalidCsrf,
                "{id:?}"
            );
        }
        // Logging out ends the session of all that follow: it is tried on its own.
        if id != RouteId::Logout {
            let response = ask(&scene, with(Some(&right)), body(id, "kitchen")).await;
            let status = response.status();
            assert!(
                status.is_success() || status == StatusCode::NOT_FOUND,
                "{id:?}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_changed_for_another_web_site() {
    let scene = scene().await;
    for (id, _) in routes().filter(|(_, route)| route.changes()) {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let request = bearer(request(id, "kitchen"), "ada")
                .header(header::HOST, "console")
                .header(name, value);
            let response = ask(&scene, request, body(id, "kitchen")).await;
            assert_eq!(
                problem(response).await.code,
                ProblemCode::CrossSite,
                "{id:?} {name}"
            );
        }
    }
}

#[tokio::test]
async fn a_session_that_is_over_is_over_everywhere() {
    let scene = scene().await;
    let old = session("ada", now() - jiff::SignedDuration::from_mins(31));
    let (cookie, token) = (cookie(&scene, &old), csrf::token(&old.id));
    for (id, _) in routes().filter(|(_, route)| !matches!(route.need, Need::Nobody | Need::Token)) {
        let request = request(id, "kitchen")
            .header(header::COOKIE, &cookie)
            .header(CSRF_HEADER, &token);
        let response = ask(&scene, request, body(id, "kitchen")).await;
        assert_eq!(
            problem(response).await.code,
            ProblemCode::SessionExpired,
            "{id:?}"
        );
    }
}

#[tokio::test]
async fn a_forged_cookie_is_no_session() {
    let scene = scene().await;
    let cookie = cookie(&scene, &session("ada", now()));
    for forged in [
        cookie[..cookie.len() - 1].to_owned(),
        format!("{SESSION_COOKIE}=v2.AAAA"),
        format!("{SESSION_COOKIE}="),
    ] {
        let request = request(RouteId::Session, "kitchen").header(header::COOKIE, forged);
        let response = ask(&scene, request, Body::empty()).await;
        assert_eq!(problem(response).await.code, ProblemCode::SessionExpired);
    }
}

#[tokio::test]
async fn a_login_gives_a_cookie_and_a_csrf_token_that_work_until_the_logout() {
    let scene = scene().await;
    let response = ask(
        &scene,
        request(RouteId::Login, "kitchen"),
        body(RouteId::Login, "kitchen"),
    )
    .await;
    let set = response.headers()[header::SET_COOKIE]
        .to_str()
        .unwrap()
        .to_owned();
    let cookie = set.split(';').next().unwrap().to_owned();
    let shown: console_api::session::Session =
        serde_json::from_slice(&to_bytes(response).await).unwrap();
    assert_eq!(shown.user, "ada");
    let token = shown.csrf_token.unwrap();
    let ask_session = || request(RouteId::Session, "kitchen").header(header::COOKIE, &cookie);
    assert_eq!(
        ask(&scene, ask_session(), Body::empty()).await.status(),
        StatusCode::OK
    );
    let logout = request(RouteId::Logout, "kitchen")
        .header(header::COOKIE, &cookie)
        .header(CSRF_HEADER, token);
    let response = ask(&scene, logout, Body::empty()).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(
        response.headers()[header::SET_COOKIE]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    // It was copied before.
    let response = ask(&scene, ask_session(), Body::empty()).await;
    assert_eq!(problem(response).await.code, ProblemCode::SessionExpired);
    assert_eq!(scene.server.logouts(), 1);
}

#[tokio::test]
async fn a_logout_ends_all_sessions_of_the_user_and_the_next_login_works_at_once() {
    let scene = scene().await;
    let another = |id: u8, user: &str| Sealed {
        id: SessionId::from_bytes([id; 16]),
        ..session(user, now())
    };
    let (here, elsewhere, of_bob) = (another(1, "ada"), another(2, "ada"), another(3, "bob"));
    let with = |id: RouteId, session: &Sealed| {
        request(id, "kitchen")
            .header(header::COOKIE, cookie(&scene, session))
            .header(CSRF_HEADER, csrf::token(&session.id))
    };
    let ended = ask(&scene, with(RouteId::Logout, &here), Body::empty()).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    for session in [&here, &elsewhere] {
        let response = ask(&scene, with(RouteId::Session, session), Body::empty()).await;
        assert_eq!(problem(response).await.code, ProblemCode::SessionExpired);
    }
    let response = ask(&scene, with(RouteId::Session, &of_bob), Body::empty()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let login = request(RouteId::Login, "kitchen");
    let response = ask(&scene, login, body(RouteId::Login, "kitchen")).await;
    let set = response.headers()[header::SET_COOKIE].to_str().unwrap();
    let fresh = set.split(';').next().unwrap();
    let shown = request(RouteId::Session, "kitchen").header(header::COOKIE, fresh);
    assert_eq!(
        ask(&scene, shown, Body::empty()).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn who_logs_out_too_often_does_not_keep_another_from_it() {
    let scene = scene().await;
    let mut later = now();
    let mut log_out = async |user: &str| {
        later += jiff::SignedDuration::from_millis(1);
        let session = Sealed {
            issued_at: later + jiff::SignedDuration::from_secs(61),
            ..session(user, now())
        };
        let logout = request(RouteId::Logout, "kitchen")
            .header(header::COOKIE, cookie(&scene, &session))
            .header(CSRF_HEADER, csrf::token(&session.id));
        ask(&scene, logout, Body::empty()).await.status()
    };
    let mut last = StatusCode::NO_CONTENT;
    for _ in 0..30 {
        last = log_out("ada").await;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(log_out("bob").await, StatusCode::NO_CONTENT);
    assert_eq!(scene.server.logouts(), 2);
}

#[tokio::test]
async fn a_cookie_is_sealed_anew_while_it_is_used() {
    let scene = scene().await;
    let old = session("ada", now() - jiff::SignedDuration::from_mins(5));
    let fresh = session("ada", now());
    for (session, expected) in [(old, true), (fresh, false)] {
        let request =
            request(RouteId::Session, "kitchen").header(header::COOKIE, cookie(&scene, &session));
        let response = ask(&scene, request, Body::empty()).await;
        assert_eq!(
            response.headers().contains_key(header::SET_COOKIE),
            expected
        );
    }
}

#[tokio::test]
async fn decisions_are_remembered_and_forgotten_when_roles_change() {
    let scene = scene().await;
    let page = || bearer(request(RouteId::Instances, "kitchen"), "ada");
    assert_eq!(
        ask(&scene, page(), Body::empty()).await.status(),
        StatusCode::OK
    );
    let asked = scene.server.reviews();
    for _ in 0..10 {
        assert_eq!(
            ask(&scene, page(), Body::empty()).await.status(),
            StatusCode::OK
        );
    }
    assert_eq!(scene.server.reviews(), asked, "warm requests ask nothing");
    scene.server.take_away("ada");
    scene.console.access.forget();
    let response = ask(&scene, page(), Body::empty()).await;
    assert_eq!(problem(response).await.code, ProblemCode::Forbidden);
}

#[tokio::test]
async fn what_people_do_goes_out_with_their_own_token_alone() {
    let scene = scene().await;
    for (id, _) in routes() {
        let _ = ask(
            &scene,
            bearer(request(id, "kitchen"), "ada"),
            body(id, "kitchen"),
        )
        .await;
    }
    // The fake refuses whatever is not asked with the right token; these are the requests with the gateway's own.
    let with_own_rights = scene.server.of_gateway();
    for path in &with_own_rights {
        let is_watch = path.starts_with("GET ");
        assert!(
            is_watch || path == "POST /apis/authentication.k8s.io/v1/tokenreviews",
            "{path}"
        );
    }
    assert!(with_own_rights.iter().any(|path| path.starts_with("POST ")));
}

#[tokio::test]
async fn what_is_no_route_and_what_is_no_method_is_told_in_the_same_form() {
    let scene = scene().await;
    let response = ask(&scene, Request::builder().uri("/nowhere"), Body::empty()).await;
    assert_eq!(problem(response).await.code, ProblemCode::NotFound);
    let response = ask(
        &scene,
        Request::builder().method("PUT").uri("/healthz"),
        Body::empty(),
    )
    .await;
    assert_eq!(problem(response).await.code, ProblemCode::MethodNotAllowed);
}

#[tokio::test]
async fn bodies_are_bounded_and_must_be_json() {
    let scene = scene().await;
    let login = || {
        Request::builder()
            .method("POST")
            .uri(console_api::routes::LOGIN)
    };
    let large = format!(r#"{{"token":"{}"}}"#, "a".repeat(300 * 1024));
    let response = ask(
        &scene,
        login().header(header::CONTENT_TYPE, "application/json"),
        Body::from(large),
    )
    .await;
    assert_eq!(problem(response).await.code, ProblemCode::TooLarge);
    let response = ask(&scene, login(), Body::from("token=a")).await;
    assert_eq!(
        problem(response).await.code,
        ProblemCode::UnsupportedMediaType
    );
    let response = ask(
        &scene,
        login().header(header::CONTENT_TYPE, "application/json"),
        Body::from("{"),
    )
    .await;
    assert_eq!(problem(response).await.code, ProblemCode::InvalidRequest);
}

/// A body of four parts, and how many of them were read.
fn counted() -> (Body, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&read);
    let parts = futures::stream::iter(0..4).map(move |_| {
        counts.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>("{}")
    });
    (Body::from_stream(parts), read)
}

#[tokio::test]
async fn what_a_peer_still_sends_when_it_is_refused_is_read_or_it_may_not_see_why() {
    let scene = scene().await;
    let create = || request(RouteId::CodeCreate, "kitchen");
    let of_ada = || bearer(create(), "ada");
    for (why, request) in [
        ("nobody asks", create()),
        (
            "a query that it does not take",
            of_ada().uri("/console/v1/pairing/codes?x=1"),
        ),
        ("no route", of_ada().uri("/none")),
        ("no method", of_ada().method("PUT")),
    ] {
        let (body, read) = counted();
        let refused = ask(&scene, request, body).await;
        assert!(refused.status().is_client_error(), "{why}");
        assert_eq!(read.load(Ordering::Relaxed), 4, "{why}");
    }
    // Neither asks for it.
    for (why, request) in [
        (
            "streams end one by one",
            create().version(http::Version::HTTP_2),
        ),
        (
            "it waits for a 100",
            create().header(header::EXPECT, "100-continue"),
        ),
    ] {
        let (body, read) = counted();
        let refused = ask(&scene, request, body).await;
        assert!(refused.status().is_client_error(), "{why}");
        assert_eq!(read.load(Ordering::Relaxed), 0, "{why}");
    }
}

#[tokio::test]
async fn a_token_in_the_wrong_place_of_a_login_is_not_repeated() {
    let scene = scene().await;
    for body in [
        r#""very-secret""#,
        r#"{"token":["very-secret"]}"#,
        r#"{"very-secret":1}"#,
        "very-secret",
    ] {
        let response = ask(&scene, request(RouteId::Login, "kitchen"), Body::from(body)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        let said = String::from_utf8(to_bytes(response).await.to_vec()).unwrap();
        assert!(!said.contains("very-secret"), "{said}");
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_to_keep_and_to_load_nothing() {
    let scene = scene().await;
    let is_strict = |headers: &HeaderMap| {
        headers[header::CACHE_CONTROL] == "no-store"
            && headers[header::CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("default-src 'none'")
            && !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    };
    for (id, _) in routes() {
        let response = ask(&scene, request(id, "kitchen"), body(id, "kitchen")).await;
        assert!(is_strict(response.headers()), "{id:?}");
    }
    let response = ask(&scene, Request::builder().uri("/nowhere"), Body::empty()).await;
    assert!(is_strict(response.headers()));
}

#[tokio::test]
async fn a_create_that_is_sent_twice_is_done_once() {
    let scene = scene().await;
    let create = |ttl: u32| {
        let request =
            bearer(request(RouteId::CodeCreate, "kitchen"), "ada").header("idempotency-key", "k1");
        (
            request,
            Body::from(format!(r#"{{"namespace":"kitchen","ttlSeconds":{ttl}}}"#)),
        )
    };
    let mut ids = Vec::new();
    for expected in [StatusCode::CREATED, StatusCode::OK] {
        let (request, body) = create(600);
        let response = ask(&scene, request, body).await;
        assert_eq!(response.status(), expected);
        let record: console_api::pairing::CodeRecord =
            serde_json::from_slice(&to_bytes(response).await).unwrap();
        ids.push(record.id);
    }
    assert_eq!(ids[0], ids[1]);
    let (request, body) = create(601);
    assert_eq!(
        problem(ask(&scene, request, body).await).await.code,
        ProblemCode::Conflict
    );
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let slow = crate::Limits {
        requests_per_second_per_user: std::num::NonZeroU32::MIN,
        ..crate::Limits::default()
    };
    let scene = scene_with(slow, None).await;
    let mut last = None;
    for _ in 0..10 {
        let request = bearer(request(RouteId::Session, "kitchen"), "ada");
        last = Some(ask(&scene, request, Body::empty()).await);
    }
    let response = last.unwrap();
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(problem(response).await.code, ProblemCode::TooManyRequests);
    // Another one is not kept out.
    let other = bearer(request(RouteId::Session, "kitchen"), "bob");
    assert_eq!(
        ask(&scene, other, Body::empty()).await.status(),
        StatusCode::OK
    );
}

/// All that a stream says until its end.
async fn read_to_end(response: Response) -> String {
    let mut body = response.into_body();
    let mut said = String::new();
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap_or_default();
        said.push_str(std::str::from_utf8(&data).unwrap());
    }
    said
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_right_to_what_he_follows_is_told_and_the_stream_ends() {
    let scene = scene().await;
    let follow = bearer(request(RouteId::Events, "kitchen"), "ada");
    let response = ask(&scene, follow, Body::empty()).await;
    assert_eq!(response.status(), StatusCode::OK);
    scene.server.take_away("ada");
    scene.console.access.forget();
    let said = read_to_end(response).await;
    assert!(said.starts_with("event: hello"), "{said}");
    assert!(said.contains("event: denied"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_session() {
    let scene = scene().await;
    let session = session("ada", now());
    let follow =
        request(RouteId::Events, "kitchen").header(header::COOKIE, cookie(&scene, &session));
    let response = ask(&scene, follow, Body::empty()).await;
    scene
        .console
        .logouts
        .end("ada", &session, now())
        .await
        .unwrap();
    let said = read_to_end(response).await;
    assert!(
        said.starts_with("event: hello") && !said.contains("denied"),
        "{said}"
    );
}

#[tokio::test]
async fn an_artefact_is_sent_whole_or_in_part_with_its_digest() {
    let content = b"0123456789";
    let store = InMemory::new();
    let key = object_store::path::Path::from("artefacts/kitchen/thing");
    store.put(&key, content.as_slice().into()).await.unwrap();
    let scene = scene_with(crate::Limits::default(), Some(Arc::new(store))).await;
    let sha256 = hex::encode(Sha256::digest(content));
    scene.server.put(
        "/apis/fairlead.dev/v1alpha1/namespaces/kitchen/capabilityinvocations/thing",
        json!({
            "metadata": { "name": "thing", "namespace": "kitchen" },
            "spec": { "deviceRef": { "name": "lamp" }, "capability": "echo" },
            "status": {
                "phase": "Succeeded",
                "artefact": { "key": key.as_ref(), "sizeBytes": 10, "sha256": sha256, "mediaType": "text/plain" },
            },
        }),
    );
    let get = || bearer(request(RouteId::InvocationArtefact, "kitchen"), "ada");
    let whole = ask(&scene, get(), Body::empty()).await;
    assert_eq!(whole.status(), StatusCode::OK);
    let headers = whole.headers().clone();
    assert_eq!(headers[header::CONTENT_LENGTH], "10");
    assert_eq!(headers[header::CONTENT_DISPOSITION], "attachment");
    assert!(
        headers["repr-digest"]
            .to_str()
            .unwrap()
            .starts_with("sha-256=:")
    );
    assert_eq!(to_bytes(whole).await, content.as_slice());
    let part = ask(
        &scene,
        get().header(header::RANGE, "bytes=2-4"),
        Body::empty(),
    )
    .await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 2-4/10");
    assert_eq!(to_bytes(part).await, b"234".as_slice());
    let none = ask(
        &scene,
        get().header(header::RANGE, "bytes=10-"),
        Body::empty(),
    )
    .await;
    assert_eq!(none.headers()[header::CONTENT_RANGE], "bytes */10");
    assert_eq!(problem(none).await.code, ProblemCode::RangeNotSatisfiable);
    let known = get().header(header::IF_NONE_MATCH, &headers[header::ETAG]);
    assert_eq!(
        ask(&scene, known, Body::empty()).await.status(),
        StatusCode::NOT_MODIFIED
    );
    // Who may not see the invocation does not see what it put out.
    let other = bearer(request(RouteId::InvocationArtefact, "kitchen"), "bob");
    assert_eq!(
        problem(ask(&scene, other, Body::empty()).await).await.code,
        ProblemCode::Forbidden
    );
}

#[tokio::test]
async fn one_viewer_with_many_waits_leaves_room_for_others_and_for_requests_that_do_not_wait() {
    let few = crate::Limits {
        waits: 16,
        ..crate::Limits::default()
    };
    let scene = scene_with(few, None).await;
    scene.server.put(
        "/apis/fairlead.dev/v1alpha1/namespaces/kitchen/capabilityinvocations/thing",
        json!({
            "metadata": { "name": "thing", "namespace": "kitchen" },
            "spec": { "deviceRef": { "name": "lamp" }, "capability": "echo" },
            "status": { "phase": "Dispatched" },
        }),
    );
    let wait = |user: &str, seconds: u32| {
        let path = console_api::routes::INVOCATION.replace("{id}", "kitchen.thing");
        let path = format!("{path}?wait={seconds}");
        ask(
            &scene,
            bearer(Request::builder().uri(path), user),
            Body::empty(),
        )
    };
    // The share of one user.
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(wait("ada", 60))).collect();
    for waiting in &mut waiting {
        for _ in 0..1000 {
            let polled = futures::poll!(waiting.as_mut());
            assert!(polled.is_pending(), "{polled:?}");
            tokio::task::yield_now().await;
        }
    }
    let refused = problem(wait("ada", 60).await).await;
    assert_eq!(refused.code, ProblemCode::TooManyRequests);
    assert_eq!(wait("ada", 0).await.status(), StatusCode::OK);
    // He has no right to it, which is looked at once he has his place.
    assert_eq!(
        problem(wait("bob", 60).await).await.code,
        ProblemCode::Forbidden
    );
    drop(waiting);
    let mut again = Box::pin(wait("ada", 60));
    assert!(futures::poll!(again.as_mut()).is_pending());
}

#[tokio::test]
async fn bodies_of_one_user_take_a_part_of_the_memory_for_all() {
    let scene = scene().await;
    let ada = crate::guard::party::Party {
        address: None,
        user: Some("ada".to_owned()),
    };
    let mut held = scene.console.places.bodies.open(&ada);
    while held.grow(64 * 1024).is_ok() {}
    let large = || Body::from(format!("{{\"namespace\":\"{}\"}}", "k".repeat(100 * 1024)));
    let create = |user: &str| bearer(request(RouteId::CodeCreate, "kitchen"), user);
    let refused = problem(ask(&scene, create("ada"), large()).await).await;
    assert_eq!(refused.code, ProblemCode::TooManyRequests);
    let taken = problem(ask(&scene, create("bob"), large()).await).await;
    assert_eq!(taken.code, ProblemCode::InvalidRequest);
    drop(held);
    let taken = problem(ask(&scene, create("ada"), large()).await).await;
    assert_eq!(taken.code, ProblemCode::InvalidRequest);
}
