//! Reconciles `CapabilityInvocation`s that no gateway can bring to an end: the device is absent, not trusted or not
//! there, nobody answered in time, or the invocation cannot be read.
//!
//! [`backlog`] counts them, so that the newest of too many end; [`departed`] knows which devices were deleted while they
//! held a stream; [`retention`] deletes what has ended, and [`ends`] tells how it ended.
//!
//! A healthy invocation is none of this loop's business: it costs no request and no write.

mod apply;
pub mod backlog;
pub mod departed;
mod ends;
mod observe;
pub mod plan;
pub mod retention;

use std::sync::Arc;

use crds::{CapabilityInvocation, Invalid};
use jiff::Timestamp;

use crate::{
    context::{Context, now},
    reconcile::{Error, Kind},
};

/// Kind, as metrics and logs name it.
pub const KIND: &str = "CapabilityInvocation";

impl Kind for CapabilityInvocation {
    const NAME: &'static str = KIND;

    async fn reconcile(self, context: Arc<Context>) -> Result<Option<Timestamp>, Error> {
        let observed = observe::observe(&context, self).await?;
        let plan = plan::plan(&observed);
        apply::apply(&context, &observed.invocation, &plan.changes).await?;
        context.report.tell(&observed.invocation, &plan.notes).await;
        Ok(plan.requeue_at)
    }

    /// Those that are seen here are open, and whoever waits for one must not wait for ever.
    async fn unreadable(invalid: Invalid, context: Arc<Context>) -> Result<(), Error> {
        let status = plan::unreadable(now(), &invalid);
        apply::end_unreadable(&context, &invalid, &status).await
    }
}

#[cfg(test)]
mod tests;
