//! What a gateway never does, whatever roles it was given: here it holds all of them.

use serde_json::json;

use super::objects::{code, device, gateway_request, invocation, lease};
use super::step::{DORA, GATEWAY, IVAN, OPERATOR, Rule};

pub fn rules() -> Vec<Rule> {
    let label = json!({ "fairlead.dev/component": "gateway" });
    let refusal = "a gateway makes pairing requests and nothing else";
    let leases =
        "a gateway writes Leases with the label fairlead.dev/component: gateway, and no others";
    vec![
        Rule::new(
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
        ),
        Rule::new(
            "gateways::one_leaves_the_leases_of_others_alone",
            [
                OPERATOR.creates(lease("fairlead-operator", &json!({}))),
                GATEWAY
                    .patches(
                        "leases/fairlead-operator",
                        json!({ "spec": { "holderIdentity": "gateway" } }),
                    )
                    .refused(leases),
                GATEWAY
                    .patches(
                        "leases/fairlead-operator",
                        json!({ "metadata": { "labels": label } }),
                    )
                    .refused(leases),
                GATEWAY.deletes("leases/fairlead-operator").refused(leases),
                GATEWAY.creates(lease("mine", &json!({}))).refused(leases),
                GATEWAY.creates(lease("mine", &label)),
                GATEWAY.patches(
                    "leases/mine",
                    json!({ "spec": { "holderIdentity": "again" } }),
                ),
                GATEWAY
                    .patches("leases/mine", json!({ "metadata": { "labels": null } }))
                    .refused(leases),
                GATEWAY.deletes("leases/mine"),
                OPERATOR.patches(
                    "leases/fairlead-operator",
                    json!({ "spec": { "holderIdentity": "operator" } }),
                ),
            ],
        ),
    ]
}
