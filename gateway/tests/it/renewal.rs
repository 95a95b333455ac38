//! Another certificate for a device, from what it asks to what it is told. The operator is the test.

use std::{sync::Arc, time::Duration};

use gateway::{
    csr,
    domain::device::{Denied, DeviceKey as Device},
    index::{self, Index},
    renewal::{Asking, NotRenewed, Renewals},
};
use jiff::Timestamp;
use proto::node::Renewed;
use runtime::shutdown::Supervisor;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    api::{FakeApi, now},
    authority::{Authority, DeviceKey},
    hub::SOON,
};

/// A gateway as far as renewals go, and the device kitchen/lamp.
struct Gateway {
    api: FakeApi,
    authority: Authority,
    key: DeviceKey,
    index: Arc<Index>,
    renewals: Renewals,
    _supervisor: Supervisor,
}

impl Gateway {
    async fn start() -> Self {
        let (api, authority, key) = (
            FakeApi::new(),
            Authority::new("fairlead"),
            DeviceKey::generate(),
        );
        api.put(
            "devices",
            json!({
                "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
                "metadata": { "namespace": "kitchen", "name": "lamp", "uid": "uid-of-lamp" },
                "spec": { "publicKeySha256": key.fingerprint().to_string() },
            }),
        );
        let supervisor = Supervisor::new();
        let tasks = supervisor.tasks();
        let index = Arc::new(Index::default());
        let listener: index::Listener = Arc::new(|_| {});
        let (synced, watches) = index::watch::start(
            &index,
            &api.client(),
            "fairlead-system",
            &listener,
            &tasks.token(),
        );
        for watch in watches {
            tasks.spawn(watch);
        }
        timeout(SOON, synced.wait()).await.unwrap();
        Self {
            renewals: Renewals::new(api.client()),
            api,
            authority,
            key,
            index,
            _supervisor: supervisor,
        }
    }

    /// The device asks; its certificate is valid until then.
    async fn asks(&self, pkcs10: &[u8], not_after: Timestamp) -> Result<Renewed, NotRenewed> {
        let asking = Asking {
            device: Device::new("kitchen", "lamp"),
            key: self.key.fingerprint(),
            not_after,
            pkcs10: pkcs10.to_vec(),
        };
        timeout(SOON, self.renewals.renew(&self.index, asking))
            .await
            .expect("an answer in time")
    }

    fn renewal(&self) -> Value {
        self.api.get("devices", "kitchen", "lamp").unwrap()["status"]["renewal"].clone()
    }

    async fn until_asked(&self) {
        let asked = async {
            while self.renewal()["requestedAt"].is_null() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, asked).await.expect("a request in time");
    }

    fn answer(&self, answer: &Value) {
        self.api
            .merge_status("devices", "kitchen", "lamp", &json!({ "renewal": answer }));
    }

    /// Leaf and authority, PEM, valid until 4096; and bytes that this gateway cannot read and need not.
    fn issued(&self) -> Value {
        let chain = self.authority.renewed(&self.key);
        json!({ "chain": chain, "signedBundle": "AAEC", "generation": 2 })
    }
}

#[tokio::test]
async fn a_device_is_told_what_was_issued_for_its_request() {
    let gateway = Gateway::start().await;
    let pkcs10 = gateway.key.signing_request();
    let operator = async {
        gateway.until_asked().await;
        let csr = gateway.renewal()["csr"].as_str().unwrap().to_owned();
        assert!(csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
        gateway.answer(&gateway.issued());
    };
    let (renewed, ()) = tokio::join!(gateway.asks(&pkcs10, Timestamp::MIN), operator);
    let renewed = renewed.unwrap();
    assert_eq!(renewed.chain.len(), 2);
    let authority = gateway.authority.certificate().to_vec();
    assert_eq!(renewed.chain[1], authority);
    assert_eq!(
        renewed.signed_bundle,
        [0, 1, 2],
        "as it stands in the status"
    );
    assert_eq!(gateway.api.patches(), 1);

    // Its stream broke before it heard that: it asks again.
    let again = gateway.asks(&pkcs10, Timestamp::MIN).await.unwrap();
    assert_eq!(again.chain, renewed.chain);
    assert_eq!(gateway.api.patches(), 1, "nothing was asked anew");
}

#[tokio::test]
async fn a_request_that_waits_is_not_written_again() {
    let gateway = Gateway::start().await;
    let pkcs10 = gateway.key.signing_request();
    {
        // A stream that breaks while it waits.
        let asking = gateway.asks(&pkcs10, Timestamp::MIN);
        tokio::select! {
            _ = asking => panic!("nobody answered"),
            () = gateway.until_asked() => {}
        }
    }
    let operator = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gateway.answer(&gateway.issued());
    };
    let (renewed, ()) = tokio::join!(gateway.asks(&pkcs10, Timestamp::MIN), operator);
    renewed.unwrap();
    assert_eq!(gateway.api.patches(), 1);
}

#[tokio::test]
async fn what_the_device_has_already_is_no_renewal() {
    let gateway = Gateway::start().await;
    let pkcs10 = gateway.key.signing_request();
    let csr = csr::read(&pkcs10, &gateway.key.fingerprint(), 4096).unwrap();
    gateway.answer(&json!({ "csr": csr, "requestedAt": "2026-01-01T00:00:00Z" }));
    gateway.answer(&gateway.issued());
    let operator = async {
        let asked = async {
            while !gateway.renewal()["chain"].is_null() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, asked).await.expect("asked anew");
        assert!(gateway.renewal()["generation"].is_null());
        assert!(gateway.renewal()["signedBundle"].is_null());
        gateway.answer(&gateway.issued());
    };
    let until = "4096-01-01T00:00:00Z".parse().unwrap();
    let (renewed, ()) = tokio::join!(gateway.asks(&pkcs10, until), operator);
    renewed.unwrap();
}

#[tokio::test]
async fn why_nothing_is_issued_is_known() {
    let gateway = Gateway::start().await;
    let pkcs10 = gateway.key.signing_request();
    let operator = async {
        gateway.until_asked().await;
        gateway.answer(&json!({ "refused": "not ours" }));
    };
    let (refused, ()) = tokio::join!(gateway.asks(&pkcs10, Timestamp::MIN), operator);
    assert!(matches!(refused, Err(NotRenewed::Refused(why)) if why == "not ours"));
}

#[tokio::test]
async fn nothing_is_written_for_what_cannot_be_issued() {
    let gateway = Gateway::start().await;
    let another = DeviceKey::generate().signing_request();
    let refused = gateway.asks(&another, Timestamp::MIN).await;
    assert!(matches!(
        refused,
        Err(NotRenewed::Invalid(csr::Invalid::AnotherKey))
    ));
    let long = gateway.asks(&[0x30; 4097], Timestamp::MIN).await;
    assert!(matches!(
        long,
        Err(NotRenewed::Invalid(csr::Invalid::TooLong { .. }))
    ));

    let mut lamp = gateway.api.get("devices", "kitchen", "lamp").unwrap();
    lamp["spec"]["trust"] = json!("Suspended");
    gateway.api.put("devices", lamp);
    let pkcs10 = gateway.key.signing_request();
    let denied = gateway.asks(&pkcs10, Timestamp::MIN).await;
    assert!(matches!(denied, Err(NotRenewed::Denied(Denied::Suspended))));
    assert_eq!(gateway.api.patches(), 0);
}

#[tokio::test]
async fn a_certificate_for_another_key_is_not_handed_on() {
    let gateway = Gateway::start().await;
    let pkcs10 = gateway.key.signing_request();
    let operator = async {
        gateway.until_asked().await;
        let chain = gateway.authority.renewed(&DeviceKey::generate());
        gateway.answer(&json!({ "chain": chain, "signedBundle": "AAEC", "generation": 2 }));
    };
    let (renewed, ()) = tokio::join!(gateway.asks(&pkcs10, Timestamp::MIN), operator);
    assert!(matches!(renewed, Err(NotRenewed::Unusable(_))));
}

#[tokio::test]
async fn a_request_takes_the_place_of_another_one_only_after_a_while() {
    let gateway = Gateway::start().await;
    gateway.answer(&json!({ "csr": "another", "requestedAt": now() }));
    let pkcs10 = gateway.key.signing_request();
    let asking = Asking {
        device: Device::new("kitchen", "lamp"),
        key: gateway.key.fingerprint(),
        not_after: Timestamp::MIN,
        pkcs10,
    };
    let hasty = timeout(
        Duration::from_millis(300),
        gateway.renewals.renew(&gateway.index, asking),
    );
    assert!(hasty.await.is_err());
    assert_eq!(gateway.api.patches(), 0);
}
