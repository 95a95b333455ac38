//! Pairing requests: listed, shown with everything that an approver compares, decided on.

use console_api::{
    ObjectId,
    pairing::{Approve, Deny, RequestPage},
    problem::ProblemCode,
};
use crds::{
    PairingCode, PairingRequest, digest,
    v1alpha1::pairing_request::{Decision, Verdict},
};
use serde_json::json;

use super::{
    call::{Call, ok},
    pages,
};
use crate::{
    problem::{Answer, Fault},
    record,
    registry::{Permission, Target},
};

pub async fn list(call: Call) -> Answer {
    let params = pages::params(&call.query, &[("status.phase", call.query.text("phase"))])?;
    let namespace = call.target.namespace.as_deref();
    let found = call
        .caller()?
        .api
        .list::<PairingRequest>(namespace, &params)
        .await?;
    ok(&RequestPage {
        next_cursor: pages::cursor(&found.metadata),
        requests: found
            .items
            .iter()
            .filter_map(record::request_summary)
            .collect(),
    })
}

pub async fn get(call: Call) -> Answer {
    let found = read(&call, &call.object()?).await?;
    shown(&call, &found).await
}

async fn read(call: &Call, id: &ObjectId) -> Answer<PairingRequest> {
    call.caller()?.api.get(id.namespace(), id.name()).await
}

/// With the grants that the code allows, as far as the caller may see the code.
async fn shown(call: &Call, request: &PairingRequest) -> Answer {
    let ceiling = match (&request.spec.pairing_code_ref, &call.target.namespace) {
        (Some(code), Some(namespace)) => {
            let target = Target {
                namespace: Some(namespace.clone()),
                name: Some(code.name.clone()),
                capability: None,
            };
            if call.has(Permission::CodesRead, &target).await? {
                let found = call
                    .caller()?
                    .api
                    .get::<PairingCode>(namespace, &code.name)
                    .await;
                match found {
                    Ok(code) => code.spec.grants,
                    // Codes go before the requests that came of them.
                    Err(fault) if fault.0.code == ProblemCode::NotFound => None,
                    Err(fault) => return Err(fault),
                }
            } else {
                None
            }
        }
        _ => None,
    };
    ok(&record::request_detail(request, ceiling.as_ref()).ok_or_else(Fault::internal)?)
}

pub async fn approve(call: Call) -> Answer {
    let approve: Approve = call.read()?;
    let decision = Decision {
        decision: Verdict::Approved,
        decided_by: Some(call.caller()?.who.user.clone()),
        reason: approve.reason,
        device_name: approve.device_name,
        grants: approve.grants.map(|grants| crds::v1alpha1::Grants {
            labels: grants.labels,
            capabilities: grants.capabilities,
        }),
        spec_digest: Some(approve.spec_digest),
    };
    decide(call, decision).await
}

pub async fn deny(call: Call) -> Answer {
    let deny: Deny = call.read()?;
    let decision = Decision {
        decision: Verdict::Denied,
        decided_by: Some(call.caller()?.who.user.clone()),
        reason: Some(deny.reason),
        device_name: None,
        grants: None,
        spec_digest: None,
    };
    decide(call, decision).await
}

/// The patch that kubectl would make, after a look at what is decided on.
async fn decide(call: Call, decision: Decision) -> Answer {
    let id = call.object()?;
    let found = read(&call, &id).await?;
    if let Some(seen) = &decision.spec_digest {
        let is = digest::of_spec(&found.spec).map_err(|_| Fault::internal())?;
        if *seen != is {
            return Err(Fault::new(
                ProblemCode::PreconditionFailed,
                "specDigest is not that of this request: look at it again before you approve it",
            ));
        }
    }
    let status = found.status.clone().unwrap_or_default();
    if let Some(decided) = &status.approval {
        // Sent again.
        if *decided == decision {
            return shown(&call, &found).await;
        }
        return Err(Fault::new(
            ProblemCode::Conflict,
            "it was decided already, and a decision is final",
        ));
    }
    if status.phase.is_terminal() {
        return Err(Fault::new(
            ProblemCode::Conflict,
            "it has ended: the device must ask again",
        ));
    }
    let patch = json!({ "status": { "approval": decision } });
    let patched = call
        .caller()?
        .api
        .patch(id.namespace(), id.name(), Some("status"), &patch)
        .await?;
    shown(&call, &patched).await
}
