//! Who makes a code that approves by itself, who counts its uses, and that what was counted stays.

use serde_json::{Value, json};

use super::objects::{FROM_GATEWAY, KEY, MOMENT, OTHER_KEY, code, drawn, with};
use super::step::{ADMIN, DORA, GATEWAY, NORA, OPERATOR, PAUL, RITA, Rule, Step};

const LOBBY: &str = "pairingcodes/lobby";

pub fn rules() -> Vec<Rule> {
    let mut rules = making();
    rules.extend(counting());
    rules.extend(history());
    rules.extend(size());
    rules
}

/// A drawn code for three devices.
fn active() -> [Step; 2] {
    [
        DORA.creates(code("lobby", &json!({ "maxUses": 3 }))),
        OPERATOR.writes_status(LOBBY, &drawn()),
    ]
}

fn after_active(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    active().into_iter().chain(steps).collect()
}

fn making() -> Vec<Rule> {
    let automatic = json!({ "approval": "Automatic" });
    vec![
        Rule::new(
            "codes::one_that_approves_by_itself_takes_the_verb_approve",
            [
                DORA.creates(code("auto", &automatic))
                    .refused("approves by itself, so dora needs the verb approve on pairingrequests.fairlead.dev"),
                // To approve one request is not to approve all.
                NORA.creates(code("auto", &automatic)).refused("so nora needs the verb approve"),
                DORA.creates(code("manual", &json!({}))).reads("/spec/approval", "Manual"),
                RITA.creates(code("auto", &automatic)),
            ],
        ),
        Rule::new(
            "codes::a_code_cannot_be_changed",
            [
                DORA.creates(code("lobby", &json!({}))),
                PAUL.patches(LOBBY, json!({ "spec": { "approval": "Automatic" } })).refused("cannot be changed: make a new one"),
                PAUL.patches(LOBBY, json!({ "spec": { "maxUses": 9 } })).refused("cannot be changed: make a new one"),
                PAUL.patches(LOBBY, json!({ "spec": { "grants": { "capabilities": ["echo"] } } }))
                    .refused("cannot be changed: make a new one"),
                PAUL.patches(LOBBY, json!({ "metadata": { "labels": { "site": "lobby" } } })),
            ],
        ),
        Rule::new(
            "codes::a_spec_is_within_its_bounds",
            [
                DORA.creates(code("x", &json!({ "ttlSeconds": 29 }))).refused("spec.ttlSeconds"),
                DORA.creates(code("x", &json!({ "ttlSeconds": 86401 }))).refused("spec.ttlSeconds"),
                DORA.creates(code("x", &json!({ "maxUses": 0 }))).refused("spec.maxUses"),
                DORA.creates(code("x", &json!({ "maxAttempts": 21 }))).refused("spec.maxAttempts"),
                DORA.creates(code(&"x".repeat(201), &json!({}))).refused("200 characters long at most"),
                DORA.creates(code("x", &json!({ "grants": { "labels": { "no label": "x" } } }))).refused("a label's key is a name"),
                DORA.creates(code("x", &json!({ "grants": { "labels": { "site": "no value" } } }))).refused("grants.labels"),
                DORA.creates(code("x", &json!({ "grants": { "labels": { "example.org/site": "Lobby-1" } } })))
                    .reads("/spec/ttlSeconds", 600),
            ],
        ),
    ]
}

fn counting() -> Vec<Rule> {
    let proof = json!({ "attempts": 0, "uses": 1, "admitted": [{ "publicKeySha256": KEY }] });
    let named = json!([{ "publicKeySha256": KEY, "pairingRequestRef": { "name": FROM_GATEWAY } }]);
    vec![
        Rule::new(
            "codes::people_write_nothing_in_the_status",
            after_active([
                PAUL.writes_status(LOBBY, &json!({ "attempts": 0, "uses": 1 }))
                    .refused("by the operator and the gateways alone"),
                ADMIN
                    .writes_status(LOBBY, &json!({ "phase": "Expired", "passwordFile": null }))
                    .refused("to end a code, delete it"),
                DORA.deletes(LOBBY),
            ]),
        ),
        Rule::new(
            "codes::a_gateway_counts_and_changes_nothing_else",
            after_active([
                GATEWAY
                    .writes_status(LOBBY, &json!({ "codeId": "9999" }))
                    .refused("a code is drawn once"),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "passwordFile": "BBBB" }))
                    .refused("and nothing else"),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "passwordFile": null }))
                    .refused("and nothing else"),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "expiresAt": "2099-01-01T00:00:00Z" }))
                    .refused("and nothing else"),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "phase": "Locked", "passwordFile": null }))
                    .refused("and nothing else"),
                GATEWAY.writes_status(LOBBY, &json!({ "attempts": 1, "lastAttemptAt": MOMENT })),
                GATEWAY.writes_status(LOBBY, &proof),
                GATEWAY.writes_status(LOBBY, &json!({ "admitted": named })),
            ]),
        ),
        Rule::new(
            "codes::a_gateway_counts_one_at_a_time",
            after_active([
                GATEWAY
                    .writes_status(LOBBY, &json!({ "attempts": 2 }))
                    .refused("one attempt or one use at a time"),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "uses": 2 }))
                    .refused("one attempt or one use at a time"),
                GATEWAY.writes_status(LOBBY, &json!({ "attempts": 1 })),
                GATEWAY.writes_status(LOBBY, &json!({ "attempts": 2 })),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "attempts": 0 }))
                    .refused("one attempt or one use at a time"),
                GATEWAY.writes_status(LOBBY, &json!({ "attempts": 1, "uses": 1 })),
            ]),
        ),
        Rule::new(
            "codes::a_code_that_is_over_admits_nobody",
            after_active([
                GATEWAY.writes_status(LOBBY, &json!({ "attempts": 1 })),
                GATEWAY.writes_status(LOBBY, &proof),
                OPERATOR.writes_status(LOBBY, &json!({ "phase": "Locked", "passwordFile": null })),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "attempts": 1 }))
                    .refused("the code is Locked: it counts no attempt"),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "uses": 2 }))
                    .refused("the code is Locked"),
                // Who was admitted before still gets his request.
                GATEWAY.writes_status(LOBBY, &json!({ "admitted": named })),
            ]),
        ),
        Rule::new(
            "codes::one_that_is_not_drawn_counts_nothing",
            [
                DORA.creates(code("lobby", &json!({}))),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "attempts": 1, "uses": 0 }))
                    .refused("the code is not drawn yet"),
                OPERATOR.writes_status(LOBBY, &drawn()),
                GATEWAY.writes_status(LOBBY, &json!({ "attempts": 1 })),
            ],
        ),
    ]
}

fn history() -> Vec<Rule> {
    let admitted = |keys: &[(&str, Option<&str>)]| -> Value {
        keys.iter()
            .map(|(key, request)| match request {
                Some(request) => {
                    json!({ "publicKeySha256": key, "pairingRequestRef": { "name": request } })
                }
                None => json!({ "publicKeySha256": key }),
            })
            .collect()
    };
    let used = |uses: i64, keys: &[(&str, Option<&str>)]| json!({ "uses": uses, "admitted": admitted(keys) });
    vec![
        Rule::new(
            "codes::uses_and_admitted_keys_are_never_taken_back",
            after_active([
                OPERATOR.writes_status(LOBBY, &used(2, &[(KEY, None), (OTHER_KEY, None)])),
                OPERATOR
                    .writes_status(LOBBY, &json!({ "uses": 1 }))
                    .refused("uses are never taken back"),
                OPERATOR
                    .writes_status(LOBBY, &used(2, &[(KEY, None)]))
                    .refused("a key that was admitted stays admitted"),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "admitted": null }))
                    .refused("a key that was admitted stays admitted"),
                GATEWAY
                    .writes_status(LOBBY, &used(2, &[(KEY, None), (&"e".repeat(64), None)]))
                    .refused("a key that was admitted stays admitted"),
                OPERATOR
                    .writes_status_at(LOBBY, "", &Value::Null)
                    .refused("cannot be removed"),
                GATEWAY.writes_status(
                    LOBBY,
                    &used(
                        3,
                        &[(KEY, None), (OTHER_KEY, None), (&"e".repeat(64), None)],
                    ),
                ),
            ]),
        ),
        Rule::new(
            "codes::the_request_of_a_key_is_named_once",
            after_active([
                OPERATOR.writes_status(LOBBY, &used(1, &[(KEY, None)])),
                GATEWAY.writes_status(LOBBY, &used(1, &[(KEY, Some("preq-a"))])),
                GATEWAY
                    .writes_status(LOBBY, &used(1, &[(KEY, Some("preq-b"))]))
                    .refused("is named once"),
                GATEWAY
                    .writes_status(LOBBY, &used(1, &[(KEY, None)]))
                    .refused("is named once"),
                GATEWAY.writes_status(LOBBY, &used(2, &[(KEY, Some("preq-a")), (OTHER_KEY, None)])),
            ]),
        ),
        Rule::new(
            "codes::limits_are_limits",
            after_active([
                OPERATOR
                    .writes_status(LOBBY, &json!({ "uses": 4 }))
                    .refused("status.uses: Invalid value: uses cannot exceed spec.maxUses"),
                OPERATOR
                    .writes_status(LOBBY, &json!({ "attempts": 6 }))
                    .refused("status.attempts: Invalid value: attempts cannot exceed spec.maxAttempts"),
                OPERATOR
                    .writes_status(LOBBY, &json!({ "attempts": -1 }))
                    .refused("status.attempts"),
                GATEWAY
                    .writes_status(LOBBY, &used(0, &[(KEY, None)]))
                    .refused("each admitted key spends a use"),
                OPERATOR.writes_status(LOBBY, &json!({ "uses": 3, "attempts": 5 })),
            ]),
        ),
        Rule::new(
            "codes::a_code_that_is_over_stays_so_and_keeps_no_password_file",
            after_active([
                OPERATOR
                    .writes_status(LOBBY, &json!({ "phase": "Used" }))
                    .refused("keeps no password file"),
                OPERATOR.writes_status(LOBBY, &json!({ "phase": "Used", "passwordFile": null })),
                OPERATOR
                    .writes_status(LOBBY, &json!({ "phase": "Active", "passwordFile": "AAAA" }))
                    .refused("status.phase: Invalid value: a code that is Used, Expired or Locked stays so"),
                OPERATOR
                    .writes_status(LOBBY, &json!({ "passwordFile": "AAAA" }))
                    .refused("keeps no password file"),
                OPERATOR
                    .writes_status(LOBBY, &json!({ "codeId": "9999" }))
                    .refused("a code is drawn once"),
            ]),
        ),
    ]
}

fn size() -> Vec<Rule> {
    let thousand: Vec<Value> = (0..1000)
        .map(|number| json!({ "publicKeySha256": format!("{number:064x}") }))
        .collect();
    let mut all_but_one_named = thousand.clone();
    all_but_one_named[999]["pairingRequestRef"] = json!({ "name": FROM_GATEWAY });
    vec![Rule::new(
        "codes::a_code_for_a_thousand_devices_fits",
        [
            DORA.creates(code("lobby", &json!({ "maxUses": 1000 }))),
            OPERATOR.writes_status(
                LOBBY,
                &with(
                    drawn(),
                    &json!({ "uses": 999, "admitted": thousand[..999] }),
                ),
            ),
            GATEWAY.writes_status(LOBBY, &json!({ "attempts": 1 })),
            GATEWAY.writes_status(
                LOBBY,
                &json!({ "attempts": 0, "uses": 1000, "admitted": thousand }),
            ),
            GATEWAY.writes_status(LOBBY, &json!({ "admitted": all_but_one_named })),
        ],
    )]
}
