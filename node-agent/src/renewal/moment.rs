//! When another certificate is asked for. Pure: both clocks and randomness come from outside.
//!
//! A certificate's age is what the wall clock said when this process first had it, and the time that it has lived through
//! with it since, on a time line of its own. A wall clock can be wrong:
//!
//! - outside the life of a certificate that gateways accept, it is clearly so, and says nothing;
//! - within it, it may have been behind and be set later, so the greater age counts: too early costs a question, too late
//!   costs a person's visit;
//! - where nothing is known, the device asks at once. The operator, whose clock counts, answers from the first third of
//!   the life on.
//!
//! What is left is a clock that is behind, within the life, from the start of the process until the certificate ends.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::{host::clock::Moment, state::identity::Life, upstream::backoff::doubled};

/// How long an answer may take before it is asked for again: gateways give up after a minute.
const ANSWER_TIME: Duration = Duration::from_secs(90);
/// The longest pause between two questions on one stream, where a twelfth of the life is not shorter.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Both clocks, read together.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub moment: Moment,
    /// Seconds since 1970, by a clock that may be wrong.
    pub wall: i64,
}

/// Where a certificate came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The disk: nobody knows for how long it was there.
    Kept,
    /// A gateway, just now. It may be one that was issued before, and whose way here was interrupted.
    Told,
}

/// A certificate, and since when this process has it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub life: Life,
    pub origin: Origin,
    pub since: Reading,
    /// See [`jitter`].
    pub jitter: f64,
}

impl Held {
    /// How long from now until it is to be renewed.
    pub fn due_in(&self, now: Reading) -> Duration {
        self.age(now).map_or(Duration::ZERO, |age| {
            due_age(self.life, self.jitter).saturating_sub(age)
        })
    }

    /// How old it is, as far as can be known.
    fn age(&self, now: Reading) -> Option<Duration> {
        let lived = now.moment.since(self.since.moment);
        let then = age_by(self.life, self.since.wall).or(match self.origin {
            Origin::Kept => None,
            // Then it is asked for no sooner than the operator would answer, and long before it ends.
            Origin::Told => Some(length(self.life) / 3),
        });
        then.map(|then| then.saturating_add(lived))
            .max(age_by(self.life, now.wall))
    }

    /// How long to wait for an answer, after so many questions on one stream (1 or more), before the next one. `random`
    /// is in 0..1.
    pub fn pause(&self, asked: u32, random: f64) -> Duration {
        let cap = (length(self.life) / 12).clamp(ANSWER_TIME, LONGEST_PAUSE);
        doubled(ANSWER_TIME, asked.saturating_sub(1), cap)
            .mul_f64(1.0 + random.clamp(0.0, 1.0) / 2.0)
    }
}

/// When a certificate is renewed, in seconds since 1970 by the operator's clock.
pub fn due_at(life: Life, jitter: f64) -> i64 {
    let age = i64::try_from(due_age(life, jitter).as_secs()).unwrap_or(i64::MAX);
    life.not_before.saturating_add(age)
}

/// Where in its twelfth of the life the moment of a certificate lies, 0..1. The certificate draws it: it is the same
/// after a restart, for who runs and for who shows it, and another one for each device.
pub fn jitter(leaf: &[u8]) -> f64 {
    let digest: [u8; 32] = Sha256::digest(leaf).into();
    let [a, b, c, d, ..] = digest;
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

/// Between two thirds and three quarters of the life.
fn due_age(life: Life, jitter: f64) -> Duration {
    let length = length(life);
    length * 2 / 3 + (length / 12).mul_f64(jitter.clamp(0.0, 1.0))
}

fn length(life: Life) -> Duration {
    seconds(life.not_before, life.not_after).unwrap_or_default()
}

/// `None` outside the life.
fn age_by(life: Life, wall: i64) -> Option<Duration> {
    seconds(life.not_before, wall).filter(|_| wall <= life.not_after)
}

fn seconds(from: i64, to: i64) -> Option<Duration> {
    let seconds = to.checked_sub(from)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    /// A day, from the hour 1000 on.
    const LIFE: Life = Life {
        not_before: 1000 * HOUR,
        not_after: 1024 * HOUR,
    };

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3600)
    }

    /// So many hours after the process began, with a wall clock that says so many hours after the beginning of the life.
    fn reading(process: u64, wall: i64) -> Reading {
        Reading {
            moment: Moment::from_millis(process * 3_600_000),
            wall: LIFE.not_before + wall * HOUR,
        }
    }

    #[test]
    fn the_moment_is_at_two_thirds_whatever_happens_to_the_clock() {
        use Origin::{Kept, Told};
        // What the clock said first, how long the process has lived since, what the clock says now, hours to go.
        for (case, origin, first, lived, now, expected) in [
            ("a new one", Told, 0, 0, 0, 16),
            ("a restart", Kept, 10, 0, 10, 6),
            ("it is due", Kept, 10, 6, 16, 0),
            ("long due", Kept, 23, 0, 23, 0),
            ("the clock stands still", Kept, 10, 4, 10, 2),
            ("it was behind and was set", Kept, 2, 0, 15, 1),
            ("it was right and was set back", Kept, 10, 1, 3, 5),
            ("it was set to 1970 meanwhile", Told, 0, 12, -1000, 4),
            ("1970, and set right a little later", Kept, -1000, 0, 12, 4),
            (
                "1970 from the start: nothing is known",
                Kept,
                -1000,
                1,
                -999,
                0,
            ),
            ("the far future from the start", Kept, 5000, 1, 5001, 0),
            ("1970, and a new one", Told, -1000, 0, -1000, 8),
            ("1970, and eight hours with it", Told, -1000, 8, -992, 0),
            ("the far future, and a new one", Told, 5000, 1, 5001, 7),
        ] {
            let held = Held {
                life: LIFE,
                origin,
                since: reading(100, first),
                jitter: 0.0,
            };
            let due = held.due_in(reading(100 + lived, now));
            assert_eq!(due, hours(expected), "{case}");
        }
    }

    #[test]
    fn devices_that_were_paired_together_do_not_ask_together() {
        for (jitter, expected) in [(0.0, 16), (0.5, 17), (1.0, 18), (7.0, 18)] {
            assert_eq!(due_age(LIFE, jitter), hours(expected));
        }
        assert_eq!(due_at(LIFE, 0.5), LIFE.not_before + 17 * HOUR);
        let drawn: Vec<_> = (0_u32..200).map(|n| jitter(&n.to_be_bytes())).collect();
        assert!(drawn.iter().all(|drawn| (0.0..1.0).contains(drawn)));
        let early = drawn.iter().filter(|drawn| **drawn < 0.5).count();
        assert!((60..=140).contains(&early), "{early} of 200");
    }

    #[test]
    fn who_gets_no_answer_asks_less_and_less_but_often_enough() {
        let held = |hours| Held {
            life: Life {
                not_before: 0,
                not_after: hours * HOUR,
            },
            origin: Origin::Kept,
            since: reading(0, 0),
            jitter: 0.0,
        };
        for (life, asked, expected) in [
            (24, 1, 90),
            (24, 2, 180),
            (24, 3, 360),
            (24, u32::MAX, 3600),
            (1, 1, 90),
            (1, u32::MAX, 300),
            (0, u32::MAX, 90),
        ] {
            let least = Duration::from_secs(expected);
            assert_eq!(held(life).pause(asked, 0.0), least, "{life} h, {asked}");
            assert_eq!(held(life).pause(asked, 1.0), least * 3 / 2);
        }
    }

    #[test]
    fn a_life_that_makes_no_sense_is_no_panic() {
        for (not_before, not_after) in [
            (20, 10),
            (i64::MIN, i64::MAX),
            (0, i64::MAX),
            (i64::MAX, i64::MAX),
        ] {
            let life = Life {
                not_before,
                not_after,
            };
            let held = Held {
                life,
                origin: Origin::Told,
                since: reading(0, 0),
                jitter: 1.0,
            };
            let _ = held.due_in(reading(1, 1));
            let _ = (due_at(life, 1.0), held.pause(1, 1.0));
        }
    }
}
