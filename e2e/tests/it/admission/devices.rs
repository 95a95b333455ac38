//! Who makes a device, who writes which part of its status, and what never goes back.

use serde_json::{Value, json};

use super::objects::{KEY, LATER, MOMENT, OTHER_KEY, condition, device};
use super::step::{ADMIN, DORA, GATEWAY, OPERATOR, PAUL, Rule, Step};

const KIOSK: &str = "devices/kiosk";

pub fn rules() -> Vec<Rule> {
    let mut rules = identity();
    rules.extend(gateways_part());
    rules.extend(sessions());
    rules.extend(certificates());
    rules.extend(renewals());
    rules
}

/// The steps, with the device `kiosk` made before them.
pub fn made(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    [OPERATOR.creates(device("kiosk", &json!({})))]
        .into_iter()
        .chain(steps)
        .collect()
}

fn spec(spec: &Value) -> Value {
    json!({ "spec": spec })
}

fn identity() -> Vec<Rule> {
    vec![
        Rule::new(
            "devices::only_the_operator_makes_one",
            [
                ADMIN.creates(device("kiosk", &json!({}))).refused("devices are made by the operator when a pairing request is approved"),
                PAUL.creates(device("kiosk", &json!({}))).refused("make a PairingCode or a PairingRequest"),
                OPERATOR.creates(device("kiosk", &json!({}))).reads("/spec/trust", "Active"),
                DORA.deletes(KIOSK),
            ],
        ),
        Rule::new(
            "devices::the_key_is_the_identity",
            made([
                DORA.patches(KIOSK, spec(&json!({ "publicKeySha256": OTHER_KEY }))).refused("cannot be changed: pair it again"),
                DORA.patches(KIOSK, spec(&json!({ "displayName": "The kiosk in the lobby" }))),
            ]),
        ),
        Rule::new(
            "devices::revoked_is_final",
            made([
                DORA.patches(KIOSK, spec(&json!({ "trust": "Suspended" }))),
                DORA.patches(KIOSK, spec(&json!({ "trust": "Active" }))),
                DORA.patches(KIOSK, spec(&json!({ "trust": "Revoked" }))),
                DORA.patches(KIOSK, spec(&json!({ "trust": "Active" }))).refused("a revoked device stays revoked"),
                OPERATOR.patches(KIOSK, spec(&json!({ "trust": "Suspended" }))).refused("a revoked device stays revoked"),
            ]),
        ),
        Rule::new(
            "devices::a_spec_hangs_together",
            [
                OPERATOR.creates(device("x", &json!({ "publicKeySha256": "short" }))).refused("spec.publicKeySha256"),
                OPERATOR
                    .creates(device("x", &json!({ "presence": { "staleAfterSeconds": 100, "offlineAfterSeconds": 100 } })))
                    .refused("staleAfterSeconds must be less than offlineAfterSeconds"),
                OPERATOR.creates(device("x", &json!({ "certificate": { "ttlSeconds": 60 } }))).refused("ttlSeconds"),
                OPERATOR.creates(device("x", &json!({ "grants": { "capabilities": ["Not a name"] } }))).refused("capabilities"),
                OPERATOR
                    .creates(device("x", &json!({ "grants": { "surfaces": { "a".repeat(64): KEY } } })))
                    .refused("the name of a capability is 63 characters long at most"),
                OPERATOR.creates(device("x", &json!({ "grants": { "surfaces": { "echo": "short" } } }))).refused("grants.surfaces"),
                OPERATOR
                    .creates(device("pinned", &json!({ "grants": { "surfaces": { "a".repeat(63): KEY } } })))
                    .reads("/spec/grants/capabilities/0", "echo"),
                OPERATOR.creates(device(&"x".repeat(64), &json!({}))).refused("63 characters long at most"),
                OPERATOR.creates(device(&"x".repeat(63), &json!({ "publicKeySha256": KEY }))),
            ],
        ),
    ]
}

fn gateways_part() -> Vec<Rule> {
    let capability = |name: &str, granted: &str| json!({ "name": name, "granted": granted });
    let many: Vec<String> = (0..128)
        .map(|number| format!("capability-{number}"))
        .collect();
    let all_granted: Value = many
        .iter()
        .map(|name| capability(name, "Granted"))
        .collect();
    vec![
        Rule::new(
            "devices::people_write_nothing_in_the_status",
            made([
                PAUL.writes_status(KIOSK, &json!({ "trust": "Trusted" })).refused("by the operator and the gateways alone"),
                ADMIN.writes_status(KIOSK, &json!({ "presence": "Online" })).refused("change its spec"),
                OPERATOR.writes_status(KIOSK, &json!({ "trust": "Trusted", "presence": "Offline" })),
            ]),
        ),
        Rule::new(
            "devices::a_gateway_writes_what_it_sees_and_not_whether_it_is_trusted",
            made([
                GATEWAY.writes_status(KIOSK, &json!({ "trust": "Trusted" })).refused("not its trust or certificate"),
                GATEWAY.writes_status(KIOSK, &certificate(1)).refused("not its trust or certificate"),
                GATEWAY.writes_status(KIOSK, &json!({ "observedGeneration": 1 })).refused("not its trust or certificate"),
                OPERATOR.writes_status(KIOSK, &json!({ "trust": "Revoked" })),
                GATEWAY.writes_status(KIOSK, &json!({ "trust": null })).refused("not its trust or certificate"),
                GATEWAY
                    .writes_status(
                        KIOSK,
                        &json!({
                            "session": { "gateway": "gateway-0", "epoch": 1, "connectedAt": MOMENT },
                            "presence": "Online", "presenceReason": "Connected", "lastSeen": MOMENT,
                            "platform": { "os": "linux", "arch": "x86_64", "agentVersion": "1", "hostname": "kiosk" },
                            "capabilities": [capability("echo", "Granted")],
                            "conditions": [condition("Connected", "True")],
                        }),
                    )
                    .reads("/status/trust", "Revoked"),
            ]),
        ),
        Rule::new(
            "devices::a_gateway_leaves_the_conditions_of_others_alone",
            made([
                OPERATOR.writes_status(KIOSK, &json!({ "conditions": [condition("Ready", "False")] })),
                GATEWAY
                    .writes_status(KIOSK, &json!({ "conditions": [condition("Ready", "True"), condition("Connected", "True")] }))
                    .refused("writes the condition Connected of a device and leaves the others"),
                GATEWAY.writes_status(KIOSK, &json!({ "conditions": [condition("Connected", "True")] })).refused("leaves the others"),
                GATEWAY
                    .writes_status(KIOSK, &json!({ "conditions": [condition("Ready", "False"), condition("Late", "True")] }))
                    .refused("leaves the others"),
                GATEWAY.writes_status(KIOSK, &json!({ "conditions": [condition("Ready", "False"), condition("Connected", "True")] })),
                GATEWAY.writes_status(KIOSK, &json!({ "conditions": [condition("Ready", "False"), condition("Connected", "False")] })),
            ]),
        ),
        Rule::new(
            "devices::a_gateway_grants_nothing",
            made([
                GATEWAY
                    .writes_status(KIOSK, &json!({ "capabilities": [capability("shell", "Granted")] }))
                    .refused("only where spec.grants of the device says so"),
                GATEWAY
                    .writes_status(KIOSK, &json!({ "capabilities": [{
                        "name": "shell", "granted": "Pending", "accepted": { "execution": "Automatic" },
                    }] }))
                    .refused("only where spec.grants of the device says so"),
                GATEWAY.writes_status(KIOSK, &json!({ "capabilities": [capability("echo", "Granted"), capability("shell", "Pending")] })),
                // A grant that was taken back does not keep a session from ending.
                DORA.patches(KIOSK, spec(&json!({ "grants": { "capabilities": [] } }))),
                GATEWAY.writes_status(KIOSK, &json!({ "presence": "Degraded" })).reads("/status/capabilities/0/granted", "Granted"),
            ]),
        ),
        Rule::new(
            "devices::what_is_not_declared_is_remembered_only_where_it_is_granted",
            made([
                GATEWAY
                    .writes_status(KIOSK, &json!({ "undeclared": [{ "name": "shell", "accepted": { "execution": "Automatic" } }] }))
                    .refused("only that is remembered which spec.grants of the device names"),
                GATEWAY
                    .writes_status(KIOSK, &json!({ "undeclared": [{ "name": "echo" }, { "name": "shell" }] }))
                    .refused("only that is remembered which spec.grants of the device names"),
                GATEWAY
                    .writes_status(KIOSK, &json!({ "undeclared": [{ "name": "echo", "accepted": { "execution": "Mediated" } }] }))
                    .reads("/status/undeclared/0/accepted/execution", "Mediated"),
                // A grant that was taken back does not keep a session from ending.
                DORA.patches(KIOSK, spec(&json!({ "grants": { "capabilities": [] } }))),
                GATEWAY.writes_status(KIOSK, &json!({ "presence": "Degraded" })).reads("/status/undeclared/0/name", "echo"),
                GATEWAY.writes_status(KIOSK, &json!({ "undeclared": null })),
            ]),
        ),
        Rule::new(
            "devices::one_with_every_capability_fits",
            [
                OPERATOR.creates(device("kiosk", &json!({ "grants": { "capabilities": many } }))),
                GATEWAY.writes_status(KIOSK, &json!({ "capabilities": all_granted })),
            ],
        ),
    ]
}

fn of_generation(generation: i64) -> Value {
    json!({
        "serial": "01", "fingerprint": KEY, "generation": generation, "notBefore": MOMENT, "notAfter": LATER,
    })
}

fn certificate(generation: i64) -> Value {
    json!({ "certificate": of_generation(generation) })
}

fn certificates() -> Vec<Rule> {
    let history = |generations: &[i64]| {
        let former: Value = generations.iter().copied().map(of_generation).collect();
        json!({ "certificateHistory": former })
    };
    vec![
        Rule::new(
            "devices::the_generation_of_a_certificate_never_goes_back",
            made([
                OPERATOR.writes_status(KIOSK, &certificate(1)),
                OPERATOR.writes_status(KIOSK, &certificate(2)),
                OPERATOR
                    .writes_status(KIOSK, &certificate(1))
                    .refused("never goes back"),
                OPERATOR
                    .writes_status(KIOSK, &json!({ "certificate": null }))
                    .refused("never goes back"),
                OPERATOR.writes_status(KIOSK, &certificate(3)),
            ]),
        ),
        Rule::new(
            "devices::the_history_of_certificates_is_the_operators_and_short",
            made(
                (1..=7)
                    .map(|generation| OPERATOR.writes_status(KIOSK, &certificate(generation)))
                    .chain([
                        GATEWAY
                            .writes_status(KIOSK, &history(&[1]))
                            .refused("not its trust or certificate"),
                        PAUL.writes_status(KIOSK, &history(&[1]))
                            .refused("by the operator and the gateways alone"),
                        OPERATOR.writes_status(KIOSK, &history(&[2, 1])),
                        GATEWAY
                            .writes_status(KIOSK, &json!({ "certificateHistory": null }))
                            .refused("not its trust or certificate"),
                        OPERATOR
                            .writes_status(KIOSK, &history(&[6, 5, 4, 3, 2, 1]))
                            .refused("certificateHistory"),
                        OPERATOR
                            .writes_status(KIOSK, &history(&[2, 2]))
                            .refused("certificateHistory"),
                        OPERATOR
                            .writes_status(KIOSK, &history(&[6, 5, 4, 3, 2]))
                            .reads("/status/certificateHistory/4/generation", 2),
                        GATEWAY
                            .writes_status(KIOSK, &json!({ "presence": "Online" }))
                            .reads("/status/certificateHistory/0/generation", 6),
                    ]),
            ),
        ),
    ]
}

fn renewals() -> Vec<Rule> {
    let renewal = |renewal: Value| json!({ "renewal": renewal });
    let asked = renewal(json!({ "csr": "CSR", "requestedAt": MOMENT }));
    let answered = renewal(json!({ "chain": "CHAIN", "generation": 2 }));
    let again = renewal(json!({
        "csr": "ANOTHER", "requestedAt": LATER,
        "chain": null, "generation": null, "refused": null, "secretGeneration": null,
    }));
    let alone = "a gateway asks for a renewal with csr and requestedAt alone";
    vec![
        Rule::new(
            "devices::a_gateway_asks_for_a_renewal_and_the_operator_answers",
            made([
                OPERATOR.writes_status(KIOSK, &certificate(1)),
                OPERATOR.writes_status(KIOSK, &certificate(2)),
                OPERATOR
                    .writes_status(KIOSK, &asked)
                    .refused("gateways ask for renewals"),
                GATEWAY
                    .writes_status(
                        KIOSK,
                        &renewal(json!({ "csr": "CSR", "chain": "MINE", "generation": 1 })),
                    )
                    .refused(alone),
                GATEWAY.writes_status(KIOSK, &asked),
                GATEWAY.writes_status(KIOSK, &answered).refused(alone),
                GATEWAY
                    .writes_status(KIOSK, &renewal(json!({ "refused": "no" })))
                    .refused(alone),
                OPERATOR
                    .writes_status(KIOSK, &renewal(json!({ "chain": "CHAIN" })))
                    .refused("a chain needs the generation of its certificate"),
                OPERATOR.writes_status(KIOSK, &answered),
                // What was issued is not for another request, and stays until there is one.
                GATEWAY
                    .writes_status(KIOSK, &renewal(json!({ "csr": "ANOTHER" })))
                    .refused(alone),
                GATEWAY
                    .writes_status(KIOSK, &renewal(json!({ "secretGeneration": 2 })))
                    .refused(alone),
                GATEWAY
                    .writes_status(KIOSK, &renewal(Value::Null))
                    .refused(alone),
                GATEWAY.writes_status(KIOSK, &json!({ "presence": "Online" })),
                OPERATOR.writes_status(KIOSK, &renewal(json!({ "secretGeneration": 2 }))),
                GATEWAY
                    .writes_status(KIOSK, &again)
                    .reads("/status/renewal/chain", Value::Null),
                OPERATOR.writes_status(KIOSK, &renewal(json!({ "refused": "too early" }))),
            ]),
        ),
        Rule::new(
            "devices::people_ask_for_no_renewal",
            made([PAUL
                .writes_status(KIOSK, &asked)
                .refused("by the operator and the gateways alone")]),
        ),
    ]
}

fn sessions() -> Vec<Rule> {
    let session = |session: Value| json!({ "session": session });
    vec![Rule::new(
        "devices::sessions_only_go_forward",
        made([
            GATEWAY.writes_status(
                KIOSK,
                &session(json!({ "gateway": "gateway-0", "epoch": 1, "connectedAt": MOMENT })),
            ),
            GATEWAY
                .writes_status(KIOSK, &session(json!({ "epoch": 0 })))
                .refused("a new session needs a higher epoch"),
            GATEWAY
                .writes_status(KIOSK, &session(json!({ "gateway": "gateway-1" })))
                .refused("a new session needs a higher epoch"),
            GATEWAY
                .writes_status(KIOSK, &session(Value::Null))
                .refused("stays known"),
            OPERATOR
                .writes_status_at(KIOSK, "", &Value::Null)
                .refused("status: Invalid value: the status of a device cannot be removed"),
            GATEWAY.writes_status(KIOSK, &session(json!({ "endedAt": LATER }))),
            GATEWAY
                .writes_status(KIOSK, &session(json!({ "endedAt": null })))
                .refused("a session that has ended cannot go on"),
            GATEWAY.writes_status(
                KIOSK,
                &session(json!({ "gateway": "gateway-1", "epoch": 2, "endedAt": null })),
            ),
        ]),
    )]
}
