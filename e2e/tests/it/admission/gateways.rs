//! What a gateway never does, whatever roles it was given: here it holds all of them.

use serde_json::json;

use super::objects::{code, device, gateway_request, invocation};
use super::step::{DORA, GATEWAY, IVAN, OPERATOR, Rule};

pub fn rules() -> Vec<Rule> {
    let mut rules = ours();
    rules.push(names());
    rules
}

fn ours() -> Vec<Rule> {
    let refusal = "a gateway makes pairing requests and nothing else";
    vec![Rule::new(
        "gateways::one_makes_requests_and_changes_and_deletes_nothing",
        [
            OPERATOR.creates(device("kiosk", &json!({}))),
            DORA.creates(code("lobby", &json!({}))),
            IVAN.creates(invocation("run", "kiosk", "echo")),
            GATEWAY.creates(gateway_request()),
            GATEWAY.creates(code("mine", &json!({}))).refused(refusal),
            GATEWAY
                .creates(invocation("mine", "kiosk", "echo"))
                .refused(refusal),
            GATEWAY
                .creates(device("mine", &json!({})))
                .refused("denied request"),
            GATEWAY
                .patches(
                    "devices/kiosk",
                    json!({ "spec": { "grants": { "capabilities": ["shell"] } } }),
                )
                .refused(refusal),
            GATEWAY
                .patches(
                    "capabilityinvocations/run",
                    json!({ "spec": { "cancel": "Requested" } }),
                )
                .refused(refusal),
            GATEWAY
                .patches(
                    "pairingcodes/lobby",
                    json!({ "metadata": { "labels": { "a": "b" } } }),
                )
                .refused(refusal),
            GATEWAY.deletes("devices/kiosk").refused(refusal),
            GATEWAY
                .deletes("capabilityinvocations/run")
                .refused(refusal),
            GATEWAY.deletes("pairingcodes/lobby").refused(refusal),
            DORA.deletes("devices/kiosk"),
        ],
    )]
}

fn names() -> Rule {
    let session =
        |gateway: &str, epoch: i64| json!({ "session": { "gateway": gateway, "epoch": epoch } });
    Rule::new(
        "gateways::one_in_a_pod_writes_in_its_own_name_alone",
        [
            OPERATOR.creates(device("kiosk", &json!({}))),
            IVAN.creates(invocation("run", "kiosk", "echo")),
            GATEWAY
                .writes_status("devices/kiosk", &session("gateway-1", 1))
                .in_pod("gateway-0")
                .refused("a gateway writes sessions of its own: give it the name of its pod"),
            GATEWAY
                .writes_status("devices/kiosk", &session("gateway-1", 1))
                .in_pod("gateway-1"),
            GATEWAY
                .writes_status(
                    "devices/kiosk",
                    &json!({ "session": { "endedAt": "2026-01-01T00:00:00Z" } }),
                )
                .in_pod("gateway-0")
                .refused("a gateway writes sessions of its own"),
            GATEWAY
                .writes_status("devices/kiosk", &json!({ "presence": "Online" }))
                .in_pod("gateway-0"),
            GATEWAY
                .writes_status("devices/kiosk", &session("gateway-0", 2))
                .in_pod("gateway-0"),
            GATEWAY
                .writes_status(
                    "capabilityinvocations/run",
                    &json!({ "phase": "Dispatched", "gateway": "gateway-1" }),
                )
                .in_pod("gateway-0")
                .refused("status.gateway is the gateway that writes"),
            GATEWAY
                .writes_status(
                    "capabilityinvocations/run",
                    &json!({ "phase": "Dispatched", "gateway": "gateway-0" }),
                )
                .in_pod("gateway-0"),
            GATEWAY
                .creates(gateway_request())
                .in_pod("gateway-1")
                .refused("spec.source.gateway is the gateway that asks"),
            GATEWAY.creates(gateway_request()).in_pod("gateway-0"),
        ],
    )
}
