//! Time in the harness: measuring, and waiting for a condition with a deadline.
//!
//! Nothing else may sleep: a test that sleeps is slow when all is well and wrong when the machine is busy.

use std::time::{Duration, Instant};

use jiff::Timestamp;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The time of this machine, on which the API server, the agents and the providers of a trial run as well.
#[expect(
    clippy::disallowed_methods,
    reason = "resources have moments of the same clock"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// How long something took.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness measures; this is its one clock"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Milliseconds from this start to a later one; 0 where it was earlier.
    pub fn until(&self, later: &Self) -> f64 {
        later.0.saturating_duration_since(self.0).as_secs_f64() * 1000.0
    }

    /// Time since the start, in milliseconds with fractions.
    pub fn millis(&self) -> f64 {
        self.elapsed().as_secs_f64() * 1000.0
    }
}

/// Tries until `attempt` gives a value, and gives that value.
///
/// `Ok(None)` and `Err` both mean "not yet"; the last error is told when the deadline passes.
///
/// # Errors
/// When `deadline` has passed: what was awaited, for how long, and why the last attempt was not enough. A single
/// attempt that hangs is cut off at the deadline, too.
pub async fn until<T, Attempt>(
    what: &str,
    deadline: Duration,
    mut attempt: impl FnMut() -> Attempt,
) -> anyhow::Result<T>
where
    Attempt: Future<Output = anyhow::Result<Option<T>>>,
{
    let mut last = None;
    let trying = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt().await {
                Ok(Some(value)) => return value,
                Ok(None) => last = None,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    };
    if let Ok(value) = tokio::time::timeout(deadline, trying).await {
        return Ok(value);
    }
    let late = format!("{what}: not within {} s", deadline.as_secs_f32());
    Err(match last {
        Some(error) => error.context(late),
        None => anyhow::Error::msg(late),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_comes_is_told_with_the_last_reason() {
        let error = until::<(), _>("the moon falls", Duration::from_millis(50), async || {
            anyhow::bail!("still up")
        })
        .await
        .unwrap_err();
        let told = format!("{error:#}");
        assert!(
            told.starts_with("the moon falls: not within") && told.ends_with("still up"),
            "{told}"
        );
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_is_cut_off() {
        let hanging = until::<(), _>("an answer", Duration::from_millis(50), async || {
            std::future::pending().await
        });
        assert!(hanging.await.is_err());
    }

    #[tokio::test]
    async fn the_value_of_the_first_success_is_given() {
        let mut tries = 0;
        let got = until("third time", Duration::from_secs(5), || {
            tries += 1;
            let tries = tries;
            async move { Ok((tries == 3).then_some(tries)) }
        });
        assert_eq!(got.await.unwrap(), 3);
    }
}
