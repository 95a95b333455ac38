//! Ending a device's connection from within one of its calls: who sends what cannot be read is not read on.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::sleep};

/// How long the connection stays, for the reason to be read.
const FAREWELL: Duration = Duration::from_secs(1);

/// One connection's end. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub struct HangUp(Arc<Notify>);

impl HangUp {
    /// Ends the connection in a moment.
    pub fn soon(&self) {
        self.0.notify_one();
    }

    /// Returns when the connection is to end.
    pub fn told(&self) -> impl Future<Output = ()> + Send + use<> {
        let notify = Arc::clone(&self.0);
        async move {
            notify.notified().await;
            // Boxed, for there is one of these for each device, and hardly any gets here.
            Box::pin(sleep(FAREWELL)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_somebody_says_so_and_leaves_time_to_read_why() {
        let hang_up = HangUp::default();
        let mut told = Box::pin(hang_up.told());
        assert!(poll!(&mut told).is_pending());
        hang_up.clone().soon();
        assert!(poll!(&mut told).is_pending());
        told.await;
    }
}
