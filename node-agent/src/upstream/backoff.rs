//! When to try again. Pure: randomness comes from outside.

use std::time::Duration;

/// The first retry comes at once, within this: all devices of a dead gateway go to the others, and not in one instant.
const FIRST: Duration = Duration::from_millis(200);
/// The first real pause.
const BASE: Duration = Duration::from_secs(1);
/// The longest pause while gateways cannot be reached.
const CAP: Duration = Duration::from_secs(30);
/// The first and the longest pause of a device that was told to stay away: a person must act first, and the gateways
/// are not to be bothered meanwhile.
const REFUSED_BASE: Duration = Duration::from_secs(10);
const REFUSED_CAP: Duration = Duration::from_mins(5);
/// The longest pause that a gateway may ask for.
const ASKED_CAP: Duration = Duration::from_mins(5);

/// How long to wait after `failures` failed attempts in a row (1 or more) with `gateways` to choose from: each is tried
/// once before the first real pause. Full jitter: `random` is in 0..1.
pub fn pause(failures: u32, gateways: usize, random: f64) -> Duration {
    let round = (failures.saturating_sub(1) as usize) / gateways.max(1);
    let ceiling = match u32::try_from(round).unwrap_or(u32::MAX).checked_sub(1) {
        None => FIRST,
        Some(doublings) => doubled(BASE, doublings, CAP),
    };
    ceiling.mul_f64(random.clamp(0.0, 1.0))
}

/// How long to stay away after the `refusals`-th refusal in a row (1 or more). At least half, so that it is never hot.
pub fn banishment(refusals: u32, random: f64) -> Duration {
    let ceiling = doubled(REFUSED_BASE, refusals.saturating_sub(1), REFUSED_CAP);
    ceiling.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// A pause that also obeys what a gateway asked for, within reason.
pub fn at_least(pause: Duration, asked: Option<Duration>) -> Duration {
    pause.max(asked.unwrap_or_default().min(ASKED_CAP))
}

/// `base`, doubled so many times, `cap` at most.
pub(crate) fn doubled(base: Duration, times: u32, cap: Duration) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(times)).min(cap)
}

/// The edge: draws what the functions above want.
pub fn random() -> f64 {
    rand::random()
}

/// The same, for [`super::gateways`].
pub fn seed() -> u64 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gateway_is_tried_at_once_and_then_pauses_double_to_a_cap() {
        for (failures, gateways, ceiling) in [
            (1, 1, 200),
            (2, 1, 1_000),
            (3, 1, 2_000),
            (1, 3, 200),
            (3, 3, 200),
            (4, 3, 1_000),
            (6, 3, 1_000),
            (7, 3, 2_000),
            (7, 1, 30_000),
            (u32::MAX, 1, 30_000),
            (1, 0, 200),
        ] {
            assert_eq!(
                pause(failures, gateways, 1.0),
                Duration::from_millis(ceiling),
                "{failures} failures, {gateways} gateways"
            );
            assert_eq!(pause(failures, gateways, 0.0), Duration::ZERO);
        }
    }

    #[test]
    fn who_is_refused_stays_away_for_long() {
        assert_eq!(banishment(1, 0.0), Duration::from_secs(5));
        assert_eq!(banishment(1, 1.0), Duration::from_secs(10));
        assert_eq!(banishment(2, 1.0), Duration::from_secs(20));
        assert_eq!(banishment(u32::MAX, 1.0), Duration::from_mins(5));
    }

    #[test]
    fn a_gateway_may_ask_for_more_but_not_for_ever() {
        let second = Duration::from_secs(1);
        assert_eq!(at_least(second, None), second);
        assert_eq!(at_least(second, Some(2 * second)), 2 * second);
        assert_eq!(at_least(second, Some(Duration::ZERO)), second);
        assert_eq!(at_least(second, Some(Duration::MAX)), ASKED_CAP);
    }
}
