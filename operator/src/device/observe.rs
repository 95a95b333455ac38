//! What is known of a device: all of it is in the stores, but for the Secret of one whose certificate was just renewed.

use crds::{Device, presence::GatewayLease};
use kube::ResourceExt as _;

use super::plan::{Observed, not_handed_out};
use crate::{
    context::{Context, now},
    pairing_request::{device_secret, owned_by, plan::SecretState},
    reconcile::Error,
};

pub async fn observe(context: &Context, device: Device) -> Result<Observed, Error> {
    let session = device
        .status
        .as_ref()
        .and_then(|status| status.session.as_ref());
    let lease = session.map_or(GatewayLease::Absent, |session| {
        context.gateways.lease(&session.gateway)
    });
    let lacks_newest = device
        .status
        .as_ref()
        .is_some_and(|status| not_handed_out(status).is_some());
    let secret = if lacks_newest {
        let namespace = device.namespace().unwrap_or_default();
        device_secret(context, &namespace, &device.name_any(), |secret| {
            owned_by(secret, &device)
        })
        .await?
    } else {
        SecretState::NotRead
    };
    Ok(Observed {
        now: now(),
        device,
        lease,
        secret,
    })
}
