//! A small API server in memory: as much of one as the gateway talks to, with faults on demand, and with a log of what
//! it was asked.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, Response},
};
use crds::v1alpha1::{CapabilityInvocation, Device};
use futures::channel::mpsc;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

/// How long anything may take. The clock is paused, so this costs nothing.
const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub struct State {
    version: u64,
    objects: BTreeMap<Key, Value>,
    watches: Vec<(String, mpsc::UnboundedSender<Result<Bytes, Infallible>>)>,
    /// Requests for single objects: `PATCH devices/lamp-1/status`.
    pub log: Vec<String>,
    fault: Option<Fault>,
    /// Writes to the object of that name arrive late, whatever the fault is.
    slow: Option<String>,
    /// No list and no watch has the object of that name.
    hidden: Option<String>,
}

/// Plural, namespace and name.
type Key = (String, String, String);

enum Answer {
    Now(Response<Body>),
    Never,
    Late(Key),
}

/// What goes wrong with requests for single objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The API server is not available.
    Down,
    /// The API server takes requests and does not answer.
    Silent,
    /// A write takes three seconds, and arrives even if nobody waits for the answer any more.
    Late,
    /// Somebody else writes first, once.
    Overtaken,
    /// What is written is not valid, once.
    Invalid,
}

impl Cluster {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            changed: watch::channel(0).0,
        }))
    }

    pub fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub fn add_device(&self, device: &Device) {
        self.put("devices", serde_json::to_value(device).unwrap());
    }

    pub fn add_invocation(&self, invocation: &CapabilityInvocation) {
        self.put(
            "capabilityinvocations",
            serde_json::to_value(invocation).unwrap(),
        );
    }

    /// Every invocation.
    pub fn invocations(&self) -> Vec<Value> {
        self.lock()
            .objects
            .iter()
            .filter(|((plural, _, _), _)| plural == "capabilityinvocations")
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub fn device(&self, name: &str) -> Value {
        self.get("devices", name)
    }

    pub fn invocation(&self, name: &str) -> Value {
        self.get("capabilityinvocations", name)
    }

    /// Changes an object as somebody else would.
    pub fn edit(&self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(plural, name);
        change(&mut object);
        self.put(plural, object);
    }

    pub fn delete(&self, plural: &str, name: &str) {
        let mut state = self.lock();
        let key = (plural.to_owned(), "kitchen".to_owned(), name.to_owned());
        if let Some(object) = state.objects.remove(&key) {
            state.notify(plural, "DELETED", &object);
        }
        drop(state);
        self.changed();
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
        self.changed();
    }

    /// From here on, writes to the object of that name take three seconds.
    pub fn slow_down(&self, name: &str) {
        self.lock().slow = Some(name.to_owned());
    }

    /// From here on, no list and no watch has the object of that name: they are behind.
    pub fn hide(&self, name: &str) {
        self.lock().hidden = Some(name.to_owned());
    }

    /// Forgets what it was asked.
    pub fn clear_log(&self) {
        self.lock().log.clear();
    }

    /// What it was asked about single objects of that kind.
    pub fn log_of(&self, plural: &str) -> Vec<String> {
        self.lock()
            .log
            .iter()
            .filter(|line| line.contains(&format!(" {plural}/")))
            .cloned()
            .collect()
    }

    /// What it was asked about single objects, of all kinds.
    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// Waits until it holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.0.changed.subscribe();
        let wait = async {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        };
        if timeout(DEADLINE, wait).await.is_err() {
            let state = self.lock();
            panic!("{what}\n{:#?}\n{:#?}", state.log, state.objects);
        }
    }

    pub async fn until_phase(&self, name: &str, phase: &str) -> Value {
        self.until(&format!("{name} is {phase}"), |cluster| {
            cluster.invocation(name)["status"]["phase"] == phase
        })
        .await;
        self.invocation(name)
    }

    fn get(&self, plural: &str, name: &str) -> Value {
        let key = (plural.to_owned(), "kitchen".to_owned(), name.to_owned());
        self.lock().objects.get(&key).cloned().unwrap_or_default()
    }

    fn put(&self, plural: &str, object: Value) {
        self.lock().put(plural, object);
        self.changed();
    }

    fn changed(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let path: Vec<&str> = parts
            .uri
            .path()
            .trim_matches('/')
            .split('/')
            .skip(3)
            .collect();
        let query = parts.uri.query().unwrap_or_default();
        match path.as_slice() {
            ["namespaces", _, "capabilityinvocations"] => {
                self.lock()
                    .log
                    .push("LIST capabilityinvocations".to_owned());
                self.list_all("capabilityinvocations")
            }
            ["namespaces", _, "leases"] | ["devices" | "capabilityinvocations"] => {
                let plural = path[path.len() - 1];
                if query.contains("watch=true") {
                    self.watch(plural)
                } else {
                    self.list(plural)
                }
            }
            ["namespaces", _, "events"] => {
                self.lock().log.push(format!("{} events", parts.method));
                Response::new(Body::from(body))
            }
            ["namespaces", _, "leases", _] => ok(&json!({"metadata": {}})),
            ["namespaces", namespace, plural, name, ..] => {
                let what = format!("{} {}", parts.method, path[2..].join("/"));
                let kind = parts
                    .headers
                    .get("content-type")
                    .map(|kind| kind.to_str().unwrap());
                let answer = self.single(
                    &parts.method,
                    (*plural, *namespace, *name),
                    what,
                    kind,
                    &body,
                );
                match answer {
                    Answer::Now(answer) => answer,
                    Answer::Never => std::future::pending().await,
                    Answer::Late(key) => self.later(key, kind.map(str::to_owned), body).await,
                }
            }
            _ => panic!("{} {} is not served", parts.method, parts.uri),
        }
    }

    /// Those that have ended, too.
    fn list_all(&self, plural: &str) -> Response<Body> {
        let state = self.lock();
        let all = state.objects.iter().filter(|((of, _, _), _)| of == plural);
        let items: Vec<&Value> = all.map(|(_, object)| object).collect();
        ok(&json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
    }

    fn list(&self, plural: &str) -> Response<Body> {
        let state = self.lock();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|((of, _, name), object)| {
                of == plural && is_selected(object) && state.hidden.as_ref() != Some(name)
            })
            .map(|(_, object)| object)
            .collect();
        ok(&json!({
            "kind": "List",
            "apiVersion": "v1",
            "metadata": { "resourceVersion": state.version.to_string() },
            "items": items,
        }))
    }

    fn watch(&self, plural: &str) -> Response<Body> {
        let (sender, events) = mpsc::unbounded();
        self.lock().watches.push((plural.to_owned(), sender));
        Response::new(Body::from_stream(events))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "goes on when nobody waits for it"
    )]
    async fn later(&self, key: Key, kind: Option<String>, body: Bytes) -> Response<Body> {
        let cluster = self.clone();
        let write = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let answer = cluster.lock().patch(&key, kind.as_deref(), &body);
            cluster.changed();
            answer
        });
        write.await.unwrap()
    }

    fn single(
        &self,
        method: &Method,
        (plural, namespace, name): (&str, &str, &str),
        what: String,
        kind: Option<&str>,
        body: &[u8],
    ) -> Answer {
        let mut state = self.lock();
        state.log.push(what);
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let is_slow = state.slow.as_deref() == Some(name);
        let answer = match (state.fault, *method == Method::PATCH) {
            (_, true) if is_slow => Answer::Late(key),
            (Some(Fault::Down), _) => Answer::Now(error(503, "ServiceUnavailable")),
            (Some(Fault::Silent), _) => Answer::Never,
            (Some(Fault::Late), true) => Answer::Late(key),
            (Some(Fault::Invalid), true) => {
                state.fault = None;
                Answer::Now(error(422, "Invalid"))
            }
            (Some(Fault::Overtaken), true) => {
                state.fault = None;
                let object = state.objects[&key].clone();
                state.put(plural, object);
                Answer::Now(state.patch(&key, kind, body))
            }
            (None, true) => Answer::Now(state.patch(&key, kind, body)),
            (Some(Fault::Late | Fault::Invalid | Fault::Overtaken) | None, false) => {
                Answer::Now(match state.objects.get(&key) {
                    Some(object) => ok(object),
                    None => error(404, "NotFound"),
                })
            }
        };
        drop(state);
        self.changed();
        answer
    }
}

impl State {
    fn put(&mut self, plural: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let part = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
        let key = (plural.to_owned(), part("namespace"), part("name"));
        let event = if is_selected(&object) {
            "MODIFIED"
        } else {
            "DELETED"
        };
        self.notify(plural, event, &object);
        self.objects.insert(key, object);
    }

    fn notify(&mut self, plural: &str, event: &str, object: &Value) {
        if self.hidden.is_some() && self.hidden.as_deref() == object["metadata"]["name"].as_str() {
            return;
        }
        // The type first, as API servers write it.
        let line = format!("{{\"type\":\"{event}\",\"object\":{object}}}\n");
        self.watches.retain(|(of, sender)| {
            of != plural || sender.unbounded_send(Ok(Bytes::from(line.clone()))).is_ok()
        });
    }

    fn patch(&mut self, key: &Key, kind: Option<&str>, body: &[u8]) -> Response<Body> {
        let Some(mut object) = self.objects.get(key).cloned() else {
            return error(404, "NotFound");
        };
        let seen = object["metadata"]["resourceVersion"].clone();
        let patch: Value = serde_json::from_slice(body).unwrap();
        if kind == Some("application/json-patch+json") {
            for operation in patch.as_array().unwrap() {
                match operation["path"].as_str().unwrap() {
                    "/metadata/resourceVersion" => {
                        object["metadata"]["resourceVersion"] = operation["value"].clone();
                    }
                    "/status" => object["status"] = operation["value"].clone(),
                    "/status/conditions" => {
                        object["status"]["conditions"] = operation["value"].clone();
                    }
                    other => panic!("{other} is not patched"),
                }
            }
        } else {
            merge(&mut object, &patch);
        }
        if object["metadata"]["resourceVersion"] != seen {
            return error(409, "Conflict");
        }
        self.put(&key.0, object);
        let metadata = json!({"metadata": self.objects[key]["metadata"]});
        ok(&metadata)
    }
}

/// As the selector of open invocations does.
fn is_selected(object: &Value) -> bool {
    let ended = [
        "Succeeded",
        "Failed",
        "Refused",
        "TimedOut",
        "Cancelled",
        "Unknown",
    ];
    !ended
        .iter()
        .any(|phase| object["status"]["phase"] == **phase)
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let object = object.as_object_mut().unwrap();
    for (field, value) in patch {
        if value.is_null() {
            object.remove(field);
        } else {
            merge(object.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}

fn ok(body: &Value) -> Response<Body> {
    Response::new(Body::from(body.to_string()))
}

fn error(code: u16, reason: &str) -> Response<Body> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": format!("{reason} it is"), "reason": reason, "code": code,
    });
    Response::builder()
        .status(code)
        .body(Body::from(body.to_string()))
        .unwrap()
}
