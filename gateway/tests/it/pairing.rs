//! The proof of a code, and what follows.

use ::pairing::code::PairingCode;
use futures::future::join_all;
use proto::node::{Begin, Proof, enroll_request::Step, enroll_response::Step as Answer};
use serde_json::json;
use tonic::Code;

use crate::{
    api::seconds_from_now,
    authority::DeviceKey,
    hub::Hub,
    stranger::{Enrolling, Refused, application},
};

/// The code's id with a secret that is not its.
fn wrong(code: &PairingCode) -> PairingCode {
    PairingCode::parse(&format!("{}-ZZZZZZ", code.id())).unwrap()
}

async fn guess(hub: &Hub, code: &PairingCode) -> Result<(), Refused> {
    Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .unwrap()
        .challenge(code)
        .await
        .map(|_| ())
}

/// Pairs up to the decision, and returns the call and the request's name.
async fn ask(hub: &Hub, code: &PairingCode, key: &DeviceKey) -> (Enrolling, String) {
    let mut enrolling = Enrolling::start(hub.address, key).await.unwrap();
    enrolling.prove(code).await.unwrap();
    let answer = enrolling.apply(key).await.unwrap();
    let Answer::Pending(pending) = answer else {
        panic!("{answer:?}");
    };
    (enrolling, pending.request)
}

fn issued(hub: &Hub) -> serde_json::Value {
    json!({
        "phase": "Issued",
        "certificate": {
            "chain": hub.authority.pem(), "serial": "01",
            "notBefore": seconds_from_now(-300), "notAfter": seconds_from_now(86_400),
        },
        "caBundle": hub.authority.pem(), "signedBundle": "AAEC",
        "deviceRef": { "name": "kiosk" },
    })
}

#[tokio::test]
async fn a_device_that_proves_a_code_asks_and_is_told_the_decision() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let key = DeviceKey::generate();
    let (mut enrolling, request) = ask(&hub, &code, &key).await;
    assert_eq!(hub.counts(), (0, 1), "success costs a use and no attempt");
    assert_eq!(
        hub.api.patches(),
        3,
        "the attempt, the use, the request's name"
    );
    let admitted = hub.code_status()["admitted"].clone();
    assert_eq!(
        admitted,
        json!([{ "publicKeySha256": key.fingerprint().to_string(), "pairingRequestRef": { "name": request } }])
    );
    let made = hub.api.get("pairingrequests", "kitchen", &request).unwrap();
    assert_eq!(
        made["spec"]["source"],
        json!({ "gateway": "gateway-0", "remoteAddress": "127.0.0.1" })
    );

    hub.decide(&request, &json!({ "phase": "Approved" }));
    hub.decide(&request, &issued(&hub));
    let Answer::Issued(issued) = enrolling.next().await.unwrap() else {
        panic!("not issued");
    };
    assert_eq!(
        (issued.namespace.as_str(), issued.device.as_str()),
        ("kitchen", "kiosk")
    );
    assert_eq!(issued.gateways, ["gateway-0:7443"]);
    assert_eq!(
        issued.signed_bundle,
        [0, 1, 2],
        "as it stands in the status"
    );
}

#[tokio::test]
async fn each_end_reaches_the_device() {
    type Is = fn(&Answer) -> bool;
    let rows: [(serde_json::Value, Is); 3] = [
        (
            json!({ "phase": "Denied", "approval": { "decision": "Denied", "reason": "not ours" } }),
            |answer| matches!(answer, Answer::Denied(denied) if denied.reason == "not ours"),
        ),
        (json!({ "phase": "Expired" }), |answer| {
            matches!(answer, Answer::Expired(_))
        }),
        (json!({ "phase": "Failed" }), |answer| {
            matches!(answer, Answer::Failed(_))
        }),
    ];
    for (status, is) in rows {
        let hub = Hub::start().await;
        let code = hub.add_code(5, 1);
        let (mut enrolling, request) = ask(&hub, &code, &DeviceKey::generate()).await;
        hub.decide(&request, &status);
        let answer = enrolling.next().await.unwrap();
        assert!(is(&answer), "{status} gave {answer:?}");
    }
}

#[tokio::test]
async fn a_wrong_code_is_refused_and_counted() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    assert!(matches!(
        guess(&hub, &wrong(&code)).await,
        Err(Refused::ByDevice)
    ));
    assert_eq!(hub.counts(), (1, 0));
}

/// A device that does not check the gateway sends a proof all the same.
#[tokio::test]
async fn a_false_proof_is_refused_and_stays_counted() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let ke3_of_another = {
        let mut other = Enrolling::start(hub.address, &DeviceKey::generate())
            .await
            .unwrap();
        other.challenge(&code).await.unwrap()
    };
    let mut enrolling = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .unwrap();
    enrolling.challenge(&code).await.unwrap();
    enrolling
        .send(Step::Proof(Proof {
            ke3: ke3_of_another,
        }))
        .await;
    assert_eq!(
        enrolling.next().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(hub.counts(), (2, 0));
}

#[tokio::test]
async fn the_sixth_try_is_refused_though_it_is_right() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    for _ in 0..5 {
        assert!(matches!(
            guess(&hub, &wrong(&code)).await,
            Err(Refused::ByDevice)
        ));
    }
    assert_eq!(hub.counts(), (5, 0));
    // Else the gateway waits for five proofs that never come.
    hub.change_code(&json!({ "lastAttemptAt": seconds_from_now(-31) }));
    assert!(matches!(guess(&hub, &code).await, Err(Refused::ByDevice)));
    assert_eq!(hub.counts(), (5, 0));
}

#[tokio::test]
async fn a_code_that_cannot_be_used_answers_like_a_wrong_one() {
    for (row, status) in [
        ("used", json!({ "uses": 1 })),
        ("expired", json!({ "expiresAt": seconds_from_now(-1) })),
        ("locked", json!({ "phase": "Locked" })),
        ("not drawn", json!({ "phase": null })),
        ("damaged", json!({ "passwordFile": "AAAA" })),
        ("no Base64", json!({ "passwordFile": "?" })),
        ("another id", json!({ "codeId": "0000" })),
    ] {
        let hub = Hub::start().await;
        let code = hub.add_code(5, 1);
        hub.change_code(&status);
        assert!(
            matches!(guess(&hub, &code).await, Err(Refused::ByDevice)),
            "{row}"
        );
    }
}

#[tokio::test]
async fn ten_devices_at_once_on_a_code_of_ten_do_not_lock_each_other_out() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 10);
    let paired = join_all((0..10).map(|_| async {
        let key = DeviceKey::generate();
        ask(&hub, &code, &key).await.1
    }))
    .await;
    assert_eq!(hub.counts(), (0, 10));
    let mut requests = paired.clone();
    requests.sort();
    requests.dedup();
    assert_eq!(requests.len(), 10);
    assert!(
        matches!(guess(&hub, &code).await, Err(Refused::ByDevice)),
        "an eleventh"
    );
}

#[tokio::test]
async fn a_signing_request_for_another_key_is_refused() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let key = DeviceKey::generate();
    let mut enrolling = Enrolling::start(hub.address, &key).await.unwrap();
    enrolling.prove(&code).await.unwrap();
    let refused = enrolling.apply(&DeviceKey::generate()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("another key"), "{refused}");
    assert!(hub.api.all("pairingrequests").is_empty());

    // It proved the code all the same, and may say it again properly.
    let mut again = Enrolling::start(hub.address, &key).await.unwrap();
    assert!(matches!(again.resume().await.unwrap(), Answer::Describe(_)));
    assert!(matches!(
        again.apply(&key).await.unwrap(),
        Answer::Pending(_)
    ));
}

#[tokio::test]
async fn a_device_that_lost_its_stream_comes_back_to_the_same_request() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let key = DeviceKey::generate();
    let (first, request) = ask(&hub, &code, &key).await;
    drop(first);
    let mut second = Enrolling::start(hub.address, &key).await.unwrap();
    let Answer::Pending(pending) = second.resume().await.unwrap() else {
        panic!("not pending");
    };
    assert_eq!(pending.request, request);
    hub.decide(&request, &issued(&hub));
    assert!(matches!(second.next().await.unwrap(), Answer::Issued(_)));

    let mut stranger = Enrolling::start(hub.address, &DeviceKey::generate())
        .await
        .unwrap();
    assert_eq!(stranger.resume().await.unwrap_err().code(), Code::NotFound);
}

/// Somebody who may make requests elsewhere makes them for this device's key.
#[tokio::test]
async fn requests_that_others_make_for_its_key_do_not_keep_a_device_from_its_own() {
    for (row, others) in [("pages of them", 150), ("more than are read", 2_100)] {
        let hub = Hub::start().await;
        let code = hub.add_code(5, 1);
        let key = DeviceKey::generate();
        let (first, request) = ask(&hub, &code, &key).await;
        drop(first);
        for number in 0..others {
            hub.api.put(
                "pairingrequests",
                json!({
                    "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
                    "metadata": { "namespace": "attic", "name": format!("trap-{number}") },
                    "spec": {
                        "requestedName": "kiosk", "publicKeySha256": key.fingerprint().to_string(),
                        "method": "Manual", "expiresAt": seconds_from_now(600),
                    },
                }),
            );
        }
        let mut second = Enrolling::start(hub.address, &key).await.unwrap();
        let Answer::Pending(pending) = second.resume().await.unwrap() else {
            panic!("not pending: {row}");
        };
        assert_eq!(pending.request, request, "{row}");
    }
}

/// Another tenant makes objects for this device's key, and with this code's id, that no program can read.
#[tokio::test]
async fn unreadable_objects_of_another_tenant_do_not_keep_a_device_from_pairing() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 2);
    let key = DeviceKey::generate();
    hub.api.put(
        "pairingcodes",
        json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingCode",
            "metadata": { "namespace": "attic", "name": "trap" },
            "spec": { "ttlSeconds": "no number" },
            "status": hub.code_status(),
        }),
    );
    hub.api.put(
        "pairingrequests",
        json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
            "metadata": { "namespace": "attic", "name": "trap" },
            "spec": { "publicKeySha256": key.fingerprint().to_string(), "expiresAt": "no moment" },
        }),
    );
    let (first, request) = ask(&hub, &code, &key).await;
    drop(first);
    let mut second = Enrolling::start(hub.address, &key).await.unwrap();
    let Answer::Pending(pending) = second.resume().await.unwrap() else {
        panic!("not pending");
    };
    assert_eq!(pending.request, request);
}

#[tokio::test]
async fn a_request_that_was_deleted_is_not_waited_for() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let key = DeviceKey::generate();
    let (first, request) = ask(&hub, &code, &key).await;
    drop(first);
    hub.api.delete("pairingrequests", "kitchen", &request);
    let mut second = Enrolling::start(hub.address, &key).await.unwrap();
    assert_eq!(second.resume().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn where_two_gateways_raced_the_device_follows_the_request_that_the_code_names() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let key = DeviceKey::generate();
    let mut enrolling = Enrolling::start(hub.address, &key).await.unwrap();
    enrolling.prove(&code).await.unwrap();
    // The other gateway's request was made and named while this one was being asked.
    tokio::time::timeout(crate::hub::SOON, async {
        while hub.code_status()["admitted"].is_null() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    hub.api.put(
        "pairingrequests",
        json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
            "metadata": { "namespace": "kitchen", "name": "theirs" },
            "spec": { "requestedName": "kiosk", "expiresAt": seconds_from_now(600) },
        }),
    );
    hub.change_code(&json!({ "admitted": [{
        "publicKeySha256": key.fingerprint().to_string(), "pairingRequestRef": { "name": "theirs" },
    }] }));
    let Answer::Pending(pending) = enrolling.apply(&key).await.unwrap() else {
        panic!("not pending");
    };
    assert_eq!(pending.request, "theirs");
}

#[tokio::test]
async fn steps_out_of_order_are_refused() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let key = DeviceKey::generate();

    let mut application_first = Enrolling::start(hub.address, &key).await.unwrap();
    let refused = application_first.apply(&key).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);

    let mut no_proof = Enrolling::start(hub.address, &key).await.unwrap();
    no_proof.challenge(&code).await.unwrap();
    no_proof.send(Step::Application(application(&key))).await;
    assert_eq!(
        no_proof.next().await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(hub.counts(), (1, 0), "the challenge is out, so it counts");

    let mut garbage = Enrolling::start(hub.address, &key).await.unwrap();
    garbage
        .send(Step::Begin(Begin {
            code_id: code.id().to_owned(),
            ke1: b"garbage".to_vec(),
        }))
        .await;
    assert_eq!(
        garbage.next().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_gateway_that_stops_sends_those_who_wait_elsewhere() {
    let hub = Hub::start().await;
    let code = hub.add_code(5, 1);
    let (mut enrolling, _) = ask(&hub, &code, &DeviceKey::generate()).await;
    hub.stop();
    assert_eq!(
        enrolling.next().await.unwrap_err().code(),
        Code::Unavailable
    );
}
