//! Who may invoke what on which device, what can be changed of it, and that its end is final.

use serde_json::{Value, json};

use super::objects::{LATER, MOMENT, condition, invocation, with};
use super::step::{ADMIN, GATEWAY, HUGO, IRIS, IVAN, NILS, OPERATOR, PAUL, Rule, Step, VERA};

const RUN: &str = "capabilityinvocations/run";

pub fn rules() -> Vec<Rule> {
    let mut rules = rights();
    rules.extend(changes());
    rules.extend(ends());
    rules
}

fn run(device: &str, capability: &str) -> Value {
    invocation("run", device, capability)
}

fn made(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    [IVAN.creates(run("kiosk", "echo"))]
        .into_iter()
        .chain(steps)
        .collect()
}

fn claims(user: &str) -> Value {
    with(
        run("kiosk", "echo"),
        &json!({ "spec": { "requestedBy": user } }),
    )
}

fn rights() -> Vec<Rule> {
    vec![
        Rule::new(
            "invocations::the_verb_invoke_on_the_device_is_needed",
            [
                IRIS.creates(run("press", "echo")).refused("iris may not invoke anything on device press: ask for a role with verbs: [invoke]"),
                PAUL.creates(run("kiosk", "echo")).refused("paul may not invoke anything on device kiosk"),
                VERA.creates(run("kiosk", "echo")).refused("cannot create resource"),
                IRIS.creates(run("kiosk", "echo")),
            ],
        ),
        Rule::new(
            "invocations::the_verb_invoke_on_the_capability_is_needed",
            [
                HUGO.creates(run("kiosk", "desktop.open_url")).refused("hugo may not invoke capability desktop.open_url: ask for a role"),
                HUGO.creates(run("kiosk", "system.health")),
            ],
        ),
        Rule::new(
            "invocations::a_right_in_one_namespace_is_none_in_another",
            [
                NILS.creates(run("kiosk", "echo")).refused("nils may not invoke anything on device kiosk"),
                NILS.creates(run("kiosk", "echo")).at_home(),
            ],
        ),
        Rule::new(
            "invocations::who_asked_is_stamped_whatever_he_says",
            [IVAN.creates(claims("ada")).reads("/spec/requestedBy", "ivan")],
        ),
        Rule::new(
            "invocations::who_asked_says_the_truth_where_nothing_is_stamped",
            [
                IVAN.creates(run("kiosk", "echo")).refused("spec.requestedBy must be the user who makes the invocation: write 'ivan'"),
                IVAN.creates(claims("ada")).refused("write 'ivan'"),
                IVAN.creates(claims("ivan")),
            ],
        )
        .without_stamps(),
        Rule::new(
            "invocations::a_new_one_is_queued_without_a_write",
            [IVAN.creates(run("kiosk", "echo")).reads("/status", json!({ "phase": "Queued" })).reads("/spec/timeoutSeconds", 30)],
        ),
        Rule::new(
            "invocations::a_spec_hangs_together",
            [
                IVAN.creates(with(run("kiosk", "echo"), &json!({ "spec": { "queueSeconds": 9 } }))).refused("queueSeconds needs whenOffline: Queue"),
                IVAN.creates(with(run("kiosk", "echo"), &json!({ "spec": { "timeoutSeconds": 3601 } }))).refused("timeoutSeconds"),
                IVAN.creates(run("kiosk", "Not a name")).refused("spec.capability"),
                IVAN.creates(run("../kiosk", "echo")).refused("spec.deviceRef.name"),
                IVAN.creates(run("", "echo")).refused("spec.deviceRef.name"),
                IVAN.creates(with(run("kiosk", "echo"), &json!({ "spec": { "whenOffline": "Queue", "queueSeconds": 9 } }))),
            ],
        ),
    ]
}

fn changes() -> Vec<Rule> {
    let change = |spec: Value, message: &'static str| {
        PAUL.patches(RUN, json!({ "spec": spec })).refused(message)
    };
    // A schema cannot compare what has no type: here the policy speaks.
    let input = |input: Value| {
        change(
            json!({ "input": input }),
            "can be changed but spec.cancel, not its input either",
        )
    };
    let cancel = || json!({ "spec": { "cancel": "Requested" } });
    vec![
        Rule::new(
            "invocations::nothing_can_be_changed_but_cancel",
            made([
                input(json!({ "say": ["hello", 2] })),
                input(Value::Null),
                input(json!({ "more": true })),
                change(json!({ "deviceRef": { "name": "press" } }), "spec.deviceRef: Invalid value: an invocation cannot be changed, only cancelled"),
                change(json!({ "capability": "system.health" }), "spec.capability: Invalid value: an invocation cannot be changed, only cancelled"),
                change(json!({ "timeoutSeconds": 60 }), "spec.timeoutSeconds: Invalid value: an invocation cannot be changed, only cancelled"),
                change(json!({ "maxOutputBytes": 1 }), "spec.maxOutputBytes: Invalid value: an invocation cannot be changed, only cancelled"),
                change(json!({ "ttlSecondsAfterFinished": 0 }), "spec.ttlSecondsAfterFinished: Invalid value: an invocation cannot be changed, only cancelled"),
                change(json!({ "whenOffline": "Queue" }), "spec.whenOffline: Invalid value: an invocation cannot be changed, only cancelled"),
                change(json!({ "idempotencyKey": "again" }), "spec.idempotencyKey: Invalid value: an invocation cannot"),
                change(
                    json!({ "whenOffline": "Queue", "queueSeconds": 9 }),
                    "spec.queueSeconds: Invalid value: an invocation cannot",
                ),
                PAUL.patches(RUN, json!({ "spec": { "requestedBy": "paul" } })).refused("who asked for an invocation cannot be changed"),
                IVAN.patches(RUN, cancel()).reads("/spec/cancel", "Requested"),
                IVAN.patches(RUN, json!({ "spec": { "cancel": null } })).refused("a cancellation cannot be taken back"),
            ]),
        ),
        Rule::new(
            "invocations::who_did_not_ask_cancels_only_with_the_verb_invoke",
            [
                IRIS.creates(run("kiosk", "echo")),
                PAUL.patches(RUN, cancel()).refused("to cancel an invocation of somebody else, paul needs the verb invoke on device kiosk"),
                IVAN.patches(RUN, cancel()),
            ],
        ),
    ]
}

fn ends() -> Vec<Rule> {
    let succeeded = json!({ "phase": "Succeeded", "output": { "said": "hello" }, "finishedAt": MOMENT, "gateway": "gateway-0" });
    let after_the_end = |status: Value| {
        GATEWAY.writes_status(RUN, &status).refused("the invocation has ended as Succeeded and stays as it ended: only conditions can be added")
    };
    vec![
        Rule::new(
            "invocations::people_write_nothing_in_the_status",
            made([
                PAUL.writes_status(RUN, &succeeded).refused("by the operator and the gateways alone"),
                ADMIN.writes_status(RUN, &json!({ "phase": "Cancelled" })).refused("to stop it, set spec.cancel: Requested"),
                OPERATOR.writes_status(RUN, &json!({ "phase": "Failed", "error": { "code": "DeviceOffline", "message": "away" } })),
            ]),
        ),
        Rule::new(
            "invocations::the_end_is_final",
            made([
                GATEWAY.writes_status(RUN, &json!({ "phase": "Dispatched", "dispatchedAt": MOMENT })),
                GATEWAY.writes_status(RUN, &json!({ "phase": "Queued" })).refused("status.phase: Invalid value: an invocation that was dispatched cannot be queued again"),
                GATEWAY.writes_status(RUN, &succeeded),
                GATEWAY.writes_status(RUN, &json!({ "phase": "Failed" })).refused("an invocation that has ended stays as it ended: make another one"),
                OPERATOR.writes_status(RUN, &json!({ "phase": "Unknown" })).refused("an invocation that has ended stays as it ended: make another one"),
                OPERATOR.writes_status(RUN, &json!({ "phase": "Queued" })).refused("an invocation that has ended stays as it ended: make another one"),
                after_the_end(json!({ "output": { "said": "goodbye" } })),
                after_the_end(json!({ "output": null })),
                after_the_end(json!({ "finishedAt": LATER })),
                after_the_end(json!({ "error": { "code": "Internal", "message": "late" } })),
                after_the_end(json!({ "mediation": { "by": "somebody" } })),
                after_the_end(json!({ "gateway": "gateway-1" })),
                GATEWAY.writes_status(RUN, &json!({ "conditions": [condition("Late", "True")] })),
                GATEWAY.writes_status(RUN, &json!({ "conditions": null })).refused("its conditions stay, others can be added"),
                OPERATOR.writes_status(RUN, &json!({ "conditions": [condition("Late", "True"), condition("Ready", "True")] })),
            ]),
        ),
        Rule::new(
            "invocations::the_largest_output_fits_and_null_is_none",
            made([
                GATEWAY.writes_status(RUN, &with(succeeded.clone(), &json!({ "output": "x".repeat(262_144) }))),
                GATEWAY.writes_status(RUN, &json!({ "conditions": [condition("Late", "True")] })),
                IVAN.creates(invocation("second", "kiosk", "echo")),
                GATEWAY.writes_status_at("capabilityinvocations/second", "/output", &Value::Null).reads("/status/output", Value::Null),
            ]),
        ),
    ]
}
