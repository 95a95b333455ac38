//! What happens to a request next. Pure.

mod approved;
mod checks;
mod guarded;
mod issued;

use std::collections::BTreeMap;

use crds::{
    Device, PairingCode, PairingRequest,
    conditions::{self, READY, condition},
    digest, names,
    v1alpha1::{
        PairingRequestStatus,
        device::DeviceCertificate,
        pairing_code::{AdmittedKey, Approval},
        pairing_request::{Decision, KeyCustody, RequestPhase, Verdict},
    },
};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::json;

use self::{
    checks::{Failure, ON_SIGHT, first},
    guarded::ByCode,
};
use crate::{authority::csr::DeviceKey, policies::plan::Standing, reconcile::settle, report::Note};

/// Annotation of a Secret with a key that the operator made: the uid of the request that it is for.
pub const WANTED_BY: &str = "fairlead.dev/pairing-request-uid";

/// Everything that the plan may depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    pub now: Timestamp,
    pub request: PairingRequest,
    pub code: Code,
    pub devices: Devices,
    pub secret: SecretState,
    /// The operator's own user name, where it is known.
    pub operator: Option<String>,
    /// Of what a signature, or an approval by the code, rests on.
    pub policies: Standing,
    /// Who signed the certificate in the status.
    pub signed: Signed,
}

/// Who signed the certificate in the status of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signed {
    /// Nobody looked, for nothing depends on it.
    NotRead,
    /// This operator's authority, and the bundle beside it is that authority.
    Here,
    /// Whoever wrote it past the policies.
    Elsewhere,
}

/// The code that the request names.
#[derive(Clone, Debug)]
pub enum Code {
    /// It names none, or nothing depends on it.
    NotRead,
    Absent,
    Known(Box<PairingCode>),
}

impl Code {
    pub fn known(code: PairingCode) -> Self {
        Self::Known(Box::new(code))
    }

    fn get(&self) -> Option<&PairingCode> {
        match self {
            Self::NotRead | Self::Absent => None,
            Self::Known(code) => Some(code),
        }
    }
}

/// The Devices that matter: those of the key, and those whose names it may get.
#[derive(Clone, Debug)]
pub enum Devices {
    NotRead,
    Known(Vec<Device>),
}

impl Devices {
    fn all(&self) -> &[Device] {
        match self {
            Self::NotRead => &[],
            Self::Known(devices) => devices,
        }
    }
}

/// The Secret of the device.
#[derive(Clone, Debug)]
pub enum SecretState {
    NotRead,
    Absent,
    /// Not the operator's, or not for this.
    Foreign,
    /// `key`: the one that the operator keeps for the device, if it keeps one.
    Ours {
        key: Option<DeviceKey>,
    },
}

/// What must happen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub changes: Vec<Change>,
    pub notes: Vec<Note>,
    pub requeue_at: Option<Timestamp>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Make a key for a device that keeps none itself, in the Secret of the device.
    MakeKey {
        device: String,
    },
    CreateDevice(Box<Device>),
    /// Give a Device that was there before what was decided now. Before the certificate, so that it has no day with
    /// more than that.
    Grant {
        device: Box<Device>,
        capabilities: Vec<String>,
        /// All of them, by the name of a capability.
        surfaces: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    },
    /// Sign, and write the certificate into the status, which lacks it.
    Issue {
        key: DeviceKey,
        device: String,
        ttl_seconds: i64,
        status: Box<PairingRequestStatus>,
    },
    /// Give the certificate to pods that mount it.
    WriteSecret {
        device: Box<Device>,
        /// PEM, leaf first.
        chain: String,
        ca_bundle: String,
    },
    /// Say in the Device which certificate it has.
    Record {
        device: Box<Device>,
        certificate: DeviceCertificate,
    },
    WriteStatus(Box<PairingRequestStatus>),
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// A decision, by a person or by the code.
    Waiting,
    /// The operator, to carry out the approval.
    Decided,
    /// The operator, to hand out the certificate, if it did not.
    Issued,
    /// Nothing.
    Settled,
}

/// What the request waits for.
pub fn stage(request: &PairingRequest) -> Stage {
    let Some(status) = &request.status else {
        return Stage::Waiting;
    };
    match status.phase {
        RequestPhase::Denied | RequestPhase::Expired | RequestPhase::Failed => Stage::Settled,
        RequestPhase::Issued => Stage::Issued,
        RequestPhase::Pending | RequestPhase::Approved => match &status.approval {
            Some(Decision {
                decision: Verdict::Approved,
                ..
            }) => Stage::Decided,
            Some(Decision {
                decision: Verdict::Denied,
                ..
            })
            | None => Stage::Waiting,
        },
    }
}

/// The names that the Device may get, the first free one counts.
pub fn candidates(request: &PairingRequest) -> Vec<String> {
    if let Some(name) = approval(request).and_then(|approval| approval.device_name.clone()) {
        return vec![name];
    }
    let base = names::device_name_from(&request.spec.requested_name)
        .unwrap_or_else(|| "device".to_owned());
    let suffix = request
        .spec
        .public_key_sha256
        .as_ref()
        .and_then(|key| key.get(..8));
    let second = suffix.map(|suffix| format!("{base}-{suffix}"));
    std::iter::once(base).chain(second).collect()
}

/// The device in whose Secret the operator keeps the key, if it does.
pub fn kept_in(request: &PairingRequest) -> Option<String> {
    match request.spec.key_custody {
        KeyCustody::Device => None,
        KeyCustody::Operator => candidates(request).into_iter().next(),
    }
}

/// Whether the Device says of this certificate, or of a newer one, that it has it.
pub fn recorded(request: &PairingRequest, device: &Device) -> bool {
    let Some(certificate) = request
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref())
    else {
        return true;
    };
    let recorded = device
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref());
    // Two of one second are put in order by their serials, so that all agree on which is the newest.
    recorded.is_some_and(|recorded| {
        (recorded.not_before.0, &recorded.serial) >= (certificate.not_before.0, &certificate.serial)
    })
}

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    match stage(&observed.request) {
        Stage::Settled => Plan::default(),
        Stage::Waiting => waiting(observed),
        Stage::Decided => guarded::not_signed(observed)
            .unwrap_or_else(|| approved::decided(observed))
            .unwrap_or_else(|failure| failed(observed, failure)),
        Stage::Issued => issued::issued(observed),
    }
}

fn waiting(observed: &Observed) -> Plan {
    if let Some(Decision {
        decided_by, reason, ..
    }) = approval(&observed.request)
    {
        let by = decided_by.as_deref().unwrap_or("somebody");
        let message = match reason {
            Some(reason) => format!("denied by {by}: {reason}"),
            None => format!("denied by {by}"),
        };
        return concluded(
            observed,
            RequestPhase::Denied,
            "Denied",
            Note::normal("PairingDenied", "Deciding", message),
        );
    }
    if let Some(failure) = first(observed, ON_SIGHT) {
        return failed(observed, failure);
    }
    let expires_at = observed.request.spec.expires_at.as_ref().map(|time| time.0);
    if expires_at.is_some_and(|at| observed.now >= at) {
        let note = Note::normal(
            "PairingExpired",
            "Waiting",
            "nobody decided in time: the device must ask again",
        );
        return concluded(observed, RequestPhase::Expired, "Expired", note);
    }
    let by_itself = approves_itself(observed).map(|code| (code, guarded::by_code(observed, code)));
    let not_by_itself = match by_itself {
        None => None,
        Some((code, ByCode::Yes)) => return approved_by_code(observed, code),
        Some((_, ByCode::NotNow(plan))) => return *plan,
        Some((_, ByCode::Person(why))) => Some(why),
    };
    let mut message = format!("waits for a decision: {}", approving(&observed.request));
    if let Some(why) = not_by_itself {
        message = format!("{why}; {message}");
    }
    let status = with_ready(observed, false, "AwaitingApproval", &message);
    let change = settle(observed.request.status.as_ref(), status).map(Change::WriteStatus);
    let wants = format!(
        "{:?} wants to be paired and waits for a decision",
        observed.request.spec.requested_name
    );
    Plan {
        notes: change
            .iter()
            .map(|_| Note::normal("PairingRequested", "Waiting", wants.clone()))
            .collect(),
        changes: change.into_iter().collect(),
        requeue_at: expires_at,
    }
}

/// The command that approves the request as it is shown.
fn approving(request: &PairingRequest) -> String {
    let mut approval = json!({ "decision": "Approved" });
    // The name of a gateway's request is the digest of its spec; that of a person's says nothing of it.
    if request.spec.source.is_none()
        && let Ok(digest) = digest::of_spec(&request.spec)
    {
        approval["specDigest"] = digest.into();
    }
    let patch = json!({ "status": { "approval": approval } });
    let name = request.name_any();
    format!("kubectl patch preq {name} --subresource=status --type=merge -p '{patch}'")
}

/// The code, if the request needs nobody's decision: it is the one that the code names for a key that proved it.
/// A request that somebody else wrote and that merely mentions the code does not pass.
pub fn approves_itself(observed: &Observed) -> Option<&PairingCode> {
    let code = observed
        .code
        .get()
        .filter(|code| code.spec.approval == Approval::Automatic)?;
    let named = admitted(code, &observed.request)?
        .pairing_request_ref
        .as_ref()?;
    (observed.request.spec.source.is_some() && named.name == observed.request.name_any())
        .then_some(code)
}

fn approved_by_code(observed: &Observed, code: &PairingCode) -> Plan {
    let message = format!(
        "approved because the code {} approves by itself",
        code.name_any()
    );
    let decision = Decision {
        decision: Verdict::Approved,
        decided_by: observed.operator.clone(),
        reason: Some(message.clone()),
        device_name: None,
        grants: None,
        spec_digest: digest::of_spec(&observed.request.spec).ok(),
    };
    let status = PairingRequestStatus {
        approval: Some(decision),
        ..with_ready(observed, false, "ApprovedAutomatically", &message)
    };
    Plan {
        changes: vec![Change::WriteStatus(Box::new(status))],
        notes: vec![Note::normal("PairingApproved", "Deciding", message)],
        requeue_at: None,
    }
}

fn failed(observed: &Observed, Failure { reason, message }: Failure) -> Plan {
    concluded(
        observed,
        RequestPhase::Failed,
        reason,
        Note::warning(reason, "Issuing", message),
    )
}

fn concluded(observed: &Observed, phase: RequestPhase, reason: &str, note: Note) -> Plan {
    let status = PairingRequestStatus {
        phase,
        ..with_ready(observed, false, reason, &note.message)
    };
    Plan {
        changes: vec![Change::WriteStatus(Box::new(status))],
        notes: vec![note],
        requeue_at: None,
    }
}

fn with_ready(
    observed: &Observed,
    ready: bool,
    reason: &str,
    message: &str,
) -> PairingRequestStatus {
    let request = &observed.request;
    let status = request.status.clone().unwrap_or_default();
    let generation = request.metadata.generation;
    let next = condition(observed.now, generation, READY, ready, reason, message);
    PairingRequestStatus {
        spec_digest: digest::of_spec(&request.spec).ok(),
        observed_generation: generation,
        conditions: conditions::set(status.conditions, next),
        ..status
    }
}

fn admitted<'a>(code: &'a PairingCode, request: &PairingRequest) -> Option<&'a AdmittedKey> {
    let key = request.spec.public_key_sha256.as_ref()?;
    code.status
        .as_ref()?
        .admitted
        .iter()
        .find(|admitted| admitted.public_key_sha256 == *key)
}

fn approval(request: &PairingRequest) -> Option<&Decision> {
    request.status.as_ref()?.approval.as_ref()
}

#[cfg(test)]
mod tests;
