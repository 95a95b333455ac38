//! Ends the sessions that an earlier life of this gateway left open.
//!
//! A gateway that was killed and comes back under its own name renews its own Lease, and so vouches for sessions that
//! it does not hold. Devices that come back begin new ones; the rest is ended once, a while after the start.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;

use super::{Shared, presence};
use crate::{domain::device::KnownDevice, index::watch::Synced};

/// How long devices have to come back.
const WAIT: Duration = Duration::from_secs(30);
/// Ends that are under way at once.
const AT_ONCE: usize = 8;

/// Runs once.
pub async fn end(shared: Arc<Shared>, synced: Synced) {
    let work = async {
        synced.wait().await;
        let before = open(&shared);
        tokio::time::sleep(WAIT).await;
        let still = before
            .into_iter()
            .filter(|(device, _)| !shared.live.contains(&device.key));
        futures::stream::iter(still)
            .for_each_concurrent(AT_ONCE, |(device, epoch)| {
                let shared = Arc::clone(&shared);
                async move { presence::end(&shared, &device.key, epoch).await }
            })
            .await;
    };
    tokio::select! {
        () = work => {}
        () = shared.stop.cancelled() => {}
    }
}

/// Devices whose open session is said to be here, with its epoch.
fn open(shared: &Shared) -> Vec<(Arc<KnownDevice>, i64)> {
    let epoch = |device: &KnownDevice| {
        let session = device.status.session.as_ref()?;
        (session.gateway == shared.settings.gateway && session.ended_at.is_none())
            .then_some(session.epoch)
    };
    let devices = shared
        .index
        .devices
        .filter(|device| epoch(device).is_some() && !shared.live.contains(&device.key));
    devices
        .into_iter()
        .filter_map(|device| epoch(&device).map(|epoch| (device, epoch)))
        .collect()
}
