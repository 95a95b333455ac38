//! An API server in memory: objects with versions, conflicts, the rules that make an end final, and a log of changes
//! that watches read at their own pace.
//!
//! It does nothing by itself. A request that a gateway makes lies here until the world has it done ([`Api::perform`]),
//! and is answered when the world says so: in between, and before, everything may go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::{CapabilityInvocation, Device};
use futures::channel::oneshot;
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

pub const NAMESPACE: &str = "world";

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    Device,
    Invocation,
}

pub type Key = (Kind, String);

/// A version of an object.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: Key,
    pub object: Object,
}

/// An object as programs read it.
#[derive(Clone, Debug)]
pub enum Object {
    Device(Arc<Device>),
    Invocation(Arc<CapabilityInvocation>),
}

/// What a gateway wants.
#[derive(Clone, Debug)]
enum Wish {
    Get(Key),
    /// A JSON patch where `is_json`, else a merge patch.
    Patch {
        key: Key,
        is_json: bool,
        patch: Value,
    },
    /// Not about devices or invocations: it is echoed.
    Other(Value),
}

pub type Answer = (u16, Value);

/// Cheap to clone: the same server.
#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
    log: Vec<Change>,
    /// Asked and not begun, the latest last: number, who asked, what.
    asked: Vec<(u64, usize)>,
    wishes: BTreeMap<u64, Wish>,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    count: u64,
    /// Invocations whose end somebody tried to change, or did.
    ends_changed: BTreeSet<String>,
    /// What gateways write of an end is Unknown, as if they had heard nothing.
    forgets_ends: bool,
}

impl Api {
    /// A client whose requests lie here. `from` is who asks.
    pub fn client(&self, from: usize) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.ask(from, request).await }
        });
        kube::Client::new(service, NAMESPACE)
    }

    async fn ask(&self, from: usize, request: Request<Body>) -> std::io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let body = body
            .collect_bytes()
            .await
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let wish = match path.as_slice() {
            [.., "devices", name] | [.., "devices", name, "status"] => {
                Some((Kind::Device, (*name).to_owned()))
            }
            [.., "capabilityinvocations", name] | [.., "capabilityinvocations", name, "status"] => {
                Some((Kind::Invocation, (*name).to_owned()))
            }
            _ => None,
        };
        let wish = match wish {
            None => Wish::Other(value),
            Some(key) if parts.method == Method::GET => Wish::Get(key),
            Some(key) => {
                let kind = parts.headers.get("content-type");
                Wish::Patch {
                    key,
                    is_json: kind.is_some_and(|kind| kind == "application/json-patch+json"),
                    patch: value,
                }
            }
        };
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.lock();
            state.count += 1;
            let number = state.count;
            state.asked.push((number, from));
            state.wishes.insert(number, wish);
            state.waiting.insert(number, answer);
        }
        let (status, body) = answered
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionReset))?;
        let mut response = Response::new(Body::from(body.to_string().into_bytes()));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        Ok(response)
    }

    /// Requests that were made since the last call, and by whom.
    pub fn asked(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.lock().asked)
    }

    /// Does what was asked. `None` where that was dropped.
    pub fn perform(&self, number: u64) -> Option<(String, Answer)> {
        let mut state = self.lock();
        let wish = state.wishes.remove(&number)?;
        Some(match wish {
            Wish::Get(key) => {
                let answer = match state.objects.get(&key) {
                    Some(object) => (200, object.clone()),
                    None => refusal(404, "NotFound"),
                };
                (format!("get {}", key.1), answer)
            }
            Wish::Patch {
                key,
                is_json,
                patch,
            } => {
                let patch = if state.forgets_ends {
                    forgotten(patch)
                } else {
                    patch
                };
                let answer = state.patch(&key, is_json, &patch);
                (format!("patch {} -> {}", key.1, answer.0), answer)
            }
            Wish::Other(value) => ("event".to_owned(), (201, value)),
        })
    }

    /// Answers, if somebody still waits. With `None` the connection breaks.
    pub fn answer(&self, number: u64, answer: Option<Answer>) {
        let waiting = self.lock().waiting.remove(&number);
        if let (Some(waiting), Some(answer)) = (waiting, answer) {
            let _ = waiting.send(answer);
        }
    }

    /// A program died: what it asked and nobody began is never done.
    pub fn forget(&self, number: u64) {
        let mut state = self.lock();
        state.wishes.remove(&number);
        state.waiting.remove(&number);
    }

    /// What was asked is not done, and will be answered with a refusal.
    pub fn forget_wish(&self, number: u64) {
        self.lock().wishes.remove(&number);
    }

    /// From now on gateways write Unknown, whatever they hear of an end.
    pub fn forget_ends(&self) {
        self.lock().forgets_ends = true;
    }

    /// Makes an object, or changes it as somebody else would.
    pub fn put(&self, key: &Key, object: Value) {
        self.lock().put(key, object);
    }

    /// Writes a Lease; returns its version, which the same counter numbers.
    pub fn renew(&self) -> String {
        let mut state = self.lock();
        state.version += 1;
        state.version.to_string()
    }

    pub fn get(&self, key: &Key) -> Option<Value> {
        self.lock().objects.get(key).cloned()
    }

    /// Writes a status onto that version.
    pub fn write_status(&self, key: &Key, version: &str, status: &Value) -> u16 {
        let patch = json!([
            { "op": "replace", "path": "/metadata/resourceVersion", "value": version },
            { "op": "add", "path": "/status", "value": status },
        ]);
        self.lock().patch(key, true, &patch).0
    }

    /// How many changes there have been.
    pub fn changes(&self) -> usize {
        self.lock().log.len()
    }

    pub fn change(&self, place: usize) -> Option<Change> {
        self.lock().log.get(place).cloned()
    }

    /// Everything as it is.
    pub fn list(&self) -> Vec<Change> {
        let state = self.lock();
        let read = |(key, object): (&Key, &Value)| change(key, object);
        state.objects.iter().filter_map(read).collect()
    }

    /// Invocations whose end did not stay.
    pub fn ends_changed(&self) -> BTreeSet<String> {
        self.lock().ends_changed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, key: &Key, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.extend(change(key, &object));
        self.objects.insert(key.clone(), object);
    }

    fn patch(&mut self, key: &Key, is_json: bool, patch: &Value) -> Answer {
        let Some(before) = self.objects.get(key) else {
            return refusal(404, "NotFound");
        };
        let mut object = before.clone();
        if is_json {
            for operation in patch.as_array().into_iter().flatten() {
                let value = operation["value"].clone();
                match operation["path"].as_str() {
                    Some("/metadata/resourceVersion") => {
                        object["metadata"]["resourceVersion"] = value;
                    }
                    Some("/status") => object["status"] = value,
                    Some("/status/conditions") => object["status"]["conditions"] = value,
                    Some(_) | None => return refusal(422, "Invalid"),
                }
            }
        } else {
            merge(&mut object, patch);
        }
        if object["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            return refusal(409, "Conflict");
        }
        let (old, new) = (&before["status"], &object["status"]);
        if !keeps_rules(key.0, old, new) {
            if key.0 == Kind::Invocation {
                self.ends_changed.insert(key.1.clone());
            }
            return refusal(422, "Invalid");
        }
        self.put(key, object);
        (200, json!({ "metadata": self.objects[key]["metadata"] }))
    }
}

/// Those of the rules of the resources' schemas that programs could break.
fn keeps_rules(kind: Kind, old: &Value, new: &Value) -> bool {
    match kind {
        Kind::Invocation => {
            let phase = |status: &Value| status["phase"].as_str().unwrap_or("Queued").to_owned();
            let (old, new) = (phase(old), phase(new));
            let open = ["Queued", "Dispatched", "AwaitingMediation"];
            let is_open = |phase: &str| open.contains(&phase);
            (is_open(&old) || old == new) && (old == "Queued" || new != "Queued")
        }
        Kind::Device => {
            let (old, new) = (&old["session"], &new["session"]);
            let (Some(before), after) = (old["epoch"].as_i64(), new["epoch"].as_i64()) else {
                return true;
            };
            let is_newer = after > Some(before);
            let is_same = after == Some(before) && old["gateway"] == new["gateway"];
            let goes_on = !old["endedAt"].is_null() && new["endedAt"].is_null();
            is_newer || is_same && !goes_on
        }
    }
}

fn change(key: &Key, object: &Value) -> Option<Change> {
    let object = object.clone();
    let object = match key.0 {
        Kind::Device => Object::Device(Arc::new(serde_json::from_value(object).ok()?)),
        Kind::Invocation => Object::Invocation(Arc::new(serde_json::from_value(object).ok()?)),
    };
    Some(Change {
        key: key.clone(),
        object,
    })
}

fn refusal(code: u16, reason: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    });
    (code, status)
}

/// What an API server that is away answers, where something in front of it does.
pub fn unavailable() -> Answer {
    refusal(503, "ServiceUnavailable")
}

/// The same write by a gateway that knows nothing.
fn forgotten(mut patch: Value) -> Value {
    let open = ["Queued", "Dispatched", "AwaitingMediation"];
    for operation in patch.as_array_mut().into_iter().flatten() {
        let status = &mut operation["value"];
        let is_end = status["phase"]
            .as_str()
            .is_some_and(|phase| !open.contains(&phase));
        if is_end {
            status["phase"] = json!("Unknown");
            status["error"] = json!({ "code": "NoAnswer", "message": "nobody knows" });
        }
    }
    patch
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
    let Some(object) = object.as_object_mut() else {
        return;
    };
    for (field, value) in patch {
        if value.is_null() {
            object.remove(field);
        } else {
            merge(object.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}
