//! Invocations.

use console_api::{
    ObjectId,
    invocation::{
        ArtefactRecord, Invocation, InvocationError, InvocationSummary, Mediation, Phase, Progress,
        WhenOffline,
    },
};
use crds::v1alpha1::{
    CapabilityInvocation,
    capability_invocation::{self, ErrorCode, InvocationPhase},
};

use super::{conditions, created_at, id, moment, sibling};

/// An invocation as lists show it.
pub fn invocation_summary(invocation: &CapabilityInvocation) -> Option<InvocationSummary> {
    summary_of(id(&invocation.metadata)?, invocation)
}

fn summary_of(id: ObjectId, invocation: &CapabilityInvocation) -> Option<InvocationSummary> {
    let status = invocation.status.as_ref();
    Some(InvocationSummary {
        device: sibling(&id, &invocation.spec.device_ref.name)?,
        id,
        capability: invocation.spec.capability.clone(),
        phase: phase(status.map(|status| status.phase).unwrap_or_default()),
        requested_by: invocation.spec.requested_by.clone(),
        error_code: status
            .and_then(|status| status.error.as_ref())
            .map(|error| error_code(error.code).to_owned()),
        progress: status
            .and_then(|status| status.progress.as_ref())
            .map(progress),
        created_at: created_at(&invocation.metadata),
        finished_at: status.and_then(|status| moment(status.finished_at.as_ref())),
    })
}

/// An invocation, whole.
pub fn invocation(invocation: &CapabilityInvocation) -> Option<Invocation> {
    let id = id(&invocation.metadata)?;
    let spec = &invocation.spec;
    let status = invocation.status.clone().unwrap_or_default();
    Some(Invocation {
        summary: summary_of(id.clone(), invocation)?,
        input: spec.input.clone(),
        timeout_seconds: spec.timeout_seconds,
        when_offline: match spec.when_offline {
            capability_invocation::WhenOffline::Fail => WhenOffline::Fail,
            capability_invocation::WhenOffline::Queue => WhenOffline::Queue,
        },
        cancel_requested: spec.cancel.is_some(),
        dispatched_at: moment(status.dispatched_at.as_ref()),
        gateway: status.gateway,
        output: status.output,
        output_sha256: status.output_sha256,
        artefact: status.artefact.map(|artefact| ArtefactRecord {
            size_bytes: u64::try_from(artefact.size_bytes).unwrap_or(0),
            sha256: artefact.sha256,
            media_type: artefact.media_type,
        }),
        error: status.error.map(|error| InvocationError {
            code: error_code(error.code).to_owned(),
            message: error.message,
            remedy: error.code.remedy().to_owned(),
        }),
        mediation: status.mediation.map(|mediation| Mediation {
            by: mediation.by,
            reason: mediation.reason,
        }),
        duplicate_of: status.duplicate_of.and_then(|first| sibling(&id, &first)),
        conditions: conditions(&status.conditions),
    })
}

pub(crate) fn progress(progress: &capability_invocation::Progress) -> Progress {
    Progress {
        percent: progress.percent,
        message: progress.message.clone(),
    }
}

pub fn phase(phase: InvocationPhase) -> Phase {
    match phase {
        InvocationPhase::Queued => Phase::Queued,
        InvocationPhase::Dispatched => Phase::Dispatched,
        InvocationPhase::AwaitingMediation => Phase::AwaitingMediation,
        InvocationPhase::Succeeded => Phase::Succeeded,
        InvocationPhase::Failed => Phase::Failed,
        InvocationPhase::Refused => Phase::Refused,
        InvocationPhase::TimedOut => Phase::TimedOut,
        InvocationPhase::Cancelled => Phase::Cancelled,
        InvocationPhase::Unknown => Phase::Unknown,
    }
}

/// As the resource writes it.
pub fn error_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::DeviceNotFound => "DeviceNotFound",
        ErrorCode::DeviceNotTrusted => "DeviceNotTrusted",
        ErrorCode::DeviceOffline => "DeviceOffline",
        ErrorCode::CapabilityNotDeclared => "CapabilityNotDeclared",
        ErrorCode::CapabilityNotGranted => "CapabilityNotGranted",
        ErrorCode::CapabilityUnavailable => "CapabilityUnavailable",
        ErrorCode::InputTooLarge => "InputTooLarge",
        ErrorCode::InvalidInput => "InvalidInput",
        ErrorCode::OutputTooLarge => "OutputTooLarge",
        ErrorCode::ArtefactNotStored => "ArtefactNotStored",
        ErrorCode::DeadlineBeforeStart => "DeadlineBeforeStart",
        ErrorCode::DeadlineExceeded => "DeadlineExceeded",
        ErrorCode::QueueFull => "QueueFull",
        ErrorCode::Refused => "Refused",
        ErrorCode::Cancelled => "Cancelled",
        ErrorCode::CapabilityFailed => "CapabilityFailed",
        ErrorCode::AgentRestarted => "AgentRestarted",
        ErrorCode::NoAnswer => "NoAnswer",
        ErrorCode::JournalUnavailable => "JournalUnavailable",
        ErrorCode::Internal => "Internal",
        ErrorCode::NoDecision => "NoDecision",
    }
}
