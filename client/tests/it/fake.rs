//! A console that answers what the scene says, in order, and remembers what it was asked.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use client::{Builder, ControlPlaneClient, Credentials, Retries, Roots, Timeouts};
use futures::{StreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    /// With its query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct Stage {
    answers: VecDeque<Response>,
    seen: Vec<Seen>,
}

/// It plays until it is dropped.
pub struct Fake {
    pub address: String,
    stage: Arc<Mutex<Stage>>,
    _server: JoinSet<()>,
}

impl Fake {
    /// Answers with these, one after the other; with 418 when there is none left.
    pub async fn plays(answers: impl IntoIterator<Item = Response>) -> Self {
        let stage = Arc::new(Mutex::new(Stage {
            answers: answers.into_iter().collect(),
            seen: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = router(Arc::clone(&stage));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            stage,
            _server: server,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.stage().seen.clone()
    }

    /// `METHOD PATH` of all that was asked.
    pub fn asked(&self) -> Vec<String> {
        self.stage()
            .seen
            .iter()
            .map(|seen| format!("{} {}", seen.method, seen.path))
            .collect()
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap()
    }

    /// A client that is in a hurry.
    pub fn builder(&self) -> Builder {
        ControlPlaneClient::builder(&self.address)
            .roots(nobody())
            .credentials(Credentials::token("t0ken").unwrap())
            .retries(Retries {
                attempts: 3,
                reconnects: 3,
                first_pause: Duration::from_millis(1),
                longest_pause: Duration::from_millis(4),
                longest_asked: Duration::from_secs(2),
            })
            .timeouts(Timeouts {
                connect: Duration::from_secs(5),
                request: Duration::from_secs(10),
                silence: Duration::from_secs(10),
            })
    }

    pub fn client(&self) -> ControlPlaneClient {
        self.builder().build().unwrap()
    }
}

/// Over plain HTTP nobody need be believed. To read the hundred authorities of a machine takes the tests longer than all
/// else that they do.
fn nobody() -> Roots {
    let certificate =
        rcgen::generate_simple_self_signed(vec!["nobody.example".to_owned()]).unwrap();
    Roots::Only(certificate.cert.pem().into_bytes())
}

fn router(stage: Arc<Mutex<Stage>>) -> Router {
    Router::new().fallback(play).with_state(stage)
}

/// The same scene over a listener of the test's own.
pub fn scene(answers: impl IntoIterator<Item = Response>) -> Router {
    router(Arc::new(Mutex::new(Stage {
        answers: answers.into_iter().collect(),
        seen: Vec::new(),
    })))
}

async fn play(State(stage): State<Arc<Mutex<Stage>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path_and_query().unwrap().to_string();
    let answer = {
        let mut stage = stage.lock().unwrap();
        stage.seen.push(Seen {
            method: parts.method,
            path,
            headers: parts.headers,
            body,
        });
        stage.answers.pop_front()
    };
    match answer {
        // Pending for ever: the scene is that nobody answers.
        Some(answer) if answer.status() == SILENT => std::future::pending().await,
        Some(answer) => answer,
        None => with(StatusCode::IM_A_TEAPOT, Body::from("the scene is over")),
    }
}

const SILENT: StatusCode = StatusCode::HTTP_VERSION_NOT_SUPPORTED;

pub fn silent() -> Response {
    with(SILENT, Body::empty())
}

pub fn with(status: StatusCode, body: Body) -> Response {
    Response::builder().status(status).body(body).unwrap()
}

pub fn json(value: &Value) -> Response {
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(value.to_string()))
        .unwrap()
}

pub fn header(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().append(name, value.parse().unwrap());
    response
}

pub fn problem(status: u16, code: &str, retryable: bool) -> Response {
    let body = json!({
        "type": "about:blank", "title": "", "status": status, "code": code,
        "detail": "as the scene says", "retryable": retryable,
    });
    Response::builder()
        .status(status)
        .header("content-type", "application/problem+json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// These bytes, and then the connection breaks.
pub fn broken_after(bytes: &'static [u8]) -> Body {
    let breaks = stream::once(async {
        // The server writes out what it has before it looks again.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("broken"))
    });
    Body::from_stream(stream::iter([Ok(Bytes::from_static(bytes))]).chain(breaks))
}

/// These chunks, and then nothing more, for ever.
pub fn held_open(chunks: Vec<String>) -> Body {
    let chunks = stream::iter(chunks.into_iter().map(Ok::<_, Infallible>));
    Body::from_stream(chunks.chain(stream::pending()))
}

pub fn invocation(phase: &str) -> Value {
    json!({
        "id": "kitchen.inv-1", "device": "kitchen.lamp", "capability": "system.health", "phase": phase,
        "timeoutSeconds": 30, "whenOffline": "Fail", "cancelRequested": false, "conditions": [],
    })
}

pub fn device(name: &str) -> Value {
    json!({
        "id": format!("kitchen.{name}"), "namespace": "kitchen", "name": name, "clientKind": "Node", "labels": {},
        "publicKeySha256": "ab".repeat(32), "trustDecision": "Active", "presence": "Online", "trust": "Trusted",
        "capabilities": {"declared": 1, "granted": 1, "pending": 0}, "createdAt": null, "resourceVersion": "7",
    })
}

pub fn page(devices: &[&str], next: Option<&str>) -> Value {
    let devices: Vec<_> = devices.iter().map(|name| device(name)).collect();
    let mut page = json!({
        "summary": {
            "devices": 3, "online": 3, "degraded": 0, "stale": 0, "offline": 0, "trusted": 3, "untrusted": 0,
            "revoked": 0, "awaitingGrant": 0, "pendingPairings": 0,
        },
        "devices": devices,
    });
    if let Some(next) = next {
        page["nextCursor"] = json!(next);
    }
    page
}
