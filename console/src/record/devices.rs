//! Devices.

use console_api::inventory::{
    Availability, ClientKind, DeviceRecord, Execution, Granted, Platform, Presence, Trust,
    TrustDecision,
};
use crds::v1alpha1::{self, Device, device};

use crate::inventory::{Interner, Known};

/// A device as lists show it: just as the index shows it.
pub fn device(device: &Device) -> Option<DeviceRecord> {
    Known::read(device, &mut Interner::default()).map(|known| known.record())
}

pub fn client_kind(kind: v1alpha1::ClientKind) -> ClientKind {
    match kind {
        v1alpha1::ClientKind::Node => ClientKind::Node,
        v1alpha1::ClientKind::Desktop => ClientKind::Desktop,
        v1alpha1::ClientKind::Cli => ClientKind::Cli,
    }
}

pub fn execution(execution: v1alpha1::Execution) -> Execution {
    match execution {
        v1alpha1::Execution::Automatic => Execution::Automatic,
        v1alpha1::Execution::Mediated => Execution::Mediated,
    }
}

pub fn platform(platform: &v1alpha1::Platform) -> Platform {
    Platform {
        os: platform.os.clone(),
        arch: platform.arch.clone(),
        agent_version: platform.agent_version.clone(),
        hostname: platform.hostname.clone(),
    }
}

pub fn trust(trust: device::Trust) -> Trust {
    match trust {
        device::Trust::Trusted => Trust::Trusted,
        device::Trust::Untrusted => Trust::Untrusted,
        device::Trust::Revoked => Trust::Revoked,
    }
}

pub fn trust_decision(decision: device::TrustDecision) -> TrustDecision {
    match decision {
        device::TrustDecision::Active => TrustDecision::Active,
        device::TrustDecision::Suspended => TrustDecision::Suspended,
        device::TrustDecision::Revoked => TrustDecision::Revoked,
    }
}

pub fn presence(presence: device::Presence) -> Presence {
    match presence {
        device::Presence::Online => Presence::Online,
        device::Presence::Degraded => Presence::Degraded,
        device::Presence::Stale => Presence::Stale,
        device::Presence::Offline => Presence::Offline,
    }
}

/// As the resource writes it.
pub fn presence_reason(reason: device::PresenceReason) -> &'static str {
    match reason {
        device::PresenceReason::Connected => "Connected",
        device::PresenceReason::CapabilityUnavailable => "CapabilityUnavailable",
        device::PresenceReason::SessionEnded => "SessionEnded",
        device::PresenceReason::GatewayGone => "GatewayGone",
        device::PresenceReason::NeverConnected => "NeverConnected",
    }
}

pub fn availability(availability: device::Availability) -> Availability {
    match availability {
        device::Availability::Available => Availability::Available,
        device::Availability::Unavailable => Availability::Unavailable,
    }
}

pub fn granted(granted: device::Granted) -> Granted {
    match granted {
        device::Granted::Granted => Granted::Granted,
        device::Granted::NotGranted => Granted::NotGranted,
        device::Granted::Pending => Granted::Pending,
    }
}
