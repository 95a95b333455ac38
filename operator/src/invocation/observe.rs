//! What is known of an invocation: from the stores, but for a device that they do not know.

use crds::{CapabilityInvocation, Device, presence::GatewayLease};
use kube::{Api, ResourceExt as _, runtime::reflector::ObjectRef};

use super::plan::{Observed, Target};
use crate::{
    context::{Context, now},
    reconcile::{Error, api},
};

pub async fn observe(
    context: &Context,
    invocation: CapabilityInvocation,
) -> Result<Observed, Error> {
    let namespace = invocation.namespace().unwrap_or_default();
    let name = &invocation.spec.device_ref.name;
    let device = match context
        .devices
        .get(&ObjectRef::new(name).within(&namespace))
    {
        Some(seen) => match &seen.0 {
            Ok(device) => Target::known(device.clone()),
            Err(_) => Target::Unreadable,
        },
        // Made a moment ago, or never.
        None => Api::<Device>::namespaced(context.client.clone(), &namespace)
            .get_opt(name)
            .await
            .map_err(api("get the Device"))?
            .map_or(Target::Absent, Target::known),
    };
    let lease = match &device {
        Target::Known(device) => device
            .status
            .as_ref()
            .and_then(|status| status.session.as_ref())
            .map_or(GatewayLease::Absent, |session| {
                context.gateways.lease(&session.gateway)
            }),
        Target::Absent | Target::Unreadable => GatewayLease::Absent,
    };
    let now = now();
    let devices_since = context
        .devices_sight
        .since()
        .map_or(now, |since| since.time);
    Ok(Observed {
        now,
        // After the look at the Device: one that went meanwhile is noted before the store lacks it.
        absence: context.departed.absence(&namespace, name, devices_since),
        standing: context.backlog.standing(&invocation),
        seen_since: context
            .invocations_sight
            .since()
            .map_or(now, |since| since.time),
        invocation,
        device,
        lease,
    })
}
