//! What the end of a connection means for the next attempt. Pure.

use std::{fmt, time::Duration};

use super::backoff;

/// A session that lasted so long was a good one: what failed before it does not count.
const GOOD: Duration = Duration::from_secs(10);

/// How a connection, or the attempt at one, ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// There was none.
    Unreachable { reason: String },
    /// The gateway has no time.
    Busy { after: Option<Duration> },
    /// The gateway does not let this device in: suspended, revoked, unknown, or its certificate does not hold.
    Refused { reason: String },
    /// It broke.
    Lost { reason: String },
    /// The gateway goes, and named the moment to connect to another.
    Drained { remaining: Duration },
    /// This device has another certificate and ended it, to go on with that one.
    Renewed,
    /// The agent goes.
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { reason } => write!(f, "the gateway cannot be reached: {reason}"),
            Self::Busy { .. } => f.write_str("the gateway has no time"),
            Self::Refused { reason } => {
                write!(f, "the gateway does not let this device in: {reason}")
            }
            Self::Lost { reason } => write!(f, "the stream ended: {reason}"),
            Self::Drained { .. } => f.write_str("the gateway goes"),
            Self::Renewed => f.write_str("this device has another certificate"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// What failed in a row.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attempts {
    failures: u32,
    refusals: u32,
}

impl Attempts {
    /// How long to wait before the next attempt, after a connection that ended so; `None` for never. `session`: how long
    /// the device was welcome, `None` where it never was. Time in which a gateway did not answer is no session, or one
    /// that hangs would be asked again at once for ever.
    pub fn after(
        &mut self,
        end: &End,
        session: Option<Duration>,
        gateways: usize,
        random: f64,
    ) -> Option<Duration> {
        if session.is_some_and(|lasted| lasted >= GOOD) {
            *self = Self::default();
        }
        let asked = match end {
            End::Stopped => return None,
            End::Drained { remaining } => {
                *self = Self::default();
                // Each device was given a moment of its own already.
                return Some(backoff::at_least(Duration::ZERO, Some(*remaining)));
            }
            End::Refused { .. } => {
                self.refusals = self.refusals.saturating_add(1);
                return Some(backoff::banishment(self.refusals, random));
            }
            End::Busy { after } => *after,
            // After a good session at once; but whoever renews in a loop finds it slow.
            End::Unreachable { .. } | End::Lost { .. } | End::Renewed => None,
        };
        self.refusals = 0;
        self.failures = self.failures.saturating_add(1);
        let pause = backoff::pause(self.failures, gateways, random);
        Some(backoff::at_least(pause, asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Option<Duration> = None;
    const SHORT: Option<Duration> = Some(Duration::from_secs(1));
    const LONG: Option<Duration> = Some(Duration::from_hours(1));

    fn lost() -> End {
        End::Lost {
            reason: String::new(),
        }
    }

    fn refused() -> End {
        End::Refused {
            reason: String::new(),
        }
    }

    #[test]
    fn a_gateway_that_dies_costs_a_moment_and_one_that_throws_out_at_once_costs_more_each_time() {
        let mut attempts = Attempts::default();
        let mut after = |end, session| attempts.after(&end, session, 2, 1.0).unwrap();
        let first = after(lost(), LONG);
        assert!(first <= Duration::from_millis(200));
        assert_eq!(after(lost(), SHORT), first);
        assert_eq!(after(lost(), SHORT), Duration::from_secs(1));
        assert_eq!(after(lost(), SHORT), Duration::from_secs(1));
        assert_eq!(after(lost(), SHORT), Duration::from_secs(2));
        assert_eq!(after(lost(), LONG), first);
    }

    #[test]
    fn a_gateway_that_never_welcomes_is_asked_less_and_less_however_long_it_takes() {
        let mut attempts = Attempts::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.extend(attempts.after(&lost(), NEVER, 1, 1.0));
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&Duration::from_secs(30)));
    }

    #[test]
    fn who_is_refused_stays_away_and_comes_back_quickly_once_let_in() {
        let mut attempts = Attempts::default();
        let mut after = |end, session| attempts.after(&end, session, 1, 1.0).unwrap();
        assert_eq!(after(refused(), SHORT), Duration::from_secs(10));
        assert_eq!(after(refused(), SHORT), Duration::from_secs(20));
        assert_eq!(after(lost(), LONG), Duration::from_millis(200));
        assert_eq!(after(refused(), SHORT), Duration::from_secs(10));
    }

    #[test]
    fn a_device_with_another_certificate_is_back_at_once_but_not_in_a_loop() {
        let mut attempts = Attempts::default();
        let mut after = |session| attempts.after(&End::Renewed, session, 1, 1.0).unwrap();
        assert!(after(LONG) <= Duration::from_millis(200));
        assert!(after(LONG) <= Duration::from_millis(200));
        assert_eq!(after(SHORT), Duration::from_secs(1));
        assert_eq!(after(SHORT), Duration::from_secs(2));
    }

    #[test]
    fn a_drain_and_a_busy_gateway_name_the_moment() {
        let mut attempts = Attempts::default();
        let remaining = Duration::from_secs(7);
        let drained = End::Drained { remaining };
        assert_eq!(attempts.after(&drained, SHORT, 2, 0.0), Some(remaining));
        let busy = End::Busy {
            after: Some(remaining),
        };
        assert_eq!(attempts.after(&busy, SHORT, 2, 0.0), Some(remaining));
        assert_eq!(attempts.after(&End::Stopped, SHORT, 2, 0.0), None);
    }
}
