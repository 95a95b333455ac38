//! The authority's Secrets and its bundle, against a pretended API server.

use serde_json::json;

use super::*;
use crate::pretended::Server;

const DOMAIN: &str = "test.example";

fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn store(server: &Server) -> Store {
    Store {
        client: server.client(),
        namespace: "system".to_owned(),
    }
}

fn creates(server: &Server) -> usize {
    let writes = server.writes("secrets");
    writes
        .iter()
        .filter(|write| write.method == http::Method::POST)
        .count()
}

#[tokio::test]
async fn the_authority_is_made_once_and_read_back() {
    let server = Server::default();
    let first = store(&server).authority(DOMAIN, now()).await.unwrap();
    let second = store(&server).authority(DOMAIN, now()).await.unwrap();
    assert_eq!(first.pin(), second.pin());
    assert_eq!(creates(&server), 1);
}

#[tokio::test]
async fn of_two_operators_that_start_at_once_the_quicker_one_makes_the_authority() {
    let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
    let theirs = Authority::from_pem(&certificate, &key, DOMAIN).unwrap();
    let server = Server::default();
    let data = BTreeMap::from([text("tls.crt", certificate), text("tls.key", key)]);
    server.another_is_quicker_with(store(&server).secret(names::CA_SECRET, data));
    let ours = store(&server).authority(DOMAIN, now()).await.unwrap();
    assert_eq!(ours.pin(), theirs.pin());
    assert_eq!(creates(&server), 1);
}

#[tokio::test]
async fn a_damaged_authority_is_not_replaced() {
    let server = Server::default();
    let secret = store(&server).secret(
        names::CA_SECRET,
        BTreeMap::from([text("tls.crt", "garbage".to_owned())]),
    );
    server.put("secrets/fairlead-ca", secret);
    let error = store(&server).authority(DOMAIN, now()).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("restore it from a backup"),
        "{error:#}"
    );
    assert_eq!(creates(&server), 0);
}

#[tokio::test]
async fn an_authority_of_another_trust_domain_is_not_used() {
    let server = Server::default();
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
async fn what_devices_verify_gateways_with_is_published_and_put_right() {
    let server = Server::default();
    let store = store(&server);
    let authority = store.authority(DOMAIN, now()).await.unwrap();
    let bundle = |server: &Server| {
        let bundle = server.get("configmaps/fairlead-trust-bundle").unwrap();
        let bundle: ConfigMap = serde_json::from_value(bundle).unwrap();
        assert_eq!(bundle.metadata.namespace.as_deref(), Some("system"));
        bundle.data.unwrap()
    };
    store.publish(&authority).await.unwrap();
    let expected = BTreeMap::from([("ca.crt".to_owned(), authority.certificate().to_owned())]);
    assert_eq!(bundle(&server), expected);
    let mut changed = server.get("configmaps/fairlead-trust-bundle").unwrap();
    changed["data"] = json!({ "ca.crt": "somebody else's" });
    server.put("configmaps/fairlead-trust-bundle", changed);
    store.publish(&authority).await.unwrap();
    assert_eq!(bundle(&server), expected);
}

#[tokio::test]
async fn the_pairing_setup_is_made_once() {
    let server = Server::default();
    let first = store(&server).setup().await.unwrap();
    let second = store(&server).setup().await.unwrap();
    assert_eq!(first.to_bytes(), second.to_bytes());
}

#[tokio::test]
async fn the_gateways_certificate_is_renewed_at_two_thirds_of_its_life_and_when_it_does_not_fit() {
    let server = Server::default();
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
