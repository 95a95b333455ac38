//! What time it is: the only place that asks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment on this machine's own time line, which never goes back and counts the time that a laptop sleeps: an
/// invocation whose deadline passed meanwhile must not start when the lid opens.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(Duration);

impl Moment {
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// Zero for a moment that is not later than `earlier`.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

pub fn now() -> Moment {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    // A clock that counts from the start of the machine is not negative.
    Moment(Duration::try_from(clock_gettime(clock)).unwrap_or_default())
}

/// What the wall clock says, which may be wrong: for people and for certificates, never for a deadline.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge: the clock is read here"
)]
pub fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_never_underflows() {
        let earlier = now();
        assert!(now() >= earlier);
        assert_eq!(
            Moment::from_millis(1).since(Moment::from_millis(2)),
            Duration::ZERO
        );
        assert_eq!(
            Moment::from_millis(1).after(Duration::from_millis(1)),
            Moment::from_millis(2)
        );
    }
}
