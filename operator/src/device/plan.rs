//! What is true of a device now, and what it gets. Pure.

mod growth;
mod renewal;

use crds::{
    Device,
    conditions::{self, CAPABILITIES_GRANTED, CERTIFICATE_VALID, READY, condition},
    names,
    presence::{GatewayLease, Verdict, presence},
    v1alpha1::{
        DeviceStatus,
        device::{Presence, PresenceReason, Trust, TrustDecision},
    },
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

pub use self::renewal::{is_due, not_handed_out};
use crate::{
    authority::csr::DeviceKey,
    pairing_request::plan::SecretState,
    policies::plan::{AGAIN, Lack, Standing},
    reconcile::settle,
    report::Note,
};

/// Everything that the plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    pub now: Timestamp,
    pub device: Device,
    /// Of the gateway that the session names.
    pub lease: GatewayLease,
    /// Of the device, where it may lack the newest certificate.
    pub secret: SecretState,
    /// Of what a renewal rests on.
    pub policies: Standing,
}

/// What must happen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub notes: Vec<Note>,
    pub requeue_at: Option<Timestamp>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Sign for the key, and write the certificate and the chain into the status, in one step.
    Renew {
        key: DeviceKey,
    },
    /// Give a renewed certificate to pods that mount it.
    WriteSecret {
        /// PEM, leaf first.
        chain: String,
    },
    WriteStatus(Box<DeviceStatus>),
}

/// A device that was made a moment ago gets its certificate in the next: what is true until then is not worth a write
/// that would get in the way of that one.
const ARRIVING: SignedDuration = SignedDuration::from_secs(10);

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let device = &observed.device;
    let before = device.status.clone().unwrap_or_default();
    if let Some(arrived_at) = arriving_until(device, &before).filter(|at| observed.now < *at) {
        return Plan {
            requeue_at: Some(arrived_at),
            ..Plan::default()
        };
    }
    let mut lack = None;
    let refused = match renewal::asked(observed) {
        Some(Ok(key)) => match observed.policies.in_force() {
            // What is written brings the next pass.
            Ok(_) => return renewed(&before, key),
            Err(lacks) => {
                lack = Some(lacks);
                None
            }
        },
        Some(Err(refused)) => Some(refused),
        None => None,
    };
    let mut trust = trust(observed, &before);
    let presence = presence_now(observed, &before);
    let mut status = before.clone();
    let mut changes = Vec::new();
    let mut notes = Vec::new();
    if let (Some(renewal), Some(refused)) = (&mut status.renewal, refused) {
        notes.push(Note::warning(
            "RenewalRefused",
            "Renewing",
            format!("the certificate is not renewed: {refused}"),
        ));
        renewal.refused = Some(refused);
    }
    if let Some(lack) = lack {
        trust.withhold(observed.now, &lack);
        notes.extend(renewal::withheld(&before, &trust.certificate));
    }
    if let Some(chain) = not_handed_out(&before) {
        match &observed.secret {
            SecretState::NotRead => {}
            SecretState::Foreign => notes.push(Note::warning(
                "SecretConflict",
                "Renewing",
                format!(
                    "the Secret {} exists and is not this device's: the renewed certificate is in status.renewal only",
                    names::device_secret(&device.name_any())
                ),
            )),
            SecretState::Absent | SecretState::Ours { .. } => {
                changes.push(Change::WriteSecret {
                    chain: chain.to_owned(),
                });
                if let Some(renewal) = &mut status.renewal {
                    renewal.secret_generation = renewal.generation;
                }
            }
        }
    }
    status.trust = Some(trust.trust);
    if let Some(verdict) = presence.verdict {
        status.presence = Some(verdict.presence);
        status.presence_reason = Some(verdict.reason);
    }
    status.observed_generation = device.metadata.generation;
    for (type_, (holds, reason, message)) in [
        (READY, trust.ready.clone()),
        (CERTIFICATE_VALID, trust.certificate.clone()),
        (CAPABILITIES_GRANTED, capabilities(observed, &before)),
    ] {
        let next = condition(
            observed.now,
            device.metadata.generation,
            type_,
            holds,
            reason,
            message,
        );
        status.conditions = conditions::set(status.conditions, next);
    }
    let requeue_at = earliest(trust.changes_at, presence.changes_at);
    notes.extend(changed(&before, &status, &trust));
    let Some(status) = settle(device.status.as_ref(), status) else {
        return Plan {
            requeue_at,
            ..Plan::default()
        };
    };
    // After the Secret: it says what is in there.
    changes.push(Change::WriteStatus(status));
    Plan {
        changes,
        notes,
        requeue_at,
    }
}

fn renewed(before: &DeviceStatus, key: DeviceKey) -> Plan {
    let generation = before
        .certificate
        .as_ref()
        .map_or(1, |certificate| certificate.generation.saturating_add(1));
    let message = format!("the device asked in time and gets certificate {generation}");
    Plan {
        changes: vec![Change::Renew { key }],
        notes: vec![Note::normal("CertificateRenewed", "Renewing", message)],
        requeue_at: None,
    }
}

fn arriving_until(device: &Device, status: &DeviceStatus) -> Option<Timestamp> {
    let created_at = device.metadata.creation_timestamp.as_ref()?.0;
    let is_new = status.certificate.is_none() && status.trust.is_none();
    (is_new && device.spec.trust == TrustDecision::Active)
        .then(|| created_at.checked_add(ARRIVING).ok())
        .flatten()
}

/// A condition without its type: whether it holds, why in a word, why in words.
type Finding = (bool, &'static str, String);

struct Trusted {
    trust: Trust,
    ready: Finding,
    certificate: Finding,
    changes_at: Option<Timestamp>,
}

impl Trusted {
    /// The certificate that is there stays good; another one is not signed yet.
    fn withhold(&mut self, now: Timestamp, lack: &Lack) {
        let (_, reason, message) = &mut self.certificate;
        *reason = renewal::WITHHELD;
        *message = format!("{message}, and is not renewed: {}", lack.message());
        self.changes_at = earliest(self.changes_at, now.checked_add(AGAIN).ok());
    }
}

fn trust(observed: &Observed, status: &DeviceStatus) -> Trusted {
    let (certificate, changes_at): (Finding, _) = match &status.certificate {
        None => (
            (
                false,
                "NotIssued",
                "no certificate was issued yet".to_owned(),
            ),
            None,
        ),
        Some(certificate) if observed.now >= certificate.not_after.0 => (
            (
                false,
                "Expired",
                format!(
                    "the certificate ran out at {}: pair the device again",
                    certificate.not_after.0
                ),
            ),
            None,
        ),
        Some(certificate) => (
            (
                true,
                "Issued",
                format!(
                    "certificate {} is valid until {}",
                    certificate.generation, certificate.not_after.0
                ),
            ),
            Some(certificate.not_after.0),
        ),
    };
    let (trust, ready) = match observed.device.spec.trust {
        TrustDecision::Revoked => (
            Trust::Revoked,
            (
                false,
                "Revoked",
                "the device was revoked, for good".to_owned(),
            ),
        ),
        TrustDecision::Suspended => (
            Trust::Untrusted,
            (
                false,
                "Suspended",
                "the device was suspended: set spec.trust to Active to let it in again".to_owned(),
            ),
        ),
        TrustDecision::Active if certificate.0 => (
            Trust::Trusted,
            (
                true,
                "Trusted",
                "the device is trusted and has a valid certificate".to_owned(),
            ),
        ),
        TrustDecision::Active => (Trust::Untrusted, certificate.clone()),
    };
    Trusted {
        trust,
        ready,
        certificate,
        changes_at,
    }
}

/// What a device declares and nobody has decided on.
fn capabilities(observed: &Observed, status: &DeviceStatus) -> Finding {
    let device = &observed.device;
    match growth::message(device, status) {
        None => (
            true,
            "Decided",
            "nothing that the device declares waits for a decision".to_owned(),
        ),
        Some(message) => (false, "Pending", message),
    }
}

struct PresenceNow {
    /// `None` while it is too early to tell.
    verdict: Option<Verdict>,
    changes_at: Option<Timestamp>,
}

fn presence_now(observed: &Observed, status: &DeviceStatus) -> PresenceNow {
    let is_open = status
        .session
        .as_ref()
        .is_some_and(|session| session.ended_at.is_none());
    if is_open && observed.lease == GatewayLease::Unknown {
        // Whoever tells wakes us.
        return PresenceNow {
            verdict: None,
            changes_at: None,
        };
    }
    let verdict = presence(
        status,
        observed.lease,
        observed.device.spec.presence,
        observed.now,
    );
    let connected_at = status
        .session
        .as_ref()
        .and_then(|session| session.connected_at.as_ref());
    // A gateway that has just started may be seen to hold a stream before its Lease is seen.
    let grace = SignedDuration::from_secs(i64::from(names::GATEWAY_LEASE_SECONDS));
    let seen_at = connected_at.and_then(|at| at.0.checked_add(grace).ok());
    match seen_at {
        Some(seen_at)
            if verdict.reason == PresenceReason::GatewayGone && observed.now < seen_at =>
        {
            PresenceNow {
                verdict: None,
                changes_at: Some(seen_at),
            }
        }
        Some(_) | None => PresenceNow {
            verdict: Some(verdict),
            changes_at: verdict.changes_at,
        },
    }
}

/// What is told: decisions, the ends of certificates, and absences; not every coming and going.
fn changed(before: &DeviceStatus, after: &DeviceStatus, trust: &Trusted) -> Vec<Note> {
    let mut notes = Vec::new();
    if before.trust != after.trust {
        let (_, reason, message) = &trust.ready;
        notes.extend(match trust.trust {
            Trust::Trusted => Some(Note::normal("DeviceTrusted", "Trusting", message.clone())),
            Trust::Revoked => Some(Note::warning("DeviceRevoked", "Revoking", message.clone())),
            Trust::Untrusted => match *reason {
                "Suspended" => Some(Note::warning(
                    "DeviceSuspended",
                    "Suspending",
                    message.clone(),
                )),
                "Expired" => Some(Note::warning(
                    "CertificateExpired",
                    "Expiring",
                    message.clone(),
                )),
                // It was made a moment ago; its certificate is on its way.
                _ => None,
            },
        });
    }
    if before.presence.is_some() && before.presence != after.presence {
        notes.extend(match after.presence {
            Some(Presence::Stale) => Some(Note::normal(
                "DeviceStale",
                "Watching",
                "the device has been away for a while",
            )),
            Some(Presence::Offline) => Some(Note::warning(
                "DeviceOffline",
                "Watching",
                "the device is gone",
            )),
            Some(Presence::Online | Presence::Degraded) | None => None,
        });
    }
    notes
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests;
