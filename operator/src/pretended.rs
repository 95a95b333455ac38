//! A pretended API server for tests. It holds objects by resource and name, numbers their versions, and refuses what is
//! written onto another version than the one that is there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// A pretended API server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// By `secrets/NAME` and the like.
    objects: BTreeMap<String, Value>,
    /// Appears just before the next create, which then comes too late.
    quicker: Option<Value>,
    /// A resource whose objects are not to be changed.
    refused: Option<&'static str>,
    writes: Vec<Write>,
    versions: u64,
}

/// A request that was to change something, whether it did or not.
#[derive(Clone, Debug)]
pub struct Write {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

impl Server {
    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let body = if body.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&body)?
                };
                let (status, answer) = server.held().answer(&parts, body);
                let answer = Body::from(serde_json::to_vec(&answer)?);
                anyhow::Ok(Response::builder().status(status).body(answer)?)
            }
        });
        Client::new(service, "system")
    }

    /// `secrets/NAME` and the like.
    pub fn get(&self, object: &str) -> Option<Value> {
        self.held().objects.get(object).cloned()
    }

    /// Deletes an object.
    pub fn remove(&self, object: &str) {
        self.held().objects.remove(object);
    }

    pub fn put(&self, object: &str, value: impl serde::Serialize) {
        let value = serde_json::to_value(value).unwrap();
        self.held().store(object, value);
    }

    /// Of two that create the same object, the other one is quicker.
    pub fn another_is_quicker_with(&self, value: impl serde::Serialize) {
        self.held().quicker = Some(serde_json::to_value(value).unwrap());
    }

    /// Somebody deletes the object.
    pub fn delete(&self, object: &str) {
        self.held().objects.remove(object);
    }

    /// Changes of that resource are refused from now on, as by a schema.
    pub fn refuse(&self, resource: &'static str) {
        self.held().refused = Some(resource);
    }

    /// Those on a resource, for instance `secrets`.
    pub fn writes(&self, resource: &str) -> Vec<Write> {
        let part = format!("/{resource}");
        let held = self.held();
        let writes = held.writes.iter();
        writes
            .filter(|write| write.path.contains(&part))
            .cloned()
            .collect()
    }

    /// Reasons of the events that were written.
    pub fn events(&self) -> Vec<String> {
        let events = self.writes("events");
        events
            .iter()
            .filter_map(|event| Some(event.body["reason"].as_str()?.to_owned()))
            .collect()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }
}

impl Held {
    fn answer(&mut self, parts: &Parts, body: Value) -> (StatusCode, Value) {
        let path = parts.uri.path();
        if parts.method != Method::GET {
            self.writes.push(Write {
                method: parts.method.clone(),
                path: path.to_owned(),
                body: body.clone(),
            });
        }
        let object = path.strip_suffix("/status").unwrap_or(path);
        let mut names = object.rsplit('/');
        let (name, resource) = (names.next().unwrap(), names.next().unwrap());
        let object = format!("{resource}/{name}");
        if parts.method != Method::GET && self.refused == Some(resource) {
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        let listed = [("devices", "Device"), ("pairingcodes", "PairingCode")];
        let listed = listed.iter().find(|(resource, _)| *resource == name);
        if let (&Method::GET, Some((resource, kind))) = (&parts.method, listed) {
            return (StatusCode::OK, self.list(&format!("{resource}/"), kind));
        }
        let known = self.objects.get(&object).cloned();
        match (&parts.method, known) {
            (&Method::POST, _) => self.create(name, body),
            (&Method::PATCH, None) if is_apply(parts) => {
                (StatusCode::OK, self.store(&object, body))
            }
            // As the API server does with Leases.
            (&Method::PUT, None) if resource == "leases" && body["metadata"]["uid"].is_null() => {
                (StatusCode::CREATED, self.store(&object, body))
            }
            (&Method::PUT, None) => failure(StatusCode::CONFLICT, "Conflict"),
            (_, None) => failure(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::GET, Some(known)) => (StatusCode::OK, known),
            (&Method::PUT, Some(known)) => {
                if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                let mut body = body;
                body["metadata"]["uid"] = known["metadata"]["uid"].clone();
                (StatusCode::OK, self.store(&object, body))
            }
            (&Method::PATCH, Some(mut known)) => {
                let wanted = &body["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != known["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                merge(&mut known, body);
                (StatusCode::OK, self.store(&object, known))
            }
            (&Method::DELETE, Some(known)) => {
                for key in ["uid", "resourceVersion"] {
                    let wanted = &body["preconditions"][key];
                    if !wanted.is_null() && *wanted != known["metadata"][key] {
                        return failure(StatusCode::CONFLICT, "Conflict");
                    }
                }
                self.objects.remove(&object);
                (StatusCode::OK, known)
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn create(&mut self, resource: &str, body: Value) -> (StatusCode, Value) {
        let Some(name) = body["metadata"]["name"].as_str() else {
            // A question, not an object.
            let mut answer = body;
            answer["status"] = json!({ "userInfo": { "username": "operator" } });
            return (StatusCode::CREATED, answer);
        };
        let object = format!("{resource}/{name}");
        if let Some(quicker) = self.quicker.take() {
            self.store(&object, quicker);
        }
        if self.objects.contains_key(&object) {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        (StatusCode::CREATED, self.store(&object, body))
    }

    fn list(&self, prefix: &str, kind: &str) -> Value {
        let objects = self.objects.iter();
        let items: Vec<_> = objects
            .filter(|(object, _)| object.starts_with(prefix))
            .map(|(_, value)| value)
            .collect();
        json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": format!("{kind}List"), "metadata": {}, "items": items,
        })
    }

    fn store(&mut self, object: &str, mut value: Value) -> Value {
        self.versions += 1;
        let version = self.versions.to_string();
        if value["metadata"]["uid"].is_null() {
            value["metadata"]["uid"] = format!("uid-{version}").into();
        }
        value["metadata"]["resourceVersion"] = version.into();
        self.objects.insert(object.to_owned(), value.clone());
        value
    }
}

fn is_apply(parts: &Parts) -> bool {
    let content_type = parts.headers.get(CONTENT_TYPE);
    content_type.is_some_and(|content_type| content_type == "application/apply-patch+yaml")
}

fn merge(object: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            if let Some(object) = object.as_object_mut() {
                object.remove(&key);
            }
        } else {
            merge(&mut object[key], value);
        }
    }
}

fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let answer = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": reason, "reason": reason, "code": status.as_u16(),
    });
    (status, answer)
}
