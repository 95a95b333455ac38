//! What a gateway counts and dates: nothing jumps to where it cannot go on, and nothing is in the future.

use serde_json::{Value, json};

use super::devices::made;
use super::objects::{
    FUTURE, KEY, LATER, MOMENT, code, condition, device, drawn, gateway_request, invocation, with,
};
use super::step::{DORA, GATEWAY, IVAN, OPERATOR, Rule};

const KIOSK: &str = "devices/kiosk";
const LOBBY: &str = "pairingcodes/lobby";
const RUN: &str = "capabilityinvocations/run";

/// The largest number that a counter can have.
const MOST: i64 = 9_007_199_254_740_991;

pub fn rules() -> Vec<Rule> {
    let mut rules = devices();
    rules.extend(moments());
    rules.extend(others());
    rules
}

fn session(epoch: i64) -> Value {
    json!({ "session": { "gateway": "gateway-0", "epoch": epoch, "connectedAt": MOMENT } })
}

fn of_generation(generation: i64) -> Value {
    json!({ "serial": "01", "fingerprint": KEY, "generation": generation, "notBefore": MOMENT, "notAfter": LATER })
}

fn devices() -> Vec<Rule> {
    let epoch = "status.session.epoch: Invalid value: the epoch of a session grows by one";
    let generation = "status.certificate.generation: Invalid value: the generation of a certificate grows by one";
    let certificate = |generation: i64| json!({ "certificate": of_generation(generation) });
    vec![
        Rule::new(
            "counters::the_epoch_of_a_session_grows_by_one",
            made([
                GATEWAY.writes_status(KIOSK, &session(MOST)).refused(epoch),
                GATEWAY.writes_status(KIOSK, &session(2)).refused(epoch),
                OPERATOR.writes_status(KIOSK, &session(2)).refused(epoch),
                GATEWAY.writes_status(KIOSK, &session(1)),
                GATEWAY.writes_status(KIOSK, &session(MOST)).refused(epoch),
                GATEWAY.writes_status(KIOSK, &session(3)).refused(epoch),
                GATEWAY.writes_status(KIOSK, &json!({ "session": { "epoch": 2.5 } })).refused("status.session.epoch"),
                GATEWAY.writes_status(KIOSK, &session(1)),
                GATEWAY.writes_status(KIOSK, &session(2)),
                GATEWAY.writes_status(KIOSK, &json!({ "presence": "Online" })).reads("/status/session/epoch", 2),
                // Written at once with what else there is in the first status.
                OPERATOR.creates(device("second", &json!({}))),
                GATEWAY.writes_status_at("devices/second", "", &with(session(MOST), &json!({ "presence": "Online" }))).refused(epoch),
                GATEWAY.writes_status_at("devices/second", "", &with(session(0), &json!({ "presence": "Online" }))),
            ]),
        ),
        Rule::new(
            "counters::the_generation_of_a_certificate_grows_by_one",
            made([
                OPERATOR.writes_status(KIOSK, &certificate(MOST)).refused(generation),
                OPERATOR.writes_status(KIOSK, &certificate(2)).refused(generation),
                OPERATOR.writes_status(KIOSK, &certificate(1)),
                OPERATOR.writes_status(KIOSK, &certificate(3)).refused(generation),
                OPERATOR.writes_status(KIOSK, &certificate(2)),
                OPERATOR.writes_status(KIOSK, &json!({ "renewal": { "generation": 3 } })).refused("status.renewal"),
                OPERATOR
                    .writes_status(KIOSK, &json!({ "certificateHistory": [of_generation(2)] }))
                    .refused("the history has certificates of generations before"),
                OPERATOR.writes_status(KIOSK, &json!({ "certificateHistory": [of_generation(1)] })),
                GATEWAY.writes_status(KIOSK, &json!({ "renewal": { "csr": "CSR" } })),
                OPERATOR
                    .writes_status(KIOSK, &json!({ "renewal": { "chain": "CHAIN", "generation": 3 } }))
                    .refused("a renewal cannot have a generation that no certificate has"),
                OPERATOR
                    .writes_status(KIOSK, &json!({ "renewal": { "chain": "CHAIN", "generation": 2, "secretGeneration": 3 } }))
                    .refused("the Secret cannot hold a newer certificate"),
                OPERATOR.writes_status(KIOSK, &json!({ "renewal": { "chain": "CHAIN", "generation": 2, "secretGeneration": 2 } })),
            ]),
        ),
        Rule::new(
            "counters::how_many_capabilities_there_are_is_at_most_what_there_may_be",
            made([
                GATEWAY
                    .writes_status(KIOSK, &json!({ "capabilityCounts": { "declared": 129, "granted": 0, "pending": 0 } }))
                    .refused("status.capabilityCounts.declared"),
                GATEWAY.writes_status(KIOSK, &json!({ "capabilityCounts": { "declared": 128, "granted": 0, "pending": 0 } })),
                GATEWAY.writes_status(KIOSK, &json!({ "capabilityCounts": { "declared": 0, "granted": 0, "pending": 0 } })),
            ]),
        ),
    ]
}

fn moments() -> Vec<Rule> {
    let late = "cannot be in the future: set the clock of the gateway";
    let connected =
        |change: Value| json!({ "conditions": [with(condition("Connected", "True"), &change)] });
    vec![
        Rule::new(
            "counters::no_moment_of_a_device_is_in_the_future",
            made([
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": FUTURE })).refused(late),
                GATEWAY.writes_status(KIOSK, &with(session(1), &json!({ "session": { "connectedAt": FUTURE } }))).refused(late),
                GATEWAY.writes_status(KIOSK, &with(session(1), &json!({ "session": { "endedAt": FUTURE } }))).refused(late),
                GATEWAY.writes_status(KIOSK, &json!({ "renewal": { "csr": "CSR", "requestedAt": FUTURE } })).refused(late),
                GATEWAY.writes_status(KIOSK, &connected(json!({ "lastTransitionTime": FUTURE }))).refused(late),
                // What was in the future before does not keep a gateway from writing.
                OPERATOR.writes_status(KIOSK, &json!({ "lastSeen": FUTURE })),
                GATEWAY.writes_status(KIOSK, &with(session(1), &connected(json!({})))).reads("/status/lastSeen", FUTURE),
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": MOMENT, "renewal": { "csr": "CSR", "requestedAt": MOMENT } })),
            ]),
        ),
        Rule::new(
            "counters::nobody_else_lends_a_gateway_a_later_clock",
            made([
                // A writer of the object can set the times of managedFields; a gateway cannot, by the status.
                DORA.patches(KIOSK, json!({ "metadata": { "managedFields": [{
                    "manager": "trial", "operation": "Update", "apiVersion": "fairlead.dev/v1alpha1", "time": FUTURE,
                    "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:trust": {} } },
                }] } })),
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": FUTURE })).refused(late),
                GATEWAY
                    .patches("devices/kiosk/status", json!({
                        "status": { "lastSeen": FUTURE },
                        "metadata": { "managedFields": [{
                            "manager": "mine", "operation": "Update", "apiVersion": "fairlead.dev/v1alpha1", "time": FUTURE,
                            "fieldsType": "FieldsV1", "fieldsV1": { "f:status": {} }, "subresource": "status",
                        }] },
                    }))
                    .refused(late),
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": MOMENT })),
            ]),
        ),
        Rule::new(
            "counters::a_moment_that_programs_cannot_read_is_refused",
            made([
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": "9999-12-31T23:59:59Z" })).refused("status.lastSeen"),
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": "2026-01-01T00:00:00+99:00" })).refused("status.lastSeen"),
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": "0000-01-01T00:00:00Z" })).refused("status.lastSeen"),
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": "2026-02-31T00:00:00Z" })).refused("status.lastSeen"),
                GATEWAY
                    .writes_status(KIOSK, &connected(json!({ "lastTransitionTime": "9999-12-31T23:59:59Z" })))
                    .refused("status.conditions[0].lastTransitionTime"),
                GATEWAY
                    .writes_status(KIOSK, &with(session(1), &json!({ "session": { "connectedAt": "2026-01-01T00:00:00+23:59" } })))
                    .refused("status.session.connectedAt"),
                GATEWAY.writes_status(KIOSK, &json!({ "lastSeen": "2026-01-01T00:00:00.123456789Z" })),
            ]),
        ),
        Rule::new(
            "counters::what_a_gateway_says_it_has_seen_was_there",
            made([
                GATEWAY
                    .writes_status(KIOSK, &connected(json!({ "observedGeneration": MOST })))
                    .refused("observedGeneration cannot exceed metadata.generation: read the device again"),
                GATEWAY.writes_status(KIOSK, &connected(json!({ "observedGeneration": 1 }))),
                IVAN.creates(invocation("run", "kiosk", "echo")),
                GATEWAY
                    .writes_status(RUN, &json!({ "phase": "Dispatched", "observedGeneration": 2 }))
                    .refused("observedGeneration cannot exceed metadata.generation: read the invocation again"),
                GATEWAY
                    .writes_status(RUN, &json!({ "conditions": [with(condition("Ready", "False"), &json!({ "observedGeneration": 2 }))] }))
                    .refused("observedGeneration cannot exceed metadata.generation: read the invocation again"),
                GATEWAY.writes_status(RUN, &json!({ "phase": "Dispatched", "observedGeneration": 1 })),
                IVAN.patches(RUN, json!({ "spec": { "cancel": "Requested" } })),
                GATEWAY.writes_status(RUN, &json!({ "phase": "Cancelled", "observedGeneration": 2 })),
            ]),
        ),
    ]
}

fn others() -> Vec<Rule> {
    let late = "cannot be in the future: set the clock of the gateway";
    vec![
        Rule::new(
            "counters::an_invocation_does_not_end_in_the_future",
            [
                IVAN.creates(invocation("run", "kiosk", "echo")),
                GATEWAY
                    .writes_status(
                        RUN,
                        &json!({ "phase": "Dispatched", "dispatchedAt": FUTURE }),
                    )
                    .refused(late),
                GATEWAY
                    .writes_status(RUN, &json!({ "phase": "Succeeded", "finishedAt": FUTURE }))
                    .refused(late),
                GATEWAY
                    .writes_status_at(
                        RUN,
                        "",
                        &json!({ "phase": "Succeeded", "finishedAt": FUTURE }),
                    )
                    .refused(late),
                GATEWAY.writes_status(
                    RUN,
                    &json!({ "phase": "Dispatched", "dispatchedAt": MOMENT }),
                ),
                GATEWAY
                    .writes_status(RUN, &json!({ "conditions": [with(condition("Ready", "True"), &json!({ "lastTransitionTime": FUTURE }))] }))
                    .refused(late),
                GATEWAY.writes_status(RUN, &json!({ "phase": "Succeeded", "finishedAt": LATER })),
                GATEWAY
                    .writes_status(RUN, &json!({ "conditions": [with(condition("AnsweredLate", "True"), &json!({ "lastTransitionTime": FUTURE }))] }))
                    .refused(late),
                GATEWAY.writes_status(RUN, &json!({ "conditions": [condition("AnsweredLate", "True")] })),
                // A time that the operator wrote before stays.
                OPERATOR.writes_status(RUN, &json!({ "conditions": [with(condition("AnsweredLate", "True"), &json!({ "lastTransitionTime": FUTURE }))] })),
                GATEWAY.writes_status(RUN, &json!({ "conditions": [
                    with(condition("AnsweredLate", "True"), &json!({ "lastTransitionTime": FUTURE })), condition("Ready", "True"),
                ] })),
            ],
        ),
        Rule::new(
            "counters::a_code_is_not_tried_in_the_future",
            [
                DORA.creates(code("lobby", &json!({ "maxUses": 3 }))),
                OPERATOR.writes_status(LOBBY, &drawn()),
                GATEWAY
                    .writes_status(LOBBY, &json!({ "attempts": 1, "lastAttemptAt": FUTURE }))
                    .refused(late),
                GATEWAY.writes_status(LOBBY, &json!({ "attempts": 1, "lastAttemptAt": MOMENT })),
                GATEWAY.writes_status(LOBBY, &json!({ "attempts": 2, "lastAttemptAt": LATER })),
            ],
        ),
        Rule::new(
            "counters::a_request_of_a_gateway_waits_for_a_day_at_most",
            [
                GATEWAY
                    .creates(with(
                        gateway_request(),
                        &json!({ "spec": { "expiresAt": FUTURE } }),
                    ))
                    .refused("a gateway's request waits for a day at most"),
                GATEWAY
                    .creates(with(
                        gateway_request(),
                        &json!({ "spec": { "expiresAt": "9999-12-31T23:59:59Z" } }),
                    ))
                    .refused("spec.expiresAt"),
                GATEWAY.creates(gateway_request()),
            ],
        ),
    ]
}
