//! One artefact on its way into the store: a task of its own, so that a store that is slow keeps nothing else of the
//! device waiting.
//!
//! ```text
//! is it there? ─► a place ─► ask from what is kept ─► parts ─► put together ─► stored
//! ```
//!
//! The task ends with the stream that it works for, unless it is putting together: that is done once it was begun.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Artefacts,
    store::{Assembled, Error},
};
use crate::domain::artefact::{PART, Part, Place, WINDOW};

/// Parts that wait to be written: the device sends no more than that.
pub const PARTS_AHEAD: usize = (WINDOW / PART) as usize;

/// What the device is to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// What is before that is kept: send on from there.
    Want(u64),
    Stored,
    Refused(String),
    /// Not now: the store, or who is asked about the invocation, does not answer. Nothing that is kept is lost.
    PutOff(String),
}

/// What a stream hands over.
pub struct Upload {
    pub artefacts: Artefacts,
    pub place: Place,
    pub steps: mpsc::Sender<Step>,
    pub parts: mpsc::Receiver<Part>,
    /// Nobody wants it any more.
    pub gone: CancellationToken,
}

impl Upload {
    /// Until it is stored, refused or put off, or the stream let go of it.
    pub async fn run(mut self) {
        let gone = self.gone.clone();
        let step = tokio::select! {
            step = self.store() => step,
            () = gone.cancelled() => Ok(None),
        };
        if gone.is_cancelled() {
            self.artefacts.store.forget_parts(&self.place).await;
            return;
        }
        let step = match step {
            Ok(Some(step)) => step,
            Ok(None) => return,
            Err(error @ (Error::Full | Error::Failed)) => Step::PutOff(error.to_string()),
            Err(error @ Error::Denied) => Step::Refused(error.to_string()),
        };
        // Fails when the stream is gone: the device offers it again, and hears it then.
        let _ = self.steps.send(step).await;
    }

    /// `None`: the stream is gone.
    async fn store(&mut self) -> Result<Option<Step>, Error> {
        let Self {
            artefacts,
            place,
            steps,
            parts,
            ..
        } = self;
        let store = artefacts.store.clone();
        // The word that it is stored was lost.
        if store.has(place).await? {
            return Ok(Some(Step::Stored));
        }
        let acquired = tokio::select! {
            place = artefacts.places.acquire() => place,
            () = steps.closed() => return Ok(None),
        };
        let _held = acquired.expect("the semaphore is never closed");
        let mut kept = store.kept(place).await?;
        while kept < place.claim.size {
            if steps.send(Step::Want(kept)).await.is_err() {
                return Ok(None);
            }
            let Some(part) = parts.recv().await else {
                return Ok(None);
            };
            let length = part.bytes.len() as u64;
            store.keep(place, part).await?;
            kept += length;
        }
        Ok(Some(match store.assemble(place).await? {
            Assembled::Whole => Step::Stored,
            Assembled::Wrong => Step::Refused(
                "what the device sent does not have the digest that it announced".to_owned(),
            ),
        }))
    }
}
