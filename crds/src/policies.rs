//! The admission policies on which signatures rest, and whether one that is stored can refuse anything.
//!
//! What is stored says only part of it: a binding may be narrowed to other namespaces, and an API server takes a change
//! in a second after it was stored. Whether a policy refuses is shown by a request that it must refuse.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchResources, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

/// Who decides on a pairing request.
pub const PAIRING_DECISION: &str = "pairing-decision.fairlead.dev";
/// Who makes a pairing request, and what it may claim.
pub const PAIRING_REQUEST_ORIGIN: &str = "pairing-request-origin.fairlead.dev";
/// Who makes a code that approves by itself.
pub const PAIRING_CODE_APPROVAL: &str = "pairing-code-approval.fairlead.dev";
/// Who writes which keys proved a code.
pub const PAIRING_CODE_STATUS: &str = "pairing-code-status.fairlead.dev";
/// Who makes a Device.
pub const DEVICE_ORIGIN: &str = "device-origin.fairlead.dev";
/// Who writes the certificate of a Device, and asks for its renewal.
pub const DEVICE_STATUS: &str = "device-status.fairlead.dev";

/// The policies that a signature rests on.
pub const SIGNED_ON: [&str; 6] = [
    PAIRING_DECISION,
    PAIRING_REQUEST_ORIGIN,
    PAIRING_CODE_APPROVAL,
    PAIRING_CODE_STATUS,
    DEVICE_ORIGIN,
    DEVICE_STATUS,
];

/// How long after its last change a policy may not be in force yet: an API server takes a change in within a second or
/// so, and both times are of whole seconds.
pub const SETTLES: SignedDuration = SignedDuration::from_secs(3);

/// Why the policy of that name refuses nothing, or not always, as it is stored. `bindings`: all that there are.
pub fn not_enforced<'a>(
    name: &str,
    policy: Option<&ValidatingAdmissionPolicy>,
    bindings: impl IntoIterator<Item = &'a ValidatingAdmissionPolicyBinding> + Clone,
) -> Option<String> {
    let Some(policy) = policy else {
        return Some("it does not exist".to_owned());
    };
    if !fails_closed(policy) {
        return Some("its failurePolicy is not Fail".to_owned());
    }
    let mut bound = of(name, bindings.clone()).peekable();
    if bound.peek().is_none() {
        return Some("it has no ValidatingAdmissionPolicyBinding".to_owned());
    }
    if !bound.any(denies) {
        return Some("no binding of it has the validationAction Deny".to_owned());
    }
    exempts(policy, of(name, bindings))
}

/// Whom or what the policy leaves out as it is stored. Those that a signature rests on are shipped without exceptions.
fn exempts<'a>(
    policy: &ValidatingAdmissionPolicy,
    mut bindings: impl Iterator<Item = &'a ValidatingAdmissionPolicyBinding>,
) -> Option<String> {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    if !SIGNED_ON.contains(&name) {
        return None;
    }
    let spec = policy.spec.as_ref()?;
    if spec.match_conditions.iter().flatten().next().is_some() {
        return Some("matchConditions exempt requests from it".to_owned());
    }
    let constraints = spec.match_constraints.as_ref();
    if constraints.is_some_and(narrows) {
        return Some("its matchConstraints exempt objects from it".to_owned());
    }
    let whole = |binding: &ValidatingAdmissionPolicyBinding| {
        let spec = binding.spec.as_ref();
        denies(binding)
            && spec.is_none_or(|spec| !spec.match_resources.as_ref().is_some_and(narrows))
    };
    (!bindings.any(whole)).then(|| "matchResources narrow every binding that denies".to_owned())
}

/// Whether a match leaves out objects or namespaces beyond its resourceRules.
fn narrows(matched: &MatchResources) -> bool {
    let selects = |selector: &Option<LabelSelector>| {
        selector.as_ref().is_some_and(|selector| {
            selector.match_labels.iter().flatten().next().is_some()
                || selector.match_expressions.iter().flatten().next().is_some()
        })
    };
    selects(&matched.namespace_selector)
        || selects(&matched.object_selector)
        || matched
            .exclude_resource_rules
            .iter()
            .flatten()
            .next()
            .is_some()
}

/// Whether the policy refuses what it cannot evaluate.
pub fn fails_closed(policy: &ValidatingAdmissionPolicy) -> bool {
    let spec = policy.spec.as_ref();
    // Fail is the default.
    spec.and_then(|spec| spec.failure_policy.as_deref())
        .is_none_or(|fails| fails == "Fail")
}

/// Whether the binding refuses what its policy finds, and does not only report it.
pub fn denies(binding: &ValidatingAdmissionPolicyBinding) -> bool {
    let spec = binding.spec.as_ref();
    spec.and_then(|spec| spec.validation_actions.as_ref())
        .is_some_and(|actions| actions.iter().any(|action| action == "Deny"))
}

/// When the policy of that name took its present form: the last change of it or of one of its bindings. What was written
/// before may have been written without it. Times are those of the API server, in whole seconds.
pub fn last_changed<'a>(
    name: &str,
    policy: &ValidatingAdmissionPolicy,
    bindings: impl IntoIterator<Item = &'a ValidatingAdmissionPolicyBinding>,
) -> Timestamp {
    of(name, bindings)
        .map(|binding| changed(&binding.metadata))
        .chain([changed(&policy.metadata)])
        .max()
        .unwrap_or(Timestamp::MAX)
}

/// The bindings of the policy of that name.
pub fn of<'a>(
    name: &str,
    bindings: impl IntoIterator<Item = &'a ValidatingAdmissionPolicyBinding>,
) -> impl Iterator<Item = &'a ValidatingAdmissionPolicyBinding> {
    bindings.into_iter().filter(move |binding| {
        binding
            .spec
            .as_ref()
            .is_some_and(|spec| spec.policy_name.as_deref() == Some(name))
    })
}

/// Status writes are those of Kubernetes' own checks, and change nothing of a policy.
fn changed(metadata: &ObjectMeta) -> Timestamp {
    let created = metadata.creation_timestamp.iter().map(|time| time.0);
    let written = metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| entry.subresource.as_deref() != Some("status"))
        .filter_map(|entry| Some(entry.time.as_ref()?.0));
    created.chain(written).max().unwrap_or(Timestamp::MAX)
}

/// Whether the API server says in an error that the policy of that name refused the request.
pub fn is_refusal_by(name: &str, message: &str) -> bool {
    // The words of `k8s.io/apiserver`, `plugin/policy/validating/dispatcher.go`.
    message.contains(&format!("ValidatingAdmissionPolicy '{name}' "))
        && message.contains(" denied request: ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(spec: &Value) -> ValidatingAdmissionPolicy {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "creationTimestamp": "2030-01-01T00:00:00Z" }, "spec": spec,
        }))
        .unwrap()
    }

    fn binding(name: &str, actions: &[&str]) -> ValidatingAdmissionPolicyBinding {
        serde_json::from_value(json!({
            "metadata": {
                "name": "b", "creationTimestamp": "2030-01-02T00:00:00Z",
                "managedFields": [
                    { "manager": "kubectl", "operation": "Apply", "time": "2030-01-03T00:00:00Z" },
                    { "manager": "x", "operation": "Update", "subresource": "status", "time": "2030-01-04T00:00:00Z" },
                ],
            },
            "spec": { "policyName": name, "validationActions": actions },
        }))
        .unwrap()
    }

    #[test]
    fn an_exception_that_is_stored_shows_that_a_policy_is_not_in_force() {
        let lacks = |spec: Value, matched: Value| {
            let mut policy = policy(&spec);
            policy.metadata.name = Some(PAIRING_DECISION.to_owned());
            let mut binding = binding(PAIRING_DECISION, &["Deny"]);
            if let Some(spec) = binding.spec.as_mut() {
                spec.match_resources = serde_json::from_value(matched).unwrap();
            }
            not_enforced(PAIRING_DECISION, Some(&policy), &[binding])
        };
        // As the API server stores what is shipped.
        let whole =
            json!({ "matchConstraints": { "namespaceSelector": {}, "objectSelector": {} } });
        assert_eq!(lacks(whole.clone(), Value::Null), None);
        let condition =
            json!([{ "name": "exempt", "expression": "request.userInfo.username != 'x'" }]);
        let selector =
            json!({ "matchExpressions": [{ "key": "skip", "operator": "DoesNotExist" }] });
        for (spec, matched) in [
            (json!({ "matchConditions": condition }), Value::Null),
            (
                json!({ "matchConstraints": { "objectSelector": selector } }),
                Value::Null,
            ),
            (
                json!({ "matchConstraints": { "excludeResourceRules": [{ "operations": ["*"] }] } }),
                Value::Null,
            ),
            (
                whole,
                json!({ "namespaceSelector": { "matchLabels": { "a": "b" } } }),
            ),
        ] {
            assert!(lacks(spec.clone(), matched).is_some(), "{spec}");
        }
    }

    #[test]
    fn what_is_stored_shows_that_a_policy_refuses_nothing() {
        let fails = policy(&json!({ "failurePolicy": "Fail" }));
        let lacks = |policy: Option<&_>, bindings: &[_]| not_enforced("p", policy, bindings);
        assert_eq!(lacks(Some(&fails), &[binding("p", &["Deny"])]), None);
        let both = [binding("p", &["Audit"]), binding("p", &["Audit", "Deny"])];
        assert_eq!(lacks(Some(&fails), &both), None);
        // Fail is the default.
        assert_eq!(lacks(Some(&policy(&json!({}))), &both), None);
        for (policy_object, bindings, why) in [
            (None, vec![binding("p", &["Deny"])], "does not exist"),
            (Some(&fails), vec![], "no ValidatingAdmissionPolicyBinding"),
            (
                Some(&fails),
                vec![binding("q", &["Deny"])],
                "no ValidatingAdmissionPolicyBinding",
            ),
            (Some(&fails), vec![binding("p", &["Audit", "Warn"])], "Deny"),
            (
                Some(&policy(&json!({ "failurePolicy": "Ignore" }))),
                vec![binding("p", &["Deny"])],
                "failurePolicy",
            ),
        ] {
            let found = lacks(policy_object, &bindings).unwrap();
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn the_last_change_of_a_policy_is_that_of_it_or_of_its_bindings() {
        let stored = policy(&json!({}));
        let changed = |bindings: &[_]| last_changed("p", &stored, bindings).to_string();
        assert_eq!(changed(&[]), "2030-01-01T00:00:00Z");
        assert_eq!(changed(&[binding("q", &["Deny"])]), "2030-01-01T00:00:00Z");
        assert_eq!(changed(&[binding("p", &["Deny"])]), "2030-01-03T00:00:00Z");
    }

    #[test]
    fn a_refusal_by_another_policy_or_for_another_reason_shows_nothing() {
        let by = |name: &str| {
            format!(
                "devices.fairlead.dev \"x\" is forbidden: ValidatingAdmissionPolicy '{name}' with binding 'b' denied request: no"
            )
        };
        assert!(is_refusal_by("p", &by("p")));
        assert!(!is_refusal_by("p", &by("pp")));
        assert!(!is_refusal_by(
            "p",
            "devices.fairlead.dev is forbidden: User cannot create"
        ));
    }
}
