use super::*;

fn declared(names: &[&str]) -> Vec<DeclaredCapability> {
    names
        .iter()
        .map(|name| DeclaredCapability {
            name: (*name).to_owned(),
            ..DeclaredCapability::default()
        })
        .collect()
}

fn grants(names: &[&str]) -> Grants {
    Grants {
        capabilities: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..Grants::default()
    }
}

#[test]
fn at_approval_a_device_gets_what_was_given_and_never_more_than_the_code_allows() {
    let unsaid = Grants::default();
    let none = grants(&[]);
    let echo = grants(&["echo"]);
    let echo_and_health = grants(&["echo", "system.health"]);
    let doubled = grants(&["system.health", "echo", "echo"]);
    let check = |sentence: &str, declares: &[&str], given, ceiling, expected: &[&str]| {
        let granted = at_approval(&declared(declares), given, ceiling);
        assert_eq!(granted, expected, "{sentence}");
    };
    let both = ["echo", "system.health"];
    check(
        "what it declares, if nobody said anything",
        &["echo"],
        None,
        None,
        &["echo"],
    );
    check(
        "what it declares, if only labels were given",
        &["echo"],
        Some(&unsaid),
        None,
        &["echo"],
    );
    check(
        "nothing, if the approver gave an empty list",
        &["echo"],
        Some(&none),
        None,
        &[],
    );
    check("less than it declares", &both, Some(&echo), None, &["echo"]);
    check(
        "what was given though it is not declared yet",
        &[],
        Some(&echo),
        None,
        &["echo"],
    );
    check(
        "what it declares, under the ceiling",
        &both,
        None,
        Some(&echo),
        &["echo"],
    );
    check(
        "no more than the ceiling",
        &["echo"],
        Some(&echo_and_health),
        Some(&echo),
        &["echo"],
    );
    check(
        "all, if the ceiling is of labels only",
        &["echo"],
        None,
        Some(&unsaid),
        &["echo"],
    );
    check(
        "sorted and without doubles",
        &[],
        Some(&doubled),
        None,
        &both,
    );
}
