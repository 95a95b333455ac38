//! The authority's Secret and what else names it, against a pretended API server.

use serde_json::json;

use super::*;
use crate::pretended::Server;

const DOMAIN: &str = "test.example";
const CA: &str = "secrets/fairlead-ca";

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

async fn find(server: &Server) -> Result<Authority, Refusal> {
    find_replacing(server, None).await
}

async fn find_replacing(server: &Server, replaced: Option<Replaced>) -> Result<Authority, Refusal> {
    store(server)
        .find_authority(DOMAIN, replaced, now())
        .await
        .unwrap()
}

/// A server with an authority that is published.
async fn published() -> (Server, Authority) {
    let server = Server::default();
    let authority = find(&server).await.unwrap();
    store(&server)
        .publish(&authority, None, now())
        .await
        .unwrap();
    (server, authority)
}

fn device(authority: Option<&Authority>) -> serde_json::Value {
    json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
        "metadata": { "name": "lamp", "namespace": "kitchen" },
        "spec": { "publicKeySha256": "00".repeat(32) },
        "status": { "certificate": {
            "serial": "01", "fingerprint": "00".repeat(32), "generation": 1,
            "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-02T00:00:00Z",
            "authority": authority.map(|authority| authority.pin().to_string()),
        } },
    })
}

#[tokio::test]
async fn the_authority_is_made_once_and_read_back() {
    let server = Server::default();
    let first = find(&server).await.unwrap();
    let second = find(&server).await.unwrap();
    assert_eq!(first.pin(), second.pin());
    assert_eq!(creates(&server), 1);
}

#[tokio::test]
async fn of_two_operators_that_start_at_once_the_quicker_one_makes_the_authority() {
    let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
    let theirs = Authority::from_pem(&certificate, &key, DOMAIN).unwrap();
    let server = Server::default();
    server.another_is_quicker_with(store(&server).authority_secret(certificate, key));
    let ours = find(&server).await.unwrap();
    assert_eq!(ours.pin(), theirs.pin());
    assert_eq!(creates(&server), 1);
}

#[tokio::test]
async fn a_damaged_authority_or_one_of_another_trust_domain_is_neither_used_nor_replaced() {
    let server = Server::default();
    let garbage = BTreeMap::from([text("tls.crt", "garbage".to_owned())]);
    server.put(CA, store(&server).secret(names::CA_SECRET, garbage));
    let refusal = find(&server).await.unwrap_err().to_string();
    assert!(refusal.contains("restore it from a backup"), "{refusal}");
    let (certificate, key) = Authority::generate("other.example", now()).unwrap();
    server.put(CA, store(&server).authority_secret(certificate, key));
    let refusal = find(&server).await.unwrap_err().to_string();
    assert!(refusal.contains("another trust domain"), "{refusal}");
    assert_eq!(creates(&server), 0);
}

#[tokio::test]
async fn a_deleted_authority_is_not_replaced_and_comes_back_with_its_secret() {
    let (server, authority) = published().await;
    let secret = server.get(CA).unwrap();
    server.remove(CA);
    let refusal = find(&server).await.unwrap_err();
    let known = Replaced::Pin(authority.pin());
    assert_eq!(refusal, Refusal::Missing { known });
    assert!(server.get(CA).is_none());
    assert_eq!(creates(&server), 1);
    server.put(CA, secret);
    assert_eq!(find(&server).await.unwrap().pin(), authority.pin());
}

#[tokio::test]
async fn where_all_of_the_namespace_is_gone_devices_keep_another_authority_from_being_made() {
    let (_, authority) = published().await;
    for (device, known) in [
        (device(Some(&authority)), Replaced::Pin(authority.pin())),
        (device(None), Replaced::Unknown),
    ] {
        let server = Server::default();
        server.put("devices/lamp", device);
        let refusal = find(&server).await.unwrap_err();
        assert_eq!(refusal, Refusal::Missing { known });
        assert_eq!(creates(&server), 0);
        find_replacing(&server, Some(known)).await.unwrap();
        assert_eq!(creates(&server), 1);
    }
}

#[tokio::test]
async fn a_device_without_a_certificate_keeps_nobody_from_beginning() {
    let server = Server::default();
    let mut new = device(None);
    new["status"] = json!({});
    server.put("devices/lamp", new);
    find(&server).await.unwrap();
}

#[tokio::test]
async fn another_authority_in_the_secret_is_not_used_until_the_old_one_is_given_up() {
    let (server, authority) = published().await;
    let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
    let another = Authority::from_pem(&certificate, &key, DOMAIN).unwrap();
    server.put(CA, store(&server).authority_secret(certificate, key));
    let known = Replaced::Pin(authority.pin());
    let found = another.pin();
    let refusal = find(&server).await.unwrap_err();
    assert_eq!(refusal, Refusal::Another { found, known });
    let used = find_replacing(&server, Some(known)).await.unwrap();
    assert_eq!(used.pin(), found);
}

#[tokio::test]
async fn a_running_operator_writes_a_deleted_authority_back_and_leaves_another_one_alone() {
    let (server, authority) = published().await;
    let keep = async || store(&server).keep_authority(&authority).await.unwrap();
    assert_eq!(keep().await, Ok(Kept::Stands));
    let before = server.get(CA).unwrap()["data"].clone();
    server.remove(CA);
    assert_eq!(keep().await, Ok(Kept::WrittenBack));
    assert_eq!(server.get(CA).unwrap()["data"], before);
    assert_eq!(keep().await, Ok(Kept::Stands));

    let (certificate, key) = Authority::generate(DOMAIN, now()).unwrap();
    let another = store(&server).authority_secret(certificate, key);
    server.put(CA, another);
    let theirs = server.get(CA).unwrap();
    assert!(matches!(keep().await, Err(Refusal::Another { .. })));
    assert_eq!(server.get(CA).unwrap(), theirs);
}
