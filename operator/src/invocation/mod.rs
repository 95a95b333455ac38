//! Reconciles `CapabilityInvocation`s that no gateway can bring to an end: the device is absent, not trusted or not
//! there, or nobody answered in time.
//!
//! [`retention`] deletes what has ended.
//!
//! A healthy invocation is none of this loop's business: it costs no request and no write.

mod apply;
mod observe;
pub mod plan;
pub mod retention;

use std::sync::Arc;

use crds::CapabilityInvocation;
use jiff::Timestamp;

use crate::{context::Context, reconcile::Error};

/// Kind, as metrics and logs name it.
pub const KIND: &str = "CapabilityInvocation";

/// One pass.
pub async fn reconcile(
    invocation: CapabilityInvocation,
    context: Arc<Context>,
) -> Result<Option<Timestamp>, Error> {
    let observed = observe::observe(&context, invocation).await?;
    let plan = plan::plan(&observed);
    apply::apply(&context, &observed.invocation, &plan.changes).await?;
    context.report.tell(&observed.invocation, &plan.notes).await;
    Ok(plan.requeue_at)
}
