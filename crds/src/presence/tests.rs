use super::*;
use crate::v1alpha1::device::{DeviceCapability, Granted, Session};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const POLICY: PresencePolicy = PresencePolicy {
    stale_after_seconds: 300,
    offline_after_seconds: 1800,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn status(connected: Option<i64>, ended: Option<i64>) -> DeviceStatus {
    DeviceStatus {
        session: Some(Session {
            gateway: "gateway-0".to_owned(),
            epoch: 1,
            connected_at: connected.map(|seconds| Time(at(seconds))),
            ended_at: ended.map(|seconds| Time(at(seconds))),
        }),
        ..DeviceStatus::default()
    }
}

fn verdict(presence: Presence, reason: PresenceReason, changes_at: Option<i64>) -> Verdict {
    Verdict {
        presence,
        reason,
        changes_at: changes_at.map(at),
    }
}

#[test]
fn an_open_session_on_a_live_gateway_is_there_however_old_it_is() {
    let open = status(Some(0), None);
    for lease in [GatewayLease::Live, GatewayLease::Unknown] {
        assert_eq!(
            presence(&open, lease, POLICY, at(9999)),
            verdict(Presence::Online, PresenceReason::Connected, None)
        );
    }
}

#[test]
fn a_session_that_ended_ages_from_its_end() {
    use Presence::{Degraded, Offline, Stale};
    let ended = status(Some(0), Some(100));
    let dead = GatewayLease::Expired {
        renewed_at: at(1000),
    };
    for (sentence, now, expected, changes_at) in [
        ("degraded at once", 100, Degraded, Some(400)),
        ("just before the first threshold", 399, Degraded, Some(400)),
        ("stale at the first threshold", 400, Stale, Some(1900)),
        ("just before the second threshold", 1899, Stale, Some(1900)),
        ("offline at the second threshold", 1900, Offline, None),
    ] {
        let expected = verdict(expected, PresenceReason::SessionEnded, changes_at);
        for lease in [GatewayLease::Live, dead, GatewayLease::Absent] {
            let found = presence(&ended, lease, POLICY, at(now));
            assert_eq!(found, expected, "{sentence}, with {lease:?}");
        }
    }
}

#[test]
fn a_session_of_a_dead_gateway_ages_from_the_last_sign_of_life() {
    use Presence::{Degraded, Offline, Stale};
    let open = status(Some(0), None);
    let died_at = |seconds| GatewayLease::Expired {
        renewed_at: at(seconds),
    };
    let absent = GatewayLease::Absent;
    for (sentence, lease, now, expected, changes_at) in [
        (
            "from the last renewal",
            died_at(200),
            499,
            Degraded,
            Some(500),
        ),
        ("stale after that", died_at(200), 500, Stale, Some(2000)),
        ("offline after that", died_at(200), 2000, Offline, None),
        (
            "not from before the session",
            died_at(-1000),
            10,
            Degraded,
            Some(300),
        ),
        (
            "from its beginning, without a lease",
            absent,
            300,
            Stale,
            Some(1800),
        ),
    ] {
        let expected = verdict(expected, PresenceReason::GatewayGone, changes_at);
        assert_eq!(
            presence(&open, lease, POLICY, at(now)),
            expected,
            "{sentence}"
        );
    }
}

#[test]
fn a_device_that_never_connected_is_offline_and_stays_so() {
    let never = verdict(Presence::Offline, PresenceReason::NeverConnected, None);
    assert_eq!(
        presence(&DeviceStatus::default(), GatewayLease::Live, POLICY, at(0)),
        never
    );
}

#[test]
fn a_session_without_moments_on_a_gateway_that_is_gone_is_offline() {
    let gone = verdict(Presence::Offline, PresenceReason::GatewayGone, None);
    assert_eq!(
        presence(&status(None, None), GatewayLease::Absent, POLICY, at(0)),
        gone
    );
}

#[test]
fn a_connected_device_that_lacks_a_capability_is_degraded() {
    let capability = |availability| DeviceCapability {
        name: "echo".to_owned(),
        availability,
        granted: Granted::Granted,
        ..DeviceCapability::default()
    };
    let with = |availability| DeviceStatus {
        capabilities: vec![
            capability(Availability::Available),
            capability(availability),
        ],
        ..status(Some(0), None)
    };
    for (availability, expected) in [
        (
            Availability::Available,
            verdict(Presence::Online, PresenceReason::Connected, None),
        ),
        (
            Availability::Unavailable,
            verdict(
                Presence::Degraded,
                PresenceReason::CapabilityUnavailable,
                None,
            ),
        ),
    ] {
        assert_eq!(
            presence(&with(availability), GatewayLease::Live, POLICY, at(0)),
            expected
        );
    }
}

#[test]
fn a_moment_that_no_clock_can_have_seen_is_not_believed() {
    use PresenceReason::{GatewayGone, SessionEnded};
    let ahead = CLOCKS_DIFFER_SECONDS;
    let forged = GatewayLease::Expired {
        renewed_at: Timestamp::MAX,
    };
    for (sentence, status, lease, reason) in [
        (
            "an end",
            status(Some(0), Some(ahead + 1)),
            GatewayLease::Live,
            SessionEnded,
        ),
        (
            "a beginning",
            status(Some(ahead + 1), None),
            GatewayLease::Absent,
            GatewayGone,
        ),
        (
            "a renewal",
            status(Some(ahead + 1), None),
            forged,
            GatewayGone,
        ),
    ] {
        let judged = presence(&status, lease, POLICY, at(0));
        assert_eq!(
            judged,
            verdict(Presence::Offline, reason, None),
            "{sentence}"
        );
    }
    let mut last = status(Some(0), None);
    last.session.as_mut().unwrap().ended_at = Some(Time(Timestamp::MAX));
    let judged = presence(&last, GatewayLease::Live, POLICY, at(0));
    assert_eq!(judged, verdict(Presence::Offline, SessionEnded, None));
    // Another clock may be ahead of this one.
    let judged = presence(
        &status(Some(0), Some(ahead)),
        GatewayLease::Live,
        POLICY,
        at(0),
    );
    let expected = verdict(Presence::Degraded, SessionEnded, Some(ahead + 300));
    assert_eq!(judged, expected);
}

#[test]
fn moments_at_the_end_of_time_are_no_danger() {
    let mut last = status(Some(0), None);
    last.session.as_mut().unwrap().ended_at = Some(Time(Timestamp::MAX));
    let now = Timestamp::MAX - SignedDuration::from_secs(1);
    let judged = presence(&last, GatewayLease::Live, POLICY, now);
    assert_eq!(judged.changes_at, Some(Timestamp::MAX));
}
