//! When a request is sent again. Pure, but for the drawing of a random number.

use std::time::Duration;

use backon::ExponentialBuilder;

use crate::error::Error;

/// How often and how soon something is tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retries {
    /// Tries of one request, the first among them; 1: none is sent again. Only what can be sent twice without harm is.
    pub attempts: u32,
    /// Connections in a row that an event stream fails to get before it gives up.
    pub reconnects: u32,
    /// The pause before the second try. It doubles from there, and jitter is added.
    pub first_pause: Duration,
    /// The longest pause of our own.
    pub longest_pause: Duration,
    /// The longest pause that a console may ask for by `Retry-After`. Where it asks for more, the error is returned, and
    /// says when to come back: to come sooner would not be honest, and to wait for so long is for the caller to decide.
    pub longest_asked: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 4,
            reconnects: 12,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
            longest_asked: Duration::from_secs(30),
        }
    }
}

impl Retries {
    /// The pauses between the tries of one request.
    pub(crate) fn pauses(&self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_min_delay(self.first_pause)
            .with_max_delay(self.longest_pause)
            .with_max_times(self.attempts.saturating_sub(1) as usize)
            .with_jitter()
    }

    /// How long to wait after `error` where `planned` would be next; `None`: not at all, the error stands.
    pub(crate) fn after(&self, error: &Error, planned: Option<Duration>) -> Option<Duration> {
        let planned = planned?;
        match error.retry_after() {
            None => Some(planned),
            Some(asked) if asked <= self.longest_asked => Some(planned.max(asked)),
            Some(_) => None,
        }
    }

    /// How long a stream waits before its next connection after `failures` (1 or more) in a row. Full jitter: all
    /// streams of a gateway that died go to another one, and not in one instant. `random` is in 0..1.
    pub(crate) fn reconnect(
        &self,
        failures: u32,
        asked: Option<Duration>,
        random: f64,
    ) -> Duration {
        let ceiling = self
            .first_pause
            .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
            .min(self.longest_pause);
        let pause = ceiling.mul_f64(random.clamp(0.0, 1.0));
        pause.max(asked.unwrap_or_default().min(self.longest_asked))
    }
}

/// The edge: draws what [`Retries::reconnect`] wants.
pub(crate) fn random() -> f64 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use backon::BackoffBuilder as _;
    use http::StatusCode;

    use super::*;

    fn asking(seconds: Option<u64>) -> Error {
        Error::Status {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    #[test]
    fn what_the_console_asks_for_is_obeyed_or_the_error_stands() {
        let retries = Retries::default();
        let second = Duration::from_secs(1);
        assert_eq!(retries.after(&asking(None), Some(second)), Some(second));
        assert_eq!(
            retries.after(&asking(Some(9)), Some(second)),
            Some(9 * second)
        );
        assert_eq!(retries.after(&asking(Some(0)), Some(second)), Some(second));
        assert_eq!(
            retries.after(&asking(Some(31)), Some(second)),
            None,
            "never sooner than asked"
        );
        assert_eq!(
            retries.after(&asking(Some(1)), None),
            None,
            "the tries are used up"
        );
    }

    #[test]
    fn tries_are_counted_with_the_first() {
        for (attempts, pauses) in [(0, 0), (1, 0), (4, 3)] {
            let retries = Retries {
                attempts,
                ..Retries::default()
            };
            assert_eq!(retries.pauses().build().count(), pauses, "{attempts}");
        }
    }

    #[test]
    fn the_pause_of_a_stream_lies_anywhere_below_a_ceiling_that_doubles() {
        let retries = Retries::default();
        for (failures, ceiling) in [
            (1, 200),
            (2, 400),
            (3, 800),
            (40, 10_000),
            (u32::MAX, 10_000),
        ] {
            assert_eq!(
                retries.reconnect(failures, None, 1.0),
                Duration::from_millis(ceiling),
                "{failures}"
            );
            assert_eq!(retries.reconnect(failures, None, 0.0), Duration::ZERO);
        }
        let asked = Some(Duration::from_secs(3));
        assert_eq!(retries.reconnect(1, asked, 0.5), Duration::from_secs(3));
        assert_eq!(
            retries.reconnect(1, Some(Duration::MAX), 0.5),
            retries.longest_asked,
            "but not for ever"
        );
    }
}
