//! A Device as the console knows it: what it shows, and nothing else. There is one for each device of the cluster.

use std::{collections::BTreeMap, sync::Arc};

use console_api::{
    ObjectId,
    inventory::{
        CapabilityCounts, CertificateRecord, ConditionRecord, DeviceRecord, Platform, SessionRecord,
    },
};
use crds::v1alpha1::{
    ClientKind, Device,
    device::{self, DeviceCapability, DeviceStatus, Granted, PresenceReason, Trust, TrustDecision},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;

use super::{Interner, Name, Rank};
use crate::record;

/// A device.
#[derive(Clone, Debug)]
pub struct Known {
    pub name: Name,
    /// Of the object. Those of one kind are in the order of its changes.
    pub version: u64,
    /// A version at which it came to its rank, or a later one: where it is not known when it did.
    pub moved_at: u64,
    pub client_kind: ClientKind,
    pub trust_decision: TrustDecision,
    pub trust: Option<Trust>,
    pub presence: Option<device::Presence>,
    pub presence_reason: Option<PresenceReason>,
    pub display_name: Option<Box<str>>,
    pub labels: Arc<BTreeMap<String, String>>,
    pub public_key_sha256: Box<str>,
    pub last_seen: Option<Timestamp>,
    pub session: Option<Session>,
    pub hostname: Option<Box<str>>,
    pub software: Option<Arc<Software>>,
    /// The newest first.
    pub certificates: Box<[Certificate]>,
    pub capabilities: Arc<Vec<DeviceCapability>>,
    pub counts: CapabilityCounts,
    pub conditions: Box<[Said]>,
    pub created_at: Option<Timestamp>,
}

/// The stream that it has, or had.
#[derive(Clone, Debug)]
pub struct Session {
    pub gateway: Arc<str>,
    pub epoch: i64,
    pub connected_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

/// What a device says about itself that others say, too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Software {
    pub os: String,
    pub arch: String,
    pub agent_version: String,
}

/// A certificate that it had.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub serial: Box<str>,
    pub fingerprint: Box<str>,
    pub generation: i64,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// A condition.
#[derive(Clone, Debug)]
pub struct Said {
    kind: Arc<str>,
    status: Arc<str>,
    reason: Arc<str>,
    message: Arc<str>,
    since: Timestamp,
}

impl Known {
    /// `None` for an object that no API server made.
    pub fn read(device: &Device, interner: &mut Interner) -> Option<Self> {
        let metadata = &device.metadata;
        // The id can be made of it ever after.
        let id = record::id(metadata)?;
        let version = metadata.resource_version.as_ref()?.parse().ok()?;
        let absent = DeviceStatus::default();
        let status = device.status.as_ref().unwrap_or(&absent);
        let absent = BTreeMap::new();
        Some(Self {
            name: Name::new(interner.text(id.namespace()), id.name()),
            version,
            moved_at: version,
            client_kind: device.spec.client_kind,
            trust_decision: device.spec.trust,
            trust: status.trust,
            presence: status.presence,
            presence_reason: status.presence_reason,
            display_name: device.spec.display_name.as_deref().map(Into::into),
            labels: interner
                .labels
                .get(metadata.labels.as_ref().unwrap_or(&absent)),
            public_key_sha256: device.spec.public_key_sha256.as_str().into(),
            last_seen: moment(status.last_seen.as_ref()),
            session: status.session.as_ref().map(|session| Session {
                gateway: interner.text(&session.gateway),
                epoch: session.epoch,
                connected_at: moment(session.connected_at.as_ref()),
                ended_at: moment(session.ended_at.as_ref()),
            }),
            hostname: status
                .platform
                .as_ref()
                .map(|platform| platform.hostname.as_str().into()),
            software: status.platform.as_ref().map(|platform| {
                interner.software.get(&Software {
                    os: platform.os.clone(),
                    arch: platform.arch.clone(),
                    agent_version: platform.agent_version.clone(),
                })
            }),
            certificates: certificates(status),
            counts: counts(status),
            capabilities: interner.capabilities.get(&status.capabilities),
            conditions: status
                .conditions
                .iter()
                .map(|condition| Said::read(condition, interner))
                .collect(),
            created_at: moment(metadata.creation_timestamp.as_ref()),
        })
    }

    /// Where it belongs in the order of attention.
    pub fn rank(&self) -> Rank {
        Rank::of(self.presence)
    }

    /// As lists show it.
    pub fn record(&self) -> DeviceRecord {
        DeviceRecord {
            id: self.id(),
            namespace: self.name.namespace.to_string(),
            name: self.name.name.to_string(),
            display_name: self.display_name.as_deref().map(str::to_owned),
            client_kind: record::client_kind(self.client_kind),
            labels: BTreeMap::clone(&self.labels),
            public_key_sha256: self.public_key_sha256.to_string(),
            trust_decision: record::trust_decision(self.trust_decision),
            trust: self.trust.map(record::trust),
            presence: self.presence.map(record::presence),
            presence_reason: self
                .presence_reason
                .map(|reason| record::presence_reason(reason).to_owned()),
            last_seen: self.last_seen,
            gateway: self
                .session
                .as_ref()
                .map(|session| session.gateway.to_string()),
            platform: self.platform(),
            certificate_expires_at: self.certificates.first().map(|newest| newest.not_after),
            capabilities: self.counts,
            created_at: self.created_at,
            resource_version: self.version.to_string(),
        }
    }

    pub fn id(&self) -> ObjectId {
        ObjectId::new(&*self.name.namespace, &*self.name.name)
            .expect("it is made of an id, when it is read")
    }

    fn platform(&self) -> Option<Platform> {
        let software = self.software.as_ref()?;
        Some(Platform {
            os: software.os.clone(),
            arch: software.arch.clone(),
            agent_version: software.agent_version.clone(),
            hostname: self.hostname.as_deref().unwrap_or_default().to_owned(),
        })
    }
}

impl Session {
    pub fn record(&self) -> SessionRecord {
        SessionRecord {
            gateway: self.gateway.to_string(),
            epoch: self.epoch,
            connected_at: self.connected_at,
            ended_at: self.ended_at,
        }
    }
}

impl Certificate {
    pub fn record(&self) -> CertificateRecord {
        CertificateRecord {
            serial: self.serial.to_string(),
            fingerprint: self.fingerprint.to_string(),
            generation: self.generation,
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

impl Said {
    fn read(condition: &Condition, interner: &mut Interner) -> Self {
        Self {
            kind: interner.text(&condition.type_),
            status: interner.text(&condition.status),
            reason: interner.text(&condition.reason),
            message: interner.text(&condition.message),
            since: condition.last_transition_time.0,
        }
    }

    pub fn record(&self) -> ConditionRecord {
        ConditionRecord {
            kind: self.kind.to_string(),
            status: self.status.to_string(),
            reason: self.reason.to_string(),
            message: self.message.to_string(),
            last_transition_time: self.since,
        }
    }
}

fn moment(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

fn certificates(status: &DeviceStatus) -> Box<[Certificate]> {
    let newest = status.certificate.iter();
    newest
        .chain(&status.certificate_history)
        .map(|certificate| Certificate {
            serial: certificate.serial.as_str().into(),
            fingerprint: certificate.fingerprint.as_str().into(),
            generation: certificate.generation,
            not_before: certificate.not_before.0,
            not_after: certificate.not_after.0,
        })
        .collect()
}

/// As the operator counted them, or before it did.
fn counts(status: &DeviceStatus) -> CapabilityCounts {
    let number = |count: i64| u32::try_from(count).unwrap_or(0);
    if let Some(counts) = status.capability_counts {
        return CapabilityCounts {
            declared: number(counts.declared),
            granted: number(counts.granted),
            pending: number(counts.pending),
        };
    }
    let mut counts = CapabilityCounts::default();
    for capability in &status.capabilities {
        counts.declared += 1;
        match capability.granted {
            Granted::Granted => counts.granted += 1,
            Granted::Pending => counts.pending += 1,
            Granted::NotGranted => {}
        }
    }
    counts
}
