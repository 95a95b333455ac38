//! An open invocation as the gateway knows it.

use crds::{
    deadline,
    v1alpha1::{
        CapabilityInvocation,
        capability_invocation::{CapabilityInvocationStatus, InvocationPhase},
    },
};
use jiff::{SignedDuration, Timestamp};

use super::device::DeviceKey;

/// An invocation, without what the gateway never asks for, and with what every object of an API server has.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenInvocation {
    /// The device that it is for.
    pub device: DeviceKey,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub created: Timestamp,
    object: CapabilityInvocation,
}

impl OpenInvocation {
    /// `None` for an object that no API server made.
    pub fn read(mut object: CapabilityInvocation) -> Option<Self> {
        let metadata = &mut object.metadata;
        metadata.managed_fields = None;
        metadata.annotations = None;
        metadata.labels = None;
        let invocation = Self {
            device: DeviceKey {
                namespace: metadata.namespace.take()?,
                name: object.spec.device_ref.name.clone(),
            },
            name: metadata.name.take()?,
            uid: metadata.uid.take()?,
            resource_version: metadata.resource_version.take()?,
            created: metadata.creation_timestamp.as_ref()?.0,
            object,
        };
        Some(invocation)
    }

    pub fn spec(&self) -> &crds::v1alpha1::CapabilityInvocationSpec {
        &self.object.spec
    }

    pub fn generation(&self) -> Option<i64> {
        self.object.metadata.generation
    }

    /// Absent where nobody has written one.
    pub fn status(&self) -> Option<&CapabilityInvocationStatus> {
        self.object.status.as_ref()
    }

    pub fn phase(&self) -> InvocationPhase {
        self.status()
            .map_or(InvocationPhase::Queued, |status| status.phase)
    }

    pub fn is_cancelled(&self) -> bool {
        self.object.spec.cancel.is_some()
    }

    /// What remains until the deadline; `None` past it.
    pub fn remaining(&self, now: Timestamp) -> Option<SignedDuration> {
        deadline::remaining(&self.object, now)
    }

    /// Until when an answer is waited for, if it was sent then: the device stops when its time is over, and its answer
    /// needs a moment.
    pub fn answer_by(&self, sent: Timestamp) -> Timestamp {
        let stops = after(sent, self.object.spec.timeout_seconds);
        let stops = deadline::of(&self.object).map_or(stops, |deadline| deadline.min(stops));
        after(stops, deadline::ANSWER_SECONDS)
    }

    /// The same invocation after that status was written.
    #[must_use]
    pub fn written(&self, status: CapabilityInvocationStatus, resource_version: String) -> Self {
        let mut after = self.clone();
        after.object.status = Some(status);
        after.resource_version = resource_version;
        after
    }

    /// Whether this is a newer version of the same object than the other. Versions are numbers that grow; where they
    /// are not, what was heard last counts, and a write that relies on it conflicts and reads again.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let number = |version: &str| version.parse::<u128>().ok();
        match (
            number(&self.resource_version),
            number(&other.resource_version),
        ) {
            (Some(mine), Some(theirs)) => mine > theirs,
            _ => self.resource_version != other.resource_version,
        }
    }
}

/// So many seconds later, or the end of time.
pub(crate) fn after(moment: Timestamp, seconds: i64) -> Timestamp {
    moment
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
