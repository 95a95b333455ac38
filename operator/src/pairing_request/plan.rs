//! What happens to a request next. Pure.

use crds::{
    Device, PairingCode, PairingRequest,
    conditions::{self, READY, condition},
    digest, names,
    v1alpha1::{
        DeviceSpec, ObjectReference, PairingRequestStatus,
        device::{DeviceCertificate, DeviceGrants, TrustDecision},
        pairing_code::{AdmittedKey, Approval},
        pairing_request::{Decision, IssuedCertificate, KeyCustody, RequestPhase, Verdict},
    },
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::grants::{labels_at_approval, wrong_label};
use crate::{
    authority::{
        chain,
        csr::{self, DeviceKey},
    },
    reconcile::settle,
    report::Note,
};

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
        certificate: IssuedCertificate,
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
        Stage::Decided => decided(observed).unwrap_or_else(|failure| failed(observed, failure)),
        Stage::Issued => issued(observed),
    }
}

/// Why nothing is issued.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Failure {
    reason: &'static str,
    message: String,
}

fn failure(reason: &'static str, message: impl Into<String>) -> Failure {
    Failure {
        reason,
        message: message.into(),
    }
}

type Check = fn(&Observed) -> Option<Failure>;

/// What is wrong with a request whoever decides on it. The first finding counts.
const ON_SIGHT: &[Check] = &[name_is_digest, csr_is_right, is_superseded];

/// What is wrong with an approval.
const ON_APPROVAL: &[Check] = &[digest_was_approved, code_admitted_the_key];

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
    if let Some(code) = approves_itself(observed) {
        return approved_by_code(observed, code);
    }
    let name = observed.request.name_any();
    let message = format!(
        "waits for a decision: kubectl patch preq {name} --subresource=status --type=merge \
         -p '{{\"status\":{{\"approval\":{{\"decision\":\"Approved\"}}}}}}'"
    );
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

/// The code, if the request needs nobody's decision: it is the one that the code names for a key that proved it.
/// A request that somebody else wrote and that merely mentions the code does not pass.
fn approves_itself(observed: &Observed) -> Option<&PairingCode> {
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

fn decided(observed: &Observed) -> Result<Plan, Failure> {
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
    let (device, ttl_seconds) = match device(observed, &key)? {
        Ok(device) => (device.name_any(), device.spec.certificate.ttl_seconds),
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
    Ok(Plan {
        changes,
        notes: vec![Note::normal("CertificateIssued", "Issuing", message)],
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
    if let Some(device) = of_key.first() {
        return Ok(Ok(device));
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

fn new_device(observed: &Observed, key: &DeviceKey, name: &str) -> Result<Device, Failure> {
    let request = &observed.request;
    let given = approval(request).and_then(|approval| approval.grants.as_ref());
    let ceiling = observed
        .code
        .get()
        .and_then(|code| code.spec.grants.as_ref());
    let labels = labels_at_approval(given, ceiling);
    if let Some(key) = wrong_label(&labels) {
        return Err(failure(
            "InvalidLabels",
            format!("Kubernetes does not take the label {key:?} or its value"),
        ));
    }
    let spec = DeviceSpec {
        public_key_sha256: key.fingerprint().to_string(),
        display_name: Some(request.spec.requested_name.clone()),
        client_kind: request.spec.client_kind,
        grants: DeviceGrants {
            capabilities: crds::grants::at_approval(&request.spec.capabilities, given, ceiling),
        },
        ..DeviceSpec::default()
    };
    let mut device = Device::new(name, spec);
    device.metadata.namespace = request.namespace();
    device.metadata.labels = (!labels.is_empty()).then_some(labels);
    Ok(device)
}

/// The certificate is in the status: what is left is to hand it out.
fn issued(observed: &Observed) -> Plan {
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
            certificate: certificate.clone(),
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
        },
    });
    Plan {
        changes,
        notes,
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

fn first(observed: &Observed, checks: &[Check]) -> Option<Failure> {
    checks.iter().find_map(|check| check(observed))
}

/// Who approves the name of a gateway's request approves what the name is a digest of.
fn name_is_digest(observed: &Observed) -> Option<Failure> {
    let request = &observed.request;
    request.spec.source.as_ref()?;
    let name = digest::of_spec(&request.spec)
        .ok()
        .map(|digest| digest::request_name(&digest));
    (name.as_ref() != Some(&request.name_any())).then(|| {
        failure("NameIsNotDigest", "the name of a gateway's request must be the digest of its spec: it shows something else than it is")
    })
}

fn csr_is_right(observed: &Observed) -> Option<Failure> {
    match observed.request.spec.key_custody {
        KeyCustody::Operator => None,
        KeyCustody::Device => requested_key(&observed.request).err(),
    }
}

/// Where two gateways raced, the code's status names the request that counts.
fn is_superseded(observed: &Observed) -> Option<Failure> {
    let request = &observed.request;
    request.spec.source.as_ref()?;
    let named = admitted(observed.code.get()?, request)?
        .pairing_request_ref
        .as_ref()?;
    (named.name != request.name_any()).then(|| {
        failure(
            "Superseded",
            format!("the request {} of the same device counts", named.name),
        )
    })
}

/// A person's request may have any name, so the approval must say which spec it is about.
fn digest_was_approved(observed: &Observed) -> Option<Failure> {
    let request = &observed.request;
    let actual = digest::of_spec(&request.spec).ok();
    match &approval(request)?.spec_digest {
        None if request.spec.source.is_some() => None,
        None => Some(failure(
            "SpecDigestRequired",
            "a request that no gateway made is approved with approval.specDigest, which is in status.specDigest",
        )),
        Some(approved) if Some(approved) == actual.as_ref() => None,
        Some(_) => Some(failure(
            "SpecChanged",
            "approval.specDigest is that of another spec: look again, and approve what is there",
        )),
    }
}

/// The code's grants are the ceiling of the device's: without the code there is no telling what may be given.
fn code_admitted_the_key(observed: &Observed) -> Option<Failure> {
    let request = &observed.request;
    let reference = request.spec.pairing_code_ref.as_ref()?;
    let Some(code) = observed.code.get() else {
        return Some(failure(
            "CodeGone",
            format!(
                "the PairingCode {} was deleted: make another code, and pair again",
                reference.name
            ),
        ));
    };
    request.spec.source.as_ref()?;
    admitted(code, request).is_none().then(|| {
        failure(
            "KeyNotAdmitted",
            format!("the key did not prove the PairingCode {}", reference.name),
        )
    })
}

fn admitted<'a>(code: &'a PairingCode, request: &PairingRequest) -> Option<&'a AdmittedKey> {
    let key = request.spec.public_key_sha256.as_ref()?;
    code.status
        .as_ref()?
        .admitted
        .iter()
        .find(|admitted| admitted.public_key_sha256 == *key)
}

fn requested_key(request: &PairingRequest) -> Result<DeviceKey, Failure> {
    let pem = request.spec.csr.as_deref().unwrap_or_default();
    let digest = request
        .spec
        .public_key_sha256
        .as_deref()
        .unwrap_or_default();
    csr::read(pem, digest).map_err(|error| failure("InvalidCsr", error.to_string()))
}

fn approval(request: &PairingRequest) -> Option<&Decision> {
    request.status.as_ref()?.approval.as_ref()
}

#[cfg(test)]
mod tests;
