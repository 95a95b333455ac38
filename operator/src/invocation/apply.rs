//! Makes a plan for an invocation happen.

use crds::CapabilityInvocation;
use kube::{Api, ResourceExt as _};

use super::plan::Change;
use crate::{
    context::Context,
    reconcile::{Error, write_status},
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
