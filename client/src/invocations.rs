//! Running a capability on a device.

use std::time::Duration;

use console_api::{
    ObjectId,
    invocation::{Invocation, InvocationPage, MAX_WAIT_SECONDS, NewInvocation},
    query::{InvocationsQuery, WaitQuery},
    routes,
};
use tokio::time::Instant;

use crate::{ControlPlaneClient, error::Result, key::IdempotencyKey, transport::Ask};

/// Shortest time between two polls: a console that answers at once, again and again, is not asked as fast.
const BETWEEN_POLLS: Duration = Duration::from_millis(250);

/// What came of waiting.
#[derive(Clone, Debug, PartialEq)]
pub enum Waited {
    /// It has ended, however it did.
    Ended(Box<Invocation>),
    /// The time was over first. It goes on, and can be waited for again.
    Open(Box<Invocation>),
}

impl ControlPlaneClient {
    /// Runs a capability, once: where the connection breaks, it is asked for again with the same key. The answer says that
    /// it was made, not how it ended: [`wait`](Self::wait).
    pub async fn invoke(&self, invocation: &NewInvocation) -> Result<Invocation> {
        self.invoke_once(invocation, &IdempotencyKey::random())
            .await
    }

    /// The same, with a key of the caller's: another process may repeat it.
    pub async fn invoke_once(
        &self,
        invocation: &NewInvocation,
        key: &IdempotencyKey,
    ) -> Result<Invocation> {
        let ask = Ask::post(routes::INVOCATIONS)
            .json(invocation)?
            .once(key.as_str())?;
        self.inner.json(&ask).await
    }

    /// An invocation as it is now.
    pub async fn invocation(&self, id: &ObjectId) -> Result<Invocation> {
        self.poll(id, Duration::ZERO).await
    }

    /// Waits until an invocation has ended, for so long at most.
    pub async fn wait(&self, id: &ObjectId, timeout: Duration) -> Result<Waited> {
        let end = deadline(timeout);
        loop {
            let next = Instant::now() + BETWEEN_POLLS;
            let left = end.saturating_duration_since(Instant::now());
            let invocation = Box::new(self.poll(id, left).await?);
            if invocation.summary.phase.is_terminal() {
                return Ok(Waited::Ended(invocation));
            }
            if Instant::now() >= end {
                return Ok(Waited::Open(invocation));
            }
            tokio::time::sleep_until(next.min(end)).await;
        }
    }

    /// Asks for an invocation to be stopped. The answer is how it is then, which need not be its end: what was done a moment
    /// before the stop is done.
    pub async fn cancel(&self, id: &ObjectId) -> Result<Invocation> {
        let ask = Ask::post(routes::with_id(routes::INVOCATION_CANCEL, id));
        self.inner.json(&ask).await
    }

    /// A page of invocations.
    pub async fn invocations(&self, query: &InvocationsQuery) -> Result<InvocationPage> {
        self.inner
            .json(&Ask::get(routes::INVOCATIONS).query(query)?)
            .await
    }

    async fn poll(&self, id: &ObjectId, patience: Duration) -> Result<Invocation> {
        let seconds = whole_seconds(patience);
        let ask = Ask::get(routes::with_id(routes::INVOCATION, id))
            .query(&WaitQuery {
                wait: (seconds > 0).then_some(seconds),
            })?
            .patience(Duration::from_secs(seconds.into()));
        self.inner.json(&ask).await
    }
}

/// The end of a wait. Who waits for ever waits for a year: a moment beyond all time is none.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(Duration::from_hours(24 * 365))
}

/// `?wait=` of so long, rounded up: the last part of a second is waited for, too.
fn whole_seconds(patience: Duration) -> u32 {
    let seconds = patience
        .as_secs()
        .saturating_add(u64::from(patience.subsec_nanos() > 0));
    u32::try_from(seconds)
        .unwrap_or(u32::MAX)
        .min(MAX_WAIT_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_ever_has_a_deadline_too() {
        assert!(deadline(Duration::MAX) > deadline(Duration::from_hours(1)));
    }

    #[test]
    fn a_wait_is_rounded_up_and_bounded() {
        for (milliseconds, seconds) in [
            (0, 0),
            (1, 1),
            (1000, 1),
            (1001, 2),
            (60_000, 60),
            (600_000, 60),
        ] {
            assert_eq!(whole_seconds(Duration::from_millis(milliseconds)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), MAX_WAIT_SECONDS);
    }
}
