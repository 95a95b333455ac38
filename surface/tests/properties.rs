//! Properties of all schemas, over random ones: small, with names and numbers that meet; and of those that once were of
//! interest, which are files in `corpus/`: schemas and inputs, and the seeds of what a run has found.

// Shared with the target in `/fuzz`.
mod judged;

use std::fs;
use std::path::{Path, PathBuf};

use judged::{try_bytes, try_pair, try_parts};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Map, Value, json};
use surface::{MAX_CHECK_STEPS, Schema, Verdict, compare, digest, most_steps};

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "c"]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..6).prop_map(Value::from),
        prop::sample::select(vec![0.5, 1.0, 2.5, -0.5, 4.0]).prop_map(Value::from),
        prop::sample::select(vec!["", "a", "ab", "abc", "ä"]).prop_map(Value::from),
    ]
}

fn instance() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn kind() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "null", "boolean", "object", "array", "integer", "number", "string",
    ]);
    prop_oneof![
        3 => name.clone().prop_map(Value::from),
        1 => prop::collection::btree_set(name, 1..4)
            .prop_map(|names| names.into_iter().collect()),
    ]
}

fn limit() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-2i64..5).prop_map(Value::from),
        prop::sample::select(vec![0.5, 1.5]).prop_map(Value::from),
    ]
}

fn names() -> impl Strategy<Value = Value> {
    prop::collection::btree_set(name(), 0..3)
        .prop_map(|names| names.into_iter().map(Value::from).collect())
}

/// Pairs of a keyword and its value.
fn keyword(
    inner: impl Strategy<Value = Value> + Clone + 'static,
) -> BoxedStrategy<(String, Value)> {
    let list = || prop::collection::vec(inner.clone(), 1..3).prop_map(Value::from);
    let by_name = |names: BoxedStrategy<String>| {
        prop::collection::btree_map(names, inner.clone(), 1..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    };
    let pattern = || prop::sample::select(vec!["^a", "b", "^.$"]).prop_map(str::to_owned);
    let of = |keyword: &'static str, value: BoxedStrategy<Value>| {
        value
            .prop_map(move |value| (keyword.to_owned(), value))
            .boxed()
    };
    let count = || (0u64..4).prop_map(Value::from).boxed();
    prop_oneof![
        4 => of("type", kind().boxed()),
        1 => of("enum", prop::collection::vec(instance(), 1..4).prop_map(Value::from).boxed()),
        1 => of("const", instance().boxed()),
        2 => prop::sample::select(vec!["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
            .prop_flat_map(|keyword| limit().prop_map(move |value| (keyword.to_owned(), value))),
        2 => prop::sample::select(vec![
            "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
        ])
        .prop_flat_map(move |keyword| count().prop_map(move |value| (keyword.to_owned(), value))),
        1 => of("multipleOf", (1i64..4).prop_map(Value::from).boxed()),
        1 => of("pattern", pattern().prop_map(Value::from).boxed()),
        1 => of("uniqueItems", any::<bool>().prop_map(Value::from).boxed()),
        2 => of("items", inner.clone().boxed()),
        1 => of("prefixItems", list().boxed()),
        1 => of("contains", inner.clone().boxed()),
        3 => of("properties", by_name(name().boxed()).boxed()),
        1 => of("patternProperties", by_name(pattern().boxed()).boxed()),
        2 => of("additionalProperties", inner.clone().boxed()),
        1 => of("propertyNames", inner.clone().boxed()),
        2 => of("required", names().boxed()),
        1 => of("dependentRequired", prop::collection::btree_map(name(), names(), 1..3)
            .prop_map(|members| Value::Object(members.into_iter().collect())).boxed()),
        1 => of("dependentSchemas", by_name(name().boxed()).boxed()),
        1 => of("allOf", list().boxed()),
        1 => of("anyOf", list().boxed()),
        1 => of("oneOf", list().boxed()),
        1 => of("not", inner.clone().boxed()),
        1 => of("if", inner.boxed()),
        1 => Just(("$ref".to_owned(), json!("#/$defs/a"))),
    ]
    .boxed()
}

/// Without `$defs`.
fn open_schema() -> impl Strategy<Value = Value> + Clone {
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Value::from),
        4 => kind().prop_map(|kind| json!({ "type": kind })),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        prop::collection::vec(keyword(inner), 0..5)
            .prop_map(|keywords| Value::Object(keywords.into_iter().collect::<Map<_, _>>()))
    })
}

fn schema() -> impl Strategy<Value = Value> {
    (open_schema(), kind()).prop_map(|(mut schema, kind)| {
        if let Value::Object(keywords) = &mut schema {
            keywords.insert(
                "$defs".to_owned(),
                json!({"a": {"type": kind, "maxLength": 2}}),
            );
        }
        schema
    })
}

fn read(schema: &Value) -> Option<Schema> {
    Schema::parse(schema.to_string().as_bytes()).ok()
}

/// The same schema with one thing in it changed, so that it is often narrower or wider, and not merely another.
fn changed() -> impl Strategy<Value = (Value, Value)> {
    let keyword = keyword(open_schema());
    (schema(), keyword, any::<prop::sample::Index>(), 0..3u8).prop_map(|(old, keyword, at, how)| {
        let mut new = old.clone();
        if let Value::Object(keywords) = &mut new {
            match how {
                0 => {
                    keywords.insert(keyword.0, keyword.1);
                }
                1 => {
                    let name = keywords.keys().nth(at.index(keywords.len())).cloned();
                    if let Some(name) = name.filter(|name| name != "$defs") {
                        keywords.remove(&name);
                    }
                }
                _ => {
                    for value in keywords.values_mut() {
                        if let Some(number) = value.as_i64() {
                            *value = json!(number.max(1) - 1);
                        }
                    }
                }
            }
        }
        (new, old)
    })
}

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
/// Most steps of a comparison with the longest schema.
const MOST_STEPS_OF_PAIR: u32 = 44_032;
/// Of each property. `PROPTEST_CASES` sets another number.
const CASES: u32 = 512;

/// A run that finds something leaves its seed in the corpus, and each that follows tries it first.
fn config() -> ProptestConfig {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/seeds");
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config.failure_persistence = Some(Box::new(FileFailurePersistence::Direct(seeds)));
    config
}

/// What is kept of a kind, by its name.
fn kept(kind: &str) -> Vec<(String, Vec<u8>)> {
    const READABLE: &str = "the corpus can be read";
    let entries = fs::read_dir(Path::new(CORPUS).join(kind)).expect(READABLE);
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect(READABLE).path()).collect();
    files.sort();
    assert!(!files.is_empty(), "nothing is kept in {kind}");
    let read = |file: PathBuf| (file.display().to_string(), fs::read(file).expect(READABLE));
    files.into_iter().map(read).collect()
}

#[test]
fn what_was_of_interest_is_read_or_refused() {
    let inputs: Vec<Value> = kept("input")
        .into_iter()
        .map(|(name, bytes)| serde_json::from_slice(&bytes).expect(&name))
        .collect();
    let schemas = kept("schema");
    for (name, bytes) in &schemas {
        try_parts(name, bytes, &inputs);
    }
    let is_read = |(_, bytes): &&(String, Vec<u8>)| Schema::parse(bytes).is_ok();
    let read = schemas.iter().filter(is_read).count();
    assert!(0 < read && read < schemas.len(), "{read} are read");
}

/// What `examples/worst` found: two schemas, or a schema and an input, with a NUL between them.
#[test]
fn the_worst_that_was_found_is_within_the_bounds() {
    let mut cut = 0;
    for (name, bytes) in kept("worst") {
        let mut parts = bytes.split(|byte| *byte == 0);
        let (Some(one), Some(other)) = (parts.next(), parts.next()) else {
            panic!("{name} has two parts")
        };
        let one = Schema::parse(one).expect(&name);
        if name.contains("pair") {
            let other = Schema::parse(other).expect(&name);
            for (new, old) in [(&one, &other), (&other, &one)] {
                let compared = compare(Some(new), Some(old));
                assert_eq!(compared, compare(Some(new), Some(old)), "{name}");
                assert!(
                    compared.steps <= most_steps(Some(new)),
                    "{name}: {compared:?}"
                );
                assert!(most_steps(Some(new)) <= MOST_STEPS_OF_PAIR, "{name}");
                cut += usize::from(compared.verdict == Verdict::TooCostly);
            }
        } else {
            let input: Value = serde_json::from_slice(other).expect(&name);
            let (_, steps) = one.check_counting(&input, MAX_CHECK_STEPS);
            assert!(steps <= MAX_CHECK_STEPS, "{name}: {steps}");
            cut += usize::from(steps == MAX_CHECK_STEPS);
        }
    }
    assert!(cut > 0, "without a bound, some of these take seconds");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_the_schemas_and_the_value_the_steps_are_within_the_bounds(
        new in schema(),
        old in schema(),
        value in instance(),
        most in 0u32..2000,
    ) {
        let (Some(new), Some(old)) = (read(&new), read(&old)) else { return Ok(()) };
        let compared = compare(Some(&new), Some(&old));
        prop_assert!(compared.steps <= most_steps(Some(&new)));
        prop_assert_eq!(compared, compare(Some(&new), Some(&old)), "the same again");
        let (whole, steps) = new.check_counting(&value, MAX_CHECK_STEPS);
        let (bounded, spent) = new.check_counting(&value, most);
        prop_assert!(spent <= most);
        if steps <= most {
            prop_assert_eq!(bounded, whole, "a bound that suffices changes nothing");
        } else {
            prop_assert!(bounded.is_err(), "a value is not accepted before all of it was checked");
        }
    }

    #[test]
    fn a_check_says_what_the_other_implementation_says(
        schema in schema(),
        instances in prop::collection::vec(instance(), 1..8),
    ) {
        let Some(ours) = read(&schema) else { return Ok(()) };
        let theirs = jsonschema::draft202012::options().build(&schema).unwrap();
        for instance in instances {
            prop_assert_eq!(
                ours.check(&instance).is_ok(),
                theirs.is_valid(&instance),
                "{} against {}", instance, schema
            );
        }
    }

    #[test]
    fn nothing_is_refused_that_is_within_bounds(schema in schema()) {
        let text = schema.to_string();
        if text.len() <= surface::MAX_SCHEMA_BYTES
            && let Err(error) = Schema::parse(text.as_bytes())
        {
            let error = error.to_string();
            prop_assert!(
                ["levels deep", "more than 256", "too large together"].iter().any(|bound| error.contains(bound)),
                "{}: {}", error, schema
            );
        }
    }

    #[test]
    fn what_is_narrower_accepts_nothing_that_the_other_does_not(
        (new, old) in prop_oneof![changed(), (schema(), schema())],
        back in any::<bool>(),
        instances in prop::collection::vec(instance(), 1..24),
    ) {
        let (new, old) = if back { (old, new) } else { (new, old) };
        let (Some(new), Some(old)) = (read(&new), read(&old)) else { return Ok(()) };
        try_pair(&new, &old, &instances);
    }

    #[test]
    fn the_canonical_text_is_the_same_schema(schema in schema()) {
        let Some(ours) = read(&schema) else { return Ok(()) };
        let again = Schema::parse(ours.text().as_bytes()).unwrap();
        prop_assert_eq!(ours.text(), again.text());
        let theirs = serde_json_canonicalizer::to_string(&schema).unwrap();
        prop_assert_eq!(ours.text(), theirs);
        prop_assert_eq!(
            digest("Automatic", Some(&schema.to_string())),
            digest("Automatic", Some(ours.text()))
        );
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..200), value in instance()) {
        try_bytes("random bytes", &bytes, &[value]);
    }

    #[test]
    fn no_change_of_a_byte_is_too_odd(
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        value in instance(),
    ) {
        let schemas = kept("schema");
        let (name, bytes) = &schemas[which.index(schemas.len())];
        let mut bytes = bytes.clone();
        if !bytes.is_empty() {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        try_bytes(name, &bytes, &[value]);
    }
}
