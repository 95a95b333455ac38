//! Who makes a pairing request and what it may claim, who decides on it, and what cannot be changed.

use serde_json::{Value, json};

use super::objects::{FROM_GATEWAY, LATER, MOMENT, condition, gateway_request, request, with};
use super::step::{ADA, ADMIN, DORA, GATEWAY, NORA, OPERATOR, PAUL, RITA, Rule, VERA};

const ONE: &str = "pairingrequests/one";

pub fn rules() -> Vec<Rule> {
    let mut rules = origin();
    rules.extend(decision());
    rules.extend(refusals());
    rules.extend(life());
    rules
}

fn one(spec: &Value) -> Value {
    with(request("one"), &json!({ "spec": spec }))
}

fn approved() -> Value {
    json!({ "approval": { "decision": "Approved" } })
}

fn approved_by(user: &str) -> Value {
    json!({ "approval": { "decision": "Approved", "decidedBy": user } })
}

fn origin() -> Vec<Rule> {
    let source = json!({ "gateway": "gateway-0", "remoteAddress": "192.0.2.7" });
    let from_gateway = |spec: Value| with(gateway_request(), &json!({ "spec": spec }));
    vec![
        Rule::new(
            "requests::a_person_does_not_claim_what_a_gateway_checks",
            [
                DORA.creates(one(&json!({ "source": source })))
                    .refused("spec.source says which gateway a request came through: only gateways write it"),
                DORA.creates(one(&json!({ "method": "Pin", "pairingCodeRef": { "name": "lobby" } })))
                    .refused("spec.method other than Manual says that a gateway checked it"),
                DORA.creates(one(&json!({ "method": "ServiceAccount" })))
                    .refused("spec.method other than Manual says that a gateway checked it"),
                DORA.creates(one(&json!({ "pairingCodeRef": { "name": "lobby" } })))
                    .refused("spec.pairingCodeRef says that the device proved a code: only gateways write it"),
                DORA.creates(request("preq-mine")).refused("a name that begins with preq- is the digest"),
                ADMIN.creates(gateway_request()).refused("only gateways write it"),
                DORA.creates(request("one")).reads("/spec/method", "Manual"),
            ],
        ),
        Rule::new(
            "requests::who_makes_one_is_stamped_whatever_he_says",
            [
                DORA.creates(request("silent")).reads("/spec/requestedBy", "dora"),
                DORA.creates(one(&json!({ "requestedBy": "ada" }))).reads("/spec/requestedBy", "dora"),
            ],
        ),
        Rule::new(
            "requests::who_makes_one_says_the_truth_where_nothing_is_stamped",
            [
                DORA.creates(request("one")).refused("spec.requestedBy must be the user who makes the request: write 'dora'"),
                DORA.creates(one(&json!({ "requestedBy": "ada" }))).refused("write 'dora'"),
                DORA.creates(one(&json!({ "requestedBy": "dora" }))),
                GATEWAY.creates(gateway_request()),
            ],
        )
        .without_stamps(),
        Rule::new(
            "requests::a_gateway_makes_them_for_devices_that_proved_a_code",
            [
                GATEWAY
                    .creates(with(gateway_request(), &json!({ "metadata": { "name": "preq-0123" } })))
                    .refused("named by the digest of its spec"),
                GATEWAY
                    .creates(with(gateway_request(), &json!({ "metadata": { "name": "kiosk" } })))
                    .refused("named by the digest of its spec"),
                GATEWAY.creates(from_gateway(json!({ "source": null }))).refused("names its spec.source"),
                GATEWAY.creates(from_gateway(json!({ "method": "Manual" }))).refused("with spec.method Pin or Qr"),
                GATEWAY.creates(from_gateway(json!({ "method": "ServiceAccount" }))).refused("with spec.method Pin or Qr"),
                GATEWAY
                    .creates(from_gateway(json!({ "csr": null, "publicKeySha256": null, "keyCustody": "Operator" })))
                    .refused("keys that the device keeps"),
                GATEWAY.creates(from_gateway(json!({ "requestedBy": "ada" }))).refused("has no spec.requestedBy"),
                GATEWAY.creates(from_gateway(json!({ "expiresAt": null }))).refused("ends by itself"),
                GATEWAY.creates(gateway_request()).reads("/spec/requestedBy", Value::Null),
            ],
        ),
        Rule::new(
            "requests::a_spec_hangs_together",
            [
                DORA.creates(one(&json!({ "keyCustody": "Device" }))).refused("spec.keyCustody: Invalid value: keyCustody Device needs csr and publicKeySha256"),
                DORA.creates(one(&json!({ "csr": "x" }))).refused("keyCustody Operator allows neither"),
                GATEWAY
                    .creates(from_gateway(json!({ "pairingCodeRef": null })))
                    .refused("spec.pairingCodeRef: Invalid value: method Pin or Qr needs pairingCodeRef"),
                DORA.creates(one(&json!({ "expiresAt": "2030-01-01T00:00:00.5Z" }))).refused("spec.expiresAt"),
                DORA.creates(one(&json!({ "expiresAt": "2030-01-01T01:00:00+01:00" }))).refused("spec.expiresAt"),
                DORA.creates(one(&json!({ "expiresAt": MOMENT }))),
            ],
        ),
        Rule::new(
            "requests::a_request_cannot_be_changed_after_it_was_shown",
            [
                DORA.creates(one(&json!({ "expiresAt": MOMENT }))),
                PAUL.patches(ONE, json!({ "spec": { "requestedName": "other" } })).refused("what was shown is what is decided on"),
                PAUL.patches(ONE, json!({ "spec": { "expiresAt": null } })).refused("what was shown is what is decided on"),
                PAUL.patches(ONE, json!({ "spec": { "requestedBy": "paul" } })).refused("what was shown is what is decided on"),
                OPERATOR.patches(ONE, json!({ "spec": { "expiresAt": LATER } })).refused("what was shown is what is decided on"),
                PAUL.patches(ONE, json!({ "metadata": { "labels": { "seen": "yes" } } })),
            ],
        ),
    ]
}

fn decision() -> Vec<Rule> {
    vec![
        Rule::new(
            "decisions::a_patcher_without_the_verb_approve_is_refused",
            [
                DORA.creates(request("one")),
                PAUL.writes_status(ONE, &approved())
                    .refused("to decide, paul needs the verb approve on pairingrequests.fairlead.dev in namespace"),
                PAUL.writes_status(ONE, &json!({ "approval": { "decision": "Denied" } })).refused("needs the verb approve"),
                VERA.writes_status(ONE, &approved()).refused("cannot patch resource"),
                ADA.writes_status(ONE, &approved()).reads("/status/phase", "Pending"),
            ],
        ),
        Rule::new(
            "decisions::the_verb_may_be_held_for_one_request",
            [
                DORA.creates(request("one")),
                DORA.creates(request("two")),
                NORA.writes_status("pairingrequests/two", &approved()).refused("nora needs the verb approve"),
                NORA.writes_status(ONE, &approved()).reads("/status/approval/decidedBy", "nora"),
            ],
        ),
        Rule::new(
            "decisions::who_decides_is_stamped_whatever_he_says",
            [
                DORA.creates(request("one")),
                DORA.creates(request("two")),
                ADA.writes_status(ONE, &approved()).reads("/status/approval/decidedBy", "ada"),
                ADA.writes_status("pairingrequests/two", &approved_by("rita")).reads("/status/approval/decidedBy", "ada"),
            ],
        ),
        Rule::new(
            "decisions::who_decides_says_the_truth_where_nothing_is_stamped",
            [
                DORA.creates(one(&json!({ "requestedBy": "dora" }))),
                ADA.writes_status(ONE, &approved()).refused("decidedBy must be the user who decides: write 'ada'"),
                ADA.writes_status(ONE, &approved_by("rita")).refused("decidedBy must be the user who decides: write 'ada'"),
                OPERATOR.writes_status(ONE, &approved_by("rita")).refused("decidedBy must be the user who decides"),
                ADA.writes_status(ONE, &approved_by("ada")),
            ],
        )
        .without_stamps(),
        Rule::new(
            "decisions::an_approver_changes_nothing_else_in_the_status",
            [
                DORA.creates(request("one")),
                OPERATOR.writes_status(ONE, &json!({ "conditions": [condition("Ready", "False")] })),
                ADA.writes_status(ONE, &with(approved(), &json!({ "phase": "Approved" })))
                    .refused("only status.approval can be written here"),
                ADA.writes_status(ONE, &with(approved(), &json!({ "deviceRef": { "name": "kiosk" } })))
                    .refused("only status.approval can be written here"),
                ADA.writes_status(ONE, &json!({ "approval": { "decision": "Approved" }, "conditions": null }))
                    .refused("only status.approval can be written here"),
                ADA.writes_status(ONE, &json!({ "conditions": [condition("Ready", "True")] }))
                    .refused("only status.approval can be written here"),
                ADA.writes_status(
                    ONE,
                    &json!({ "approval": { "decision": "Approved", "grants": { "labels": { "no label": "x" } } } }),
                )
                .refused("a label's key is a name"),
                ADMIN.writes_status(ONE, &json!({ "phase": "Failed" })).refused("only status.approval can be written here"),
                ADA.writes_status(
                    ONE,
                    &json!({ "approval": {
                        "decision": "Approved", "reason": "known to me", "deviceName": "kiosk-7",
                        "grants": { "labels": { "site": "lobby" }, "capabilities": ["echo"] },
                        "specDigest": super::objects::KEY,
                    } }),
                )
                .reads("/status/approval/reason", "known to me"),
            ],
        ),
    ]
}

fn refusals() -> Vec<Rule> {
    vec![
        Rule::new(
            "decisions::a_gateway_never_decides_even_with_every_right",
            [
                GATEWAY.creates(gateway_request()),
                GATEWAY
                    .writes_status(&format!("pairingrequests/{FROM_GATEWAY}"), &approved())
                    .refused("a gateway never decides on a pairing request"),
                GATEWAY
                    .writes_status(&format!("pairingrequests/{FROM_GATEWAY}"), &json!({ "phase": "Failed" }))
                    .refused("and writes nothing in its status"),
                ADA.writes_status(&format!("pairingrequests/{FROM_GATEWAY}"), &approved()),
            ],
        ),
        Rule::new(
            "decisions::who_made_a_request_does_not_decide_on_it",
            [
                RITA.creates(request("one")),
                RITA.writes_status(ONE, &approved()).refused("who made a request cannot decide on it: ask another approver"),
                ADA.writes_status(ONE, &approved()),
            ],
        ),
        Rule::new(
            "decisions::a_decision_is_final",
            [
                DORA.creates(request("one")),
                ADA.writes_status(ONE, &json!({ "approval": { "decision": "Denied" } })),
                RITA.writes_status(ONE, &approved()).refused("status.approval: Invalid value: the decision on a pairing request is final"),
                ADA.writes_status(ONE, &json!({ "approval": null })).refused("status.approval: Invalid value: the decision on a pairing request is final"),
                ADA.writes_status(ONE, &json!({ "approval": { "reason": "on second thoughts" } })).refused("status.approval: Invalid value: the decision on a pairing request is final"),
                OPERATOR.writes_status(ONE, &approved()).refused("status.approval: Invalid value: the decision on a pairing request is final"),
                ADA.writes_status(ONE, &json!({ "phase": "Pending" })).reads("/status/approval/decidedBy", "ada"),
                OPERATOR.writes_status(ONE, &json!({ "phase": "Denied" })).reads("/status/approval/decidedBy", "ada"),
            ],
        ),
        Rule::new(
            "decisions::a_request_that_is_over_takes_none",
            [
                DORA.creates(request("one")),
                DORA.creates(request("two")),
                OPERATOR.writes_status(ONE, &json!({ "phase": "Expired" })),
                ADA.writes_status(ONE, &approved())
                    .refused("the request is Expired and takes no decision any more: the device must ask again"),
                OPERATOR.writes_status(ONE, &approved()).refused("the request is Expired"),
                ADA.writes_status("pairingrequests/two", &approved()),
            ],
        ),
        Rule::new(
            "decisions::null_is_no_decision",
            [
                DORA.creates(request("one")),
                PAUL.writes_status_at(ONE, "/approval", &Value::Null).reads("/status/approval", Value::Null),
                ADA.writes_status(ONE, &approved()).reads("/status/approval/decidedBy", "ada"),
            ],
        ),
        Rule::new(
            "decisions::the_operator_decides_in_its_own_name_and_writes_the_rest",
            [
                GATEWAY.creates(gateway_request()),
                OPERATOR
                    .writes_status(
                        &format!("pairingrequests/{FROM_GATEWAY}"),
                        &with(approved_by("ada"), &json!({ "phase": "Approved" })),
                    )
                    .reads("/status/approval/decidedBy", OPERATOR.0)
                    .reads("/status/phase", "Approved"),
            ],
        ),
    ]
}

fn life() -> Vec<Rule> {
    let certificate =
        json!({ "chain": "PEM", "serial": "01", "notBefore": MOMENT, "notAfter": LATER });
    let issued =
        json!({ "phase": "Issued", "certificate": certificate, "deviceRef": { "name": "kiosk" } });
    vec![
        Rule::new(
            "requests::a_new_one_is_pending_without_a_write",
            [DORA
                .creates(request("one"))
                .reads("/status", json!({ "phase": "Pending" }))],
        ),
        Rule::new(
            "requests::nothing_is_issued_without_an_approval",
            [
                DORA.creates(request("one")),
                OPERATOR
                    .writes_status(ONE, &issued)
                    .refused("Issued needs an approval, the certificate and the Device"),
                OPERATOR
                    .writes_status(ONE, &json!({ "phase": "Denied" }))
                    .refused("Denied needs a decision that says so"),
                ADA.writes_status(ONE, &json!({ "approval": { "decision": "Denied" } })),
                OPERATOR
                    .writes_status(ONE, &issued)
                    .refused("Issued needs an approval, the certificate and the Device"),
                OPERATOR.writes_status(ONE, &json!({ "phase": "Denied" })),
            ],
        ),
        Rule::new(
            "requests::the_certificate_is_issued_once",
            [
                DORA.creates(request("one")),
                ADA.writes_status(ONE, &approved()),
                OPERATOR.writes_status(ONE, &json!({ "phase": "Approved" })),
                OPERATOR
                    .writes_status(ONE, &json!({ "phase": "Pending" }))
                    .refused("status.phase: Invalid value: a pairing request that was approved is not pending again"),
                OPERATOR.writes_status(ONE, &issued),
                OPERATOR
                    .writes_status(ONE, &json!({ "certificate": { "serial": "02" } }))
                    .refused("status.certificate: Invalid value: the certificate of a pairing request is issued once"),
                OPERATOR
                    .writes_status(ONE, &json!({ "certificate": null }))
                    .refused("status.certificate: Invalid value: the certificate of a pairing request is issued once"),
                OPERATOR
                    .writes_status(ONE, &json!({ "deviceRef": { "name": "other" } }))
                    .refused("cannot be changed"),
                OPERATOR
                    .writes_status(ONE, &json!({ "phase": "Failed" }))
                    .refused("stays so"),
                OPERATOR.writes_status(ONE, &json!({ "conditions": [condition("Ready", "True")] })),
            ],
        ),
    ]
}
