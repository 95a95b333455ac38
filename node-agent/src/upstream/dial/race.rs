//! Attempts that begin one shortly after the other until one succeeds (RFC 8305, section 5).

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// How long an attempt is alone: the delay that RFC 8305 recommends.
const DELAY: Duration = Duration::from_millis(250);
/// The same once its peer has accepted a connection, and the handshake is under way. On a slow line that takes longer than
/// the delay, and a second handshake would cost the gateway for nothing.
const REACHED_DELAY: Duration = Duration::from_millis(500);
/// Reports that wait to be read: one of each attempt that runs.
const REPORTS: usize = 8;

/// Tells the race that a peer has accepted the connection.
#[derive(Clone)]
pub(super) struct Reached(Option<mpsc::Sender<()>>);

impl Reached {
    /// For an attempt that races with no other.
    pub(super) fn unheard() -> Self {
        Self(None)
    }

    pub(super) fn report(&self) {
        if let Some(reports) = &self.0 {
            // The race is over, or has a report already.
            let _ = reports.try_send(());
        }
    }
}

/// The first attempt that succeeds, with its index; the others are dropped. Where none succeeds, all errors.
pub(super) async fn run<T, E, A, F>(
    attempts: impl IntoIterator<Item = A>,
) -> Result<(usize, T), Vec<(usize, E)>>
where
    A: FnOnce(Reached) -> F,
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut waiting = attempts.into_iter().enumerate().peekable();
    let (sender, mut reports) = mpsc::channel(REPORTS);
    let mut running = JoinSet::new();
    let mut failed = Vec::new();
    loop {
        if let Some((index, attempt)) = waiting.next() {
            let attempt = attempt(Reached(Some(sender.clone())));
            running.spawn(async move { (index, attempt.await) });
        } else if running.is_empty() {
            return Err(failed);
        }
        let begun = Instant::now();
        let mut delay = DELAY;
        loop {
            tokio::select! {
                biased;
                ended = running.join_next() => match ended {
                    Some(Ok((index, Ok(value)))) => return Ok((index, value)),
                    Some(Ok((index, Err(error)))) => {
                        failed.push((index, error));
                        break;
                    }
                    // A panic in an attempt, which has reported itself; or none runs.
                    Some(Err(_)) | None => break,
                },
                Some(()) = reports.recv() => delay = REACHED_DELAY,
                () = sleep_until(begun + delay), if waiting.peek().is_some() => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::Pin};

    use tokio::time::sleep;

    use super::*;

    type Attempt = Box<dyn FnOnce(Reached) -> Pin<Box<dyn Future<Output = Result<u8, u8>> + Send>>>;

    fn silent() -> Attempt {
        Box::new(|_| Box::pin(pending()))
    }

    fn accepts_and_is_silent() -> Attempt {
        Box::new(|reached| {
            reached.report();
            Box::pin(async move {
                let _reached = reached;
                pending().await
            })
        })
    }

    fn after(millis: u64, outcome: Result<u8, u8>) -> Attempt {
        Box::new(move |_| {
            Box::pin(async move {
                sleep(Duration::from_millis(millis)).await;
                outcome
            })
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_begins_when_the_one_before_is_silent_or_failed() {
        let millis = Duration::from_millis;
        for (attempts, expected, took) in [
            (
                vec![after(5, Ok(1)), after(0, Ok(2))],
                Ok((0, 1)),
                millis(5),
            ),
            (vec![silent(), after(5, Ok(2))], Ok((1, 2)), millis(255)),
            (
                vec![silent(), silent(), after(0, Ok(3))],
                Ok((2, 3)),
                millis(500),
            ),
            (
                vec![accepts_and_is_silent(), after(0, Ok(2))],
                Ok((1, 2)),
                millis(500),
            ),
            (
                vec![after(5, Err(1)), after(0, Ok(2))],
                Ok((1, 2)),
                millis(5),
            ),
            // The one that began first may still be the first to succeed.
            (
                vec![after(300, Ok(1)), after(300, Ok(2))],
                Ok((0, 1)),
                millis(300),
            ),
            (
                vec![after(400, Err(1)), after(10, Err(2))],
                Err(vec![(1, 2), (0, 1)]),
                millis(400),
            ),
            (vec![], Err(vec![]), millis(0)),
        ] {
            let begun = Instant::now();
            assert_eq!(run(attempts).await, expected);
            let elapsed = begun.elapsed();
            // A paused clock rounds timers up to a millisecond.
            assert!(
                elapsed >= took && elapsed <= took + millis(2),
                "{elapsed:?} {took:?}"
            );
        }
    }
}
