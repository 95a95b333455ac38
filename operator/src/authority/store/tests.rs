//! The authority's Secrets, against a pretended API server that holds nothing but Secrets.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const DOMAIN: &str = "test.example";

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// Secrets by name, and who is quicker than a create: the Secret that appears just before it.
#[derive(Default)]
struct Server {
    secrets: BTreeMap<String, Value>,
    quicker: Option<Value>,
    creates: usize,
}

type Shared = Arc<Mutex<Server>>;

fn store(server: &Shared) -> Store {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&server);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let mut server = server.lock().unwrap();
            let (status, answer) = server.answer(&parts.method, parts.uri.path(), &body);
            let answer = Body::from(serde_json::to_vec(&answer)?);
            anyhow::Ok(Response::builder().status(status).body(answer)?)
        }
    });
    Store {
        client: Client::new(service, "system"),
        namespace: "system".to_owned(),
    }
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let name = path.rsplit('/').next().unwrap().to_owned();
        match *method {
            Method::GET => match self.secrets.get(&name) {
                Some(secret) => (StatusCode::OK, secret.clone()),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            },
            Method::POST => {
                self.creates += 1;
                let mut secret: Value = serde_json::from_slice(body).unwrap();
                if let Some(quicker) = self.quicker.take() {
                    secret = quicker;
                }
                let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
                let quicker = secret["metadata"]["annotations"]["by"] == "another";
                self.secrets.insert(name, secret.clone());
                if quicker {
                    failure(StatusCode::CONFLICT, "AlreadyExists")
                } else {
                    (StatusCode::CREATED, secret)
                }
            }
            Method::PATCH => {
                let secret: Value = serde_json::from_slice(body).unwrap();
                self.secrets.insert(name, secret.clone());
                (StatusCode::OK, secret)
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }
}

fn failure(status: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status_object = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": reason, "reason": reason, "code": status.as_u16(),
    });
    (status, status_object)
}

#[tokio::test]
async fn the_authority_is_made_once_and_read_back() {
    let server = Shared::default();
    let first = store(&server).authority(DOMAIN, now()).await.unwrap();
    let second = store(&server).authority(DOMAIN, now()).await.unwrap();
    assert_eq!(first.pin(), second.pin());
    assert_eq!(server.lock().unwrap().creates, 1);
}

#[tokio::test]
async fn of_two_operators_that_start_at_once_the_quicker_one_makes_the_authority() {
    let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
    let theirs = Authority::from_pem(&certificate, &key, DOMAIN).unwrap();
    let server = Shared::default();
    let data = BTreeMap::from([text("tls.crt", certificate), text("tls.key", key)]);
    let mut secret = serde_json::to_value(store(&server).secret(names::CA_SECRET, data)).unwrap();
    secret["metadata"]["annotations"] = json!({"by": "another"});
    server.lock().unwrap().quicker = Some(secret);
    let ours = store(&server).authority(DOMAIN, now()).await.unwrap();
    assert_eq!(ours.pin(), theirs.pin());
    assert_eq!(server.lock().unwrap().creates, 1);
}

#[tokio::test]
async fn a_damaged_authority_is_not_replaced() {
    let server = Shared::default();
    let secret = store(&server).secret(
        names::CA_SECRET,
        BTreeMap::from([text("tls.crt", "garbage".to_owned())]),
    );
    server.lock().unwrap().secrets.insert(
        names::CA_SECRET.to_owned(),
        serde_json::to_value(secret).unwrap(),
    );
    let error = store(&server).authority(DOMAIN, now()).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("restore it from a backup"),
        "{error:#}"
    );
    assert_eq!(server.lock().unwrap().creates, 0);
}

#[tokio::test]
async fn an_authority_of_another_trust_domain_is_not_used() {
    let server = Shared::default();
    store(&server).authority(DOMAIN, now()).await.unwrap();
    let error = store(&server)
        .authority("other.example", now())
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("another trust domain"),
        "{error:#}"
    );
}

#[tokio::test]
async fn the_pairing_setup_is_made_once() {
    let server = Shared::default();
    let first = store(&server).setup().await.unwrap();
    let second = store(&server).setup().await.unwrap();
    assert_eq!(first.to_bytes(), second.to_bytes());
}

#[tokio::test]
async fn the_gateways_certificate_is_renewed_at_two_thirds_of_its_life_and_when_it_does_not_fit() {
    let server = Shared::default();
    let store = store(&server);
    let authority = store.authority(DOMAIN, now()).await.unwrap();
    let (renew_at, issued) = store
        .gateway_certificate(&authority, &[], now())
        .await
        .unwrap();
    assert!(issued);
    assert_eq!(renew_at.to_string(), "2026-03-21T11:58:20Z");
    let again = |at| store.gateway_certificate(&authority, &[], at);
    assert_eq!(again(now()).await.unwrap(), (renew_at, false));
    assert_eq!(
        again(renew_at - SignedDuration::from_secs(1))
            .await
            .unwrap(),
        (renew_at, false)
    );
    assert!(again(renew_at).await.unwrap().1);
    let another_name = ["gateway.example".to_owned()];
    assert!(
        store
            .gateway_certificate(&authority, &another_name, renew_at)
            .await
            .unwrap()
            .1
    );
    let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
    let another = Authority::from_pem(&certificate, &key, DOMAIN).unwrap();
    assert!(
        store
            .gateway_certificate(&another, &another_name, renew_at)
            .await
            .unwrap()
            .1
    );
}
