//! What gateways and the operator write beside the four kinds, whatever roles they were given: Leases, ConfigMaps, Secrets
//! and events.

use serde_json::{Value, json};

use super::objects::{FUTURE, MOMENT, config_map, event, lease, secret, with};
use super::step::{ADMIN, GATEWAY, OPERATOR, PAUL, Rule};

pub fn rules() -> Vec<Rule> {
    let mut rules = vec![
        election(),
        own_lease(),
        dates_of_a_lease(),
        lease_of_a_pod(),
    ];
    rules.extend(config_maps());
    rules.push(events());
    rules.push(contents_of_events());
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
                .refused("spec.renewTime and spec.acquireTime cannot be in the future: set the clock of the gateway"),
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
                .refused("spec.renewTime and spec.acquireTime cannot be in the future: set the clock of the gateway"),
            GATEWAY
                .patches("leases/mine", json!({ "metadata": { "labels": null } }))
                .refused(refusal),
            GATEWAY.deletes("leases/mine"),
        ],
    )
}

/// An entry of managedFields as a writer makes it up.
fn dated(api: &str, time: &str, fields: &Value) -> Value {
    json!({ "metadata": { "managedFields": [{
        "manager": "zz", "operation": "Update", "apiVersion": api, "time": time,
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }] } })
}

/// A field that nobody writes: the API server takes a field that somebody writes out of the entries of others.
fn unwritten() -> Value {
    json!({ "f:metadata": { "f:labels": { "f:example.org/a": {} } } })
}

/// A year that programs cannot read.
const UNREADABLE: &str = "9999-12-31T23:59:59Z";
const LEASES: &str = "coordination.k8s.io/v1";
const TOO_LATE: &str = "metadata.managedFields has a time that is too late";

fn dates_of_a_lease() -> Rule {
    let label = json!({ "fairlead.dev/component": "gateway" });
    let late = "spec.renewTime and spec.acquireTime cannot be in the future";
    let at = |field: &str, time: &str| json!({ "spec": { field: time } });
    let spec = |field: &str| json!({ "f:spec": { format!("f:{field}"): {} } });
    let name = "leases/dated";
    let future = "2900-01-01T00:00:00.000000Z";
    let mut steps = Vec::new();
    for field in ["renewTime", "acquireTime"] {
        for time in [future, "9999-12-31T23:59:59.999999Z"] {
            let object = with(lease("dated", &label), &at(field, time));
            steps.push(GATEWAY.creates(object.clone()).refused(late));
            steps.push(GATEWAY.applies(object.clone()).refused(late));
            // What the gateway says of itself does not count.
            steps.push(
                GATEWAY
                    .creates(with(
                        object,
                        &dated(LEASES, "2999-01-01T00:00:00Z", &spec(field)),
                    ))
                    .refused(late),
            );
        }
    }
    steps.extend([
        GATEWAY
            .creates(with(
                lease("dated", &label),
                &dated(LEASES, UNREADABLE, &unwritten()),
            ))
            .refused(TOO_LATE),
        GATEWAY.creates(with(
            lease("dated", &label),
            &at("acquireTime", "2026-01-01T00:00:00.000000Z"),
        )),
    ]);
    for field in ["renewTime", "acquireTime"] {
        let forged = |fields: &Value| {
            with(
                at(field, future),
                &dated(LEASES, "2999-01-01T00:00:00Z", fields),
            )
        };
        steps.extend([
            GATEWAY.patches(name, at(field, future)).refused(late),
            GATEWAY
                .patches(name, at(field, "9999-12-31T23:59:59.999999Z"))
                .refused(late),
            GATEWAY
                .patches(name, dated(LEASES, UNREADABLE, &unwritten()))
                .refused(TOO_LATE),
            GATEWAY.patches(name, forged(&spec(field))).refused(late),
            GATEWAY.patches(name, forged(&unwritten())).refused(late),
            // An entry that a gateway stored before counts no more.
            GATEWAY.patches(name, dated(LEASES, FUTURE, &unwritten())),
            GATEWAY.patches(name, at(field, future)).refused(late),
            GATEWAY.replaces(name, at(field, future)).refused(late),
            GATEWAY.replaces(name, forged(&spec(field))).refused(late),
            GATEWAY.patches(name, at(field, "2026-01-01T00:00:05.000000Z")),
            GATEWAY.replaces(name, at(field, "2026-01-01T00:00:06.000000Z")),
            GATEWAY.patches(name, dated(LEASES, MOMENT, &json!({ "f:spec": {} }))),
        ]);
    }
    steps.push(GATEWAY.applies(with(
        lease("dated", &label),
        &at("renewTime", "2026-01-01T00:00:10.000000Z"),
    )));
    steps.push(GATEWAY.deletes(name));
    Rule::new("programs::a_gateway_does_not_date_its_lease", steps)
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
                GATEWAY
                    .patches(logouts, dated("v1", UNREADABLE, &unwritten()))
                    .refused(TOO_LATE),
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

fn contents_of_events() -> Rule {
    let kinds = "gateways write events about kinds of fairlead.dev";
    let ours = "fairlead.dev/v1alpha1";
    let written = |change: Value| {
        let event = event("written", "fairlead-gateway", ours, "CapabilityInvocation");
        GATEWAY.creates(with(event, &change))
    };
    let line = "note, reason and action of an event are one line of text";
    let late = "an event has a time that is too late";
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "name": "x", "namespace": "home" });
    Rule::new(
        "programs::an_event_of_a_gateway_is_readable_and_about_one_object",
        [
            written(json!({ "regarding": { "apiVersion": "fairlead.dev/zzz", "kind": "Namespace" } })).refused(kinds),
            written(json!({ "regarding": { "apiVersion": "fairlead.dev/zzz" } })).refused(kinds),
            written(json!({ "regarding": { "kind": "Namespace" } })).refused(kinds),
            OPERATOR
                .creates(event("other", "fairlead-operator", ours, "Namespace"))
                .refused(kinds),
            written(json!({ "related": secret })).refused("leave out related"),
            written(json!({ "note": "a\u{1b}[2Jb" })).refused(line),
            written(json!({ "note": "a\nb" })).refused(line),
            written(json!({ "note": "a\u{9b}b" })).refused(line),
            written(json!({ "note": "a\u{202e}b" })).refused(line),
            written(json!({ "note": "a\u{2066}b" })).refused(line),
            written(json!({ "note": "a\u{2028}b" })).refused(line),
            written(json!({ "reason": "a\u{202e}b" })).refused(line),
            written(json!({ "eventTime": "9999-12-31T23:59:59.999999Z" })).refused(late),
            written(dated("events.k8s.io/v1", UNREADABLE, &unwritten())).refused(TOO_LATE),
            written(json!({ "note": "the device answered 5 s late: \"Grüße\", done" })),
            GATEWAY
                .patches("events/written", json!({ "series": { "count": 2, "lastObservedTime": "9999-12-31T23:59:59.999999Z" } }))
                .at_home()
                .refused(late),
            GATEWAY
                .patches("events/written", json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z" } }))
                .at_home(),
        ],
    )
}
