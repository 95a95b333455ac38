//! Reconciles `PairingRequest`s: says what a request is about, and carries out what was decided on it.
//!
//! `Pending` → `Denied` | `Expired` | `Failed` | `Issued`. On approval, in this order and each step of its own: the
//! Device, the certificate in the request's status, the Secret of the device, the certificate's record in the Device.
//! The record is last: a request whose certificate is recorded needs no look at anything else.

mod apply;
mod grants;
mod observe;
pub mod plan;

use std::sync::Arc;

use crds::{Invalid, PairingRequest};
use jiff::Timestamp;

use crate::{
    context::Context,
    reconcile::{Error, Kind, say_unreadable},
};

pub(crate) use apply::write_secret;
pub use apply::{build_secret, record};
pub(crate) use observe::{owned_by, secret as device_secret};

/// Phases of a request that waits for nothing.
const ENDED: &[&str] = &["Denied", "Issued", "Expired", "Failed"];

impl Kind for PairingRequest {
    const NAME: &'static str = "PairingRequest";

    /// What it writes into the status brings the next pass.
    async fn reconcile(self, context: Arc<Context>) -> Result<Option<Timestamp>, Error> {
        let Some(observed) = Box::pin(observe::observe(&context, self)).await? else {
            return Ok(None);
        };
        let plan = plan::plan(&observed);
        apply::apply(&context, &observed.request, &plan.changes).await?;
        context.report.tell(&observed.request, &plan.notes).await;
        Ok(plan.requeue_at)
    }

    async fn unreadable(invalid: Invalid, context: Arc<Context>) -> Result<(), Error> {
        say_unreadable::<Self>(&context, &invalid, ENDED).await
    }
}
