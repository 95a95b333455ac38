//! What has to be known of an invocation before it is sent: how its capability stands, and whether its input fits.
//!
//! A device chooses the schemas and a user the inputs, so neither is small by itself. Each look has an [`Allowance`] of a
//! millisecond or so; one check that needs more is made on another thread, and what is behind it waits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Dispatcher, MAX_STANDINGS, done::Done};
use crate::{
    domain::{
        device::KnownDevice,
        fit::Fit,
        grants::{self, Standing},
        register::Declared,
    },
    heavy,
    index::invocations::Entry,
};

/// Steps of checks that one look makes itself: half a millisecond.
const STEPS_OF_LOOK: u32 = 200_000;
/// How long before a check is tried again for which there was no place.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What one look may still compute itself.
pub struct Allowance {
    steps: u32,
    /// Bytes of schemas.
    read: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            steps: STEPS_OF_LOOK,
            read: 0,
        }
    }
}

/// Checks that are made on another thread: one at a time.
#[derive(Default)]
pub struct Judging {
    /// What the check is about that is underway.
    underway: Option<String>,
    /// What the device declares, or its Device, has changed since it began: its result is of no use.
    is_outdated: bool,
    /// By uid; of what is open.
    judged: BTreeMap<String, Fit>,
}

impl Judging {
    pub(super) fn outdate(&mut self) {
        self.is_outdated = true;
        self.judged = BTreeMap::new();
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.judged.is_empty()
    }

    pub(super) fn retain(&mut self, is_open: impl Fn(&str) -> bool) {
        self.judged.retain(|uid, _| is_open(uid));
    }

    /// `None`: it was not made.
    pub(super) fn note(&mut self, fit: Option<Fit>) {
        if let (Some(uid), Some(fit), false) = (self.underway.take(), fit, self.is_outdated) {
            self.judged.insert(uid, fit);
        }
    }
}

impl Dispatcher {
    /// How the capability stands; `None` where this look has read enough.
    pub(super) fn standing(
        &mut self,
        capability: &str,
        device: &KnownDevice,
        declared: &Declared,
    ) -> Option<Arc<Standing>> {
        if let Some(known) = self.standings.get(capability) {
            return Some(Arc::clone(known));
        }
        // The first one is read, however large it is: two schemas.
        if !heavy::is_small(self.allowance.read) {
            return None;
        }
        let found = grants::standing(capability, declared, &device.spec, &device.status);
        self.allowance.read += found.schema_bytes();
        let found = Arc::new(found);
        if self.standings.len() >= MAX_STANDINGS {
            self.standings.clear();
        }
        self.standings
            .insert(capability.to_owned(), Arc::clone(&found));
        Some(found)
    }

    /// Whether the input fits; `None` until that is known.
    pub(super) fn fit(&mut self, entry: &Entry, standing: &Arc<Standing>) -> Option<Fit> {
        let invocation = &entry.invocation;
        if let Some(fit) = self.judging.judged.get(&invocation.uid) {
            return Some(fit.clone());
        }
        let fit = Fit::of(invocation.input(), standing, &mut self.allowance.steps);
        if fit.is_some() || self.judging.underway.is_some() {
            return fit;
        }
        self.judging.underway = Some(invocation.uid.clone());
        self.judging.is_outdated = false;
        let (invocation, standing) = (Arc::clone(invocation), Arc::clone(standing));
        let (heavy, device) = (self.shared.heavy.clone(), self.device.to_string());
        self.work.push(Box::pin(async move {
            let judge = move || Fit::of(invocation.input(), &standing, &mut { u32::MAX });
            let judged = heavy.run(device, judge).await;
            if judged.is_err() {
                sleep(TRY_AGAIN).await;
            }
            Done::Judged(judged.ok().flatten())
        }));
        None
    }
}
