//! What a hostile schema may cost, what a check says, and what counts as narrower. Properties of all schemas are in
//! `tests/properties.rs`.

use serde_json::{Value, json};

use crate::{MAX_CHECK_STEPS, Schema, Verdict, compare, most_steps, narrows};

fn schema(value: &Value) -> Schema {
    Schema::parse(value.to_string().as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    let error = Schema::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(error.len() <= 600, "{error}");
    error
}

#[test]
fn what_would_be_endless_deep_or_large_is_refused() {
    let doubling = |count: usize| {
        let definitions: Vec<String> = (0..count)
            .map(|n| {
                let next = n + 1;
                format!(r##""d{n}":{{"allOf":[{{"$ref":"#/$defs/d{next}"}},{{"$ref":"#/$defs/d{next}"}}]}}"##)
            })
            .collect();
        format!(
            r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d{count}":{{"type":"string"}}}}}}"##,
            definitions.join(",")
        )
    };
    let many_patterns = json!({
        "$defs": {"name": {"pattern": "^[a-z]{1,200}$"}},
        "allOf": vec![json!({"$ref": "#/$defs/name"}); 20],
    });
    for (text, says) in [
        (r##"{"$ref":"#"}"##.to_owned(), "#/$defs/NAME"),
        (
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"items":{"$ref":"#/$defs/a"}}}}"##.to_owned(),
            "refers to itself",
        ),
        (
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"not":{"$ref":"#/$defs/a"}}}}"##
                .to_owned(),
            "refers to itself",
        ),
        (
            r##"{"$defs":{"unused":{"$ref":"#/$defs/unused"}}}"##.to_owned(),
            "refers to itself",
        ),
        (r##"{"$ref":"#/$defs/a"}"##.to_owned(), "there is no"),
        (r#"{"$ref":"https://example.com/s"}"#.to_owned(), "no other place"),
        (r##"{"$dynamicRef":"#a"}"##.to_owned(), "none that is understood"),
        (r#"{"$id":"https://example.com/s"}"#.to_owned(), "none that is understood"),
        (r#"{"requried":["a"]}"#.to_owned(), "/requried"),
        (r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#.to_owned(), "2020-12"),
        (doubling(40), "more than 256 schemas"),
        ("[".repeat(4096), "no JSON"),
        (format!("{}1{}", "[".repeat(100), "]".repeat(100)), "levels deep"),
        (format!("{}true{}", r#"{"not":"#.repeat(17), "}".repeat(17)), "levels deep"),
        (format!(r#"{{"title":"{}"}}"#, "x".repeat(4096)), "4096 at most"),
        (r#"{"pattern":"(a{1000}){1000}"}"#.to_owned(), "bounded time"),
        (r#"{"patternProperties":{"(":true}}"#.to_owned(), "bounded time"),
        (many_patterns.to_string(), "too large together"),
        (r#"{"maximum":1e300}"#.to_owned(), "numbers are within"),
        (r#"{"enum":[[18446744073709551615]]}"#.to_owned(), "numbers are within"),
        (r#"{"minLength":-1}"#.to_owned(), "0 or more"),
        (r#"{"multipleOf":0.1}"#.to_owned(), "1 or more"),
        (r#"{"type":"text"}"#.to_owned(), "/type"),
        (r#"{"required":["a","a"]}"#.to_owned(), "each once"),
        (r#"{"then":true}"#.to_owned(), "need an if"),
        (r#"{"title":"a\u202eb"}"#.to_owned(), "how it is shown"),
        ("null".to_owned(), "true or false"),
        (String::new(), "no JSON"),
    ] {
        let error = refused(&text);
        assert!(error.contains(says), "{text:.200}: {error}");
    }
    assert!(
        Schema::parse(doubling(6).as_bytes()).is_ok(),
        "some doubling is no harm"
    );
}

#[test]
fn the_text_is_canonical() {
    let text = b"{ \"type\": \"string\",\n \"maxLength\": 3.0 }";
    let schema = Schema::parse(text).unwrap();
    assert_eq!(schema.text(), r#"{"maxLength":3,"type":"string"}"#);
}

#[test]
fn a_mismatch_names_the_place_and_what_is_expected() {
    let schema = schema(&json!({
        "type": "object",
        "properties": {
            "minutes": {"type": "integer", "minimum": 1, "maximum": 60},
            "colour": {"enum": ["red", "green"]},
            "to~/": {"type": "array", "items": {"$ref": "#/$defs/name"}, "uniqueItems": true},
            "at": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["hour"]}]},
        },
        "required": ["minutes"],
        "additionalProperties": false,
        "$defs": {"name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}},
    }));
    for (value, expected) in [
        (
            json!({"minutes": 1, "colour": "red", "to~/": ["a", "b"], "at": null}),
            None,
        ),
        (json!({"minutes": 60.0}), None),
        (json!([]), Some("must be an object and is an array")),
        (json!({}), Some("must have the property minutes")),
        (json!({"minutes": 0}), Some("/minutes: must be at least 1")),
        (json!({"minutes": 61}), Some("/minutes: must be at most 60")),
        (
            json!({"minutes": 1.5}),
            Some("/minutes: must be an integer and is a number"),
        ),
        (
            json!({"minutes": 1, "colour": "blue"}),
            Some("/colour: must be one of \"red\", \"green\""),
        ),
        (
            json!({"minutes": 1, "to~/": ["a", "B"]}),
            Some("/to~0~1/1: must match ^[a-z]+$"),
        ),
        (
            json!({"minutes": 1, "to~/": ["abcd"]}),
            Some("/to~0~1/0: must have at most 3 characters and has 4"),
        ),
        (
            json!({"minutes": 1, "to~/": ["a", "a"]}),
            Some("/to~0~1/1: must not be the same as an item before it"),
        ),
        (
            json!({"minutes": 1, "at": {}}),
            Some("/at: must have the property hour"),
        ),
        (
            json!({"minutes": 1, "at": 1}),
            Some("/at: must fit one of 2 alternatives"),
        ),
        (
            json!({"minutes": 1, "x": 1}),
            Some("/x: must not be there: the schema has no such property"),
        ),
    ] {
        let said = schema
            .check(&value)
            .err()
            .map(|mismatch| mismatch.to_string());
        assert_eq!(said.as_deref(), expected, "{value}");
    }
}

#[test]
fn a_mismatch_is_short_and_does_not_repeat_the_value() {
    let long = "secret\u{1b}[2J".repeat(1000);
    let schema = schema(&json!({
        "additionalProperties": {"type": "string", "const": "y".repeat(3000)},
    }));
    let mismatch = schema
        .check(&json!({ long.as_str(): long }))
        .unwrap_err()
        .to_string();
    assert!(mismatch.len() <= 512, "{}", mismatch.len());
    assert!(!mismatch.contains('\u{1b}'));
    let mismatch = schema.check(&json!({"a": long})).unwrap_err().to_string();
    assert!(!mismatch.contains("secret"), "{mismatch}");
}

#[test]
fn a_check_takes_no_longer_than_schema_times_value() {
    let pattern = schema(&json!({"items": {"pattern": "^(a|a)*b$"}}));
    let text = json!([format!("{}c", "a".repeat(32_000))]);
    assert!(pattern.check(&text).is_err());
    let items: Vec<u32> = (0..8000).collect();
    let unique = schema(&json!({"uniqueItems": true}));
    assert!(unique.check(&json!(items)).is_ok());
    let deep: Value =
        serde_json::from_str(&format!("{}1{}", "[".repeat(120), "]".repeat(120))).unwrap();
    assert!(unique.check(&deep).is_ok());
}

fn check_narrows(new: &Value, old: &Value, expected: bool) {
    assert_eq!(
        narrows(Some(&schema(new)), Some(&schema(old))),
        expected,
        "{new} within {old}"
    );
}

#[test]
fn what_asks_for_more_of_the_same_is_narrower_and_not_the_other_way_round() {
    let pairs = [
        (json!({"type": "string"}), json!(true)),
        (json!(false), json!({"type": "string"})),
        (json!({"type": "integer"}), json!({"type": "number"})),
        (
            json!({"type": "string"}),
            json!({"type": ["string", "null"]}),
        ),
        (json!({"enum": ["a"]}), json!({"enum": ["a", "b"]})),
        (
            json!({"const": 5}),
            json!({"type": "integer", "maximum": 5}),
        ),
        (json!({"maximum": 5}), json!({"maximum": 6})),
        (json!({"exclusiveMaximum": 5}), json!({"maximum": 5})),
        (json!({"minimum": 5}), json!({"exclusiveMinimum": 4})),
        (json!({"exclusiveMinimum": 5}), json!({"minimum": 5})),
        (json!({"multipleOf": 4}), json!({"multipleOf": 2})),
        (json!({"maxLength": 5}), json!({"maxLength": 6})),
        (json!({"minLength": 5}), json!({"minLength": 4})),
        (
            json!({"type": "string", "pattern": "^a"}),
            json!({"pattern": "^a"}),
        ),
        (json!({"maxItems": 5}), json!({"maxItems": 6})),
        (
            json!({"items": {"type": "integer"}}),
            json!({"items": {"type": "number"}}),
        ),
        (json!({"uniqueItems": true}), json!(true)),
        (json!({"required": ["a", "b"]}), json!({"required": ["a"]})),
        (
            json!({"additionalProperties": false}),
            json!({"additionalProperties": {"type": "null"}}),
        ),
        (
            json!({"properties": {"a": {"maximum": 1}}, "additionalProperties": false}),
            json!({"properties": {"a": {"maximum": 2}, "b": true}, "additionalProperties": false}),
        ),
        (
            json!({"properties": {"a": {"type": "string"}, "new": {"type": "string"}}}),
            json!({"properties": {"a": {"type": "string"}}}),
        ),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "maxLength": 3}}}),
            json!({"type": "string"}),
        ),
        (
            json!({"type": "string"}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ),
        (
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            json!({"type": ["string", "null", "integer"]}),
        ),
        (
            json!({"not": {"type": ["string", "null"]}}),
            json!({"not": {"type": "string"}}),
        ),
        (
            json!({"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": false}),
            json!({"patternProperties": {"^a": {"type": "number"}}, "additionalProperties": false}),
        ),
    ];
    for (new, old) in pairs {
        check_narrows(&new, &old, true);
        check_narrows(&old, &new, false);
    }
}

#[test]
fn what_says_the_same_is_no_growth() {
    check_narrows(
        &json!({"title": "b", "type": "string", "examples": ["x"], "$comment": "y"}),
        &json!({"title": "a", "type": "string", "description": "more", "default": 1}),
        true,
    );
    let one = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "if": {"type": "string"}, "then": {"minLength": 1}});
    check_narrows(&one, &one, true);
}

#[test]
fn what_is_wider_is_not_narrower() {
    let pairs = [
        (
            json!({"properties": {"a": {}}}),
            json!({"additionalProperties": false}),
        ),
        (
            json!({"properties": {"a": {}, "b": {}}, "additionalProperties": false}),
            json!({"properties": {"a": {}}, "additionalProperties": false}),
        ),
        // A property that is no longer named falls under what is said of all others.
        (
            json!({"type": "object"}),
            json!({"properties": {"a": {"type": "string"}}}),
        ),
        (json!({"enum": [1, 2]}), json!({"const": 1})),
        (json!({"pattern": "^b"}), json!({"pattern": "^a"})),
        (
            json!({"patternProperties": {"x": true}, "additionalProperties": false}),
            json!({"additionalProperties": false}),
        ),
        (
            json!({"items": {"type": "string"}, "prefixItems": [true]}),
            json!({"items": {"type": "string"}}),
        ),
        (
            json!({"type": "string"}),
            json!({"oneOf": [{"type": "string"}, {"maxLength": 3}]}),
        ),
    ];
    for (new, old) in pairs {
        check_narrows(&new, &old, false);
    }
    assert!(narrows(None, None));
    assert!(narrows(Some(&schema(&json!(true))), None));
    assert!(!narrows(None, Some(&schema(&json!({"type": "string"})))));
    assert!(narrows(None, Some(&schema(&json!({"title": "anything"})))));
}

#[test]
fn an_empty_schema_says_as_little_as_true_does() {
    for anything in [json!(true), json!({}), json!({"title": "anything"})] {
        let open = json!({"additionalProperties": {}, "items": {}});
        check_narrows(&anything, &open, true);
        check_narrows(&open, &anything, true);
    }
}

/// Links that refer to one another, so often that to follow each alternative of each would take for ever.
fn chain(links: usize) -> Value {
    let link = |n: usize| {
        let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
        (n.to_string(), json!({ "anyOf": [next] }))
    };
    let mut definitions: serde_json::Map<String, Value> = (0..links).map(link).collect();
    definitions.insert(links.to_string(), json!({"required": ["x"]}));
    json!({"$defs": definitions, "$ref": "#/$defs/0"})
}

#[test]
fn alternatives_in_one_another_are_looked_at_once_each() {
    let links = 30;
    let schema = schema(&chain(links));
    let (checked, steps) = schema.check_counting(&json!({}), MAX_CHECK_STEPS);
    assert_eq!(
        checked.unwrap_err().to_string(),
        "must have the property x",
        "the one alternative says what it asks for"
    );
    // One visit to find that none fits, and one for each level to say why.
    assert!(steps < 10 * 30 * 30, "{steps}");
    let (checked, _) = schema.check_counting(&json!({"x": 1}), MAX_CHECK_STEPS);
    assert_eq!(checked, Ok(()));
}

#[test]
fn schemas_within_schemas_need_little_of_a_stack() {
    assert!(refused(&chain(40).to_string()).contains("64 levels deep"));
    // Half of what the threads of the programs have. A build without optimisation needs the most.
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    let deep = || {
        let (new, old) = (schema(&chain(30)), schema(&chain(29)));
        let _ = compare(Some(&new), Some(&old));
        assert!(new.check(&json!({})).is_err());
        let alternatives = |salt: usize| -> Value {
            (0..60)
                .map(|n| json!({"anyOf": [{"minimum": n + salt}, {"maxLength": n}]}))
                .collect()
        };
        let new = schema(&json!({ "allOf": alternatives(100) }));
        let old = schema(&json!({ "not": {"not": { "allOf": alternatives(200) }} }));
        let _ = compare(Some(&new), Some(&old));
        let text = format!("{}1{}", "[".repeat(120), "]".repeat(120));
        let value: Value = serde_json::from_str(&text).unwrap();
        let unique = schema(&json!({"uniqueItems": true, "enum": [1]}));
        assert!(unique.check(&value).is_err());
    };
    small.spawn(deep).unwrap().join().unwrap();
}

#[test]
fn a_check_that_would_take_long_refuses_the_value_and_says_so() {
    let pattern = schema(&json!({"properties": {"name": {"pattern": "[a-z]{1,253}[0-9]"}}}));
    let (checked, steps) =
        pattern.check_counting(&json!({"name": "a".repeat(30_000)}), MAX_CHECK_STEPS);
    let mismatch = checked.unwrap_err();
    assert!(mismatch.is_too_costly());
    assert!(mismatch.to_string().contains("send less"), "{mismatch}");
    assert_eq!(steps, MAX_CHECK_STEPS);
    let host = json!({"name": format!("{}1", "a".repeat(252))});
    assert!(pattern.check(&host).is_ok(), "what the pattern is for");
    // The bound counts also where the answer is wanted of an inner schema.
    let not = schema(&json!({"not": {"pattern": "[a-z]{1,253}[0-9]"}}));
    assert!(not.check(&json!("a".repeat(30_000))).is_err());
}

#[test]
fn a_comparison_that_would_take_long_is_given_up() {
    let alternatives = |count: usize, salt: usize| -> Value {
        (0..count)
            .map(|n| json!({"anyOf": [{"minimum": n + salt}, {"maxLength": n + salt}, {"maxItems": n}]}))
            .collect()
    };
    let new = schema(&json!({"allOf": alternatives(20, 100)}));
    let old = schema(&json!({"allOf": alternatives(20, 200)}));
    let compared = compare(Some(&new), Some(&old));
    assert_eq!(compared.verdict, Verdict::TooCostly);
    assert_eq!(compared.steps, most_steps(Some(&new)));
    assert!(!narrows(Some(&new), Some(&old)));
    let again = schema(&json!({"allOf": alternatives(20, 100), "title": "the same"}));
    assert!(narrows(Some(&again), Some(&new)), "that takes few steps");
}

#[test]
fn the_steps_of_an_enum_within_an_enum_grow_little_faster_than_its_members() {
    let listed = |count: usize| schema(&json!({ "enum": (0..count).collect::<Vec<_>>() }));
    let steps = |count: usize| {
        let compared = compare(Some(&listed(count)), Some(&listed(count + 1)));
        assert_eq!(compared.verdict, Verdict::Narrower, "{count}");
        compared.steps
    };
    assert!(steps(800) < 16 * steps(80), "{} {}", steps(800), steps(80));
    // Ordinary schemas are far from the bound.
    let of = |most: usize| {
        let property = |n: usize| {
            let rules = json!({"type": "string", "maxLength": most, "pattern": "^[a-z]+$"});
            (format!("property-{n}"), rules)
        };
        let properties: serde_json::Map<String, Value> = (0..40).map(property).collect();
        schema(
            &json!({"type": "object", "properties": properties, "required": ["property-0"], "additionalProperties": false}),
        )
    };
    let compared = compare(Some(&of(8)), Some(&of(9)));
    assert_eq!(compared.verdict, Verdict::Narrower);
    assert!(
        compared.steps < most_steps(Some(&of(8))) / 4,
        "{}",
        compared.steps
    );
}
