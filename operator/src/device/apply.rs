//! Makes a plan for a device happen.

use crds::Device;
use kube::{Api, ResourceExt as _};

use super::plan::Change;
use crate::{
    context::Context,
    reconcile::{Error, write_status},
};

pub async fn apply(context: &Context, device: &Device, changes: &[Change]) -> Result<(), Error> {
    let devices: Api<Device> = Api::namespaced(
        context.client.clone(),
        &device.namespace().unwrap_or_default(),
    );
    for change in changes {
        match change {
            Change::WriteStatus(status) => {
                write_status(&devices, device, device.status.as_ref(), &**status).await?;
            }
        }
    }
    Ok(())
}
