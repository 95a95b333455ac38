//! The policies are text, and cannot use the names and bounds of the crate: what they repeat is the same.

use std::path::Path;

use crds::names::{
    CLOCKS_DIFFER_SECONDS, COMPONENT_GATEWAY, COMPONENT_LABEL, CONSOLE_LOGOUTS, GATEWAY,
    GATEWAY_LEASE_SECONDS, OPERATOR, OPERATOR_LEASE, TRUST_BUNDLE,
};

/// The text up to the next quote.
fn quoted(text: &str) -> &str {
    text.split('\'').next().unwrap_or_default()
}

fn policy(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("policies")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_default()
}

/// What stands between `duration('` and `')`, in seconds.
fn durations(policy: &str) -> Vec<i64> {
    let seconds = |text: &str| {
        text.split_inclusive(['h', 'm']).fold(0, |sum, part| {
            let (number, unit) = part.split_at(part.len() - 1);
            let factor = if unit == "h" { 3600 } else { 60 };
            sum + number.parse::<i64>().unwrap_or(i64::MIN / factor / 2) * factor
        })
    };
    policy
        .split("duration('")
        .skip(1)
        .map(|rest| seconds(quoted(rest)))
        .collect()
}

#[test]
fn clocks_may_differ_as_much_as_readers_believe() {
    for name in [
        "device-status.yaml",
        "invocation-status.yaml",
        "pairing-code-status.yaml",
        "leases.yaml",
    ] {
        let durations = durations(&policy(name));
        assert!(!durations.is_empty(), "{name}");
        assert!(
            durations
                .iter()
                .all(|seconds| *seconds == CLOCKS_DIFFER_SECONDS),
            "{name}: {durations:?}"
        );
    }
    // The longest that a gateway lets a request wait is a day.
    let durations = durations(&policy("pairing-request-origin.yaml"));
    assert_eq!(durations, [24 * 3600 + CLOCKS_DIFFER_SECONDS]);
}

#[test]
fn the_leases_have_the_names_that_programs_give_them() {
    let leases = policy("leases.yaml");
    for text in [
        format!("object.metadata.name == '{OPERATOR_LEASE}'"),
        format!("variables.name != '{OPERATOR_LEASE}'"),
        format!("\"'{COMPONENT_LABEL}'\""),
        format!(".orValue('') == '{COMPONENT_GATEWAY}'"),
    ] {
        assert!(leases.contains(&text), "{text}");
    }
    let most = leases
        .split("leaseDurationSeconds.orValue(1) <= ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next()?.parse::<i32>().ok());
    assert!(most.is_some_and(|most| most >= GATEWAY_LEASE_SECONDS));
}

#[test]
fn events_and_config_maps_have_the_names_that_programs_give_them() {
    let events = policy("events.yaml");
    assert!(events.contains(&format!("variables.isGateway ? '{GATEWAY}' : '{OPERATOR}'")));
    let config_maps = policy("configmaps.yaml");
    let prefix = config_maps
        .split("variables.name.startsWith('")
        .nth(1)
        .map(quoted);
    let names = CONSOLE_LOGOUTS
        .iter()
        .filter_map(|name| name.strip_suffix(|last: char| last.is_ascii_digit()));
    let in_policy = names.filter(|name| config_maps.contains(&format!("'^{name}[0-9]$'")));
    assert_eq!(in_policy.count(), CONSOLE_LOGOUTS.len());
    assert!(prefix.is_some_and(|prefix| !prefix.is_empty() && TRUST_BUNDLE.starts_with(prefix)));
}
