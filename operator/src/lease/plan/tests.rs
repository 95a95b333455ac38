use serde_json::json;

use super::*;

const ME: &str = "fairlead-operator-me";
const OTHER: &str = "fairlead-operator-other";
const DECADES: i32 = 1_000_000_000;

fn second(second: u64) -> Duration {
    Duration::from_secs(second)
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn lease(holder: Option<&str>, seconds: i32, renewed: i64) -> Lease {
    serde_json::from_value(json!({
        "metadata": { "name": "fairlead-operator" },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "renewTime": format!("{:.6}", time(renewed)),
        },
    }))
    .unwrap()
}

/// Reads the same Lease at some moments, and tells what is done at the last one.
fn step_after(found: &Lease, seconds: &[u64]) -> Step {
    let mut seen = Seen::default();
    for at in seconds {
        seen.read(Some(found), second(*at), time(0));
    }
    seen.next(ME, second(*seconds.last().unwrap()))
}

#[test]
fn a_lease_that_is_absent_or_that_nobody_holds_is_taken_at_once() {
    assert_eq!(Seen::default().next(ME, second(0)), Step::Create);
    assert_eq!(step_after(&lease(None, 15, 0), &[0]), Step::Take);
    assert_eq!(step_after(&lease(Some(""), 15, 0), &[0]), Step::Take);
    assert_eq!(step_after(&lease(Some(ME), 15, 0), &[0]), Step::Take);
}

#[test]
fn an_operator_that_is_seen_to_renew_leads_and_one_that_is_not_is_replaced() {
    let mut seen = Seen::default();
    for now in (0..60).step_by(5) {
        let renewed = lease(Some(OTHER), 15, i64::try_from(now).unwrap());
        seen.read(Some(&renewed), second(now), time(0));
        let until = second(now + 15);
        assert_eq!(seen.next(ME, second(now)), Step::Wait { until });
    }
    assert_eq!(seen.next(ME, second(70)), Step::Take);
}

#[test]
fn a_clock_that_differs_changes_nothing() {
    for renewed in [-86_400, 86_400] {
        let found = lease(Some(OTHER), 15, renewed);
        let until = second(15);
        assert_eq!(step_after(&found, &[0, 14]), Step::Wait { until });
        assert_eq!(step_after(&found, &[0, 14, 15]), Step::Take);
    }
}

#[test]
fn a_lease_of_decades_is_waited_for_as_long_as_the_cap() {
    let cap = u64::from(lease::MAX_LEASE_SECONDS.unsigned_abs());
    for holder in [OTHER, "gateway-0"] {
        let found = lease(Some(holder), DECADES, 0);
        let until = second(cap);
        assert_eq!(step_after(&found, &[0, cap - 1]), Step::Wait { until });
        assert_eq!(step_after(&found, &[0, cap]), Step::Take);
    }
}

#[test]
fn a_stranger_that_renews_and_changes_its_name_is_not_waited_for_any_longer() {
    let mut seen = Seen::default();
    for now in 0..60 {
        let holder = format!("stranger-{now}");
        let found = lease(Some(&holder), DECADES, i64::try_from(now).unwrap());
        let fault = seen.read(Some(&found), second(now), time(0));
        assert_eq!(fault.is_some(), now == 0, "told once");
    }
    assert_eq!(seen.next(ME, second(60)), Step::Take);
}

#[test]
fn a_leader_whose_lease_was_deleted_is_not_replaced_before_it_would_have_noticed() {
    let mut seen = Seen::default();
    seen.read(Some(&lease(Some(OTHER), 15, 0)), second(0), time(0));
    assert_eq!(seen.read(None, second(2), time(2)), Some(Fault::Gone));
    let until = second(15);
    assert_eq!(seen.next(ME, second(2)), Step::Wait { until });
    assert_eq!(seen.read(None, second(15), time(15)), None, "told once");
    assert_eq!(seen.next(ME, second(15)), Step::Create);
}

#[test]
fn each_fault_is_told_once_and_again_when_it_comes_back() {
    let mut seen = Seen::default();
    let stranger = lease(Some("gateway-0"), 15, 0);
    let fault = seen.read(Some(&stranger), second(0), time(0));
    assert_eq!(fault.unwrap().reason(), "ElectionLeaseHeldByStranger");
    assert_eq!(seen.read(Some(&stranger), second(1), time(1)), None);
    assert_eq!(
        seen.read(Some(&lease(Some(OTHER), 15, 2)), second(2), time(2)),
        None
    );
    assert!(seen.read(Some(&stranger), second(3), time(3)).is_some());
    let decades = lease(Some(OTHER), DECADES, 4);
    let fault = seen.read(Some(&decades), second(4), time(4)).unwrap();
    assert_eq!(fault.reason(), "ElectionLeaseNotCredible");
    assert!(fault.message().contains("1000000000"), "{fault:?}");
    // At the first look, nobody can say that it was ever there.
    assert_eq!(Seen::default().read(None, second(0), time(0)), None);
}

#[test]
fn what_is_told_of_a_stranger_is_bounded() {
    let long = "x".repeat(10_000);
    let fault = Seen::default().read(Some(&lease(Some(&long), 15, 0)), second(0), time(0));
    assert!(fault.unwrap().message().len() < 400);
}

#[test]
fn only_another_operator_ends_a_term() {
    let mut seen = Seen::default();
    for (holder, expected) in [
        (Some(OTHER), Some(OTHER)),
        (Some("gateway-0"), None),
        (Some(ME), None),
        (None, None),
    ] {
        seen.read(Some(&lease(holder, 15, 0)), second(0), time(0));
        assert_eq!(seen.other_operator(ME), expected);
    }
}
