use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

use super::*;

/// This process's clocks, so many seconds after its beginning.
struct Clock(Instant);

impl Clock {
    fn at(&self, second: u64) -> Moment {
        Moment {
            instant: self.0 + Duration::from_secs(second),
            time: time(i64::try_from(second).unwrap()),
        }
    }
}

fn clock() -> Clock {
    Clock(Instant::now())
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A Lease that says that it was renewed at that second.
fn lease(name: &str, renewed: i64) -> Lease {
    let mut lease = Lease {
        spec: Some(LeaseSpec {
            renew_time: Some(MicroTime(time(renewed))),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    };
    lease.metadata.name = Some(name.to_owned());
    lease
}

/// What is known of a Lease, after a beginning at second 0 without any.
fn begun(clock: &Clock) -> (Seen, Option<Moment>) {
    let mut seen = Seen::default();
    let sight = Some(clock.at(0));
    seen.look(&[], sight, clock.at(0));
    (seen, sight)
}

#[test]
fn only_the_coming_and_going_of_a_gateway_wakes() {
    let clock = clock();
    let (mut seen, sight) = begun(&clock);
    let mut look = |leases: &[Lease], second| {
        let woken = seen.look(leases, sight, clock.at(second));
        let end = seen.next_end(sight);
        (woken, end)
    };
    let ends = |second| Some(clock.at(second).instant);
    let nobody = Vec::<String>::new();
    assert_eq!(
        look(&[lease("a", 0), lease("b", 0)], 1),
        (vec!["a".to_owned(), "b".to_owned()], ends(16))
    );
    assert_eq!(
        look(&[lease("a", 5), lease("b", 5)], 5),
        (nobody.clone(), ends(20)),
        "a renewal"
    );
    assert_eq!(
        look(&[lease("a", 10), lease("b", 5)], 20),
        (vec!["b".to_owned()], ends(35)),
        "ran out"
    );
    assert_eq!(
        look(&[lease("a", 20), lease("b", 5)], 22),
        (nobody, ends(37))
    );
    assert_eq!(
        look(&[lease("a", 20), lease("b", 23)], 23).0,
        ["b"],
        "came back"
    );
    assert_eq!(
        look(&[lease("b", 23)], 24).0,
        ["a"],
        "stopped in good order"
    );
}

#[test]
fn a_gateway_whose_clock_is_wrong_lives_as_long_as_it_renews() {
    let clock = clock();
    for skew in [-3600, -20, 20, 3600] {
        let (mut seen, sight) = begun(&clock);
        let mut news = Vec::new();
        for second in (1..200).step_by(5) {
            let renewed = lease("a", i64::try_from(second).unwrap() + skew);
            for later in second..second + 5 {
                news.extend(seen.look(std::slice::from_ref(&renewed), sight, clock.at(later)));
                let judged = seen
                    .see(&renewed, clock.at(later))
                    .judge(sight, clock.at(later));
                assert_eq!(judged, GatewayLease::Live, "{skew} {later}");
            }
        }
        assert_eq!(news, ["a"], "it came once and never went: {skew}");
        let last = lease("a", 196 + skew);
        let judged = seen.see(&last, clock.at(211)).judge(sight, clock.at(211));
        let renewed_at = time(196);
        assert_eq!(
            judged,
            GatewayLease::Expired { renewed_at },
            "by this clock: {skew}"
        );
    }
}

#[test]
fn nobody_is_declared_dead_or_alive_before_it_was_watched_for_as_long_as_a_lease_lives() {
    let clock = clock();
    // By its own word the Lease ran out a thousand seconds ago, or will in a thousand.
    for (renewed, dead_since) in [(-1000, -1000), (1000, 0)] {
        let mut seen = Seen::default();
        let sight = Some(clock.at(0));
        let found = lease("a", renewed);
        for second in 0..15 {
            let now = clock.at(second);
            assert!(
                seen.look(std::slice::from_ref(&found), sight, now)
                    .is_empty()
            );
            assert_eq!(
                seen.see(&found, now).judge(sight, now),
                GatewayLease::Unknown
            );
        }
        assert_eq!(seen.next_end(sight), Some(clock.at(15).instant));
        let now = clock.at(15);
        assert_eq!(seen.look(std::slice::from_ref(&found), sight, now), ["a"]);
        let renewed_at = time(dead_since);
        assert_eq!(
            seen.see(&found, now).judge(sight, now),
            GatewayLease::Expired { renewed_at }
        );
        assert_eq!(seen.next_end(sight), None);
    }
    let mut seen = Seen::default();
    let sight = Some(clock.at(0));
    assert!(seen.look(&[lease("a", -1)], sight, clock.at(0)).is_empty());
    assert_eq!(seen.look(&[lease("a", 4)], sight, clock.at(4)), ["a"]);
}

#[test]
fn time_does_not_count_while_the_leases_are_not_seen() {
    let clock = clock();
    let (mut seen, _) = begun(&clock);
    let known = lease("a", 1);
    seen.look(std::slice::from_ref(&known), Some(clock.at(0)), clock.at(1));
    // The watch broke at second 12, and came back at second 24.
    for (now, since, expected) in [
        (11, 0, true),
        (17, 12, true),
        (26, 12, true),
        (26, 24, true),
        (38, 24, true),
        (39, 24, false),
    ] {
        let judged = seen
            .see(&known, clock.at(now))
            .judge(Some(clock.at(since)), clock.at(now));
        assert_eq!(judged == GatewayLease::Live, expected, "{now} {since}");
    }
    let blind = seen.see(&known, clock.at(99)).judge(None, clock.at(99));
    assert_eq!(blind, GatewayLease::Unknown);
}

#[test]
fn a_lease_without_terms_is_of_no_gateway_that_lives() {
    let clock = clock();
    let (mut seen, sight) = begun(&clock);
    let mut bare = Lease::default();
    bare.metadata.name = Some("a".to_owned());
    assert!(
        seen.look(std::slice::from_ref(&bare), sight, clock.at(0))
            .is_empty()
    );
    assert_eq!(seen.next_end(sight), None);
    let judged = seen.see(&bare, clock.at(0)).judge(sight, clock.at(0));
    assert_eq!(judged, GatewayLease::Absent);
    let mut absurd = lease("b", 0);
    absurd.spec.as_mut().unwrap().lease_duration_seconds = Some(-5);
    seen.look(std::slice::from_ref(&absurd), sight, clock.at(0));
    let judged = seen.see(&absurd, clock.at(2)).judge(sight, clock.at(2));
    assert_eq!(
        judged,
        GatewayLease::Expired {
            renewed_at: time(0)
        }
    );
}
