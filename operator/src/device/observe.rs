//! What is known of a device: all of it is in the stores.

use crds::{Device, presence::GatewayLease};

use super::plan::Observed;
use crate::context::{Context, now};

pub fn observe(context: &Context, device: Device) -> Observed {
    let now = now();
    let session = device
        .status
        .as_ref()
        .and_then(|status| status.session.as_ref());
    let lease = session.map_or(GatewayLease::Absent, |session| {
        context.gateways.lease(&session.gateway, now)
    });
    Observed { now, device, lease }
}
