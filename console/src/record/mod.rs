//! From what Kubernetes shows to what the console shows, for every kind. Pure, and the only place where it is done.
//!
//! The console shows what `kubectl` shows: nothing is derived here that a resource says itself. `None` is for objects that
//! no API server made: without a namespace or a name.

mod devices;
mod invocations;
mod pairings;

use console_api::{ObjectId, inventory::ConditionRecord};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use pairing::key::KeyFingerprint;

pub use devices::{
    availability, client_kind, device, execution, granted, platform, presence, presence_reason,
    trust, trust_decision,
};
pub(crate) use invocations::progress;
pub use invocations::{error_code, invocation, invocation_summary, phase};
pub use pairings::{code, grants, request_detail, request_summary};

/// Namespace and name.
pub fn id(metadata: &ObjectMeta) -> Option<ObjectId> {
    ObjectId::new(metadata.namespace.clone()?, metadata.name.clone()?).ok()
}

/// The other object of the same namespace.
fn sibling(id: &ObjectId, name: &str) -> Option<ObjectId> {
    ObjectId::new(id.namespace(), name).ok()
}

fn moment(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

/// When the object was made.
fn created_at(metadata: &ObjectMeta) -> Option<Timestamp> {
    moment(metadata.creation_timestamp.as_ref())
}

/// A condition of any kind.
pub fn condition(condition: &Condition) -> ConditionRecord {
    ConditionRecord {
        kind: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: condition.last_transition_time.0,
    }
}

fn conditions(conditions: &[Condition]) -> Vec<ConditionRecord> {
    conditions.iter().map(condition).collect()
}

/// SHA-256 of a key in words, as the device shows them. Empty where it is none.
pub fn key_words(public_key_sha256: &str) -> Vec<String> {
    let fingerprint: Result<KeyFingerprint, _> = public_key_sha256.parse();
    fingerprint.map_or_else(
        |_| Vec::new(),
        |fingerprint| fingerprint.words().map(str::to_owned).into(),
    )
}

#[cfg(test)]
mod tests;
