//! What can be wrong with a request, and with its approval. Each check is one function; the first finding counts.

use crds::{PairingRequest, digest, v1alpha1::pairing_request::KeyCustody};
use kube::ResourceExt as _;

use super::{Observed, admitted, approval};
use crate::authority::csr::{self, DeviceKey};

/// Why nothing is issued.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) fn failure(reason: &'static str, message: impl Into<String>) -> Failure {
    Failure {
        reason,
        message: message.into(),
    }
}

pub(super) type Check = fn(&Observed) -> Option<Failure>;

/// What is wrong with a request whoever decides on it. The first finding counts.
pub(super) const ON_SIGHT: &[Check] = &[name_is_digest, csr_is_right, is_superseded];

/// What is wrong with an approval.
pub(super) const ON_APPROVAL: &[Check] = &[digest_was_approved, code_admitted_the_key];

pub(super) fn first(observed: &Observed, checks: &[Check]) -> Option<Failure> {
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

pub(super) fn requested_key(request: &PairingRequest) -> Result<DeviceKey, Failure> {
    let pem = request.spec.csr.as_deref().unwrap_or_default();
    let digest = request
        .spec
        .public_key_sha256
        .as_deref()
        .unwrap_or_default();
    csr::read(pem, digest).map_err(|error| failure("InvalidCsr", error.to_string()))
}
