//! What a signature rests on, and what the answers to dry runs come to. Pure.

use std::collections::BTreeMap;

use crds::policies::{self, SETTLES};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

/// How often a signature that is withheld is tried again.
pub const AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// Longest answer of the API server that is repeated.
const MAX_ANSWER: usize = 256;

/// A policy that a signature rests on.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Policy {
    Decision,
    RequestOrigin,
    CodeApproval,
    CodeStatus,
    DeviceOrigin,
    DeviceStatus,
}

impl Policy {
    /// The name of the ValidatingAdmissionPolicy.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decision => policies::PAIRING_DECISION,
            Self::RequestOrigin => policies::PAIRING_REQUEST_ORIGIN,
            Self::CodeApproval => policies::PAIRING_CODE_APPROVAL,
            Self::CodeStatus => policies::PAIRING_CODE_STATUS,
            Self::DeviceOrigin => policies::DEVICE_ORIGIN,
            Self::DeviceStatus => policies::DEVICE_STATUS,
        }
    }
}

/// What is known of the policies that a signature rests on.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Standing {
    /// Nobody asked. Nothing is signed by it.
    #[default]
    NotChecked,
    /// Each of them refused what it must refuse.
    InForce(Since),
    Lacking(Lack),
}

/// When each of the policies took its present form.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Since(pub BTreeMap<Policy, Timestamp>);

/// A policy that is not known to be in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lack {
    pub policy: Policy,
    pub why: Why,
}

/// Why a policy is not known to be in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Why {
    /// As it is stored, it refuses nothing.
    NotEnforced(String),
    /// A request that it must refuse would have been accepted.
    NotRefused,
    /// It cannot be verified; the reason.
    CannotTell(String),
}

impl Standing {
    /// The policies of `Standing::InForce`, or why nothing is signed.
    pub fn in_force(&self) -> Result<&Since, Lack> {
        match self {
            Self::InForce(since) => Ok(since),
            Self::Lacking(lack) => Err(lack.clone()),
            Self::NotChecked => Err(Lack {
                policy: Policy::Decision,
                why: Why::CannotTell("it was not checked".to_owned()),
            }),
        }
    }
}

impl Since {
    /// The first of these policies without which something may have been written at that time.
    pub fn not_yet(&self, policies: &[Policy], time: Timestamp) -> Option<Policy> {
        policies
            .iter()
            .copied()
            .find(|policy| self.settled(*policy).is_some_and(|from| time < from))
    }

    /// From when on all of these count as in force.
    pub fn all_settled(&self, policies: &[Policy]) -> Option<Timestamp> {
        policies
            .iter()
            .filter_map(|policy| self.settled(*policy))
            .max()
    }

    fn settled(&self, policy: Policy) -> Option<Timestamp> {
        let changed = self.0.get(&policy)?;
        Some(changed.saturating_add(SETTLES).unwrap_or(Timestamp::MAX))
    }
}

impl Lack {
    /// Whether it is established that the policy is not in force.
    pub fn is_certain(&self) -> bool {
        match self.why {
            Why::NotEnforced(_) | Why::NotRefused => true,
            Why::CannotTell(_) => false,
        }
    }

    /// One word for programs.
    pub fn reason(&self) -> &'static str {
        if self.is_certain() {
            "PoliciesNotInForce"
        } else {
            "PoliciesUnverified"
        }
    }

    /// What is wrong, for people.
    pub fn found(&self) -> String {
        let name = self.policy.name();
        match &self.why {
            Why::NotEnforced(why) => {
                format!("the admission policy {name} is not in force: {why}")
            }
            Why::NotRefused => format!(
                "the admission policy {name} is not in force in this namespace: a dry run that it must refuse would have been accepted"
            ),
            Why::CannotTell(why) => {
                format!("whether the admission policy {name} is in force cannot be verified: {why}")
            }
        }
    }

    /// The same, with what to do.
    pub fn message(&self) -> String {
        let folder = if self.is_certain() {
            "crds/policies"
        } else {
            "crds/rbac"
        };
        format!(
            "{}; nothing is signed until it is: kubectl apply -f {folder}",
            self.found()
        )
    }
}

/// What the API server said to a dry run that the policy must refuse.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    Refused,
    NotRefused,
    CannotTell(String),
}

impl Answer {
    /// Reads an error: its HTTP status and its message. `None` for one that may pass by itself.
    pub fn to_error(policy: Policy, code: u16, message: &str) -> Option<Self> {
        if policies::is_refusal_by(policy.name(), message) {
            return Some(Self::Refused);
        }
        match code {
            // Gone meanwhile; the token is not accepted any more; overloaded.
            401 | 404 | 409 | 429 | 500.. => None,
            _ => Some(Self::CannotTell(shortened(message))),
        }
    }

    /// What it says of the policy, if it is not in force.
    pub fn lack(self, policy: Policy) -> Option<Lack> {
        let why = match self {
            Self::Refused => return None,
            Self::NotRefused => Why::NotRefused,
            Self::CannotTell(why) => Why::CannotTell(why),
        };
        Some(Lack { policy, why })
    }
}

/// A message of the API server, for people.
pub fn shortened(message: &str) -> String {
    message.chars().take(MAX_ANSWER).collect()
}

/// When a field of the status was written, at the earliest of those who own it: who repeats the same value later becomes
/// another owner. `None` where nobody can say.
pub fn written(metadata: &ObjectMeta, field: &str) -> Option<Timestamp> {
    owners(metadata, field)
        .filter_map(|entry| Some(entry.time.as_ref()?.0))
        .min()
}

/// Whether the field of the status is owned by that field manager. Its time is then that of whatever it wrote last.
pub fn is_owned_by(metadata: &ObjectMeta, field: &str, manager: &str) -> bool {
    owners(metadata, field).any(|entry| entry.manager.as_deref() == Some(manager))
}

fn owners<'a>(
    metadata: &'a ObjectMeta,
    field: &str,
) -> impl Iterator<Item = &'a ManagedFieldsEntry> + use<'a> {
    let field = format!("f:{field}");
    metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(move |entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            fields
                .and_then(|fields| fields.get("f:status"))
                .and_then(Value::as_object)
                .is_some_and(|status| status.contains_key(&field))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn only_a_refusal_by_the_policy_itself_shows_that_it_is_in_force() {
        let by = |name: &str| {
            format!(
                "x is forbidden: ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: no"
            )
        };
        let policy = Policy::DeviceOrigin;
        let answer = |code, message: &str| Answer::to_error(policy, code, message);
        assert_eq!(answer(403, &by(policy.name())), Some(Answer::Refused));
        assert_eq!(answer(422, &by(policy.name())), Some(Answer::Refused));
        for (code, message) in [
            (403, by(Policy::DeviceStatus.name())),
            (
                403,
                "User \"x\" cannot create resource \"devices\"".to_owned(),
            ),
            (422, "Device.fairlead.dev \"x\" is invalid".to_owned()),
        ] {
            let found = answer(code, &message);
            assert_eq!(found, Some(Answer::CannotTell(message)));
        }
        for code in [401, 404, 409, 429, 500, 503] {
            assert_eq!(answer(code, "later"), None, "{code}");
        }
    }

    #[test]
    fn nothing_is_signed_by_what_was_not_checked() {
        assert!(Standing::default().in_force().is_err());
        let lack = Standing::NotChecked.in_force().unwrap_err();
        assert!(!lack.is_certain());
        assert_eq!(lack.reason(), "PoliciesUnverified");
    }

    #[test]
    fn what_was_written_before_a_policy_settled_may_have_been_written_without_it() {
        let since = Since([(Policy::Decision, at(100))].into());
        let all = [Policy::DeviceOrigin, Policy::Decision];
        for (second, expected) in [
            (99, Some(Policy::Decision)),
            (102, Some(Policy::Decision)),
            (103, None),
        ] {
            assert_eq!(since.not_yet(&all, at(second)), expected, "{second}");
        }
        assert_eq!(since.not_yet(&[Policy::DeviceOrigin], at(0)), None);
        assert_eq!(since.all_settled(&all), Some(at(103)));
    }

    #[test]
    fn a_field_was_written_when_the_first_of_its_owners_wrote_it() {
        let metadata = |entries: Value| -> ObjectMeta {
            serde_json::from_value(json!({ "managedFields": entries })).unwrap()
        };
        let entry = |manager: &str, second: i64, status: Value| {
            json!({
                "manager": manager, "operation": "Update", "subresource": "status", "time": at(second),
                "fieldsType": "FieldsV1", "fieldsV1": { "f:status": status },
            })
        };
        let decides = || json!({ "f:approval": { "f:decision": {} } });
        let owners = metadata(json!([
            entry("operator", 1, json!({ "f:conditions": {} })),
            entry("late", 30, decides()),
            entry("kubectl", 10, decides()),
        ]));
        assert_eq!(written(&owners, "approval"), Some(at(10)));
        assert_eq!(written(&owners, "certificate"), None);
        assert_eq!(written(&metadata(json!([])), "approval"), None);
        assert!(is_owned_by(&owners, "approval", "late"));
        assert!(!is_owned_by(&owners, "approval", "operator"));
    }
}
