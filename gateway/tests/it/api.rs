//! An API server that is a map: lists with field selectors and pages, gets, creates, merge patches with a resourceVersion, and
//! watches. No schema, no policies, no authentication.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, Response, StatusCode},
};
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::service_fn;
use url::form_urlencoded;

/// Cheap to clone: all are the same server.
#[derive(Clone)]
pub struct FakeApi(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// The last resourceVersion.
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// Every change there was, for watches.
    log: Vec<(u64, Key, Value)>,
    patches: usize,
}

/// Plural, namespace, name.
type Key = (String, String, String);

impl FakeApi {
    pub fn new() -> Self {
        let (version, _) = watch::channel(0);
        Self(Arc::new(Inner {
            state: Mutex::default(),
            version,
        }))
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Puts an object there, as somebody else would.
    pub fn put(&self, plural: &str, object: Value) {
        let metadata = &object["metadata"];
        let key = (
            plural.to_owned(),
            text(&metadata["namespace"]),
            text(&metadata["name"]),
        );
        self.store(key, object);
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.state.lock().unwrap().objects.get(&key).cloned()
    }

    pub fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.0.state.lock().unwrap();
        state
            .objects
            .iter()
            .filter(|(key, _)| key.0 == plural)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Merges into an object's status, as somebody else would.
    pub fn merge_status(&self, plural: &str, namespace: &str, name: &str, status: &Value) {
        let mut object = self.get(plural, namespace, name).unwrap();
        merge(&mut object["status"], status);
        self.put(plural, object);
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.state.lock().unwrap().objects.remove(&key);
    }

    /// Patches that succeeded.
    pub fn patches(&self) -> usize {
        self.0.state.lock().unwrap().patches
    }

    fn store(&self, key: Key, mut object: Value) -> Value {
        let mut state = self.0.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = json!(now());
        }
        state.objects.insert(key.clone(), object.clone());
        state.log.push((version, key, object.clone()));
        drop(state);
        self.0.version.send_replace(version);
        object
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let path: Vec<&str> = parts.uri.path().split('/').skip(4).collect();
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        match (&parts.method, &path[..]) {
            (&Method::GET, [plural] | ["namespaces", _, plural]) => {
                let namespace = if path.len() == 3 { path[1] } else { "" };
                if query.contains_key("watch") {
                    self.watch(plural, namespace, &query)
                } else {
                    self.list(plural, namespace, &query)
                }
            }
            (&Method::POST, ["namespaces", namespace, plural]) => {
                self.create(plural, namespace, &body)
            }
            (&Method::GET, ["namespaces", namespace, plural, name]) => self
                .get(plural, namespace, name)
                .map_or_else(|| failure(StatusCode::NOT_FOUND), |object| ok(&object)),
            (&Method::PATCH, ["namespaces", namespace, plural, name, "status"]) => {
                self.patch(plural, namespace, name, &body)
            }
            _ => panic!("unexpected {} {}", parts.method, parts.uri),
        }
    }

    fn list(
        &self,
        plural: &str,
        namespace: &str,
        query: &BTreeMap<String, String>,
    ) -> Response<Body> {
        let state = self.0.state.lock().unwrap();
        let number = |name: &str| query.get(name).and_then(|value| value.parse().ok());
        let (from, limit) = (
            number("continue").unwrap_or(0),
            number("limit").unwrap_or(usize::MAX),
        );
        let mut wanted = state
            .objects
            .iter()
            .filter(|(key, object)| is_wanted(key, object, plural, namespace, query))
            .map(|(_, object)| object)
            .skip(from);
        let items: Vec<&Value> = wanted.by_ref().take(limit).collect();
        let more = wanted.next().map(|_| (from + items.len()).to_string());
        ok(&json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "List",
            "metadata": { "resourceVersion": state.version.to_string(), "continue": more },
            "items": items,
        }))
    }

    fn watch(
        &self,
        plural: &str,
        namespace: &str,
        query: &BTreeMap<String, String>,
    ) -> Response<Body> {
        let since: u64 = query
            .get("resourceVersion")
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        let events = self.clone().events(
            since,
            plural.to_owned(),
            namespace.to_owned(),
            query.clone(),
        );
        Response::new(Body::from_stream(events))
    }

    fn events(
        self,
        since: u64,
        plural: String,
        namespace: String,
        query: BTreeMap<String, String>,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> {
        let version = self.0.version.subscribe();
        stream::unfold((since, version), move |(mut since, mut version)| {
            let (api, plural, namespace, query) = (
                self.clone(),
                plural.clone(),
                namespace.clone(),
                query.clone(),
            );
            async move {
                loop {
                    let next = {
                        let state = api.0.state.lock().unwrap();
                        state
                            .log
                            .iter()
                            .find(|(version, _, _)| *version > since)
                            .cloned()
                    };
                    let Some((seen, key, object)) = next else {
                        version.changed().await.ok()?;
                        continue;
                    };
                    since = seen;
                    if is_wanted(&key, &object, &plural, &namespace, &query) {
                        // The type first, as API servers write it.
                        let line = format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n");
                        return Some((Ok(Bytes::from(line)), (since, version)));
                    }
                }
            }
        })
    }

    fn create(&self, plural: &str, namespace: &str, body: &Bytes) -> Response<Body> {
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let name = text(&object["metadata"]["name"]);
        if self.get(plural, namespace, &name).is_some() {
            return failure(StatusCode::CONFLICT);
        }
        object["metadata"]["namespace"] = json!(namespace);
        ok(&self.store((plural.to_owned(), namespace.to_owned(), name), object))
    }

    fn patch(&self, plural: &str, namespace: &str, name: &str, body: &Bytes) -> Response<Body> {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        {
            let state = self.0.state.lock().unwrap();
            let Some(object) = state.objects.get(&key) else {
                return failure(StatusCode::NOT_FOUND);
            };
            let expected = &patch["metadata"]["resourceVersion"];
            if !expected.is_null() && *expected != object["metadata"]["resourceVersion"] {
                return failure(StatusCode::CONFLICT);
            }
        }
        // Nothing comes in between: the tests run on one thread.
        let mut object = self.get(plural, namespace, name).unwrap();
        merge(&mut object["status"], &patch["status"]);
        self.0.state.lock().unwrap().patches += 1;
        ok(&self.store(key, object))
    }
}

fn is_wanted(
    (its_plural, its_namespace, _): &Key,
    object: &Value,
    plural: &str,
    namespace: &str,
    query: &BTreeMap<String, String>,
) -> bool {
    let selector = query
        .get("fieldSelector")
        .map(String::as_str)
        .unwrap_or_default();
    its_plural == plural
        && (namespace.is_empty() || its_namespace == namespace)
        && selector
            .split(',')
            .filter(|term| !term.is_empty())
            .all(|term| {
                let (path, value) = term.split_once('=').unwrap();
                let is = |path: &str| {
                    object
                        .pointer(&format!("/{}", path.replace('.', "/")))
                        .and_then(Value::as_str)
                        == Some(value)
                };
                match path.strip_suffix('!') {
                    Some(path) => !is(path),
                    None => is(path),
                }
            })
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

fn ok(object: &Value) -> Response<Body> {
    Response::new(Body::from(object.to_string()))
}

fn failure(code: StatusCode) -> Response<Body> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code.as_u16(),
        "reason": code.canonical_reason().unwrap().replace(' ', ""), "message": "no",
    });
    let mut response = ok(&status);
    *response.status_mut() = code;
    response
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// As the API server writes it.
pub fn now() -> String {
    seconds_from_now(0)
}

pub fn seconds_from_now(seconds: i64) -> String {
    let moment = gateway::clock::now() + jiff::SignedDuration::from_secs(seconds);
    jiff::Timestamp::from_second(moment.as_second())
        .unwrap()
        .to_string()
}
