use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn ready(seconds: i64, holds: bool, reason: &str) -> Condition {
    condition(at(seconds), Some(1), READY, holds, reason, "because")
}

#[test]
fn the_same_condition_again_changes_nothing() {
    let first = set(vec![], ready(0, true, "Issued"));
    assert_eq!(set(first.clone(), ready(60, true, "Issued")), first);
}

#[test]
fn another_reason_keeps_the_moment_of_the_transition() {
    let conditions = set(vec![ready(0, false, "Waiting")], ready(60, false, "Denied"));
    assert_eq!(conditions.len(), 1);
    assert_eq!(conditions[0].reason, "Denied");
    assert_eq!(conditions[0].last_transition_time.0, at(0));
}

#[test]
fn another_status_is_a_transition() {
    let conditions = set(vec![ready(0, false, "Waiting")], ready(60, true, "Issued"));
    assert_eq!(conditions[0].status, "True");
    assert_eq!(conditions[0].last_transition_time.0, at(60));
}

#[test]
fn conditions_of_other_writers_stay_as_they_are_and_where_they_are() {
    let connected = condition(at(0), None, CONNECTED, Holds::Unknown, "GatewayGone", "");
    let conditions = set(
        vec![connected.clone(), ready(0, false, "Waiting")],
        ready(60, true, "Issued"),
    );
    assert_eq!(conditions[0], connected);
    assert_eq!(find(&conditions, READY).unwrap().reason, "Issued");
    assert_eq!(find(&conditions, CERTIFICATE_VALID), None);
}

#[test]
fn a_message_is_cut_to_what_the_schema_allows_and_not_inside_a_character() {
    let long = condition(at(0), None, READY, true, "Long", "ä".repeat(2000));
    assert_eq!(long.message.chars().count(), 1024);
}
