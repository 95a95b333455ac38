//! Who may change what decides the life of an object: owners, finalizers, and the labels of Fairlead.

use serde_json::{Value, json};

use super::objects::{FUTURE, MOMENT, code, device, drawn, invocation, request, with};
use super::step::{ADA, COLLECTOR, DORA, IVAN, OLGA, OPERATOR, PAUL, Rule, Step, Who};

const KINDS: [&str; 4] = [
    "devices/kiosk",
    "pairingcodes/lobby",
    "pairingrequests/one",
    "capabilityinvocations/run",
];

pub fn rules() -> Vec<Rule> {
    let mut rules = life();
    rules.extend(names());
    rules.extend(free());
    rules.extend(dates());
    rules.extend(dates_of_others());
    rules
}

fn one_of_each() -> Vec<Step> {
    vec![
        OPERATOR.creates(device("kiosk", &json!({}))),
        DORA.creates(code("lobby", &json!({}))),
        DORA.creates(request("one")),
        IVAN.creates(invocation("run", "kiosk", "echo")),
    ]
}

/// These steps for each kind, on an object of it.
fn for_each(steps: impl Fn(&'static str) -> Vec<Step>) -> Vec<Step> {
    let of_kinds = KINDS.into_iter().flat_map(steps);
    one_of_each().into_iter().chain(of_kinds).collect()
}

fn metadata(change: Value) -> Value {
    Value::Object([("metadata".to_owned(), change)].into_iter().collect())
}

fn owner() -> Value {
    json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "6a5c8e1e-0000-0000-0000-000000000000" }])
}

fn owned() -> Value {
    metadata(json!({ "ownerReferences": owner() }))
}

fn kept() -> Value {
    metadata(json!({ "finalizers": ["example.org/stay"] }))
}

fn life() -> Vec<Rule> {
    let owners = "metadata.ownerReferences decide when an object is deleted: leave them as they are, or ask for the verb delete on";
    let finalizers = "metadata.finalizers decide when an object is deleted: leave them as they are, or ask for the verb delete on";
    let creates = |who: Who, object: Value, change: &Value| who.creates(with(object, change));
    let run = || invocation("run", "kiosk", "echo");
    vec![
        Rule::new(
            "metadata::who_may_change_an_object_cannot_have_it_deleted",
            for_each(|object| {
                vec![
                    OLGA.patches(object, owned()).refused(owners),
                    OLGA.replaces(object, owned()).refused(owners),
                    OLGA.adds(object, "/metadata/ownerReferences", &owner()).refused(owners),
                    PAUL.patches(object, owned()),
                    OLGA.patches(object, metadata(json!({ "ownerReferences": null }))).refused(owners),
                    OLGA.patches(object, metadata(json!({ "labels": { "a": "b" } }))),
                    PAUL.patches(object, metadata(json!({ "ownerReferences": null }))),
                ]
            }),
        ),
        Rule::new(
            "metadata::who_may_change_an_object_cannot_keep_it_from_being_deleted",
            for_each(|object| {
                vec![
                    OLGA.patches(object, kept()).refused(finalizers),
                    OLGA.patches(object, metadata(json!({ "finalizers": ["foregroundDeletion"] }))).refused(finalizers),
                    OLGA.replaces(object, kept()).refused(finalizers),
                    PAUL.patches(object, kept()),
                    OLGA.patches(object, metadata(json!({ "finalizers": null }))).refused(finalizers),
                    PAUL.patches(object, metadata(json!({ "finalizers": null }))),
                ]
            }),
        ),
        Rule::new(
            "metadata::who_asked_for_an_invocation_has_no_right_to_its_life_either",
            [
                creates(IVAN, run(), &owned()).refused("ask for the verb delete on capabilityinvocations.fairlead.dev in namespace"),
                creates(IVAN, run(), &kept()).refused(finalizers),
                IVAN.creates(run()),
                IVAN.patches("capabilityinvocations/run", owned()).refused(owners),
                IVAN.patches("capabilityinvocations/run", with(owned(), &json!({ "spec": { "cancel": "Requested" } }))).refused(owners),
                IVAN.patches("capabilityinvocations/run", json!({ "spec": { "cancel": "Requested" } })),
            ],
        ),
        Rule::new(
            "metadata::a_new_object_has_an_owner_only_where_its_maker_may_delete_it",
            [
                creates(OLGA, code("lobby", &json!({})), &owned()).refused(owners),
                creates(OLGA, request("one"), &kept()).refused(finalizers),
                creates(DORA, code("lobby", &json!({})), &owned()),
                creates(OPERATOR, device("kiosk", &json!({})), &owned()),
            ],
        ),
        Rule::new(
            "metadata::a_deletion_in_the_foreground_ends_when_the_garbage_collector_says_so",
            for_each(|object| {
                vec![
                    // As a deletion with propagationPolicy Foreground leaves it; this API server has no collector of garbage.
                    PAUL.patches(object, metadata(json!({ "finalizers": ["foregroundDeletion"] }))),
                    PAUL.deletes(object),
                    OLGA.patches(object, metadata(json!({ "finalizers": null }))).refused(finalizers),
                    COLLECTOR.patches(object, metadata(json!({ "finalizers": null }))),
                    PAUL.patches(object, metadata(json!({ "labels": { "a": "b" } }))).not_found(),
                ]
            }),
        ),
        Rule::new(
            "metadata::a_write_of_the_status_changes_no_metadata",
            one_of_each().into_iter().chain([
                OPERATOR
                    .patches("devices/kiosk/status", with(with(owned(), &kept()), &json!({
                        "metadata": { "labels": { "fairlead.dev/a": "b" }, "annotations": { "c": "d" } },
                        "status": { "presence": "Offline" },
                    })))
                    .reads("/metadata/ownerReferences", Value::Null)
                    .reads("/metadata/finalizers", Value::Null)
                    .reads("/metadata/labels", Value::Null)
                    .reads("/metadata/annotations", Value::Null)
                    .reads("/status/presence", "Offline"),
                ADA.patches("pairingrequests/one/status", with(owned(), &json!({ "status": { "approval": { "decision": "Denied" } } })))
                    .reads("/metadata/ownerReferences", Value::Null)
                    .reads("/status/approval/decidedBy", "ada"),
            ]),
        ),
    ]
}

fn names() -> Vec<Rule> {
    let labels =
        "labels and annotations of fairlead.dev are the operator's: use a name of your own";
    vec![
        Rule::new(
            "metadata::labels_and_annotations_of_fairlead_are_the_operators",
            for_each(|object| {
                let mark = |field: &str, key: &str, value: Value| {
                    metadata(json!({ field: { key: value } }))
                };
                let mut steps = Vec::new();
                for field in ["labels", "annotations"] {
                    steps.extend([
                        PAUL.patches(object, mark(field, "fairlead.dev/mark", json!("a")))
                            .refused(labels),
                        PAUL.patches(object, mark(field, "sub.fairlead.dev/mark", json!("a")))
                            .refused(labels),
                        PAUL.replaces(object, mark(field, "fairlead.dev/mark", json!("a")))
                            .refused(labels),
                        OPERATOR.patches(object, mark(field, "fairlead.dev/mark", json!("a"))),
                        PAUL.patches(object, mark(field, "fairlead.dev/mark", json!("b")))
                            .refused(labels),
                        PAUL.patches(object, mark(field, "fairlead.dev/mark", Value::Null))
                            .refused(labels),
                        PAUL.patches(object, metadata(json!({ field: null })))
                            .refused(labels),
                        PAUL.patches(object, mark(field, "example.org/mark", json!("a"))),
                        PAUL.patches(object, mark(field, "notfairlead.dev/mark", json!("a"))),
                        PAUL.patches(object, mark(field, "example.org/fairlead.dev", json!("a"))),
                        OPERATOR.patches(object, mark(field, "fairlead.dev/mark", Value::Null)),
                    ]);
                }
                steps
            }),
        ),
        Rule::new(
            "metadata::a_new_object_has_no_label_of_fairlead",
            [
                IVAN.creates(with(
                    invocation("run", "kiosk", "echo"),
                    &metadata(json!({ "labels": { "fairlead.dev/a": "b" } })),
                ))
                .refused(labels),
                DORA.creates(with(
                    code("lobby", &json!({})),
                    &metadata(json!({ "annotations": { "fairlead.dev/a": "b" } })),
                ))
                .refused(labels),
                OPERATOR.creates(with(
                    device("kiosk", &json!({})),
                    &metadata(json!({ "labels": { "fairlead.dev/a": "b" } })),
                )),
                // Who changes something else leaves them alone.
                DORA.patches("devices/kiosk", json!({ "spec": { "trust": "Suspended" } }))
                    .reads("/metadata/labels/fairlead.dev~1a", "b"),
            ],
        ),
        Rule::new(
            "metadata::no_moment_hides_an_object_from_who_reads_it",
            for_each(|object| {
                let written = |time: &str| {
                    metadata(json!({ "managedFields": [{
                        "manager": "trial", "operation": "Update", "apiVersion": "fairlead.dev/v1alpha1", "time": time,
                        "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": { "f:labels": { "f:a": {} } } },
                    }] }))
                };
                vec![
                    PAUL.patches(object, written("9999-12-31T23:59:59Z"))
                        .refused("metadata.managedFields has a time that is too late"),
                    PAUL.patches(object, written(MOMENT)),
                ]
            }),
        ),
    ]
}

fn free() -> Vec<Rule> {
    let managed = |object: Value| {
        with(
            object,
            &metadata(json!({
                "labels": { "app.kubernetes.io/managed-by": "Helm", "kustomize.toolkit.fluxcd.io/name": "devices" },
                "annotations": { "argocd.argoproj.io/tracking-id": "devices:fairlead.dev/PairingCode:a/lobby" },
            })),
        )
    };
    vec![Rule::new(
        "metadata::tools_mark_what_they_manage",
        [
            OLGA.applies(managed(code("other", &json!({})))),
            OLGA.applies(managed(code("other", &json!({})))),
            OLGA.applies(code("other", &json!({})))
                .reads("/metadata/labels", Value::Null),
            OPERATOR.creates(device("kiosk", &json!({}))),
            DORA.patches("devices/kiosk", managed(json!({}))),
        ],
    )]
}

const DATES: &str =
    "the entries of metadata.managedFields for the status cannot be set: leave managedFields";

/// An entry of `managedFields` that claims a write of the status.
fn entry(time: &str, change: &Value) -> Value {
    let entry = json!({
        "manager": "trial", "operation": "Update", "apiVersion": "fairlead.dev/v1alpha1", "time": time,
        "subresource": "status", "fieldsType": "FieldsV1", "fieldsV1": { "f:status": { "f:approval": {} } },
    });
    metadata(json!({ "managedFields": [with(entry, change)] }))
}

/// A write of the status that its writer may make.
fn status(object: &str) -> Value {
    match object {
        "devices/kiosk" => json!({ "presence": "Offline" }),
        "pairingrequests/one" => json!({ "approval": { "decision": "Denied" } }),
        "pairingcodes/lobby" => drawn(),
        _ => json!({ "phase": "Dispatched", "dispatchedAt": MOMENT }),
    }
}

/// New objects that claim writes of their status.
fn dated(who: Who, object: &Value) -> [Step; 2] {
    [
        entry(FUTURE, &json!({})),
        entry(MOMENT, &json!({ "subresource": null })),
    ]
    .map(|change| who.creates(with(object.clone(), &change)).refused(DATES))
}

/// The times of the writes of the status, of objects that exist.
fn dates() -> Vec<Rule> {
    vec![Rule::new(
        "metadata::a_writer_of_the_object_does_not_date_its_status",
        for_each(|object| {
            let writer = if object == "pairingrequests/one" {
                ADA
            } else {
                OPERATOR
            };
            let first = "/metadata/managedFields";
            vec![
                PAUL.patches(object, entry(FUTURE, &json!({})))
                    .refused(DATES),
                writer.writes_status(object, &status(object)),
                OLGA.patches(object, entry(FUTURE, &json!({})))
                    .refused(DATES),
                PAUL.patches(object, entry(MOMENT, &json!({ "subresource": null })))
                    .refused(DATES),
                PAUL.replaces(object, entry(FUTURE, &json!({})))
                    .refused(DATES),
                PAUL.does_at(object, "replace", first, &json!([{}]))
                    .refused(DATES),
                OPERATOR
                    .patches(object, entry(MOMENT, &json!({})))
                    .refused(DATES),
                PAUL.adds(
                    object,
                    &format!("{first}/-"),
                    &entry(FUTURE, &json!({}))["metadata"]["managedFields"][0],
                )
                .refused(DATES),
                // Other writes keep the entries.
                PAUL.patches(object, metadata(json!({ "labels": { "a": "b" } }))),
                PAUL.adds(object, "/metadata/labels/c", &json!("d")),
                PAUL.replaces(object, metadata(json!({ "labels": { "a": "c" } }))),
                // As a person replaces an object from a file, which has no such entries and no status.
                PAUL.replaces(
                    object,
                    with(
                        metadata(json!({ "managedFields": null, "labels": { "a": "d" } })),
                        &json!({ "status": null }),
                    ),
                ),
            ]
        }),
    )]
}

/// The same with many writers, and of new objects.
fn dates_of_others() -> Vec<Rule> {
    vec![
        Rule::new("metadata::a_crowd_of_writers_does_not_date_a_decision", {
            let one = "pairingrequests/one";
            let label = |number: usize| {
                PAUL.patches(
                    &format!("{one}?fieldManager=m{number}"),
                    metadata(json!({ "labels": { format!("l{number}"): "a" } })),
                )
            };
            let mut steps = vec![
                DORA.creates(request("one")),
                ADA.writes_status(one, &json!({ "approval": { "decision": "Denied" } })),
            ];
            steps.extend((0..5).map(label));
            steps.extend([
                label(5).refused("entries of too many writers"),
                // A known writer goes on, and so does server-side apply.
                label(4),
                PAUL.patches(one, metadata(json!({ "labels": { "l9": "a" } }))),
                PAUL.applies(with(
                    request("one"),
                    &metadata(json!({ "labels": { "l10": "a" } })),
                )),
            ]);
            steps
        }),
        Rule::new(
            "metadata::a_writer_applies_what_has_a_status",
            [
                OLGA.applies(code("lobby", &json!({}))),
                OPERATOR.writes_status("pairingcodes/lobby", &drawn()),
                OLGA.applies(with(
                    code("lobby", &json!({})),
                    &metadata(json!({ "labels": { "a": "b" } })),
                )),
                OLGA.applies(code("lobby", &json!({})))
                    .reads("/metadata/labels", Value::Null)
                    .reads("/status/phase", "Active"),
            ],
        ),
        Rule::new(
            "metadata::the_entries_of_an_object_without_status_can_be_reset",
            [
                OLGA.creates(code("lobby", &json!({}))),
                PAUL.patches(
                    "pairingcodes/lobby",
                    metadata(json!({ "managedFields": [{}] })),
                ),
            ],
        ),
        Rule::new(
            "metadata::a_new_object_has_no_date_of_a_status",
            [
                dated(IVAN, &invocation("run", "kiosk", "echo")),
                dated(DORA, &code("lobby", &json!({}))),
                dated(DORA, &request("one")),
                dated(OPERATOR, &device("kiosk", &json!({}))),
            ]
            .into_iter()
            .flatten(),
        ),
    ]
}
