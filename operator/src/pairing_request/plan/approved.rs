//! Carries out an approval: the Device, then the certificate.

use std::collections::BTreeMap;

use crds::{
    Device, names,
    v1alpha1::{
        DeclaredCapability, DeviceSpec, Grants, ObjectReference, PairingRequestStatus,
        device::{DeviceGrants, TrustDecision},
        pairing_request::RequestPhase,
    },
};
use kube::ResourceExt as _;

use super::{
    Change, Observed, Plan, SecretState, approval, candidates,
    checks::{Failure, ON_APPROVAL, ON_SIGHT, failure, first, requested_key},
    kept_in, with_ready,
};
use crate::{
    authority::csr::DeviceKey,
    pairing_request::grants::{labels_at_approval, surfaces_at_approval, wrong_label},
    report::Note,
};

pub(super) fn decided(observed: &Observed) -> Result<Plan, Failure> {
    if let Some(failure) = first(observed, ON_SIGHT).or_else(|| first(observed, ON_APPROVAL)) {
        return Err(failure);
    }
    let request = &observed.request;
    let key = match key(observed)? {
        Ok(key) => key,
        Err(change) => {
            return Ok(Plan {
                changes: vec![change],
                requeue_at: Some(observed.now),
                ..Plan::default()
            });
        }
    };
    let mut changes = Vec::new();
    let mut notes = Vec::new();
    let (device, ttl_seconds) = match device(observed, &key)? {
        Ok(device) => {
            if let Some((grant, note)) = granted_anew(observed, device)? {
                changes.push(grant);
                notes.push(note);
            }
            (device.name_any(), device.spec.certificate.ttl_seconds)
        }
        Err(name) => {
            let device = new_device(observed, &key, &name)?;
            let ttl_seconds = device.spec.certificate.ttl_seconds;
            changes.push(Change::CreateDevice(Box::new(device)));
            (name, ttl_seconds)
        }
    };
    let by = approval(request)
        .and_then(|approval| approval.decided_by.as_deref())
        .unwrap_or("somebody");
    let message =
        format!("approved by {by}; the certificate of Device {device} is in status.certificate");
    let status = PairingRequestStatus {
        phase: RequestPhase::Issued,
        device_ref: Some(ObjectReference::new(&device)),
        ..with_ready(observed, true, "Issued", &message)
    };
    changes.push(Change::Issue {
        key,
        device,
        ttl_seconds,
        status: Box::new(status),
    });
    notes.push(Note::normal("CertificateIssued", "Issuing", message));
    Ok(Plan {
        changes,
        notes,
        requeue_at: None,
    })
}

/// The key to sign for, or what must happen so that there is one.
fn key(observed: &Observed) -> Result<Result<DeviceKey, Change>, Failure> {
    let request = &observed.request;
    let Some(device) = kept_in(request) else {
        return requested_key(request).map(Ok);
    };
    match &observed.secret {
        SecretState::Ours { key: Some(key) } => Ok(Ok(key.clone())),
        SecretState::Absent | SecretState::NotRead => Ok(Err(Change::MakeKey { device })),
        SecretState::Ours { key: None } | SecretState::Foreign => Err(failure(
            "SecretConflict",
            format!(
                "the Secret {} exists and was not made for this request: approve another name",
                names::device_secret(&device)
            ),
        )),
    }
}

/// The Device of the key, or the name for a new one.
fn device<'a>(
    observed: &'a Observed,
    key: &DeviceKey,
) -> Result<Result<&'a Device, String>, Failure> {
    let key = key.fingerprint().to_string();
    let mut of_key: Vec<&Device> = observed
        .devices
        .all()
        .iter()
        .filter(|device| device.spec.public_key_sha256 == key)
        .collect();
    of_key.sort_by_key(|device| device.name_any());
    if let Some(revoked) = of_key
        .iter()
        .find(|device| device.spec.trust == TrustDecision::Revoked)
    {
        return Err(failure(
            "Revoked",
            format!(
                "the key is that of Device {}, which is revoked: the device must make a new key",
                revoked.name_any()
            ),
        ));
    }
    if let Some(first) = of_key.first() {
        let Some(name) = approval(&observed.request).and_then(|it| it.device_name.as_ref()) else {
            return Ok(Ok(first));
        };
        let named = of_key.iter().find(|device| device.name_any() == *name);
        return named.map(|device| Ok(*device)).ok_or_else(|| {
            failure(
                "KeyHasDevice",
                format!(
                    "the key is that of Device {0}, which cannot be renamed to {name}: pair again and approve without \
                     deviceName or with {0}, or delete Device {0} first",
                    first.name_any()
                ),
            )
        });
    }
    let taken = |name: &String| {
        observed
            .devices
            .all()
            .iter()
            .any(|device| device.name_any() == *name)
    };
    let names = candidates(&observed.request);
    match names.iter().find(|name| !taken(name)) {
        Some(free) => Ok(Err(free.clone())),
        None => Err(failure(
            "NameTaken",
            format!(
                "there is a Device {} with another key: approve another name",
                names.join(" and ")
            ),
        )),
    }
}

/// A Device that was there before gets what was decided now. Where the approver says nothing of capabilities, it keeps
/// those that the code allows, as they were granted. Labels that nobody speaks of stay: they may be anybody's.
fn granted_anew(observed: &Observed, device: &Device) -> Result<Option<(Change, Note)>, Failure> {
    let (given, ceiling) = grants(observed);
    let before: Vec<DeclaredCapability> = device
        .spec
        .grants
        .capabilities
        .iter()
        .map(|name| DeclaredCapability {
            name: name.clone(),
            ..DeclaredCapability::default()
        })
        .collect();
    let capabilities = crds::grants::at_approval(&before, given, ceiling);
    let mut surfaces = device.spec.grants.surfaces.clone();
    if given.is_some_and(|given| given.capabilities.is_some()) {
        // Who names capabilities means what this request shows of them.
        let declared = &observed.request.spec.capabilities;
        surfaces.extend(surfaces_at_approval(declared, &capabilities));
    }
    surfaces.retain(|name, _| capabilities.contains(name));
    let mut labels = device.labels().clone();
    labels.extend(decided_labels(observed)?);
    // An order of somebody's own is no difference.
    let mut sorted = device.spec.grants.capabilities.clone();
    sorted.sort();
    if sorted == capabilities
        && surfaces == device.spec.grants.surfaces
        && labels == *device.labels()
    {
        return Ok(None);
    }
    let may_run = if capabilities.is_empty() {
        "nothing".to_owned()
    } else {
        capabilities.join(", ")
    };
    let message = format!(
        "Device {} was paired again and may now run {may_run}",
        device.name_any()
    );
    let grant = Change::Grant {
        device: Box::new(device.clone()),
        capabilities,
        surfaces,
        labels,
    };
    Ok(Some((
        grant,
        Note::normal("DeviceGranted", "Granting", message),
    )))
}

/// What the approver gave, and what the code allows.
fn grants(observed: &Observed) -> (Option<&Grants>, Option<&Grants>) {
    let given = approval(&observed.request).and_then(|approval| approval.grants.as_ref());
    let ceiling = observed
        .code
        .get()
        .and_then(|code| code.spec.grants.as_ref());
    (given, ceiling)
}

fn decided_labels(observed: &Observed) -> Result<BTreeMap<String, String>, Failure> {
    let (given, ceiling) = grants(observed);
    let labels = labels_at_approval(given, ceiling);
    match wrong_label(&labels) {
        None => Ok(labels),
        Some(key) => Err(failure(
            "InvalidLabels",
            format!("Kubernetes does not take the label {key:?} or its value"),
        )),
    }
}

fn new_device(observed: &Observed, key: &DeviceKey, name: &str) -> Result<Device, Failure> {
    let request = &observed.request;
    let (given, ceiling) = grants(observed);
    let labels = decided_labels(observed)?;
    let declared = &request.spec.capabilities;
    let capabilities = crds::grants::at_approval(declared, given, ceiling);
    let spec = DeviceSpec {
        public_key_sha256: key.fingerprint().to_string(),
        display_name: Some(request.spec.requested_name.clone()),
        client_kind: request.spec.client_kind,
        grants: DeviceGrants {
            surfaces: surfaces_at_approval(declared, &capabilities),
            capabilities,
        },
        ..DeviceSpec::default()
    };
    let mut device = Device::new(name, spec);
    device.metadata.namespace = request.namespace();
    device.metadata.labels = (!labels.is_empty()).then_some(labels);
    Ok(device)
}
