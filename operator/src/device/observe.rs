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
    let secret = match device.status.as_ref().and_then(not_handed_out) {
        None => SecretState::NotRead,
        Some(_) => {
            let namespace = device.namespace().unwrap_or_default();
            device_secret(context, &namespace, &device.name_any(), |secret| {
                owned_by(secret, &device)
            })
            .await?
        }
    };
    Ok(Observed {
        now: now(),
        device,
        lease,
        secret,
    })
}
