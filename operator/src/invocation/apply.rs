//! Makes a plan for an invocation happen.

use crds::{CapabilityInvocation, Invalid, v1alpha1::CapabilityInvocationStatus};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::plan::Change;
use crate::{
    context::Context,
    reconcile::{Error, api, write_status},
    watch::Guard,
};

pub async fn apply(
    context: &Context,
    invocation: &CapabilityInvocation,
    changes: &[Change],
) -> Result<(), Error> {
    let namespace = invocation.namespace().unwrap_or_default();
    let invocations: Api<CapabilityInvocation> =
        Api::namespaced(context.client.clone(), &namespace);
    for change in changes {
        match change {
            Change::End(status) => {
                write_status(
                    &invocations,
                    invocation,
                    invocation.status.as_ref(),
                    &**status,
                )
                .await?;
            }
        }
    }
    Ok(())
}

/// Writes the end of an invocation of which only the metadata is known. The answer is as unreadable as the object was.
pub async fn end_unreadable(
    context: &Context,
    invalid: &Invalid,
    status: &CapabilityInvocationStatus,
) -> Result<(), Error> {
    let metadata = &invalid.metadata;
    let invocations: Api<Guard<CapabilityInvocation>> = Api::namespaced(
        context.client.clone(),
        metadata.namespace.as_deref().unwrap_or_default(),
    );
    // Onto the version that was seen, so that it is written once.
    let patch = json!({
        "metadata": { "resourceVersion": metadata.resource_version },
        "status": status,
    });
    let params = PatchParams {
        field_manager: Some(crds::names::OPERATOR.to_owned()),
        ..PatchParams::default()
    };
    let name = metadata.name.as_deref().unwrap_or_default();
    invocations
        .patch_status(name, &params, &Patch::Merge(patch))
        .await
        .map_err(api("end the invocation that cannot be read"))?;
    Ok(())
}
