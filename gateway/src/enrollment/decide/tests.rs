use serde_json::{Value, json};

use super::*;

const KEY: &str = "aa";
const OTHER: &str = "bb";

fn at(time: &str) -> Timestamp {
    format!("2026-01-01T{time}Z").parse().unwrap()
}

/// A code for one device that three wrong tries lock, with `change` in its status.
fn code(change: Value) -> PairingCode {
    let mut status = json!({
        "phase": "Active", "codeId": "7KQ2", "passwordFile": "AAAA", "expiresAt": "2026-01-01T00:10:00Z",
        "uses": 0, "attempts": 0,
    });
    merge(&mut status, change);
    from(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingCode",
        "metadata": { "name": "lobby", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "maxUses": 2, "maxAttempts": 3 },
        "status": status,
    }))
}

fn request(name: &str, created: &str, change: Value) -> PairingRequest {
    let mut spec = json!({
        "requestedName": "kiosk", "publicKeySha256": KEY, "pairingCodeRef": { "name": "lobby" },
        "source": { "gateway": "gateway-0", "remoteAddress": "192.0.2.1" },
    });
    merge(&mut spec, change);
    from(json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
        "metadata": { "name": name, "namespace": "shop", "creationTimestamp": format!("2026-01-01T{created}Z") },
        "spec": spec,
    }))
}

fn merge(into: &mut Value, change: Value) {
    let (Value::Object(into), Value::Object(change)) = (into, change) else {
        panic!("not objects");
    };
    into.extend(change);
    into.retain(|_, value| !value.is_null());
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn admitted(key: &str, request: Option<&str>) -> Value {
    match request {
        Some(name) => json!({ "publicKeySha256": key, "pairingRequestRef": { "name": name } }),
        None => json!({ "publicKeySha256": key }),
    }
}

fn place(name: &str) -> Place {
    Place {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

#[test]
fn a_challenge_is_made_only_for_what_can_be_proved_and_counted() {
    let now = at("00:05:00");
    let rows = [
        ("a fresh code", json!({}), Attempt::Count { attempts: 1 }),
        (
            "the last attempt",
            json!({ "attempts": 2 }),
            Attempt::Count { attempts: 3 },
        ),
        (
            "as many are out as may be",
            json!({ "attempts": 3, "lastAttemptAt": "2026-01-01T00:04:31Z" }),
            Attempt::Wait,
        ),
        (
            "none of them was proved in time",
            json!({ "attempts": 3, "lastAttemptAt": "2026-01-01T00:04:30Z" }),
            Attempt::Refuse(Unusable::Locked),
        ),
        (
            "nobody knows when they went out",
            json!({ "attempts": 3 }),
            Attempt::Refuse(Unusable::Locked),
        ),
        (
            "not drawn",
            json!({ "phase": null }),
            Attempt::Refuse(Unusable::NotDrawn),
        ),
        (
            "no password file",
            json!({ "passwordFile": null }),
            Attempt::Refuse(Unusable::NotDrawn),
        ),
        (
            "locked",
            json!({ "phase": "Locked" }),
            Attempt::Refuse(Unusable::Over),
        ),
        (
            "its time is over, and nobody wrote so",
            json!({ "expiresAt": "2026-01-01T00:05:00Z" }),
            Attempt::Refuse(Unusable::Expired),
        ),
        (
            "it does not say when it ends",
            json!({ "expiresAt": null }),
            Attempt::Refuse(Unusable::Expired),
        ),
        (
            "used up, and nobody wrote so",
            json!({ "uses": 2 }),
            Attempt::Refuse(Unusable::Used),
        ),
    ];
    for (row, change, expected) in rows {
        assert_eq!(attempt(&code(change), now), expected, "{row}");
    }
    let mut undrawn = code(json!({}));
    undrawn.status = None;
    assert_eq!(attempt(&undrawn, now), Attempt::Refuse(Unusable::NotDrawn));
}

#[test]
fn a_dead_code_of_the_same_id_does_not_hide_the_one_that_lives() {
    let mut living = code(json!({}));
    living.metadata.name = Some("living".to_owned());
    let found = live(vec![
        code(json!({ "phase": "Used" })),
        living,
        code(json!({ "phase": null })),
    ])
    .unwrap();
    assert_eq!(found.name_any(), "living");
    assert!(live(vec![code(json!({ "phase": "Used" }))]).is_some());
    assert_eq!(live(Vec::new()), None);
}

#[test]
fn a_proof_spends_a_use_and_gives_the_attempt_back() {
    let Proved::Admit {
        attempts,
        uses,
        admitted,
    } = proved(
        &code(json!({ "attempts": 3, "uses": 1, "admitted": [admitted(OTHER, Some("r"))] })),
        KEY,
        at("00:05:00"),
    )
    else {
        panic!("not admitted");
    };
    assert_eq!((attempts, uses), (2, 2));
    let keys: Vec<&str> = admitted
        .iter()
        .map(|admitted| admitted.public_key_sha256.as_str())
        .collect();
    assert_eq!(keys, [OTHER, KEY]);
}

#[test]
fn a_key_that_proves_a_code_twice_spends_one_use() {
    let used = |phase: &str| {
        code(
            json!({ "phase": phase, "attempts": 1, "uses": 2, "admitted": [admitted(KEY, None), admitted(OTHER, None)] }),
        )
    };
    assert_eq!(
        proved(&used("Active"), KEY, at("00:05:00")),
        Proved::Again { attempts: Some(0) }
    );
    // A code that is over counts nothing any more.
    assert_eq!(
        proved(&used("Used"), KEY, at("00:05:00")),
        Proved::Again { attempts: None }
    );
}

#[test]
fn who_proves_too_late_is_refused() {
    for (change, expected) in [
        (json!({ "attempts": 1, "uses": 2 }), Unusable::Used),
        (
            json!({ "attempts": 1, "expiresAt": "2026-01-01T00:04:59Z" }),
            Unusable::Expired,
        ),
        (json!({ "attempts": 3, "phase": "Locked" }), Unusable::Over),
    ] {
        assert_eq!(
            proved(&code(change), KEY, at("00:05:00")),
            Proved::Refuse(expected)
        );
    }
}

#[test]
fn the_first_request_that_a_code_names_counts() {
    let written = |request| {
        link(
            &code(json!({ "admitted": [admitted(OTHER, None), admitted(KEY, request)] })),
            KEY,
            "mine",
        )
    };
    let Link::Write { admitted } = written(None) else {
        panic!("not written");
    };
    assert_eq!(admitted[0].pairing_request_ref, None);
    assert_eq!(
        admitted[1].pairing_request_ref,
        Some(ObjectReference::new("mine"))
    );
    assert_eq!(
        written(Some("theirs")),
        Link::Counts {
            request: "theirs".to_owned()
        }
    );
    assert_eq!(
        written(Some("mine")),
        Link::Counts {
            request: "mine".to_owned()
        }
    );
    assert_eq!(link(&code(json!({})), KEY, "mine"), Link::NotAdmitted);
}

#[test]
fn a_key_that_comes_back_goes_on_where_it_was() {
    let with = |request| {
        code(
            json!({ "lastAttemptAt": "2026-01-01T00:02:00Z", "admitted": [admitted(KEY, request)] }),
        )
    };
    let mine = || request("mine", "00:02:01", json!({}));
    let rows = [
        ("nobody knows it", vec![], vec![], Resumption::Unknown),
        (
            "it said nothing yet",
            vec![with(None)],
            vec![],
            Resumption::Describe {
                code: place("lobby"),
            },
        ),
        (
            "its request waits",
            vec![with(Some("mine"))],
            vec![mine()],
            Resumption::Wait {
                request: place("mine"),
            },
        ),
        (
            "its request is not named yet",
            vec![with(None)],
            vec![mine()],
            Resumption::Link {
                code: place("lobby"),
                request: place("mine"),
            },
        ),
        (
            "another gateway's request counts",
            vec![with(Some("theirs"))],
            vec![mine(), request("theirs", "00:02:01", json!({}))],
            Resumption::Wait {
                request: place("theirs"),
            },
        ),
        (
            "its request was deleted",
            vec![with(Some("mine"))],
            vec![],
            Resumption::Unknown,
        ),
        (
            "its code was deleted",
            vec![],
            vec![mine()],
            Resumption::Wait {
                request: place("mine"),
            },
        ),
        (
            "a person wrote a request for its key",
            vec![],
            vec![request(
                "trap",
                "00:09:00",
                json!({ "source": null, "pairingCodeRef": null, "method": "Manual" }),
            )],
            Resumption::Unknown,
        ),
    ];
    for (row, codes, requests, expected) in rows {
        assert_eq!(resumption(KEY, &codes, &requests), expected, "{row}");
    }
}

#[test]
fn the_last_thing_that_a_key_did_decides() {
    let renamed = |name: &str, last: &str, request| {
        let mut code = code(json!({
            "lastAttemptAt": format!("2026-01-01T{last}Z"), "admitted": [admitted(KEY, request)],
        }));
        code.metadata.name = Some(name.to_owned());
        code
    };
    let of = |code: &str, name: &str, created| {
        request(name, created, json!({ "pairingCodeRef": { "name": code } }))
    };
    // Denied under the first code, it proved a second one and was cut off.
    assert_eq!(
        resumption(
            KEY,
            &[
                renamed("first", "00:01:00", Some("denied")),
                renamed("second", "00:05:00", None)
            ],
            &[of("first", "denied", "00:01:01")],
        ),
        Resumption::Describe {
            code: place("second")
        },
    );
    // It gave up the first one, and asked by the second.
    assert_eq!(
        resumption(
            KEY,
            &[
                renamed("first", "00:01:00", None),
                renamed("second", "00:05:00", Some("asked"))
            ],
            &[of("second", "asked", "00:05:00")],
        ),
        Resumption::Wait {
            request: place("asked")
        },
    );
}
