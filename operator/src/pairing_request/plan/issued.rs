//! Hands an issued certificate out: to pods that mount it, and into the Device's record.

use crds::{names, v1alpha1::device::DeviceCertificate};
use kube::ResourceExt as _;

use super::{Change, Observed, Plan, SecretState, Signed, recorded};
use crate::{authority::chain, report::Note};

/// The certificate is in the status: what is left is to hand it out.
pub(super) fn issued(observed: &Observed) -> Plan {
    let request = &observed.request;
    let Some(status) = &request.status else {
        return Plan::default();
    };
    let (Some(certificate), Some(device)) = (&status.certificate, observed.devices.all().first())
    else {
        // The Device was deleted: it does not come back by itself.
        return Plan::default();
    };
    let Some(leaf) = chain::leaf(&certificate.chain) else {
        return Plan::default();
    };
    // Deleted, and another one of that name was made.
    if device.spec.public_key_sha256 != leaf.key.to_string() || recorded(request, device) {
        return Plan::default();
    }
    if observed.signed != Signed::Here {
        let message = "the certificate or the bundle in the status is not of this authority, and is not handed out: delete the request, \
                       and pair again";
        return Plan {
            notes: vec![Note::warning("ForeignCertificate", "Issuing", message)],
            ..Plan::default()
        };
    }
    let mut changes = Vec::new();
    let mut notes = Vec::new();
    match observed.secret {
        SecretState::Foreign => notes.push(Note::warning(
            "SecretConflict",
            "Issuing",
            format!(
                "the Secret {} exists and is not this device's: the certificate is in status.certificate only",
                names::device_secret(&device.name_any())
            ),
        )),
        SecretState::NotRead | SecretState::Absent | SecretState::Ours { .. } => changes.push(Change::WriteSecret {
            device: Box::new(device.clone()),
            chain: certificate.chain.clone(),
            ca_bundle: status.ca_bundle.clone().unwrap_or_default(),
        }),
    }
    let before = device
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref());
    changes.push(Change::Record {
        device: Box::new(device.clone()),
        certificate: DeviceCertificate {
            serial: certificate.serial.clone(),
            fingerprint: leaf.fingerprint,
            generation: before.map_or(1, |before| before.generation.saturating_add(1)),
            not_before: certificate.not_before.clone(),
            not_after: certificate.not_after.clone(),
            authority: chain::authorities(&certificate.chain)
                .last()
                .map(ToString::to_string),
        },
    });
    Plan {
        changes,
        notes,
        requeue_at: None,
    }
}
