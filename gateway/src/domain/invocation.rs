//! An open invocation as the gateway knows it.

use std::sync::Arc;

use crds::{
    deadline,
    names::MAX_INPUT_BYTES,
    v1alpha1::{
        CapabilityInvocation, CapabilityInvocationSpec,
        capability_invocation::{CapabilityInvocationStatus, InvocationPhase},
    },
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
    input: Input,
    /// Of its metadata what is asked for below; of its spec all but the input.
    object: CapabilityInvocation,
}

/// When something was written, by this gateway's clock, which may be behind, and by the order of writes, which is not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moment {
    pub at: Timestamp,
    /// The version that came of it.
    pub version: String,
}

/// What a capability is given.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// JSON without white space; empty where there is none.
    Json(Arc<[u8]>),
    /// So many bytes, which are more than are kept: an API server takes far larger objects than a device is sent.
    TooLarge(usize),
}

impl Input {
    fn take(spec: &mut CapabilityInvocationSpec) -> Self {
        let bytes = spec.input_bytes();
        let input = spec.input.take();
        if bytes > MAX_INPUT_BYTES {
            return Self::TooLarge(bytes);
        }
        let json = input.map_or_else(String::new, |input| input.to_string());
        Self::Json(json.into_bytes().into())
    }
}

impl OpenInvocation {
    /// `None` for an object that no API server made.
    pub fn read(mut object: CapabilityInvocation) -> Option<Self> {
        let metadata = std::mem::take(&mut object.metadata);
        let created = metadata.creation_timestamp.as_ref()?.0;
        object.metadata = ObjectMeta {
            creation_timestamp: metadata.creation_timestamp,
            generation: metadata.generation,
            ..ObjectMeta::default()
        };
        let invocation = Self {
            device: DeviceKey {
                namespace: metadata.namespace?,
                name: object.spec.device_ref.name.clone(),
            },
            name: metadata.name?,
            uid: metadata.uid?,
            resource_version: metadata.resource_version?,
            created,
            input: Input::take(&mut object.spec),
            object,
        };
        Some(invocation)
    }

    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Without the input.
    pub fn spec(&self) -> &CapabilityInvocationSpec {
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

    /// Past it nothing is started. The end of time where there is none.
    pub fn deadline(&self) -> Timestamp {
        deadline::of(&self.object).unwrap_or(Timestamp::MAX)
    }

    /// Until when an answer is waited for, if it was sent then: the device stops when its time is over, and its answer
    /// needs a moment.
    pub fn answer_by(&self, sent: Timestamp) -> Timestamp {
        let stops = after(sent, self.object.spec.timeout_seconds).min(self.deadline());
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
        match (
            number(&self.resource_version),
            number(&other.resource_version),
        ) {
            (Some(mine), Some(theirs)) => mine > theirs,
            _ => self.resource_version != other.resource_version,
        }
    }

    /// Whether this version was written before that one, of whatever object. One counter of the API server numbers all
    /// writes of a kind's store (KEP-5504), and no clock has a part in it. `false` where they are no numbers.
    pub fn was_written_before(&self, version: &str) -> bool {
        match (number(&self.resource_version), number(version)) {
            (Some(mine), Some(theirs)) => mine < theirs,
            _ => false,
        }
    }

    /// Whether it may be older than what was written then.
    pub fn may_be_older_than(&self, moment: &Moment) -> bool {
        self.created <= moment.at || self.was_written_before(&moment.version)
    }
}

fn number(version: &str) -> Option<u128> {
    version.parse().ok()
}

/// So many seconds later, or the end of time.
pub(crate) fn after(moment: Timestamp, seconds: i64) -> Timestamp {
    moment
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::fixtures::invocation_with;

    #[test]
    fn an_input_is_kept_as_json_and_one_that_is_too_large_is_not_kept() {
        // Two quotes and the text.
        let of = |bytes: usize| {
            let invocation =
                invocation_with(|spec| spec.input = Some(json!("x".repeat(bytes - 2))));
            assert_eq!(invocation.spec().input, None, "once is enough");
            invocation.input().clone()
        };
        assert!(matches!(of(MAX_INPUT_BYTES), Input::Json(json) if json.len() == MAX_INPUT_BYTES));
        assert_eq!(
            of(MAX_INPUT_BYTES + 1),
            Input::TooLarge(MAX_INPUT_BYTES + 1)
        );
        let none = invocation_with(|spec| spec.input = None);
        assert_eq!(none.input(), &Input::Json([].into()));
    }
}
