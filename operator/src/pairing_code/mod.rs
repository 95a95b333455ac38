//! Reconciles `PairingCode`s: draws the code, shows it in a Secret while it can be used, and wipes both at its end.
//!
//! Absent → `Active` → `Used` | `Expired` | `Locked`. The Secret comes first, so that after a crash the code is read
//! back from it; it goes first, so that an ended code needs no look at its Secret.

mod apply;
mod observe;
pub mod plan;
pub mod room;
mod secret;

use std::sync::Arc;

use crds::{Invalid, PairingCode};
use jiff::Timestamp;

use crate::{
    context::Context,
    reconcile::{Error, Kind, say_unreadable},
};

/// Phases of a code that is over.
const ENDED: &[&str] = &["Used", "Expired", "Locked"];
/// To draw, to activate, and once more after a Secret of a former object of that name was cleared away.
const MOST_STEPS: usize = 4;

impl Kind for PairingCode {
    const NAME: &'static str = "PairingCode";

    /// Secrets are not watched, so what follows from the making of one follows here.
    async fn reconcile(self, context: Arc<Context>) -> Result<Option<Timestamp>, Error> {
        let mut requeue_at = None;
        for _ in 0..MOST_STEPS {
            let Some(observed) = observe::observe(&context, &self).await? else {
                return Ok(None);
            };
            let plan = plan::plan(&observed);
            apply::apply(&context, &observed.code, &plan.changes).await?;
            context.report.tell(&observed.code, &plan.notes).await;
            requeue_at = plan.requeue_at;
            if !plan.look_again {
                break;
            }
        }
        Ok(requeue_at)
    }

    async fn unreadable(invalid: Invalid, context: Arc<Context>) -> Result<(), Error> {
        say_unreadable::<Self>(&context, &invalid, ENDED).await
    }
}
