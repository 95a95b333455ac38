//! Makes a plan for a request happen.

use std::collections::BTreeMap;

use crds::{
    Device, PairingRequest, names,
    v1alpha1::{
        DeviceStatus, PairingRequestStatus,
        device::DeviceCertificate,
        pairing_request::{IssuedCertificate, KeyCustody},
    },
};
use jiff::SignedDuration;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};

use serde_json::json;

use super::plan::{Change, WANTED_BY};
use crate::{
    authority::{
        csr::DeviceKey,
        new_key,
        store::{MANAGED_BY, applied, text},
    },
    context::{Context, now},
    device::with_certificate,
    reconcile::{Error, api, write_status},
};

pub async fn apply(
    context: &Context,
    request: &PairingRequest,
    changes: &[Change],
) -> Result<(), Error> {
    for change in changes {
        match change {
            Change::MakeKey { device } => make_key(context, request, device).await?,
            Change::CreateDevice(device) => {
                devices(context, request)
                    .create(&created(), device)
                    .await
                    .map_err(api("create the Device"))?;
            }
            Change::Issue {
                key,
                device,
                ttl_seconds,
                status,
            } => {
                issue(context, request, key, device, *ttl_seconds, status).await?;
            }
            Change::Grant {
                device,
                capabilities,
                surfaces,
                labels,
            } => {
                // A merge leaves what it does not name.
                let gone = device.spec.grants.surfaces.keys().map(|name| (name, None));
                let surfaces = surfaces.iter().map(|(name, digest)| (name, Some(digest)));
                let surfaces: BTreeMap<_, _> = gone.chain(surfaces).collect();
                // Onto the version that was observed: what an administrator grants meanwhile is not undone unseen.
                let patch = json!({
                    "metadata": { "resourceVersion": device.resource_version(), "labels": labels },
                    "spec": { "grants": { "capabilities": capabilities, "surfaces": surfaces } },
                });
                let params = PatchParams {
                    field_manager: Some(names::OPERATOR.to_owned()),
                    ..PatchParams::default()
                };
                devices(context, request)
                    .patch(&device.name_any(), &params, &Patch::Merge(patch))
                    .await
                    .map_err(api("write the Device's grants"))?;
            }
            Change::WriteSecret {
                device,
                chain,
                ca_bundle,
            } => write_secret(context, device, chain, ca_bundle).await?,
            Change::Record {
                device,
                certificate,
            } => {
                let status = record(device, certificate);
                write_status(
                    &devices(context, request),
                    &**device,
                    device.status.as_ref(),
                    &status,
                )
                .await?;
            }
            Change::WriteStatus(status) => {
                write_status(
                    &requests(context, request),
                    request,
                    request.status.as_ref(),
                    &**status,
                )
                .await?;
            }
        }
    }
    Ok(())
}

async fn make_key(context: &Context, request: &PairingRequest, device: &str) -> Result<(), Error> {
    let key = new_key().map_err(Error::Sign)?;
    let metadata = ObjectMeta {
        name: Some(names::device_secret(device)),
        namespace: request.namespace(),
        labels: Some(BTreeMap::from([(
            MANAGED_BY.0.to_owned(),
            MANAGED_BY.1.to_owned(),
        )])),
        annotations: request
            .uid()
            .map(|uid| BTreeMap::from([(WANTED_BY.to_owned(), uid)])),
        // Until the Device is there to own it.
        owner_references: request.owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let secret = Secret {
        metadata,
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([text("tls.key", key.serialize_pem())])),
        ..Secret::default()
    };
    // Created, not applied: a key that is there already may have been signed for.
    secrets(context, request)
        .create(&created(), &secret)
        .await
        .map_err(api("create the device's Secret"))?;
    Ok(())
}

/// Signs and writes in one step, onto the version that was observed: of two signatures one reaches the status.
async fn issue(
    context: &Context,
    request: &PairingRequest,
    key: &DeviceKey,
    device: &str,
    ttl_seconds: i64,
    status: &PairingRequestStatus,
) -> Result<(), Error> {
    let namespace = request.namespace().unwrap_or_default();
    let issued = context
        .authority
        .sign_device(
            key,
            &namespace,
            device,
            SignedDuration::from_secs(ttl_seconds),
            now(),
        )
        .map_err(Error::Sign)?;
    let certificate = IssuedCertificate {
        chain: issued.chain,
        serial: issued.serial,
        not_before: Time(issued.not_before),
        not_after: Time(issued.not_after),
    };
    let status = PairingRequestStatus {
        certificate: Some(certificate),
        ca_bundle: Some(context.authority.certificate().to_owned()),
        signed_bundle: Some(context.signed_bundle.clone()),
        ..status.clone()
    };
    write_status(
        &requests(context, request),
        request,
        request.status.as_ref(),
        &status,
    )
    .await?;
    context
        .report
        .metrics
        .certificate(match request.spec.key_custody {
            KeyCustody::Device => "device",
            KeyCustody::Operator => "pod",
        });
    Ok(())
}

/// Writes the Secret of a device.
pub async fn write_secret(
    context: &Context,
    device: &Device,
    chain: &str,
    ca_bundle: &str,
) -> Result<(), Error> {
    let secret = build_secret(device, chain, ca_bundle);
    let namespace = device.namespace().unwrap_or_default();
    Api::<Secret>::namespaced(context.client.clone(), &namespace)
        .patch(&secret.name_any(), &applied(), &Patch::Apply(&secret))
        .await
        .map_err(api("write the device's Secret"))?;
    Ok(())
}

/// The Secret of a device, for pods that mount it. Server-side apply leaves a key in it that was there before.
pub fn build_secret(device: &Device, chain: &str, ca_bundle: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(names::device_secret(&device.name_any())),
            namespace: device.namespace(),
            labels: Some(BTreeMap::from([(
                MANAGED_BY.0.to_owned(),
                MANAGED_BY.1.to_owned(),
            )])),
            owner_references: device.owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        // Not kubernetes.io/tls: that type demands a key, and most devices keep theirs.
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([
            text("tls.crt", chain.to_owned()),
            text("ca.crt", ca_bundle.to_owned()),
        ])),
        ..Secret::default()
    }
}

/// The status of a Device that has this certificate.
pub fn record(device: &Device, certificate: &DeviceCertificate) -> DeviceStatus {
    with_certificate(
        device.status.clone().unwrap_or_default(),
        certificate.clone(),
    )
}

fn created() -> PostParams {
    PostParams {
        field_manager: Some(names::OPERATOR.to_owned()),
        ..PostParams::default()
    }
}

fn requests(context: &Context, request: &PairingRequest) -> Api<PairingRequest> {
    Api::namespaced(
        context.client.clone(),
        &request.namespace().unwrap_or_default(),
    )
}

fn devices(context: &Context, request: &PairingRequest) -> Api<Device> {
    Api::namespaced(
        context.client.clone(),
        &request.namespace().unwrap_or_default(),
    )
}

fn secrets(context: &Context, request: &PairingRequest) -> Api<Secret> {
    Api::namespaced(
        context.client.clone(),
        &request.namespace().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::DeviceSpec;

    use super::*;
    use crate::authority::store::read;

    #[test]
    fn the_secret_of_a_device_has_its_chain_and_the_bundle_and_goes_with_it() {
        let mut device = Device::new("lamp", DeviceSpec::default());
        device.metadata.namespace = Some("kitchen".to_owned());
        device.metadata.uid = Some("lamp-uid".to_owned());
        let secret = build_secret(&device, "CHAIN", "BUNDLE");
        assert_eq!(secret.name_any(), "lamp-mtls");
        assert_eq!(secret.namespace().as_deref(), Some("kitchen"));
        assert_eq!(read(&secret, "tls.crt").as_deref(), Some("CHAIN"));
        assert_eq!(read(&secret, "ca.crt").as_deref(), Some("BUNDLE"));
        let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key).collect();
        assert_eq!(keys, ["ca.crt", "tls.crt"], "a key that is there stays");
        let [owner] = secret.owner_references() else {
            panic!("{:?}", secret.metadata.owner_references)
        };
        assert_eq!((&*owner.kind, &*owner.uid), ("Device", "lamp-uid"));
        assert_eq!(secret.labels()[MANAGED_BY.0], MANAGED_BY.1);
    }
}
