//! Makes a plan for a device happen.

use crds::{
    Device,
    v1alpha1::{
        DeviceStatus,
        device::{DeviceCertificate, Renewal},
    },
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt as _};

use super::{history::with_certificate, plan::Change};
use crate::{
    authority::{self, Issued, chain, csr::DeviceKey},
    context::{Context, now},
    pairing_request::write_secret,
    reconcile::{Error, write_status},
};

pub async fn apply(context: &Context, device: &Device, changes: &[Change]) -> Result<(), Error> {
    let devices: Api<Device> = Api::namespaced(
        context.client.clone(),
        &device.namespace().unwrap_or_default(),
    );
    for change in changes {
        match change {
            Change::Renew { key } => renew(context, &devices, device, key).await?,
            Change::WriteSecret { chain } => {
                write_secret(context, device, chain, context.authority.certificate()).await?;
            }
            Change::WriteStatus(status) => {
                write_status(&devices, device, device.status.as_ref(), &**status).await?;
            }
        }
    }
    Ok(())
}

/// Signs and writes in one step, onto the version that was observed: of two signatures one reaches the status.
async fn renew(
    context: &Context,
    devices: &Api<Device>,
    device: &Device,
    key: &DeviceKey,
) -> Result<(), Error> {
    let issued = context
        .authority
        .sign_device(
            key,
            &device.namespace().unwrap_or_default(),
            &device.name_any(),
            SignedDuration::from_secs(device.spec.certificate.ttl_seconds),
            now(),
        )
        .map_err(Error::Sign)?;
    let status = renewed(device, &issued, &context.signed_bundle).map_err(Error::Sign)?;
    write_status(devices, device, device.status.as_ref(), &status).await?;
    context.report.metrics.certificate("renewal");
    Ok(())
}

/// The status of a Device that asked for this certificate. `signed_bundle`: base64.
pub fn renewed(
    device: &Device,
    issued: &Issued,
    signed_bundle: &str,
) -> Result<DeviceStatus, authority::Error> {
    let before = device.status.clone().unwrap_or_default();
    let leaf = chain::leaf(&issued.chain).ok_or(authority::Error::Certificate)?;
    let generation = before
        .certificate
        .as_ref()
        .map_or(1, |certificate| certificate.generation.saturating_add(1));
    let asked = before.renewal.clone().unwrap_or_default();
    let certificate = DeviceCertificate {
        serial: issued.serial.clone(),
        fingerprint: leaf.fingerprint,
        generation,
        not_before: Time(issued.not_before),
        not_after: Time(issued.not_after),
        authority: chain::authorities(&issued.chain)
            .last()
            .map(ToString::to_string),
    };
    Ok(DeviceStatus {
        renewal: Some(Renewal {
            csr: asked.csr,
            requested_at: asked.requested_at,
            chain: Some(issued.chain.clone()),
            signed_bundle: Some(signed_bundle.to_owned()),
            generation: Some(generation),
            refused: None,
            secret_generation: None,
        }),
        ..with_certificate(before, certificate)
    })
}
