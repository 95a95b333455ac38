//! Secrets that the operator makes, against a pretended API server.

use super::*;
use crate::pretended::Server;

#[tokio::test]
async fn the_pairing_setup_is_made_once() {
    let server = Server::default();
    let store = Store {
        client: server.client(),
        namespace: "system".to_owned(),
    };
    let (first, is_new) = store.setup().await.unwrap();
    assert!(is_new);
    let (second, is_new) = store.setup().await.unwrap();
    assert!(!is_new);
    assert_eq!(first.to_bytes(), second.to_bytes());
}

#[tokio::test]
async fn a_pairing_setup_that_was_deleted_is_written_back_and_another_one_is_left_alone() {
    let server = Server::default();
    let store = Store {
        client: server.client(),
        namespace: "system".to_owned(),
    };
    let secret = "secrets/fairlead-pairing-setup";
    let (setup, _) = store.setup().await.unwrap();
    assert!(!store.keep_setup(&setup).await.unwrap());
    let before = server.get(secret).unwrap()["data"].clone();
    server.remove(secret);
    assert!(store.keep_setup(&setup).await.unwrap());
    assert_eq!(server.get(secret).unwrap()["data"], before);

    server.remove(secret);
    let (other, _) = store.setup().await.unwrap();
    let error = store.keep_setup(&setup).await.unwrap_err();
    assert!(
        error.to_string().contains("restart the operator"),
        "{error}"
    );
    let (stands, _) = store.setup().await.unwrap();
    assert_eq!(stands.to_bytes(), other.to_bytes());
}
