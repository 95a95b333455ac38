//! Reconciles `Device`s: whether one is trusted, whether its certificate can be used, whether it is there; and renews its
//! certificate when it asks.
//!
//! Gateways write sessions; what follows from the passing of time, from a decision or from the death of a gateway is
//! written here, and only when it changes.

mod apply;
mod history;
mod observe;
pub mod plan;

use std::sync::Arc;

use crds::{Device, Invalid};
use jiff::Timestamp;

use crate::{
    context::Context,
    reconcile::{Error, Kind, say_unreadable},
};

pub use apply::renewed;
pub(crate) use history::with_certificate;

impl Kind for Device {
    const NAME: &'static str = "Device";

    /// A device with which all is well costs no request.
    async fn reconcile(self, context: Arc<Context>) -> Result<Option<Timestamp>, Error> {
        let observed = observe::observe(&context, self).await?;
        let plan = plan::plan(&observed);
        apply::apply(&context, &observed.device, &plan.changes).await?;
        context.report.tell(&observed.device, &plan.notes).await;
        Ok(plan.requeue_at)
    }

    async fn unreadable(invalid: Invalid, context: Arc<Context>) -> Result<(), Error> {
        say_unreadable::<Self>(&context, &invalid, &[]).await
    }
}
