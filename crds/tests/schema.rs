//! What every schema of ours keeps to, checked on what is rendered: bounds on everything, no booleans, no floats, a
//! description on every field, and what `kubectl get` needs.

use std::collections::BTreeSet;

use crds::definition::definitions;
use serde_json::{Value, json};

/// Fields without a type, and why they may be.
const FREE_JSON: &[(&str, &str)] = &[
    (
        "CapabilityInvocation.spec.input",
        "each capability has its own input; gateways refuse more than 32 KiB",
    ),
    (
        "CapabilityInvocation.status.output",
        "each capability has its own output; gateways refuse more than spec.maxOutputBytes",
    ),
];

/// Rules that name no field below their own, and why. A rule of a field that has none below it names that by itself.
const RULES_OF_THE_WHOLE: &[(&str, &str)] = &[
    ("Device", "size(self.metadata.name) <= 63"),
    ("PairingCode", "size(self.metadata.name) <= 200"),
    ("PairingCode.spec", "self == oldSelf"),
    ("PairingRequest.spec", "self == oldSelf"),
];

/// What is found in the schemas.
#[derive(Default)]
struct Found {
    /// Fields without a type.
    free: BTreeSet<String>,
    /// Rules without a field path.
    of_the_whole: BTreeSet<(String, String)>,
    findings: Vec<String>,
}

#[test]
fn every_schema_is_bounded_and_described() {
    let mut found = Found::default();
    for definition in definitions() {
        let definition = serde_json::to_value(definition).unwrap();
        let kind = text(&definition, "/spec/names/kind").to_owned();
        let root = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        check(&kind, root, &mut found);
    }
    assert!(found.findings.is_empty(), "{}", found.findings.join("\n"));
    let excused: BTreeSet<String> = FREE_JSON
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .collect();
    assert_eq!(found.free, excused, "fields of free JSON");
    // An API server takes no path into metadata; and where nothing can be changed, the whole is the field.
    let excused: BTreeSet<(String, String)> = RULES_OF_THE_WHOLE
        .iter()
        .map(|(path, rule)| ((*path).to_owned(), (*rule).to_owned()))
        .collect();
    assert_eq!(found.of_the_whole, excused, "rules without a field path");
}

#[test]
fn every_kind_reads_well_in_kubectl_and_can_be_selected() {
    let mut findings = Vec::new();
    for definition in definitions() {
        let definition = serde_json::to_value(definition).unwrap();
        check_kind(&definition, &mut findings);
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn the_check_finds_what_it_is_for() {
    let cases = [
        ("no type", json!({"description": "d"})),
        ("boolean", json!({"type": "boolean", "description": "d"})),
        ("float", json!({"type": "number", "description": "d"})),
        (
            "unbounded text",
            json!({"type": "string", "description": "d"}),
        ),
        (
            "a date without a bound",
            json!({"type": "string", "format": "date-time", "description": "d"}),
        ),
        (
            "unbounded integer",
            json!({"type": "integer", "minimum": 0, "description": "d"}),
        ),
        (
            "integer without a minimum",
            json!({"type": "integer", "format": "int64", "maximum": 9, "description": "d"}),
        ),
        (
            "integer that only its format bounds",
            json!({"type": "integer", "format": "int64", "minimum": 0, "description": "d"}),
        ),
        (
            "unbounded list",
            json!({"type": "array", "x-kubernetes-list-type": "atomic", "description": "d",
                   "items": {"type": "string", "maxLength": 1}}),
        ),
        (
            "list without a type",
            json!({"type": "array", "maxItems": 1, "description": "d",
                   "items": {"type": "string", "maxLength": 1}}),
        ),
        (
            "list of unbounded text",
            json!({"type": "array", "maxItems": 1, "x-kubernetes-list-type": "atomic", "description": "d",
                   "items": {"type": "string"}}),
        ),
        (
            "unbounded map",
            json!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 1}, "description": "d"}),
        ),
        ("no description", json!({"type": "string", "maxLength": 1})),
        (
            "null",
            json!({"type": "string", "maxLength": 1, "nullable": true, "description": "d"}),
        ),
        (
            "a rule without a message",
            json!({"type": "string", "maxLength": 1, "description": "d",
                   "x-kubernetes-validations": [{"rule": "true"}]}),
        ),
        (
            "a rule that names a field that is not there",
            json!({"type": "object", "description": "d",
                   "properties": {"a": {"type": "string", "maxLength": 1, "description": "d"}},
                   "x-kubernetes-validations": [{"rule": "true", "message": "m", "fieldPath": ".b"}]}),
        ),
    ];
    for (name, field) in cases {
        let root = json!({"type": "object", "properties": {"field": field}});
        let mut found = Found::default();
        check("Kind", &root, &mut found);
        let findings = found.findings;
        let excused = name == "no type";
        assert_eq!(
            findings.len(),
            usize::from(!excused),
            "{name}: {findings:?}"
        );
    }
}

#[test]
fn a_rule_names_its_field_or_is_known_to_be_of_the_whole() {
    let of_the_whole = |field: Value| {
        let root = json!({"type": "object", "properties": {"field": field}});
        let mut found = Found::default();
        check("Kind", &root, &mut found);
        assert!(found.findings.is_empty(), "{:?}", found.findings);
        found.of_the_whole.len()
    };
    let rules = json!([{"rule": "true", "message": "m"}]);
    let named = json!([{"rule": "true", "message": "m", "fieldPath": ".a"}]);
    let object = |rules: &Value| {
        json!({"type": "object", "description": "d",
               "properties": {"a": {"type": "string", "maxLength": 1, "description": "d"}},
               "x-kubernetes-validations": rules})
    };
    assert_eq!(of_the_whole(object(&rules)), 1);
    assert_eq!(of_the_whole(object(&named)), 0);
    let leaf = json!({"type": "string", "maxLength": 1, "description": "d", "x-kubernetes-validations": rules});
    assert_eq!(of_the_whole(leaf), 0);
}

fn check(path: &str, schema: &Value, found: &mut Found) {
    let Found {
        free,
        of_the_whole,
        findings,
    } = &mut *found;
    let mut find = |holds: bool, what: &str| {
        if !holds {
            findings.push(format!("{path}: {what}"));
        }
    };
    let has = |key: &str| !schema[key].is_null();
    match schema["type"].as_str() {
        Some("string") => find(
            has("enum") || has("maxLength"),
            "text needs maxLength or enum",
        ),
        Some("integer") => find(
            has("minimum") && has("maximum"),
            "an integer needs minimum and maximum",
        ),
        Some("array") => {
            find(has("maxItems"), "a list needs maxItems");
            find(
                has("x-kubernetes-list-type"),
                "a list needs x-kubernetes-list-type",
            );
            find(
                schema["x-kubernetes-list-type"] != "map" || has("x-kubernetes-list-map-keys"),
                "a list of type map needs its keys",
            );
        }
        Some("object") => {
            find(
                !has("additionalProperties") || has("maxProperties"),
                "a map needs maxProperties",
            );
            find(
                has("additionalProperties") || has("properties"),
                "an object needs properties",
            );
        }
        Some(other) => find(false, &format!("type {other} is not for our APIs")),
        None => {
            free.insert(path.to_owned());
        }
    }
    find(!has("nullable"), "null is no value");
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        find(
            !rule["message"].is_null(),
            &format!("no message for {}", rule["rule"]),
        );
        match rule["fieldPath"].as_str() {
            Some(named) => find(
                field(schema, named).is_some(),
                &format!("{named} is not there, for {}", rule["rule"]),
            ),
            None if has("properties") => {
                let text = rule["rule"].as_str().unwrap_or_default();
                of_the_whole.insert((path.to_owned(), text.to_owned()));
            }
            None => {}
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property["description"].as_str().is_none_or(str::is_empty) {
            found.findings.push(format!("{path}: no description"));
        }
        check(&path, property, found);
    }
    for key in ["items", "additionalProperties"] {
        if !schema[key].is_null() {
            check(&format!("{path}[]"), &schema[key], found);
        }
    }
}

fn check_kind(definition: &Value, findings: &mut Vec<String>) {
    let spec = &definition["spec"];
    let version = &spec["versions"][0];
    let root = &version["schema"]["openAPIV3Schema"];
    let kind = text(definition, "/spec/names/kind");
    let mut find = |holds: bool, what: &str| {
        if !holds {
            findings.push(format!("{kind}: {what}"));
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();

    find(spec["scope"] == "Namespaced", "a namespace is a tenant");
    find(
        !list(&spec["names"]["shortNames"]).is_empty(),
        "no short name",
    );
    find(
        spec["names"]["categories"] == json!(["fairlead"]),
        "not in category fairlead",
    );
    find(
        version["subresources"]["status"].is_object(),
        "no status subresource",
    );

    let columns = list(&version["additionalPrinterColumns"]);
    find(columns.len() >= 3, "fewer than three columns");
    find(
        columns.last().is_some_and(|column| column["name"] == "Age"),
        "the last column is not Age",
    );
    for column in &columns {
        let json_path = column["jsonPath"].as_str().unwrap_or_default();
        let known = json_path.starts_with(".metadata.")
            || json_path.contains('[')
            || field(root, json_path).is_some();
        find(
            known,
            &format!("column {json_path} shows a field that is not there"),
        );
    }
    let selectable = list(&version["selectableFields"]);
    find(!selectable.is_empty(), "no selectable field");
    for selected in &selectable {
        let json_path = selected["jsonPath"].as_str().unwrap_or_default();
        find(
            field(root, json_path).is_some(),
            &format!("{json_path} cannot be selected: it is not there"),
        );
    }
    let conditions = field(root, ".status.conditions").unwrap_or(&Value::Null);
    find(
        conditions["x-kubernetes-list-type"] == "map"
            && conditions["x-kubernetes-list-map-keys"] == json!(["type"]),
        "conditions are no map by type",
    );
    find(
        field(root, ".status.observedGeneration").is_some(),
        "no observedGeneration",
    );
}

fn field<'a>(root: &'a Value, json_path: &str) -> Option<&'a Value> {
    json_path
        .trim_start_matches('.')
        .split('.')
        .try_fold(root, |schema, name| schema["properties"].get(name))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
