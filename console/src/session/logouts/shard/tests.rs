//! A ConfigMap at a pretended API server, and gateways that write it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::*;
use crate::session::logouts::marks::mark;

const NAME: &str = "fairlead-console-logouts-0";

struct Server {
    map: Mutex<Option<Value>>,
    version: AtomicUsize,
    /// Bytes of each patch.
    patches: Mutex<Vec<usize>>,
    /// A patch takes one before it is looked at.
    open: Semaphore,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            map: Mutex::new(Some(
                json!({ "metadata": { "name": NAME, "resourceVersion": "100000" } }),
            )),
            version: AtomicUsize::new(100_000),
            patches: Mutex::default(),
            open: Semaphore::new(1_000_000),
        }
    }
}

impl Server {
    fn gateway(self: &Arc<Self>) -> Shard {
        let server = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&server);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                Ok::<_, std::convert::Infallible>(server.answer(&parts.method, &body).await)
            }
        });
        Shard::new(Client::new(service, "default"), "system", NAME)
    }

    async fn answer(&self, method: &Method, body: &[u8]) -> Response<Body> {
        if method == Method::PATCH {
            self.patches.lock().unwrap().push(body.len());
            self.open.acquire().await.unwrap().forget();
        }
        let mut map = self.map.lock().unwrap();
        let Some(map) = map.as_mut() else {
            return status(404, "NotFound");
        };
        if method == Method::PATCH {
            let patch: Value = serde_json::from_slice(body).unwrap();
            if patch["metadata"]["resourceVersion"] != map["metadata"]["resourceVersion"] {
                return status(409, "Conflict");
            }
            if map["data"].is_null() {
                map["data"] = json!({});
            }
            let data = map["data"].as_object_mut().unwrap();
            for (key, value) in patch["data"].as_object().unwrap() {
                if value.is_null() {
                    data.remove(key);
                } else {
                    data.insert(key.clone(), value.clone());
                }
            }
            let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
            map["metadata"]["resourceVersion"] = json!(version.to_string());
        }
        Response::new(Body::from(serde_json::to_vec(map).unwrap()))
    }

    fn marks(&self) -> Marks {
        let map = self.map.lock().unwrap();
        let map: ConfigMap = serde_json::from_value(map.clone().unwrap()).unwrap();
        Marks::read(&map.data.unwrap_or_default(), now())
    }

    fn patches(&self) -> Vec<usize> {
        self.patches.lock().unwrap().clone()
    }

    /// Patches wait from now on.
    async fn close(&self) {
        let all = u32::try_from(self.open.available_permits()).unwrap_or(u32::MAX);
        self.open.acquire_many(all).await.unwrap().forget();
    }
}

fn status(code: u16, reason: &str) -> Response<Body> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    let mut response = Response::new(Body::from(serde_json::to_vec(&status).unwrap()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn person(number: usize) -> Key {
    Key::of(&format!("person-{number}"))
}

fn at() -> i64 {
    mark(Timestamp::UNIX_EPOCH, now())
}

#[tokio::test]
async fn ten_thousand_logouts_of_one_user_leave_the_next_logout_of_another_as_cheap_as_the_first() {
    let server = Arc::new(Server::default());
    let gateway = server.gateway();
    let begin = at();
    for number in 0..10_001 {
        gateway.put(person(1), begin + number).await.unwrap();
    }
    gateway.put(person(2), begin).await.unwrap();
    let patches = server.patches();
    assert_eq!(patches.len(), 10_002);
    assert_eq!(patches.first(), patches.last(), "bytes of a write");
    assert_eq!(server.marks().latest(person(1)), begin + 10_000);
    assert_eq!(server.marks().latest(person(2)), begin);
}

#[tokio::test]
async fn logouts_of_very_many_users_do_not_make_one_fail_or_cost_more() {
    let server = Arc::new(Server::default());
    let gateway = server.gateway();
    let begin = at();
    for number in 0..1300 {
        gateway
            .put(person(number), begin + i64::try_from(number).unwrap())
            .await
            .unwrap();
    }
    let patches = server.patches();
    let (first, most) = (patches[0], patches.iter().max().unwrap());
    // A new mark, an old one that goes, and the floor.
    assert!(*most < 3 * first, "{first} {most}");
    let marks = server.marks();
    for number in [0, 500, 1299] {
        assert!(marks.latest(person(number)) >= begin + i64::try_from(number).unwrap());
    }
    assert!(marks.latest(person(99_999)) < begin + 1300 - 1024);
}

#[tokio::test]
async fn two_gateways_that_write_at_once_lose_neither_logout() {
    let server = Arc::new(Server::default());
    let gateways = [server.gateway(), server.gateway()];
    let begin = at();
    let logouts = (0..200).map(|number| {
        let gateway = &gateways[number % 2];
        async move { gateway.put(person(number), begin).await }
    });
    for ended in join_all(logouts).await {
        ended.unwrap();
    }
    // A later mark is not lowered by the gateway that did not see it.
    gateways[0].put(person(0), begin + 5).await.unwrap();
    gateways[1].put(person(0), begin + 3).await.unwrap();
    let marks = server.marks();
    assert!((0..200).all(|number| marks.latest(person(number)) >= begin));
    assert_eq!(marks.latest(person(0)), begin + 5);
}

#[tokio::test]
async fn logouts_that_wait_are_written_together() {
    let server = Arc::new(Server::default());
    let gateway = server.gateway();
    server.close().await;
    let begin = at();
    let crowd = join_all((0..500).map(|number| gateway.put(person(number), begin)));
    let open = async {
        while server.patches().is_empty() {
            tokio::task::yield_now().await;
        }
        server.open.add_permits(100_000);
    };
    let (ended, ()) = tokio::join!(crowd, open);
    assert!(ended.iter().all(Result::is_ok));
    assert!(server.patches().len() <= 2, "{}", server.patches().len());
}

#[tokio::test]
async fn a_logout_that_is_given_up_takes_no_other_with_it() {
    let server = Arc::new(Server::default());
    let gateway = server.gateway();
    server.close().await;
    let begin = at();
    {
        let mut given_up = Box::pin(gateway.put(person(1), begin));
        while server.patches().is_empty() {
            let polled = futures::poll!(given_up.as_mut());
            assert!(polled.is_pending());
            tokio::task::yield_now().await;
        }
    }
    server.open.add_permits(100);
    gateway.put(person(2), begin).await.unwrap();
    let marks = server.marks();
    assert_eq!(
        [1, 2].map(|number| marks.latest(person(number))),
        [begin; 2]
    );
}

#[tokio::test]
async fn a_config_map_that_is_missing_is_named_and_the_session_goes_on() {
    let server = Arc::new(Server::default());
    *server.map.lock().unwrap() = None;
    let gateway = server.gateway();
    let error = gateway.put(person(1), at()).await.unwrap_err();
    assert!(matches!(error, Error::Missing(NAME)), "{error}");
    assert_eq!(gateway.latest(person(1)), None);
}

#[tokio::test]
async fn a_mark_that_somebody_removes_stays_known_and_comes_back_with_the_next_write() {
    let server = Arc::new(Server::default());
    let gateway = server.gateway();
    let begin = at();
    gateway.put(person(1), begin).await.unwrap();
    let emptied = json!({ "metadata": { "name": NAME, "resourceVersion": "900000" } });
    *server.map.lock().unwrap() = Some(emptied.clone());
    let seen: ConfigMap = serde_json::from_value(emptied).unwrap();
    gateway.state().learn(seen, now());
    assert_eq!(gateway.latest(person(1)), Some(begin));
    gateway.put(person(2), begin).await.unwrap();
    assert_eq!(server.marks().latest(person(1)), begin);
}

#[tokio::test]
async fn a_watch_that_is_behind_changes_nothing() {
    let server = Arc::new(Server::default());
    let gateway = server.gateway();
    let before: ConfigMap =
        serde_json::from_value(server.map.lock().unwrap().clone().unwrap()).unwrap();
    let begin = at();
    gateway.put(person(1), begin).await.unwrap();
    gateway.state().learn(before, now());
    assert_eq!(gateway.latest(person(1)), Some(begin));
    gateway.put(person(2), begin).await.unwrap();
    assert_eq!(
        server.patches().len(),
        2,
        "the write was not refused as one onto an old version"
    );
}
