//! Whether a device that asks for another certificate gets one, and whether pods that mount it have the newest.

use crds::{
    conditions::{self, CERTIFICATE_VALID},
    v1alpha1::{
        DeviceStatus,
        device::{DeviceCertificate, Renewal, TrustDecision},
    },
};
use jiff::{SignedDuration, Timestamp};

use super::{Finding, Observed};
use crate::{
    authority::csr::{self, DeviceKey},
    report::Note,
};

/// The key to sign for, or why nothing is signed, for people. `None` where nobody asks, or where the answer is there.
pub(super) fn asked(observed: &Observed) -> Option<Result<DeviceKey, String>> {
    let status = observed.device.status.as_ref()?;
    let renewal = status.renewal.as_ref()?;
    let is_open = renewal.chain.is_none() && renewal.refused.is_none();
    is_open.then(|| check(observed, status.certificate.as_ref(), renewal))
}

/// Whether another certificate is to be signed now.
pub fn is_due(observed: &Observed) -> bool {
    matches!(asked(observed), Some(Ok(_)))
}

/// Reason of the condition CertificateValid of a device whose renewal waits for the policies that it rests on.
pub(super) const WITHHELD: &str = "RenewalWithheld";

/// Reported when it begins, and when it is for another reason.
pub(super) fn withheld(before: &DeviceStatus, found: &Finding) -> Option<Note> {
    let (_, reason, message) = found;
    let known = conditions::find(&before.conditions, CERTIFICATE_VALID);
    let is_known = known.is_some_and(|known| known.reason == *reason && known.message == *message);
    (!is_known).then(|| Note::warning(WITHHELD, "Renewing", message.clone()))
}

fn check(
    observed: &Observed,
    certificate: Option<&DeviceCertificate>,
    renewal: &Renewal,
) -> Result<DeviceKey, String> {
    let spec = &observed.device.spec;
    match spec.trust {
        TrustDecision::Active => {}
        TrustDecision::Suspended => return Err("the device is suspended".to_owned()),
        TrustDecision::Revoked => return Err("the device is revoked".to_owned()),
    }
    let Some(certificate) = certificate else {
        return Err("the device has no certificate to renew: pair it".to_owned());
    };
    let (from, until) = (certificate.not_before.0, certificate.not_after.0);
    if observed.now >= until {
        return Err(format!(
            "the certificate ran out at {until}: pair the device again"
        ));
    }
    // However often a gateway asks, a device has three certificates in the life of one.
    let earliest = first_third(from, until);
    if observed.now < earliest {
        return Err(format!(
            "too early: certificate {} is renewed from {earliest} on",
            certificate.generation
        ));
    }
    csr::read(&renewal.csr, &spec.public_key_sha256).map_err(|error| error.to_string())
}

fn first_third(from: Timestamp, until: Timestamp) -> Timestamp {
    let third = until.duration_since(from).as_secs() / 3;
    from.checked_add(SignedDuration::from_secs(third))
        .unwrap_or(until)
}

/// The chain that the Secret of the device should have and may not have yet. Once the device was paired again, the
/// pairing sees to the Secret.
pub fn not_handed_out(status: &DeviceStatus) -> Option<&str> {
    let renewal = status.renewal.as_ref()?;
    let newest = status.certificate.as_ref()?.generation;
    let chain = renewal.chain.as_deref()?;
    (renewal.generation == Some(newest) && renewal.secret_generation != Some(newest))
        .then_some(chain)
}

#[cfg(test)]
mod tests;
