use super::*;
use crate::v1alpha1::device::DeviceGrants;

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

fn known(name: &str, granted: Granted) -> DeviceCapability {
    DeviceCapability {
        name: name.to_owned(),
        availability: Availability::Available,
        granted,
        ..DeviceCapability::default()
    }
}

fn surface_of(
    declares: &[&str],
    granted: &[&str],
    before: &[DeviceCapability],
) -> Vec<(String, Granted)> {
    let available: Vec<_> = declared(declares)
        .into_iter()
        .map(|capability| (capability, Availability::Available))
        .collect();
    let spec = DeviceSpec {
        grants: DeviceGrants {
            capabilities: granted.iter().map(|name| (*name).to_owned()).collect(),
            ..DeviceGrants::default()
        },
        ..DeviceSpec::default()
    };
    surface(&available, &spec, before)
        .into_iter()
        .map(|capability| (capability.name, capability.granted))
        .collect()
}

#[test]
fn what_a_device_begins_to_declare_waits_for_a_decision() {
    use Granted::{Granted as Yes, NotGranted, Pending};
    type Decided<'a> = &'a [(&'a str, Granted)];
    let check = |sentence,
                 declares: &[&str],
                 granted: &[&str],
                 before: Decided<'_>,
                 expected: Decided<'_>| {
        let before: Vec<_> = before
            .iter()
            .map(|(name, granted)| known(name, *granted))
            .collect();
        let surface = surface_of(declares, granted, &before);
        let surface: Vec<_> = surface
            .iter()
            .map(|(name, granted)| (&**name, *granted))
            .collect();
        assert_eq!(surface, expected, "{sentence}");
    };
    let echo = ("echo", Yes);
    let pending = ("new", Pending);
    check("granted from the start", &["echo"], &["echo"], &[], &[echo]);
    check(
        "left out by the approver who saw it",
        &["echo"],
        &[],
        &[],
        &[("echo", NotGranted)],
    );
    check(
        "new on a known device",
        &["echo", "new"],
        &["echo"],
        &[echo],
        &[echo, pending],
    );
    check("still not decided", &["new"], &[], &[pending], &[pending]);
    check(
        "decided with yes",
        &["new"],
        &["new"],
        &[pending],
        &[("new", Yes)],
    );
    check(
        "taken back",
        &["echo"],
        &[],
        &[echo],
        &[("echo", NotGranted)],
    );
    check(
        "not declared any more",
        &["echo"],
        &["echo", "old"],
        &[("old", Yes)],
        &[echo],
    );
    check("declared twice", &["echo", "echo"], &["echo"], &[], &[echo]);
}

#[test]
fn the_same_declaration_gives_the_same_surface_again() {
    let first = surface(
        &[
            (declared(&["b"])[0].clone(), Availability::Unavailable),
            (declared(&["a"])[0].clone(), Availability::Available),
        ],
        &DeviceSpec::default(),
        &[],
    );
    assert_eq!(
        first
            .iter()
            .map(|capability| &*capability.name)
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(first[1].availability, Availability::Unavailable);
    let again = surface(
        &[
            (declared(&["a"])[0].clone(), Availability::Available),
            (declared(&["b"])[0].clone(), Availability::Unavailable),
        ],
        &DeviceSpec::default(),
        &first,
    );
    assert_eq!(again, first);
}
