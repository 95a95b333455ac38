//! What is known of a request. One that waits for a person, or is done, is read from the stores; what is signed for is
//! read from the API server.

use crds::{Device, PairingCode, PairingRequest, names, v1alpha1::ObjectReference};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::ListParams, runtime::reflector::ObjectRef};

use super::plan::{
    Code, Devices, Observed, Signed, Stage, WANTED_BY, approves_itself, candidates, kept_in,
    recorded, stage,
};
use crate::{
    authority::{
        chain,
        csr::DeviceKey,
        store::{MANAGED_BY, read},
    },
    context::{Context, now},
    pairing_request::plan::SecretState,
    policies::{Probe, plan::Standing},
    reconcile::{Error, api},
    watch::readable,
};

/// `None` if the request is gone.
pub async fn observe(
    context: &Context,
    request: PairingRequest,
) -> Result<Option<Observed>, Error> {
    let namespace = request.namespace().unwrap_or_default();
    let mut observed = Observed {
        now: now(),
        request,
        code: Code::NotRead,
        devices: Devices::NotRead,
        secret: SecretState::NotRead,
        operator: context.user.clone(),
        policies: Standing::NotChecked,
        signed: Signed::NotRead,
    };
    match stage(&observed.request) {
        Stage::Settled => {}
        Stage::Waiting => {
            if let Some(ObjectReference { name }) = &observed.request.spec.pairing_code_ref {
                observed.code =
                    readable(&context.codes, name, &namespace).map_or(Code::Absent, Code::known);
            }
            if approves_itself(&observed).is_some() {
                observed.policies = guarded(context, &observed.request, &namespace).await?;
            }
        }
        Stage::Decided => return decided(context, observed, &namespace).await,
        Stage::Issued => {
            let status = observed.request.status.as_ref();
            let Some(name) = status
                .and_then(|status| status.device_ref.as_ref())
                .map(|device| device.name.clone())
            else {
                return Ok(Some(observed));
            };
            let seen = context
                .devices
                .get(&ObjectRef::new(&name).within(&namespace));
            let device = match seen {
                Some(seen) => seen.0.as_ref().ok().cloned(),
                // Made a moment ago, or deleted.
                None => Api::<Device>::namespaced(context.client.clone(), &namespace)
                    .get_opt(&name)
                    .await
                    .map_err(api("get the Device"))?,
            };
            if let Some(device) = device {
                if !recorded(&observed.request, &device) {
                    observed.signed = signed(&observed.request, context.authority.certificate());
                    observed.secret = secret(context, &namespace, &name, |secret| {
                        owned_by(secret, &device)
                    })
                    .await?;
                }
                observed.devices = Devices::Known(vec![device]);
            }
        }
    }
    Ok(Some(observed))
}

/// Whether a certificate, and the bundle beside it, is that of the authority: both would go to pods that mount them.
fn signed(request: &PairingRequest, authority: &str) -> Signed {
    let status = request.status.as_ref();
    let chain = status.and_then(|status| status.certificate.as_ref());
    let bundle = status.and_then(|status| status.ca_bundle.as_deref());
    let is_ours = bundle == Some(authority)
        && chain.is_some_and(|certificate| chain::is_signed_by(&certificate.chain, authority));
    if is_ours {
        Signed::Here
    } else {
        Signed::Elsewhere
    }
}

/// Everything anew: this is what is signed for.
async fn decided(
    context: &Context,
    observed: Observed,
    namespace: &str,
) -> Result<Option<Observed>, Error> {
    let requests: Api<PairingRequest> = Api::namespaced(context.client.clone(), namespace);
    let devices: Api<Device> = Api::namespaced(context.client.clone(), namespace);
    let codes: Api<PairingCode> = Api::namespaced(context.client.clone(), namespace);
    let request_name = observed.request.name_any();
    let spec = &observed.request.spec;
    let code = async {
        match &spec.pairing_code_ref {
            None => Ok(Code::NotRead),
            Some(code) => Ok(codes
                .get_opt(&code.name)
                .await?
                .map_or(Code::Absent, Code::known)),
        }
    };
    let known = async {
        let mut known = Vec::new();
        if let Some(key) = &spec.public_key_sha256 {
            let same_key = ListParams::default().fields(&format!("spec.publicKeySha256={key}"));
            known = devices.list(&same_key).await?.items;
        }
        for name in candidates(&observed.request) {
            if !known.iter().any(|device| device.name_any() == name) {
                known.extend(devices.get_opt(&name).await?);
            }
        }
        Ok(known)
    };
    let kept = async {
        match kept_in(&observed.request) {
            None => Ok(SecretState::NotRead),
            Some(name) => {
                secret(context, namespace, &name, |secret| {
                    wanted_by(secret, &observed.request)
                })
                .await
            }
        }
    };
    let read = async { futures::try_join!(requests.get_opt(&request_name), code, known) };
    let (read, secret, policies) =
        futures::join!(read, kept, guarded(context, &observed.request, namespace));
    let policies = policies?;
    let (request, code, known) = read.map_err(api(
        "get the PairingRequest, its PairingCode and its Device",
    ))?;
    let secret = secret?;
    Ok(request
        .filter(|request| request.metadata.deletion_timestamp.is_none())
        .map(|request| Observed {
            request,
            code,
            devices: Devices::Known(known),
            secret,
            policies,
            ..observed
        }))
}

/// Whether what the decision, the request and the code are worth is guarded now.
async fn guarded(
    context: &Context,
    request: &PairingRequest,
    namespace: &str,
) -> Result<Standing, Error> {
    let mut probes = vec![
        Probe::decision(request),
        Probe::request_origin(),
        Probe::device_origin(),
    ];
    if let Some(ObjectReference { name }) = &request.spec.pairing_code_ref {
        probes.push(Probe::code_approval());
        // One that is not seen yet, or gone, lets nobody in.
        let code: Option<PairingCode> = readable(&context.codes, name, namespace);
        probes.extend(code.as_ref().map(Probe::code_status));
    }
    context.policies.check(namespace, &probes).await
}

/// What the Secret of a device is, if it has one.
pub(crate) async fn secret(
    context: &Context,
    namespace: &str,
    device: &str,
    is_ours: impl FnOnce(&Secret) -> bool,
) -> Result<SecretState, Error> {
    let secret = Api::<Secret>::namespaced(context.client.clone(), namespace)
        .get_opt(&names::device_secret(device))
        .await
        .map_err(api("get the device's Secret"))?;
    Ok(match secret {
        None => SecretState::Absent,
        Some(secret) if managed(&secret) && is_ours(&secret) => SecretState::Ours {
            key: kept_key(&secret),
        },
        Some(_) => SecretState::Foreign,
    })
}

fn managed(secret: &Secret) -> bool {
    secret
        .labels()
        .get(MANAGED_BY.0)
        .is_some_and(|by| by == MANAGED_BY.1)
}

/// Whether the Secret is that of this very Device.
pub(crate) fn owned_by(secret: &Secret, device: &Device) -> bool {
    secret
        .owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == device.metadata.uid.as_ref())
        || secret.annotations().contains_key(WANTED_BY)
}

/// A key that was made for this very request, and not for one that was deleted before.
fn wanted_by(secret: &Secret, request: &PairingRequest) -> bool {
    secret.annotations().get(WANTED_BY) == request.metadata.uid.as_ref()
}

fn kept_key(secret: &Secret) -> Option<DeviceKey> {
    DeviceKey::of(&rcgen::KeyPair::from_pem(&read(secret, "tls.key")?).ok()?)
}
