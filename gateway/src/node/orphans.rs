//! Ends the sessions that an earlier life of this gateway left open.
//!
//! A gateway that was killed and comes back under its own name renews its own Lease, and so vouches for sessions that
//! it does not hold. Devices that come back begin new ones; the rest is ended once, a while after the start. What the
//! earlier life may have sent is marked first: whoever sees the end of a session takes what is queued for never sent.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::Timestamp;

use super::{Shared, presence, writes};
use crate::{
    clock::now,
    domain::{
        device::{DeviceKey, KnownDevice},
        invocation::OpenInvocation,
        underway::Underway,
    },
    index::watch::Synced,
};
use crds::v1alpha1::capability_invocation::InvocationPhase;

/// How long devices have to come back.
const WAIT: Duration = Duration::from_secs(30);
/// Ends that are under way at once.
const AT_ONCE: usize = 8;
/// When a mark that failed is tried again, and how often.
const MARK_AGAIN: Duration = Duration::from_secs(2);
const MARK_TRIES: usize = 300;

/// Runs once.
pub async fn end(shared: Arc<Shared>, synced: Synced) {
    let work = async {
        synced.wait().await;
        let (before, began) = (open(&shared), now());
        tokio::time::sleep(WAIT).await;
        let still = before
            .into_iter()
            .filter(|(device, _)| !shared.live.contains(&device.key));
        futures::stream::iter(still)
            .for_each_concurrent(AT_ONCE, |(device, epoch)| {
                let shared = Arc::clone(&shared);
                async move {
                    mark(&shared, &device.key, |invocation| {
                        may_be_sent(&device, began, invocation)
                    })
                    .await;
                    presence::end(&shared, &device.key, epoch).await;
                }
            })
            .await;
    };
    tokio::select! {
        () = work => {}
        () = shared.stop.cancelled() => {}
    }
}

/// Whether it was queued for the device while the earlier life held it. `began`: when this life did.
fn may_be_sent(device: &KnownDevice, began: Timestamp, invocation: &OpenInvocation) -> bool {
    let session = device.status.session.as_ref();
    let connected = session.and_then(|session| Some(session.connected_at.as_ref()?.0));
    invocation.created <= began && connected.is_none_or(|connected| connected <= invocation.created)
}

/// Marks what is queued for the device and may have been sent by a stream that is gone and said nothing of it.
pub async fn mark(
    shared: &Shared,
    device: &DeviceKey,
    may_be_sent: impl Fn(&OpenInvocation) -> bool,
) {
    for entry in shared.index.invocations.of(device).entries {
        let invocation = &entry.invocation;
        if invocation.phase() != InvocationPhase::Queued || !may_be_sent(invocation) {
            continue;
        }
        for _ in 0..MARK_TRIES {
            if shared.live.contains(device) {
                // Its own stream asks it.
                return;
            }
            let underway = Underway {
                // Nobody knows when. What never was sent has its time still.
                sent: now(),
                asks: false,
                progress: None,
            };
            let marked = writes::mark(shared, Arc::clone(invocation), underway).await;
            if marked.is_ok() {
                break;
            }
            tokio::time::sleep(MARK_AGAIN).await;
        }
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
