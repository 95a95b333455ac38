//! What is known of a device: all of it is in the stores, but for the Secret of one whose certificate was just renewed.

use crds::{Device, presence::GatewayLease};
use kube::ResourceExt as _;

use super::plan::{Observed, is_due, not_handed_out};
use crate::{
    context::{Context, now},
    pairing_request::{device_secret, owned_by, plan::SecretState},
    policies::{Probe, plan::Standing},
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
    let mut observed = Observed {
        now: now(),
        device,
        lease,
        secret,
        policies: Standing::NotChecked,
    };
    if is_due(&observed) {
        let probes = [
            Probe::device_status(&observed.device),
            Probe::device_origin(),
        ];
        let namespace = observed.device.namespace().unwrap_or_default();
        observed.policies = context.policies.check(&namespace, &probes).await?;
    }
    Ok(observed)
}
