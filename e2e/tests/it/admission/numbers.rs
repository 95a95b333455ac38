//! Free-form values are compared exactly: CEL itself rounds an integer before it compares it with a float.

use serde_json::{Value, json};

use super::objects::{MOMENT, condition, invocation, with};
use super::step::{GATEWAY, IRIS, IVAN, PAUL, Rule, Who};

const RUN: &str = "capabilityinvocations/run";

/// 2^53 + 1: the first integer that is no float. It rounds to [`ROUNDED`].
const WHOLE: i64 = 9_007_199_254_740_993;
const ROUNDED: f64 = 9_007_199_254_740_992.0;

pub fn rules() -> Vec<Rule> {
    let mut rules = inputs();
    rules.extend(sizes());
    rules.push(outputs());
    rules
}

/// An invocation with that input.
fn run(input: &Value) -> Value {
    with(
        invocation("run", "kiosk", "echo"),
        &json!({ "spec": { "input": null } }),
    )
    .with_input(input)
}

trait WithInput {
    fn with_input(self, input: &Value) -> Value;
}

impl WithInput for Value {
    fn with_input(mut self, input: &Value) -> Value {
        self["spec"]["input"] = input.clone();
        self
    }
}

/// The number in each place where an input can have one.
fn shapes(number: &Value) -> [Value; 5] {
    [
        number.clone(),
        json!([number]),
        json!({ "n": number }),
        json!({ "list": [1, [2, { "deep": [number, "x"] }]] }),
        json!([{ "a": { "b": { "c": { "d": { "e": number } } } } }, 1.5]),
    ]
}

fn inputs() -> Vec<Rule> {
    let number =
        "a number in spec.input is not the stored one, and nothing but spec.cancel can be changed";
    let names = [
        "invocations::a_number_alone_is_not_replaced_by_the_float_that_it_rounds_to",
        "invocations::a_number_in_a_list_is_not_replaced_by_the_float_that_it_rounds_to",
        "invocations::a_number_in_a_map_is_not_replaced_by_the_float_that_it_rounds_to",
        "invocations::a_number_deep_in_lists_is_not_replaced_by_the_float_that_it_rounds_to",
        "invocations::a_number_deep_in_maps_is_not_replaced_by_the_float_that_it_rounds_to",
    ];
    let pairs = [
        (json!(WHOLE), json!(ROUNDED)),
        (json!(-WHOLE), json!(-ROUNDED)),
        (json!(i64::MAX), json!(9_223_372_036_854_775_808.0)),
    ];
    let changed = |who: Who, input: &Value, spec: &Value| {
        [
            who.patches(
                RUN,
                with(
                    json!({ "spec": spec }),
                    &json!({ "spec": { "input": input } }),
                ),
            ),
            who.adds(
                RUN,
                "/spec",
                &with(
                    run(input)["spec"].clone(),
                    &with(spec.clone(), &json!({ "requestedBy": "ivan" })),
                ),
            ),
            who.replaces(RUN, json!({ "spec": spec }).with_input(input)),
        ]
        .map(|step| step.refused(number))
    };
    let mut rules: Vec<Rule> = names
        .into_iter()
        .enumerate()
        .map(|(shape, name)| {
            let mut steps = Vec::new();
            for (nth, (stored, other)) in pairs.iter().enumerate() {
                let stored = &shapes(stored)[shape];
                let other = &shapes(other)[shape];
                if nth > 0 {
                    steps.push(PAUL.deletes(RUN));
                }
                steps.push(IVAN.creates(run(stored)));
                steps.extend(changed(PAUL, other, &json!({})));
                let applied = PAUL.applies(run(other));
                steps.push(if nth < 2 {
                    // YAML has no such float: it arrives as another integer.
                    applied.refused("denied request")
                } else {
                    // Server-side apply takes the two for equal, and leaves the stored one.
                    applied.reads("/metadata/generation", 1)
                });
                // Who may cancel it takes the chance to change it.
                let cancel = json!({ "cancel": "Requested" });
                steps.extend(changed(IRIS, other, &cancel));
                steps.push(
                    IRIS.patches(RUN, json!({ "spec": cancel }))
                        .reads("/spec/cancel", "Requested"),
                );
            }
            Rule::new(name, steps)
        })
        .collect();
    rules.push(Rule::new(
        "invocations::the_same_input_in_another_spelling_is_the_same",
        [
            IVAN.applies(run(&json!({ "a": 1.0, "b": [2.5, 1e3, -7.0], "c": "x.000000", "d": 1e300, "e": WHOLE }))),
            IVAN.applies(run(&json!({ "a": 1.0, "b": [2.5, 1e3, -7.0], "c": "x.000000", "d": 1e300, "e": WHOLE }))),
            IVAN.applies(run(&json!({ "a": 1, "b": [2.5, 1000, -7], "c": "x.000000", "d": 1e300, "e": WHOLE }))),
            IVAN.adds(RUN, "/spec/input/a", &json!(1.0)),
            IVAN.adds(RUN, "/spec/input/b", &json!([2.5, 1e3, -7.0])),
            PAUL.replaces(RUN, json!({ "spec": { "input": { "a": 1.0 } } })),
            IVAN.applies(run(&json!({ "a": 1, "b": [2.5, 1000, -7], "c": "x", "d": 1e300, "e": WHOLE }))).refused("not its input either"),
            IVAN.applies(run(&json!({ "a": 1.25, "b": [2.5, 1000, -7], "c": "x.000000", "d": 1e300, "e": WHOLE }))).refused("not its input either"),
            IVAN.patches(RUN, json!({ "spec": { "input": { "e": 9_007_199_254_740_994_i64 } } })).refused("not its input either"),
            IVAN.patches(RUN, json!({ "metadata": { "labels": { "site": "lobby" } } })),
            IVAN.patches(RUN, json!({ "spec": { "cancel": "Requested" } })),
        ],
    ));
    rules
}

fn sizes() -> Vec<Rule> {
    let cancel = || IVAN.patches(RUN, json!({ "spec": { "cancel": "Requested" } }));
    // 32 KiB each, as JSON without white space.
    let numbers: Value = (0..1927_i64).map(|number| json!(WHOLE + number)).collect();
    let text = json!("x".repeat(32_766));
    let deep = (0..120).fold(json!(WHOLE), |inner, _| json!([inner]));
    let maps: Value = (0..2000_i64)
        .map(|number| json!({ "a": number, "b": {} }))
        .collect();
    vec![
        Rule::new(
            "invocations::one_with_the_largest_input_of_numbers_is_cancelled",
            [
                IVAN.creates(run(&numbers)),
                PAUL.adds(RUN, "/spec/input/1926", &json!(ROUNDED))
                    .refused("not its input either"),
                PAUL.adds(RUN, "/spec/input/0", &json!(ROUNDED))
                    .refused("not its input either"),
                PAUL.does_at(RUN, "replace", "/spec/input/0", &json!(ROUNDED))
                    .refused("a number in spec.input is not the stored one"),
                cancel(),
            ],
        ),
        Rule::new(
            "invocations::one_with_the_largest_input_of_text_is_cancelled",
            [IVAN.creates(run(&text)), cancel()],
        ),
        Rule::new(
            "invocations::one_with_a_deep_input_is_cancelled",
            [IVAN.creates(run(&deep)), cancel()],
        ),
        Rule::new(
            "invocations::one_with_the_largest_input_of_maps_is_cancelled",
            [IVAN.creates(run(&maps)), cancel()],
        ),
        // Nobody runs it. Its end comes by itself, and it can be cancelled nevertheless.
        Rule::new(
            "invocations::one_with_an_input_that_is_too_large_is_cancelled",
            [IVAN.creates(run(&json!("x".repeat(400_000)))), cancel()],
        ),
    ]
}

fn outputs() -> Rule {
    let ended =
        |output: Value| json!({ "phase": "Succeeded", "finishedAt": MOMENT, "output": output });
    let number = "a number in status.output is not the stored one";
    let large: Value = (0..14_000_i64)
        .map(|number| json!(WHOLE + number))
        .collect();
    Rule::new(
        "invocations::a_number_of_an_output_stays_as_it_was_written",
        [
            IVAN.creates(run(&json!(1))),
            GATEWAY.writes_status_at(RUN, "", &ended(json!({ "n": [WHOLE, 1.0] }))),
            GATEWAY
                .writes_status_at(RUN, "/output", &json!({ "n": [ROUNDED, 1.0] }))
                .refused(number),
            GATEWAY
                .writes_status_at(RUN, "/output/n/0", &json!(ROUNDED))
                .refused("stays as it ended"),
            GATEWAY.writes_status_at(RUN, "/output", &json!({ "n": [WHOLE, 1] })),
            GATEWAY.writes_status(
                RUN,
                &json!({ "conditions": [condition("AnsweredLate", "True")] }),
            ),
            IVAN.creates(with(
                run(&json!(1)),
                &json!({ "metadata": { "name": "large" } }),
            )),
            GATEWAY.writes_status_at("capabilityinvocations/large", "", &ended(large)),
            GATEWAY.writes_status(
                "capabilityinvocations/large",
                &json!({ "conditions": [condition("AnsweredLate", "True")] }),
            ),
        ],
    )
}
