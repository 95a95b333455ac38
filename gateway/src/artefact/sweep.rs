//! Removes from the store what nobody needs any more: every ten minutes or so, by one of the gateways.
//!
//! Which one does not matter: two at once remove the same. Where the store is empty nobody asks the API server for
//! anything; where it cannot be asked, nothing goes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crds::CapabilityInvocation;
use futures::{StreamExt as _, pin_mut};
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Artefacts, store};
use crate::{
    clock::now,
    domain::{
        artefact::{ARTEFACTS, PARTS},
        retention::{Candidate, candidate, is_abandoned, orphans},
    },
    index::{Index, watch::Synced},
};

/// Between two sweeps.
const EVERY: Duration = Duration::from_mins(10);
/// Objects that one sweep looks at, of parts and of each namespace. What is behind them waits until some have gone.
const MOST_LOOKED_AT: usize = 200_000;
/// Invocations in one page.
const PAGE: u32 = 500;
/// How long one page may take.
const PAGE_TIME: Duration = Duration::from_secs(10);

/// What a sweep needs.
pub struct Sweeper {
    pub artefacts: Artefacts,
    pub client: Client,
    pub index: Arc<Index>,
    /// Name of this gateway.
    pub gateway: String,
}

/// Why a sweep was not done. The next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("list the invocations of a namespace")]
    List(#[source] Box<kube::Error>),
    #[error("the API server does not answer")]
    TimedOut,
}

impl Sweeper {
    /// Until `stop`.
    pub async fn run(self, synced: Synced, stop: CancellationToken) {
        let work = async {
            synced.wait().await;
            if let Err(error) = self.artefacts.store.probe().await {
                tracing::warn!(%error, "The artefact store cannot be used: outputs that need it are refused until it can");
            }
            loop {
                sleep(EVERY.mul_f64(rand::random_range(0.8..1.2))).await;
                if !self.index.gateways.leads(&self.gateway, now()) {
                    continue;
                }
                match self.sweep(now().as_second()).await {
                    Ok(0) => {}
                    Ok(removed) => {
                        tracing::info!(
                            removed,
                            "Removed from the artefact store what nobody needs"
                        );
                    }
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            "Sweeping the artefact store failed and is tried again"
                        );
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// How many objects it removed. `now` is in seconds since 1970.
    pub(crate) async fn sweep(&self, now: i64) -> Result<usize, Error> {
        let mut removed = self.sweep_parts(now).await?;
        for namespace in self.artefacts.store.below(ARTEFACTS).await? {
            let candidates = self.candidates(&namespace, now).await?;
            if candidates.is_empty() {
                continue;
            }
            // After the objects: what is missing now was deleted.
            let uids = self.uids(&namespace).await?;
            removed += self
                .artefacts
                .store
                .remove_keys(orphans(candidates, &uids))
                .await;
        }
        Ok(removed)
    }

    async fn sweep_parts(&self, now: i64) -> Result<usize, Error> {
        let parts = self.artefacts.store.all(PARTS)?.take(MOST_LOOKED_AT);
        pin_mut!(parts);
        let mut old = Vec::new();
        while let Some(part) = parts.next().await {
            let (key, written) = part?;
            if is_abandoned(&key, written, now) {
                old.push(key);
            }
        }
        Ok(self.artefacts.store.remove_keys(old).await)
    }

    async fn candidates(&self, namespace: &str, now: i64) -> Result<Vec<Candidate>, Error> {
        let found = self
            .artefacts
            .store
            .all(&format!("{ARTEFACTS}/{namespace}"))?;
        let found = found.take(MOST_LOOKED_AT);
        pin_mut!(found);
        let mut candidates = Vec::new();
        while let Some(object) = found.next().await {
            let (key, written) = object?;
            candidates.extend(candidate(&key, written, now));
        }
        Ok(candidates)
    }

    /// Of every invocation of the namespace, ended or not. From the API server and not from the index, which knows those
    /// that are open, and may be behind.
    async fn uids(&self, namespace: &str) -> Result<BTreeSet<String>, Error> {
        let api: Api<CapabilityInvocation> = Api::namespaced(self.client.clone(), namespace);
        let mut uids = BTreeSet::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = timeout(PAGE_TIME, api.list_metadata(&params)).await;
            let page = page.map_err(|_| Error::TimedOut)?;
            let page = page.map_err(|error| Error::List(Box::new(error)))?;
            uids.extend(page.items.iter().filter_map(ResourceExt::uid));
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(uids),
            }
        }
    }
}
