//! Pairing codes and requests. A code's secret is in another object, which nothing here reads.

use console_api::pairing::{
    Approval, CodeFormat, CodePhase, CodeRecord, DecisionRecord, DeclaredCapability, Delivery,
    Grants, Method, RequestDetail, RequestPhase, RequestSummary, Verdict,
};
use crds::v1alpha1::{self, PairingCode, PairingRequest, pairing_code, pairing_request};

use super::{
    client_kind, conditions, created_at, execution, id, key_words, moment, platform, sibling,
};

/// A request as lists show it.
pub fn request_summary(request: &PairingRequest) -> Option<RequestSummary> {
    let id = id(&request.metadata)?;
    let spec = &request.spec;
    let status = request.status.as_ref();
    Some(RequestSummary {
        phase: request_phase(status.map(|status| status.phase).unwrap_or_default()),
        method: method(spec.method),
        client_kind: client_kind(spec.client_kind),
        requested_name: spec.requested_name.clone(),
        platform: platform(&spec.platform),
        public_key_sha256: spec.public_key_sha256.clone(),
        remote_address: spec
            .source
            .as_ref()
            .map(|source| source.remote_address.clone()),
        device: status
            .and_then(|status| status.device_ref.as_ref())
            .and_then(|device| sibling(&id, &device.name)),
        created_at: created_at(&request.metadata),
        expires_at: moment(spec.expires_at.as_ref()),
        id,
    })
}

/// Everything that an approver compares. `ceiling`: the grants of the code that the device proved, as far as the caller
/// may see that code.
///
/// The digest is that of the spec that is shown, not what the status says of it: an approval that names it approves
/// what was seen.
pub fn request_detail(
    request: &PairingRequest,
    ceiling: Option<&v1alpha1::Grants>,
) -> Option<RequestDetail> {
    let summary = request_summary(request)?;
    let spec = &request.spec;
    let status = request.status.clone().unwrap_or_default();
    Some(RequestDetail {
        key_words: spec
            .public_key_sha256
            .as_deref()
            .map(key_words)
            .unwrap_or_default(),
        spec_digest: crds::digest::of_spec(spec).ok()?,
        gateway: spec.source.as_ref().map(|source| source.gateway.clone()),
        code: spec
            .pairing_code_ref
            .as_ref()
            .and_then(|code| sibling(&summary.id, &code.name)),
        requested_by: spec.requested_by.clone(),
        ceiling: ceiling.map(grants),
        capabilities: spec.capabilities.iter().map(declared).collect(),
        decision: status.approval.as_ref().map(decision),
        conditions: conditions(&status.conditions),
        request: summary,
    })
}

/// A code, without its secret.
pub fn code(code: &PairingCode) -> Option<CodeRecord> {
    let spec = &code.spec;
    let status = code.status.clone().unwrap_or_default();
    Some(CodeRecord {
        id: id(&code.metadata)?,
        phase: status.phase.map(|phase| match phase {
            pairing_code::CodePhase::Active => CodePhase::Active,
            pairing_code::CodePhase::Used => CodePhase::Used,
            pairing_code::CodePhase::Expired => CodePhase::Expired,
            pairing_code::CodePhase::Locked => CodePhase::Locked,
        }),
        format: match spec.format {
            pairing_code::CodeFormat::Alphanumeric => CodeFormat::Alphanumeric,
            pairing_code::CodeFormat::Numeric => CodeFormat::Numeric,
        },
        delivery: match spec.delivery {
            pairing_code::Delivery::Pin => Delivery::Pin,
            pairing_code::Delivery::Qr => Delivery::Qr,
        },
        approval: match spec.approval {
            pairing_code::Approval::Manual => Approval::Manual,
            pairing_code::Approval::Automatic => Approval::Automatic,
        },
        uses: status.uses,
        max_uses: spec.max_uses,
        attempts: status.attempts,
        max_attempts: spec.max_attempts,
        grants: spec.grants.as_ref().map(grants),
        expires_at: moment(status.expires_at.as_ref()),
        created_at: created_at(&code.metadata),
        conditions: conditions(&status.conditions),
    })
}

/// What a device may be given.
pub fn grants(grants: &v1alpha1::Grants) -> Grants {
    Grants {
        labels: grants.labels.clone(),
        capabilities: grants.capabilities.clone(),
    }
}

fn declared(capability: &v1alpha1::DeclaredCapability) -> DeclaredCapability {
    DeclaredCapability {
        name: capability.name.clone(),
        execution: execution(capability.execution),
        version: capability.version.clone(),
        description: capability.description.clone(),
        input_schema: capability.input_schema.clone(),
        output_schema: capability.output_schema.clone(),
    }
}

fn decision(decision: &pairing_request::Decision) -> DecisionRecord {
    DecisionRecord {
        decision: match decision.decision {
            pairing_request::Verdict::Approved => Verdict::Approved,
            pairing_request::Verdict::Denied => Verdict::Denied,
        },
        decided_by: decision.decided_by.clone(),
        reason: decision.reason.clone(),
        device_name: decision.device_name.clone(),
        grants: decision.grants.as_ref().map(grants),
    }
}

fn method(method: pairing_request::Method) -> Method {
    match method {
        pairing_request::Method::Pin => Method::Pin,
        pairing_request::Method::Qr => Method::Qr,
        pairing_request::Method::ServiceAccount => Method::ServiceAccount,
        pairing_request::Method::Manual => Method::Manual,
    }
}

fn request_phase(phase: pairing_request::RequestPhase) -> RequestPhase {
    match phase {
        pairing_request::RequestPhase::Pending => RequestPhase::Pending,
        pairing_request::RequestPhase::Approved => RequestPhase::Approved,
        pairing_request::RequestPhase::Denied => RequestPhase::Denied,
        pairing_request::RequestPhase::Issued => RequestPhase::Issued,
        pairing_request::RequestPhase::Expired => RequestPhase::Expired,
        pairing_request::RequestPhase::Failed => RequestPhase::Failed,
    }
}
