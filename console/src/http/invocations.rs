//! Running a capability on a device, and how that goes.

use std::time::Duration;

use console_api::{
    ObjectId,
    invocation::{InvocationPage, NewInvocation},
    problem::ProblemCode,
    routes,
};
use crds::{CapabilityInvocation, v1alpha1::CapabilityInvocationSpec};
use kube::api::ObjectMeta;
use serde_json::json;
use tokio::time::Instant;

use super::{
    call::{Call, created, ok},
    idempotency::{self, conflict},
    pages,
};
use crate::{
    clock,
    problem::{Answer, Fault},
    record,
};

/// Prefix of names that are made up.
const PREFIX: &str = "inv";
/// Longest time between two looks at what is waited for, should the index not hear of it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

pub async fn create(call: Call) -> Answer {
    let new: NewInvocation = call.read()?;
    let caller = call.caller()?;
    let key = idempotency::key(&call)?;
    let (namespace, about) = (new.device.namespace().to_owned(), new.device.to_string());
    let name = key.map(|key| idempotency::name(PREFIX, &caller.who.user, &key, &about));
    let object = CapabilityInvocation {
        metadata: ObjectMeta {
            generate_name: name.is_none().then(|| format!("{PREFIX}-")),
            name: name.clone(),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: spec(new, &caller.who.user)?,
        status: None,
    };
    match (caller.api.create(Some(&namespace), &object).await, name) {
        (Ok(made), _) => {
            let record = record::invocation(&made).ok_or_else(Fault::internal)?;
            created(routes::INVOCATION, &record.summary.id.clone(), &record)
        }
        // It was sent before.
        (Err(fault), Some(name)) if fault.0.code == ProblemCode::Conflict => {
            let found: CapabilityInvocation = caller.api.get(&namespace, &name).await?;
            let mut asked = found.spec.clone();
            asked.cancel = None;
            if asked != object.spec {
                return Err(conflict(&name));
            }
            ok(&record::invocation(&found).ok_or_else(Fault::internal)?)
        }
        (Err(fault), None | Some(_)) => Err(fault),
    }
}

/// What is not said is what the resource has by itself. Who asks is stamped, or must be true.
fn spec(new: NewInvocation, user: &str) -> Answer<CapabilityInvocationSpec> {
    let device = new.device.name().to_owned();
    let mut value = serde_json::to_value(new).map_err(|_| Fault::internal())?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("device");
        fields.insert("deviceRef".to_owned(), json!({ "name": device }));
        fields.insert("requestedBy".to_owned(), json!(user));
    }
    serde_json::from_value(value).map_err(|error| Fault::field("body", error.to_string()))
}

pub async fn list(call: Call) -> Answer {
    let query = &call.query;
    if let Some(capability) = query.text("capability") {
        // It goes into a field selector, where a comma would begin another one.
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !capability.bytes().all(inside) {
            return Err(Fault::field(
                "query.capability",
                "give the name of a capability",
            ));
        }
    }
    let params = pages::params(
        query,
        &[
            ("spec.deviceRef.name", query.text("device")),
            ("spec.capability", query.text("capability")),
            ("status.phase", query.text("phase")),
        ],
    )?;
    let namespace = call.target.namespace.as_deref();
    let found = call
        .caller()?
        .api
        .list::<CapabilityInvocation>(namespace, &params)
        .await?;
    ok(&InvocationPage {
        next_cursor: pages::cursor(&found.metadata),
        invocations: found
            .items
            .iter()
            .filter_map(record::invocation_summary)
            .collect(),
    })
}

/// With `wait`, looks again whenever the index hears of it. What is answered always comes from the API server, with the
/// caller's token.
pub async fn get(call: Call) -> Answer {
    let id = call.object()?;
    let wait = Duration::from_secs(call.query.number("wait").unwrap_or(0).into());
    let until = clock::instant() + wait;
    // From here on nothing can change unheard between a look and the wait after it.
    let mut following = call.console.index.follow_invocation(&id);
    loop {
        let found = look(&call, &id).await?;
        let phase = found
            .status
            .as_ref()
            .map(|status| status.phase)
            .unwrap_or_default();
        if phase.is_terminal() || is_over(until) || call.leaving.is_cancelled() {
            return ok(&record::invocation(&found).ok_or_else(Fault::internal)?);
        }
        let look_again = until.min(clock::instant() + LOOK_AGAIN);
        tokio::select! {
            _ = following.changed(look_again) => {}
            () = call.leaving.cancelled() => {}
        }
    }
}

fn is_over(until: Instant) -> bool {
    clock::instant() >= until
}

async fn look(call: &Call, id: &ObjectId) -> Answer<CapabilityInvocation> {
    call.caller()?.api.get(id.namespace(), id.name()).await
}

pub async fn cancel(call: Call) -> Answer {
    let id = call.object()?;
    let patch = json!({ "spec": { "cancel": "Requested" } });
    let patched: CapabilityInvocation = call
        .caller()?
        .api
        .patch(id.namespace(), id.name(), None, &patch)
        .await?;
    ok(&record::invocation(&patched).ok_or_else(Fault::internal)?)
}
