//! An API server that knows three people: `ada` may do everything in the namespace `kitchen` and nothing elsewhere, `bob` may
//! do nothing, and `stranger` is nobody. Their tokens are their names; that of the gateway is `gateway`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::Router;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use object_store::ObjectStore;
use runtime::shutdown::Supervisor;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::super::router;
use crate::{
    Console, Limits, Parts,
    metrics::Metrics,
    session::{keys::Keys, logouts::Over},
};

/// Path of the ConfigMaps of logouts, without their numbers.
const LOGOUTS: &str = "/configmaps/fairlead-console-logouts-";

/// Longest wait of a test: far longer than anything takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// A console, and what is behind it.
pub struct Scene {
    pub router: Router,
    pub console: Arc<Console>,
    pub keys: Arc<Keys>,
    pub server: Arc<Server>,
    _keys: watch::Sender<Option<Arc<Keys>>>,
    _supervisor: Supervisor,
}

#[derive(Default)]
pub struct Server {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Objects that were made, by path.
    objects: BTreeMap<String, Value>,
    /// Who lost his rights.
    without: BTreeSet<String>,
    reviews: usize,
    of_gateway: Vec<String>,
}

impl Server {
    /// Puts an object there.
    pub fn put(&self, path: &str, object: Value) {
        let objects = &mut self.state.lock().unwrap().objects;
        objects.insert(path.to_owned(), object);
    }

    /// How many access reviews it was asked for.
    pub fn reviews(&self) -> usize {
        self.state.lock().unwrap().reviews
    }

    pub fn take_away(&self, user: &str) {
        self.state.lock().unwrap().without.insert(user.to_owned());
    }

    /// Requests with the gateway's token: method and path.
    pub fn of_gateway(&self) -> Vec<String> {
        self.state.lock().unwrap().of_gateway.clone()
    }

    /// How many marks of logouts are recorded.
    pub fn logouts(&self) -> usize {
        let state = self.state.lock().unwrap();
        let of_map = |map: &Value| map["data"].as_object().map_or(0, serde_json::Map::len);
        let maps = state
            .objects
            .iter()
            .filter(|(path, _)| path.contains(LOGOUTS));
        maps.map(|(_, map)| of_map(map)).sum()
    }

    async fn answer(&self, gateway: bool, request: Request<Body>) -> Response<axum::body::Body> {
        let (parts, body) = request.into_parts();
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let user = token
            .and_then(|token| token.strip_prefix("Bearer "))
            .map(str::to_owned);
        let path = parts.uri.path().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if gateway {
            assert_eq!(
                user, None,
                "the gateway's client has a way of its own to say who it is"
            );
            self.state
                .lock()
                .unwrap()
                .of_gateway
                .push(format!("{} {path}", parts.method));
            return self.to_gateway(
                &parts.method,
                &path,
                parts.uri.query().unwrap_or_default(),
                &body,
            );
        }
        let Some(user) = user else {
            return status(401, "Unauthorized", "nobody");
        };
        self.to_user(&user, &parts.method, &path, body)
    }

    fn to_gateway(
        &self,
        method: &http::Method,
        path: &str,
        query: &str,
        body: &Value,
    ) -> Response<axum::body::Body> {
        if path.ends_with("/tokenreviews") {
            let token = body["spec"]["token"].as_str().unwrap();
            let known = ["ada", "bob"].contains(&token);
            let mut review = body.clone();
            review["status"] = if known {
                json!({ "authenticated": true, "user": { "username": token, "groups": ["people"] } })
            } else {
                json!({ "authenticated": false })
            };
            return ok(&review);
        }
        if method == http::Method::GET && query.contains("watch=true") {
            // Nothing ever happens.
            let silent = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
            return Response::new(axum::body::Body::from_stream(silent));
        }
        if path.contains(LOGOUTS) {
            return self.write(method, path, body.clone());
        }
        if path.ends_with("/configmaps") {
            let state = self.state.lock().unwrap();
            let named = state
                .objects
                .iter()
                .filter(|(of, _)| of.contains(LOGOUTS))
                .map(|(_, map)| map)
                .filter(|map| query.contains(map["metadata"]["name"].as_str().unwrap()));
            return ok(&json!({
                "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" },
                "items": named.collect::<Vec<_>>(),
            }));
        }
        if method == http::Method::GET {
            return ok(&json!({
                "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": [],
            }));
        }
        panic!("the gateway's own rights are not for {method} {path}");
    }

    fn to_user(
        &self,
        user: &str,
        method: &http::Method,
        path: &str,
        mut body: Value,
    ) -> Response<axum::body::Body> {
        if path.ends_with("/selfsubjectaccessreviews") {
            let mut state = self.state.lock().unwrap();
            state.reviews += 1;
            let asked = &body["spec"]["resourceAttributes"];
            let is_review = asked["resource"] == "selfsubjectaccessreviews";
            let allowed = is_review
                || (user == "ada"
                    && asked["namespace"] == "kitchen"
                    && !state.without.contains(user));
            body["status"] = json!({ "allowed": allowed });
            return ok(&body);
        }
        assert_eq!(user, "ada", "nobody else is let through to {path}");
        assert!(path.contains("/namespaces/kitchen/"), "{path}");
        self.write(method, path, body)
    }

    fn write(
        &self,
        method: &http::Method,
        path: &str,
        mut body: Value,
    ) -> Response<axum::body::Body> {
        let objects = &mut self.state.lock().unwrap().objects;
        match method.as_str() {
            "POST" => {
                let name = body["metadata"]["name"]
                    .as_str()
                    .unwrap_or("made-up")
                    .to_owned();
                let at = format!("{path}/{name}");
                if objects.contains_key(&at) {
                    return status(409, "AlreadyExists", "it is there");
                }
                body["metadata"]["name"] = json!(name);
                body["metadata"]["resourceVersion"] = json!("7");
                objects.insert(at, body.clone());
                ok(&body)
            }
            "PATCH" if path.contains(LOGOUTS) => {
                let map = objects.get_mut(path).unwrap();
                for (key, value) in body["data"].as_object().unwrap() {
                    map["data"][key] = value.clone();
                }
                ok(map)
            }
            "GET" if objects.contains_key(path) => ok(&objects[path]),
            // Of a collection.
            "GET"
                if path
                    .rsplit('/')
                    .next()
                    .is_some_and(|last| last.ends_with('s')) =>
            {
                ok(&json!({
                    "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": [],
                }))
            }
            _ => status(404, "NotFound", "there is no such object"),
        }
    }
}

fn ok(value: &Value) -> Response<axum::body::Body> {
    Response::new(axum::body::Body::from(serde_json::to_vec(value).unwrap()))
}

fn status(code: u16, reason: &str, message: &str) -> Response<axum::body::Body> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    let mut response = ok(&status);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn client(server: &Arc<Server>, gateway: bool) -> kube::Client {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, std::convert::Infallible>(server.answer(gateway, request).await) }
    });
    kube::Client::new(service, "default")
}

/// A console that knows what there is.
pub async fn scene() -> Scene {
    scene_with(Limits::default(), None).await
}

/// The same, with these limits and that store of artefacts.
pub async fn scene_with(limits: Limits, artefacts: Option<Arc<dyn ObjectStore>>) -> Scene {
    let server = Arc::new(Server::default());
    for name in crds::names::CONSOLE_LOGOUTS {
        let map = json!({ "metadata": { "name": name, "resourceVersion": "1" }, "data": {} });
        let path = format!("/api/v1/namespaces/fairlead-system/configmaps/{name}");
        server.put(&path, map);
    }
    let keys = Arc::new(Keys::parse(&[vec![1; 32], Vec::new()]).unwrap());
    let (sender, mounted) = watch::channel(Some(Arc::clone(&keys)));
    let supervisor = Supervisor::new();
    let parts = Parts {
        client: client(&server, true),
        without_credentials: client(&server, false),
        namespace: "fairlead-system".to_owned(),
        keys: mounted,
        artefacts,
        limits,
        metrics: Metrics::unread(),
    };
    let console = Console::start(parts, &supervisor.tasks());
    let known = async {
        let knows_logouts = || {
            let users = (0..100).map(|number| format!("user-{number}"));
            users
                .into_iter()
                .all(|user| console.logouts.over(&user) != Over::Unknown)
        };
        while !console.is_synced() || !knows_logouts() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, known)
        .await
        .expect("the console learns what there is");
    Scene {
        router: router(Arc::clone(&console)),
        console,
        keys,
        server,
        _keys: sender,
        _supervisor: supervisor,
    }
}
