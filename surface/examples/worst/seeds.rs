//! Where the search begins: what costs most by design.

use serde_json::{Value, json};
use surface::Schema;

fn text(value: &Value) -> String {
    value.to_string()
}

fn count(of: usize, one: impl Fn(usize) -> Value) -> Value {
    (0..of).map(one).collect()
}

/// A schema that repeats one definition as often as a schema may.
fn repeated(definition: &Value) -> Value {
    let mut times = 128;
    loop {
        let one = json!({"$ref": "#/$defs/d"});
        let schema = json!({"$defs": {"d": definition}, "allOf": vec![one; times]});
        if times == 1 || Schema::parse(text(&schema).as_bytes()).is_ok() {
            return schema;
        }
        times -= 1;
    }
}

/// Alternatives of which only one is for objects, in one another.
fn chain(links: usize) -> Value {
    let link = |n: usize| {
        let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
        (n.to_string(), json!({ "anyOf": [next] }))
    };
    let mut definitions: serde_json::Map<String, Value> = (0..links).map(link).collect();
    definitions.insert(links.to_string(), json!({"required": ["x"]}));
    json!({"$defs": definitions, "$ref": "#/$defs/0"})
}

fn alternatives(of: usize, salt: usize) -> Value {
    let one = |n: usize| json!({"anyOf": [{"minimum": n + salt}, {"maxLength": n + salt}, {"maxItems": n}]});
    json!({ "allOf": count(of, one) })
}

fn names(of: usize, length: usize) -> Vec<String> {
    (0..of)
        .map(|n| format!("{}{n:04}", "a".repeat(length)))
        .collect()
}

/// New and old.
pub fn pairs() -> Vec<[String; 2]> {
    let numbers = |of| json!({ "enum": count(of, |n| json!(n)) });
    let properties = |of: usize, salt: usize| -> Value {
        let of = names(of, 1)
            .into_iter()
            .map(|name| (name, json!({ "maxLength": salt })));
        json!({"properties": Value::Object(of.collect())})
    };
    let prefixed: Value = names(60, 50).into();
    let with_pattern = |salt: usize| json!({"patternProperties": {"[a-z]{1,253}": {"maximum": salt}}, "properties": {"a": true, "b": {"maximum": salt}}});
    let required = json!({"required": names(400, 3)});
    [
        (numbers(1000), repeated(&numbers(700))),
        (numbers(1000), repeated(&json!({"not": {"maximum": -1}}))),
        (alternatives(20, 100), alternatives(20, 200)),
        (alternatives(60, 100), alternatives(60, 200)),
        (
            json!({"enum": prefixed.clone()}),
            repeated(&json!({ "enum": prefixed })),
        ),
        (properties(150, 1), properties(150, 2)),
        (repeated(&properties(100, 1)), properties(150, 2)),
        (with_pattern(1), with_pattern(2)),
        (repeated(&with_pattern(1)), repeated(&with_pattern(2))),
        (repeated(&required), required),
        (chain(30), chain(29)),
        (
            json!({"enum": [{"a": "x".repeat(3000)}]}),
            repeated(&json!({"additionalProperties": {"pattern": "(a*)*(a*)*b"}})),
        ),
    ]
    .map(|(new, old)| [text(&new), text(&old)])
    .into()
}

/// A schema and an input.
pub fn checks() -> Vec<[String; 2]> {
    let long = json!("a".repeat(32_000));
    let items = |one: &Value, of: usize| Value::Array(vec![one.clone(); of]);
    let different = count(6000, |n| json!(n));
    let large = json!(vec![1e300; 6000]);
    let many_names: Value = names(1500, 10)
        .into_iter()
        .map(|name| (name, json!(1)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let nested: Value = serde_json::from_str(&format!("{}1{}", "[".repeat(120), "]".repeat(120)))
        .expect("it is JSON");
    [
        (chain(30), json!({})),
        (json!({"pattern": "[a-z]{1,253}[0-9]"}), long.clone()),
        (json!({"pattern": "((a?){12}){12}z"}), long.clone()),
        (repeated(&json!({"maxLength": 40_000})), long),
        (
            json!({"items": {"pattern": "(a*)*(a*)*b"}}),
            items(&json!("aaaaaaaa"), 2500),
        ),
        (repeated(&json!({"uniqueItems": true})), different.clone()),
        (repeated(&json!({"uniqueItems": true})), large),
        (
            repeated(&json!({"items": {"type": "integer"}})),
            different.clone(),
        ),
        (
            json!({"items": {"enum": count(800, |n| json!(n))}}),
            different.clone(),
        ),
        (
            json!({"contains": {"anyOf": [{"const": -1}, {"const": -2}]}}),
            different,
        ),
        (
            repeated(&json!({"patternProperties": {"(a|a)*b": true}})),
            many_names.clone(),
        ),
        (
            repeated(&json!({"propertyNames": {"maxLength": 99}})),
            many_names.clone(),
        ),
        (repeated(&json!({"required": names(150, 10)})), many_names),
        (
            repeated(&json!({"items": {"items": {"items": true}}})),
            nested,
        ),
    ]
    .map(|(schema, input)| [text(&schema), text(&input)])
    .into()
}

/// Texts of schemas to read.
pub fn reads() -> Vec<String> {
    let unused = |of: usize, one: Value| {
        let of = (0..of).map(|n| (n.to_string(), one.clone()));
        let of: serde_json::Map<_, _> = of.collect();
        text(&json!({ "$defs": of }))
    };
    vec![
        text(&json!({"anyOf": [{"pattern": "[a-z]{1,253}"}, {"pattern": "[a-z]{1,253}"}]})),
        text(&json!({"allOf": vec![json!({}); 250]})),
        text(
            &json!({"properties": names(200, 8).into_iter().map(|n| (n, json!({}))).collect::<serde_json::Map<_, _>>()}),
        ),
        unused(200, json!({"type": "null"})),
        unused(90, json!({"pattern": "[a-z]{1,253}"})),
        unused(2, json!({"pattern": "[a-z]{1,253}"})),
        unused(60, json!({"pattern": "\\w{1,20}(?i)[a-z]"})),
        text(&json!({ "enum": count(1000, |n| json!(n)) })),
        text(&json!({ "enum": names(60, 60) })),
        text(&json!({ "required": names(400, 3) })),
        text(&chain(30)),
        format!("[{}]", vec!["{}"; 1300].join(",")),
        text(&json!({"pattern": "((a{100}){100}){100}"})),
        text(&json!({"pattern": "(".repeat(2000)})),
        text(&json!({"pattern": "(?i)[a-z]".repeat(400)})),
        text(&json!({"title": "x".repeat(4000)})),
    ]
}
