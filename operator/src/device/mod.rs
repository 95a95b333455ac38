//! Reconciles `Device`s: whether one is trusted, whether its certificate can be used, and whether it is there.
//!
//! Gateways write sessions; what follows from the passing of time, from a decision or from the death of a gateway is
//! written here, and only when it changes.

mod apply;
mod observe;
pub mod plan;

use std::sync::Arc;

use crds::Device;
use jiff::Timestamp;

use crate::{context::Context, reconcile::Error};

/// Kind, as metrics and logs name it.
pub const KIND: &str = "Device";

/// One pass. A device with which all is well costs no request.
pub async fn reconcile(device: Device, context: Arc<Context>) -> Result<Option<Timestamp>, Error> {
    let observed = observe::observe(&context, device);
    let plan = plan::plan(&observed);
    apply::apply(&context, &observed.device, &plan.changes).await?;
    context.report.tell(&observed.device, &plan.notes).await;
    Ok(plan.requeue_at)
}
