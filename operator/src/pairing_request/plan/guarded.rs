//! Whether an approval may be believed: the admission policies that guard it are in force, and were when it was written.

use crds::{PairingCode, names};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{
    Change, Observed, Plan, approves_itself,
    checks::{Failure, failure},
    with_ready,
};
use crate::{
    policies::plan::{AGAIN, Lack, Policy, is_owned_by, written},
    reconcile::settle,
    report::Note,
};

/// What the code's own approval rests on.
const BY_CODE: [Policy; 3] = [
    Policy::CodeApproval,
    Policy::CodeStatus,
    Policy::RequestOrigin,
];

/// Why an approved request is not signed: it waits, or it failed for good. `None`: it may be signed.
pub(super) fn not_signed(observed: &Observed) -> Option<Result<Plan, Failure>> {
    let since = match observed.policies.in_force() {
        Ok(since) => since,
        // Who decided cannot be told any more, whatever is restored later.
        Err(lack) if lack.policy == Policy::Decision && lack.is_certain() => {
            return Some(Err(decided_without(&lack.found())));
        }
        Err(lack) => return Some(Ok(held(observed, &lack))),
    };
    let settled_at = since.all_settled(&[Policy::Decision])?;
    let metadata = &observed.request.metadata;
    let why = match written(metadata, "approval") {
        // The operator's own writes make such a decision look younger than it is.
        Some(_)
            if is_owned_by(metadata, "approval", names::OPERATOR)
                && approves_itself(observed).is_none() =>
        {
            "it was written under the name of the operator, and no code approves it".to_owned()
        }
        Some(decided_at) if decided_at >= settled_at => return None,
        Some(decided_at) => format!(
            "it was decided at {decided_at}, before the admission policy {} took its present form",
            Policy::Decision.name()
        ),
        None => "metadata.managedFields does not show when it was decided".to_owned(),
    };
    Some(Err(decided_without(&why)))
}

fn decided_without(why: &str) -> Failure {
    failure(
        "DecidedWithoutPolicies",
        format!(
            "not signed: {why}, so the right of the approver cannot be verified; run kubectl apply -f crds/policies, then \
             make another code, pair again and decide again"
        ),
    )
}

/// Whether the code approves the request by itself.
pub(super) enum ByCode {
    Yes,
    NotNow(Box<Plan>),
    /// A person must decide; why.
    Person(String),
}

pub(super) fn by_code(observed: &Observed, code: &PairingCode) -> ByCode {
    let since = match observed.policies.in_force() {
        Ok(since) => since,
        Err(lack) => return ByCode::NotNow(Box::new(held(observed, &lack))),
    };
    // What is approved before a policy has settled could not be told from what was approved without it.
    let mut all = BY_CODE.to_vec();
    all.push(Policy::Decision);
    if let Some(settled_at) = since.all_settled(&all).filter(|at| observed.now <= *at) {
        return ByCode::NotNow(Box::new(Plan {
            requeue_at: Some(
                settled_at.min(observed.now.saturating_add(AGAIN).unwrap_or(settled_at)),
            ),
            ..Plan::default()
        }));
    }
    let made = |metadata: &kube::api::ObjectMeta| {
        let created = metadata.creation_timestamp.as_ref();
        created.map_or(Timestamp::MIN, |time| time.0)
    };
    let older = [
        (
            Policy::CodeApproval,
            "code",
            code.name_any(),
            &code.metadata,
        ),
        (Policy::CodeStatus, "code", code.name_any(), &code.metadata),
        (
            Policy::RequestOrigin,
            "request",
            observed.request.name_any(),
            &observed.request.metadata,
        ),
    ]
    .into_iter()
    .find(|(policy, _, _, metadata)| since.not_yet(&[*policy], made(metadata)).is_some());
    match older {
        None => ByCode::Yes,
        Some((policy, what, name, _)) => ByCode::Person(format!(
            "not approved by the code, for the {what} {name} is older than the present form of the admission policy {}",
            policy.name()
        )),
    }
}

/// Nothing is signed and nothing approved. Tried again soon.
fn held(observed: &Observed, lack: &Lack) -> Plan {
    let message = lack.message();
    let status = with_ready(observed, false, lack.reason(), &message);
    let change = settle(observed.request.status.as_ref(), status).map(Change::WriteStatus);
    Plan {
        notes: change
            .iter()
            .map(|_| Note::warning(lack.reason(), "Issuing", message.clone()))
            .collect(),
        changes: change.into_iter().collect(),
        requeue_at: observed.now.checked_add(AGAIN).ok(),
    }
}
