//! What gateways and the operator write beside the four kinds, whatever roles they were given: Leases, ConfigMaps, Secrets
//! and events.

use serde_json::json;

use super::objects::{config_map, event, lease, secret, with};
use super::step::{ADMIN, GATEWAY, OPERATOR, PAUL, Rule};

pub fn rules() -> Vec<Rule> {
    let mut rules = vec![election(), own_lease(), lease_of_a_pod()];
    rules.extend(config_maps());
    rules.push(events());
    rules
}

fn election() -> Rule {
    let label = json!({ "fairlead.dev/component": "gateway" });
    let refusal =
        "a gateway writes Leases with the label fairlead.dev/component: gateway, and no others";
    let election = "the Lease fairlead-operator elects the operator, which alone writes it: to elect again, delete it";
    // Two policies refuse it, and either may be the one that answers.
    let own = "the Lease fairlead-operator elects the operator";
    let decades = json!({ "spec": { "leaseDurationSeconds": 2_000_000_000 } });
    Rule::new(
        "programs::a_gateway_leaves_the_leases_of_others_alone",
        [
            // While the Lease of the election is absent, nobody but the operator makes it.
            GATEWAY
                .creates(lease("fairlead-operator", &label))
                .refused(own),
            GATEWAY
                .applies(lease("fairlead-operator", &label))
                .refused(own),
            GATEWAY
                .creates(with(lease("fairlead-operator", &label), &decades))
                .refused("denied request"),
            PAUL.creates(with(lease("fairlead-operator", &json!({})), &decades))
                .refused(election),
            ADMIN
                .creates(lease("fairlead-operator", &json!({})))
                .refused(election),
            OPERATOR
                .creates(with(lease("fairlead-operator", &json!({})), &decades))
                .refused("the Lease of the election lasts for 60 seconds at most"),
            OPERATOR.creates(lease("fairlead-operator", &json!({}))),
            GATEWAY
                .patches(
                    "leases/fairlead-operator",
                    json!({ "spec": { "holderIdentity": "gateway" } }),
                )
                .refused("denied request"),
            GATEWAY
                .patches(
                    "leases/fairlead-operator",
                    json!({ "metadata": { "labels": label } }),
                )
                .refused("denied request"),
            GATEWAY.deletes("leases/fairlead-operator").refused(refusal),
            PAUL.patches("leases/fairlead-operator", decades.clone())
                .refused(election),
            OPERATOR
                .patches("leases/fairlead-operator", decades.clone())
                .refused("the Lease of the election lasts for 60 seconds at most"),
            OPERATOR.patches(
                "leases/fairlead-operator",
                json!({ "spec": { "holderIdentity": "operator" } }),
            ),
            PAUL.deletes("leases/fairlead-operator"),
        ],
    )
}

fn own_lease() -> Rule {
    let label = json!({ "fairlead.dev/component": "gateway" });
    let refusal =
        "a gateway writes Leases with the label fairlead.dev/component: gateway, and no others";
    let decades = json!({ "spec": { "leaseDurationSeconds": 2_000_000_000 } });
    Rule::new(
        "programs::a_gateway_keeps_a_short_lease_of_its_own",
        [
            GATEWAY.creates(lease("mine", &json!({}))).refused(refusal),
            GATEWAY
                .creates(with(lease("mine", &label), &decades))
                .refused("the Lease of a gateway lasts for 60 seconds at most"),
            GATEWAY
                .creates(with(
                    lease("mine", &label),
                    &json!({ "spec": { "renewTime": "2900-01-01T00:00:00.000000Z" } }),
                ))
                .refused("spec.renewTime cannot be in the future: set the clock of the gateway"),
            GATEWAY
                .creates(with(
                    lease("mine", &label),
                    &json!({ "spec": { "holderIdentity": "yours" } }),
                ))
                .refused("set spec.holderIdentity to metadata.name"),
            GATEWAY
                .creates(with(
                    lease("mine", &label),
                    &json!({ "metadata": { "finalizers": ["example.org/stay"] } }),
                ))
                .refused("neither ownerReferences nor finalizers"),
            GATEWAY
                .creates(with(
                    lease("mine", &label),
                    &json!({ "metadata": { "namespace": "home" } }),
                ))
                .refused(refusal),
            GATEWAY.applies(lease("mine", &label)),
            GATEWAY.applies(with(
                lease("mine", &label),
                &json!({ "spec": { "renewTime": "2026-01-01T00:00:05.000000Z" } }),
            )),
            GATEWAY
                .patches("leases/mine", decades)
                .refused("the Lease of a gateway lasts for 60 seconds at most"),
            GATEWAY
                .applies(with(
                    lease("mine", &label),
                    &json!({ "spec": { "renewTime": "2900-01-01T00:00:00.000000Z" } }),
                ))
                .refused("spec.renewTime cannot be in the future: set the clock of the gateway"),
            GATEWAY
                .patches("leases/mine", json!({ "metadata": { "labels": null } }))
                .refused(refusal),
            GATEWAY.deletes("leases/mine"),
        ],
    )
}

fn lease_of_a_pod() -> Rule {
    let label = json!({ "fairlead.dev/component": "gateway" });
    Rule::new(
        "programs::a_gateway_in_a_pod_has_the_name_of_its_pod",
        [
            GATEWAY
                .creates(lease("gw-1", &label))
                .in_pod("gw-0")
                .refused("give it the name of its pod"),
            GATEWAY.applies(lease("gw-0", &label)).in_pod("gw-0"),
            GATEWAY.applies(lease("gw-1", &label)).in_pod("gw-1"),
            GATEWAY
                .patches(
                    "leases/gw-1",
                    json!({ "spec": { "leaseDurationSeconds": 1 } }),
                )
                .in_pod("gw-0")
                .refused("give it the name of its pod"),
            GATEWAY
                .deletes("leases/gw-1")
                .in_pod("gw-0")
                .refused("give it the name of its pod"),
            GATEWAY.deletes("leases/gw-1").in_pod("gw-1"),
            GATEWAY.deletes("leases/gw-0").in_pod("gw-0"),
        ],
    )
}

fn config_maps() -> Vec<Rule> {
    let refusal = "a gateway changes the ConfigMaps fairlead-console-logouts-0 to -9 of fairlead-system, and no others";
    let system = "fairlead-system";
    let logouts = "configmaps/fairlead-console-logouts-0";
    vec![
        Rule::new(
            "programs::a_gateway_writes_the_logouts_and_no_other_config_map",
            [
                GATEWAY.creates(config_map(system, "mine")).refused(refusal),
                GATEWAY
                    .creates(config_map("home", "fairlead-console-logouts"))
                    .refused(refusal),
                GATEWAY
                    .creates(config_map(system, "fairlead-trust-bundle"))
                    .refused(refusal),
                GATEWAY
                    .applies(config_map(system, "fairlead-console-logouts-more"))
                    .refused(refusal),
                GATEWAY
                    .creates(config_map(system, "fairlead-console-logouts-9"))
                    .refused(refusal),
                GATEWAY
                    .patches(logouts, json!({ "immutable": true }))
                    .refused("leave out immutable"),
                GATEWAY
                    .patches(
                        logouts,
                        json!({ "metadata": { "finalizers": ["example.org/stay"] } }),
                    )
                    .refused("leave out immutable, ownerReferences and finalizers"),
                GATEWAY.patches(logouts, json!({ "data": { "a": null, "c": "d" } })),
                GATEWAY.patches(logouts, json!({ "data": { "c": null } })),
                GATEWAY.deletes(logouts).refused(refusal),
                ADMIN.creates(config_map("home", "mine")),
            ],
        ),
        Rule::new(
            "programs::the_operator_writes_config_maps_of_its_own_alone",
            [
                OPERATOR
                    .creates(config_map(system, "kube-root-ca.crt"))
                    .refused("the operator writes ConfigMaps of fairlead-system whose names begin with fairlead-"),
                OPERATOR.applies(config_map(system, "fairlead-trust-bundle")),
                ADMIN.deletes("configmaps/fairlead-trust-bundle"),
            ],
        ),
        Rule::new(
            "programs::the_operator_writes_secrets_of_codes_and_devices_alone",
            [
                OPERATOR
                    .creates(secret("home", "database"))
                    .refused("the operator writes the Secrets of codes and devices"),
                OPERATOR.creates(secret("home", "lobby-code")),
                OPERATOR.creates(secret("home", "lamp-mtls")),
                OPERATOR
                    .creates(secret(system, "lamp-mtls"))
                    .refused("fairlead-* in fairlead-system"),
                OPERATOR.creates(secret(system, "fairlead-trial")),
                ADMIN.creates(secret("home", "database")),
                OPERATOR
                    .deletes("secrets/database")
                    .at_home()
                    .refused("the operator writes the Secrets of codes and devices"),
                OPERATOR.deletes("secrets/lobby-code").at_home(),
            ],
        ),
    ]
}

fn events() -> Rule {
    let gateway = "fairlead-gateway";
    let ours = "fairlead.dev/v1alpha1";
    let kinds = "gateways write events about kinds of fairlead.dev";
    let program =
        "an event names the program that writes it: set reportingController to fairlead-gateway";
    let run = || event("run", gateway, ours, "CapabilityInvocation");
    Rule::new(
        "programs::a_gateway_writes_events_about_kinds_of_ours_in_its_own_name",
        [
            GATEWAY.creates(event("pod", gateway, "v1", "Pod")).refused(kinds),
            GATEWAY
                .creates(event("policy", gateway, "fairlead.dev.example.org/v1", "Device"))
                .refused(kinds),
            GATEWAY
                .creates(event("other", "kubelet", ours, "Device"))
                .refused(program),
            GATEWAY
                .creates(event("other", "fairlead-operator", ours, "Device"))
                .refused(program),
            GATEWAY
                .creates(with(run(), &json!({ "metadata": { "finalizers": ["example.org/stay"] } })))
                .refused("neither ownerReferences nor finalizers"),
            // The older API of events is the same resource.
            GATEWAY
                .creates(json!({
                    "apiVersion": "v1", "kind": "Event", "metadata": { "name": "older", "namespace": "home" },
                    "involvedObject": { "apiVersion": "v1", "kind": "Pod", "name": "x", "namespace": "home" },
                    "reportingComponent": gateway, "reportingInstance": "gateway-0", "reason": "Trial", "action": "Try",
                    "type": "Warning", "eventTime": "2026-01-01T00:00:00.000000Z",
                }))
                .refused(kinds),
            GATEWAY.creates(run()),
            GATEWAY
                .patches("events/run", json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z" } }))
                .at_home(),
            ADMIN.creates(event("kubelet", "kubelet", "v1", "Pod")),
            GATEWAY
                .patches("events/kubelet", json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z" } }))
                .at_home()
                .refused(program),
            GATEWAY
                .deletes("events/kubelet")
                .at_home()
                .refused("delete no events"),
            GATEWAY
                .creates(event("pods", gateway, ours, "Device"))
                .in_pod("gateway-1")
                .refused("give the gateway the name of its pod"),
            OPERATOR.creates(event("operators", "fairlead-operator", ours, "Device")),
            OPERATOR
                .creates(event("secret", "fairlead-operator", "v1", "Secret"))
                .refused(kinds),
        ],
    )
}
