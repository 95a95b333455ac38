//! One ConfigMap of marks: watched, and written onto the version that was read.
//!
//! A write is refused if another gateway wrote meanwhile; then the ConfigMap is read again, and both gateways' marks are
//! in the next write. Within a gateway one write is in flight, and has the marks of all logouts that wait for it: a
//! crowd of logouts costs as many writes as fit one after another, and delays another user's logout by at most two.
//!
//! The answer to a write has the metadata alone, and a write empties `managedFields` of the keys of earlier ones. So the
//! bytes of a write do not grow with the number of marks.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{Guarded, names::GATEWAY};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    marks::{Changes, Data, Marks, apply},
    subject::Key,
};
use crate::clock::now;

/// Longest time of a logout.
const TIME: Duration = Duration::from_secs(5);

/// Why a logout was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("ConfigMap {0} is missing: apply crds/rbac/10-console.yaml")]
    Missing(&'static str),
    #[error("ConfigMap {0} cannot be read: {1}; delete it and apply crds/rbac/10-console.yaml")]
    Unreadable(&'static str, String),
    #[error("read ConfigMap {0}")]
    Read(&'static str, #[source] Box<kube::Error>),
    #[error("write ConfigMap {0}")]
    Write(&'static str, #[source] Box<kube::Error>),
    #[error("the API server did not answer within {} s", TIME.as_secs())]
    TimedOut,
}

/// One ConfigMap.
pub struct Shard {
    name: &'static str,
    /// Gateways write them: metadata that cannot be read must not keep users from logging in and out.
    maps: Api<Guarded<ConfigMap>>,
    state: Mutex<State>,
    /// Held by the one write in flight.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Every mark that was ever read or written here and still matters; `None` until the first list. Stays where somebody
    /// removes a mark from the ConfigMap.
    known: Option<Marks>,
    /// Marks that the next write records.
    wanted: Marks,
    /// The ConfigMap as it was read or written last.
    stored: Option<Stored>,
}

#[derive(Clone)]
struct Stored {
    data: Data,
    version: String,
}

/// Next step of a logout.
enum Step {
    /// The ConfigMap has the mark.
    Done,
    Read,
    Write {
        changes: Changes,
        onto: Stored,
    },
}

impl Shard {
    pub fn new(client: Client, namespace: &str, name: &'static str) -> Self {
        Self {
            name,
            maps: Api::namespaced(client, namespace),
            state: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Latest moment, in milliseconds since 1970, at or before which sessions are over; `None` until the first list.
    pub fn latest(&self, key: Key) -> Option<i64> {
        self.state().known.as_ref().map(|known| known.latest(key))
    }

    /// Records a mark.
    ///
    /// # Errors
    /// If it could not be recorded within [`TIME`].
    pub async fn put(&self, key: Key, at: i64) -> Result<(), Error> {
        self.state().want(key, at, now());
        timeout(TIME, self.write(key, at))
            .await
            .unwrap_or(Err(Error::TimedOut))
    }

    async fn write(&self, key: Key, at: i64) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        loop {
            let step = self.state().step(key, at, now());
            match step {
                Step::Done => return Ok(()),
                Step::Read => self.read().await?,
                Step::Write { changes, onto } => self.patch(&changes, onto).await?,
            }
        }
    }

    async fn read(&self) -> Result<(), Error> {
        let map = self.maps.get_opt(self.name).await;
        let map = map.map_err(|error| Error::Read(self.name, Box::new(error)))?;
        let map = map.ok_or(Error::Missing(self.name))?;
        let map = map
            .0
            .map_err(|invalid| Error::Unreadable(self.name, invalid.error))?;
        self.state().learn(map, now());
        Ok(())
    }

    /// A conflict is not an error: the next step reads.
    async fn patch(&self, changes: &Changes, onto: Stored) -> Result<(), Error> {
        let patch = Patch::Merge(json!({
            // One empty entry resets the list.
            "metadata": { "resourceVersion": onto.version, "managedFields": [{}] },
            "data": changes,
        }));
        let params = PatchParams {
            field_manager: Some(GATEWAY.to_owned()),
            ..PatchParams::default()
        };
        let mut stored = onto;
        match self.maps.patch_metadata(self.name, &params, &patch).await {
            Ok(patched) => {
                apply(&mut stored.data, changes);
                stored.version = patched.resource_version().unwrap_or_default();
                self.state().wrote(stored, now());
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                self.state().stored = None;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                Err(Error::Missing(self.name))
            }
            Err(error) => Err(Error::Write(self.name, Box::new(error))),
        }
    }

    /// Watches the ConfigMap. Never ends.
    pub async fn follow(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = watcher::watcher(self.maps.clone(), config)
            .default_backoff()
            .boxed();
        while let Some(event) = events.next().await {
            match event {
                // The marks are known once the ConfigMap was read, and not where it is missing: else whoever deletes it
                // brings ended sessions back at the next start.
                Ok(Event::InitApply(map) | Event::Apply(map)) => match map.0 {
                    Ok(map) => {
                        let mut state = self.state();
                        state.learn(map, now());
                        state.known.get_or_insert_default();
                    }
                    Err(invalid) => tracing::warn!(
                        error = invalid.error,
                        name = self.name,
                        "The ConfigMap of logouts cannot be read: delete it and apply crds/rbac/10-console.yaml"
                    ),
                },
                Ok(Event::InitDone) if self.state().known.is_none() => tracing::warn!(
                    name = self.name,
                    "The ConfigMap of logouts is missing, no session is accepted: apply crds/rbac/10-console.yaml"
                ),
                Ok(Event::Delete(_)) => self.state().stored = None,
                Ok(Event::Init | Event::InitDone) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        name = self.name,
                        "Watching logouts failed, trying again"
                    );
                }
            }
        }
    }

    /// Poisoning is harmless: every critical section leaves sets of marks that may lack one that was not recorded.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn want(&mut self, key: Key, at: i64, now: jiff::Timestamp) {
        self.wanted.put(key, at);
        self.wanted.settle(now);
    }

    /// Decides what a logout does next.
    fn step(&self, key: Key, at: i64, now: jiff::Timestamp) -> Step {
        let Some(stored) = &self.stored else {
            return Step::Read;
        };
        let mut marks = Marks::read(&stored.data, now);
        if marks.latest(key) >= at {
            return Step::Done;
        }
        marks.join(&self.wanted);
        if let Some(known) = &self.known {
            marks.join(known);
        }
        // The mark itself may have left what is wanted, with a write that another gateway then undid.
        marks.put(key, at);
        marks.settle(now);
        Step::Write {
            changes: marks.changes(&stored.data),
            onto: stored.clone(),
        }
    }

    /// Takes over what was read. An older version than one that is known changes nothing but adds its marks.
    fn learn(&mut self, map: ConfigMap, now: jiff::Timestamp) {
        let version = map.resource_version().unwrap_or_default();
        let data = map.data.unwrap_or_default();
        self.add(&Marks::read(&data, now), now);
        let is_older = self
            .stored
            .as_ref()
            .is_some_and(|stored| number(&version) < number(&stored.version));
        if !is_older {
            self.stored = Some(Stored { data, version });
        }
    }

    fn wrote(&mut self, stored: Stored, now: jiff::Timestamp) {
        let marks = Marks::read(&stored.data, now);
        self.add(&marks, now);
        self.wanted.subtract(&marks);
        self.stored = Some(stored);
    }

    fn add(&mut self, marks: &Marks, now: jiff::Timestamp) {
        let known = self.known.get_or_insert_default();
        known.join(marks);
        known.settle(now);
    }
}

/// Versions of one kind can be compared (KEP-5504). One that is not a number counts as the oldest.
fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests;
