//! How long a Lease counts as held, whatever it says of itself.
//!
//! Every Lease is written by somebody else: by another process, with another clock, perhaps by an attacker. A reader
//! judges it as the leader election of client-go does: the holder lives while the Lease is seen to change, on the
//! reader's own clock. What the Lease says of times is compared for change and shown to people, and its duration is
//! capped. So no Lease holds longer than [`MAX_LEASE_SECONDS`] after the last change that was seen.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;

use crate::names::GATEWAY_LEASE_SECONDS;

/// Longest duration of a Lease that a reader accepts, in seconds. Fairlead's own Leases last 15; a longer one counts as
/// this.
pub const MAX_LEASE_SECONDS: i32 = 30;

/// How far the clock of another machine may be ahead before its times count as wrong, in seconds.
pub const CLOCK_TOLERANCE_SECONDS: i64 = 30;

/// How long the Lease is valid after a change of it was seen: from one second to [`MAX_LEASE_SECONDS`]. A Lease without
/// a duration has that of a gateway.
pub fn lasts(lease: &Lease) -> SignedDuration {
    let seconds = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds)
        .unwrap_or(GATEWAY_LEASE_SECONDS);
    SignedDuration::from_secs(i64::from(seconds.clamp(1, MAX_LEASE_SECONDS)))
}

/// Why the Lease cannot be taken at its word: its duration is beyond [`MAX_LEASE_SECONDS`], or one of its times is ahead
/// of `now` by more than [`CLOCK_TOLERANCE_SECONDS`]. `None` for a Lease of the usual kind.
pub fn not_credible(lease: &Lease, now: Timestamp) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    if let Some(seconds) = spec
        .lease_duration_seconds
        .filter(|seconds| *seconds > MAX_LEASE_SECONDS)
    {
        return Some(format!(
            "its duration is {seconds} seconds, of which {MAX_LEASE_SECONDS} count"
        ));
    }
    [
        ("renewTime", &spec.renew_time),
        ("acquireTime", &spec.acquire_time),
    ]
    .into_iter()
    .find_map(|(field, time)| {
        let time = time.as_ref()?.0;
        is_ahead(time, now).then(|| {
            format!("its {field} is {time}, in the future: only changes of the Lease count")
        })
    })
}

/// Whether a time that another machine wrote lies in the future, beyond what clocks may differ by.
pub fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > SignedDuration::from_secs(CLOCK_TOLERANCE_SECONDS)
}

/// What a reader knows of one Lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Beat {
    /// What the Lease says. Compared for change, and shown.
    pub renewed_at: Option<Timestamp>,
    /// When the reader saw that change, by its own clock.
    pub changed_at: Timestamp,
    /// See [`lasts`].
    pub lasts: SignedDuration,
}

impl Beat {
    /// Reads a Lease. `before`: what the reader knew of it. At first sight only the words of the Lease are known: a time
    /// in the future counts as now.
    pub fn read(lease: &Lease, before: Option<&Self>, now: Timestamp) -> Self {
        let spec = lease.spec.as_ref();
        let renewed_at = spec
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0);
        Self {
            changed_at: match before {
                Some(before) if before.renewed_at == renewed_at => before.changed_at,
                Some(_) => now,
                None => renewed_at.unwrap_or(Timestamp::MIN).min(now),
            },
            renewed_at,
            lasts: lasts(lease),
        }
    }

    /// Whether the Lease was seen to change within its duration. A clock that was set back by more than that vouches for
    /// nothing: the next change does.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.is_within(self.lasts, now)
    }

    /// Whether the Lease was seen to change within that time.
    pub fn is_within(&self, time: SignedDuration, now: Timestamp) -> bool {
        now.duration_since(self.changed_at).abs() < time
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn lease(mut spec: Value, renewed: Option<Timestamp>) -> Lease {
        if let Some(renewed) = renewed {
            spec["renewTime"] = format!("{renewed:.6}").into();
        }
        serde_json::from_value(json!({ "metadata": { "name": "one" }, "spec": spec })).unwrap()
    }

    #[test]
    fn no_lease_lasts_longer_than_the_cap_or_shorter_than_a_second() {
        for (seconds, expected) in [
            (json!(15), 15),
            (json!(30), 30),
            (json!(31), 30),
            (json!(1_000_000_000), 30),
            (json!(i32::MAX), 30),
            (json!(0), 1),
            (json!(-5), 1),
            (Value::Null, 15),
        ] {
            let lease = lease(json!({ "leaseDurationSeconds": seconds }), None);
            assert_eq!(lasts(&lease).as_secs(), expected, "{seconds}");
        }
        assert_eq!(lasts(&Lease::default()).as_secs(), 15);
    }

    #[test]
    fn a_lease_that_claims_decades_or_the_future_is_not_credible() {
        let usual = json!({ "leaseDurationSeconds": 15 });
        assert_eq!(
            not_credible(&lease(usual.clone(), Some(at(0))), at(1)),
            None
        );
        // A clock that is a little ahead.
        assert_eq!(
            not_credible(&lease(usual.clone(), Some(at(20))), at(1)),
            None
        );
        let decades = lease(
            json!({ "leaseDurationSeconds": 1_000_000_000 }),
            Some(at(0)),
        );
        let why = not_credible(&decades, at(1)).unwrap();
        assert!(why.contains("1000000000"), "{why}");
        let why = not_credible(&lease(usual, Some(at(86_400))), at(1)).unwrap();
        assert!(why.contains("renewTime"), "{why}");
    }

    #[test]
    fn a_lease_that_is_not_seen_to_change_dies_whatever_it_says() {
        let claims = json!({ "leaseDurationSeconds": 1_000_000_000 });
        let beat = Beat::read(&lease(claims.clone(), Some(at(1_000_000))), None, at(0));
        assert!(beat.is_live(at(29)));
        assert!(!beat.is_live(at(30)));
        // Read again, it has not changed.
        let again = lease(claims.clone(), Some(at(1_000_000)));
        assert!(!Beat::read(&again, Some(&beat), at(70)).is_live(at(70)));
        let renewed = lease(claims, Some(at(1_000_001)));
        assert!(Beat::read(&renewed, Some(&beat), at(70)).is_live(at(71)));
    }

    #[test]
    fn a_lease_of_long_ago_is_dead_at_first_sight() {
        let beat = Beat::read(&lease(json!({}), Some(at(0))), None, at(100));
        assert!(!beat.is_live(at(100)));
        assert!(!Beat::read(&lease(json!({}), None), None, at(100)).is_live(at(100)));
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_lease_alive() {
        let beat = Beat::read(&lease(json!({}), Some(at(5000))), None, at(5000));
        assert!(!beat.is_live(at(1000)));
    }
}
