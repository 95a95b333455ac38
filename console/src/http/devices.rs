//! What is done to a device: each is the patch that kubectl would make, with the caller's token.

use console_api::{
    device::{Grant, Rename},
    problem::ProblemCode,
};
use crds::Device;
use http::header;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};

use super::call::{Call, done, ok};
use crate::{
    problem::{Answer, Fault},
    record,
};

pub async fn suspend(call: Call) -> Answer {
    patch(call, json!({ "trust": "Suspended" })).await
}

pub async fn resume(call: Call) -> Answer {
    patch(call, json!({ "trust": "Active" })).await
}

pub async fn revoke(call: Call) -> Answer {
    patch(call, json!({ "trust": "Revoked" })).await
}

pub async fn rename(call: Call) -> Answer {
    let rename: Rename = call.read()?;
    patch(call, json!({ "displayName": rename.display_name })).await
}

pub async fn grant(call: Call) -> Answer {
    let grant: Grant = call.read()?;
    let mut grants = json!({ "capabilities": grant.capabilities });
    // An empty map in a merge patch would change nothing, but would make a field of it.
    if !grant.surfaces.is_empty() {
        grants["surfaces"] = json!(grant.surfaces);
    }
    patch(call, json!({ "grants": grants })).await
}

pub async fn delete(call: Call) -> Answer {
    let id = call.object()?;
    let version = seen_version(&call)?;
    let params = DeleteParams {
        preconditions: version.clone().map(|resource_version| Preconditions {
            resource_version: Some(resource_version),
            uid: None,
        }),
        ..DeleteParams::default()
    };
    let deleted = call
        .caller()?
        .api
        .delete::<Device>(id.namespace(), id.name(), &params)
        .await;
    deleted.map_err(|fault| with_precondition(fault, version.is_some()))?;
    Ok(done())
}

async fn patch(call: Call, spec: Value) -> Answer {
    let id = call.object()?;
    let version = seen_version(&call)?;
    let mut patch = json!({ "spec": spec });
    if let Some(version) = &version {
        patch["metadata"] = json!({ "resourceVersion": version });
    }
    let patched = call
        .caller()?
        .api
        .patch::<Device>(id.namespace(), id.name(), None, &patch)
        .await;
    let patched = patched.map_err(|fault| with_precondition(fault, version.is_some()))?;
    ok(&record::device(&patched).ok_or_else(Fault::internal)?)
}

/// `If-Match`: the `resourceVersion` that the caller saw.
fn seen_version(call: &Call) -> Answer<Option<String>> {
    let Some(value) = call.headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let version = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    if !is_version(version) {
        return Err(Fault::field(
            "header.if-match",
            "give the resourceVersion of the device, which is a number",
        ));
    }
    Ok(Some(version.to_owned()))
}

/// The API server fails at anything else, and takes 0 for none.
fn is_version(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && !text.starts_with('0') && text.parse::<u64>().is_ok()
}

fn with_precondition(fault: Fault, asked: bool) -> Fault {
    if asked && fault.0.code == ProblemCode::Conflict {
        return Fault::new(
            ProblemCode::PreconditionFailed,
            "the device has changed since you saw it: look at it again",
        );
    }
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_object_can_have_is_no_version() {
        for version in ["1", "42", "18446744073709551615"] {
            assert!(is_version(version), "{version}");
        }
        for other in [
            "",
            "0",
            "007",
            "-1",
            "+1",
            "1.0",
            "abc",
            "18446744073709551616",
        ] {
            assert!(!is_version(other), "{other}");
        }
    }
}
