//! Sessions that were logged out, known to every gateway.
//!
//! A sealed cookie is good wherever the key is, so that it is over must be written down somewhere: in a ConfigMap, by
//! the mark of the session (a digest that tells nothing of it) and the second at which it would have ended anyway.
//! Every gateway watches it. A restart loses nothing; a cookie that was stolen is dead everywhere as soon as the watch
//! brings the news. Before the first list has arrived no session is taken.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use crds::names::GATEWAY;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Sealed;
use crate::clock::now;

/// The ConfigMap, in the namespace of Fairlead's own objects.
pub const CONFIG_MAP: &str = "fairlead-console-logouts";

/// Most sessions that are remembered: with 60 bytes each, what a ConfigMap holds and some room.
const MOST: usize = 10_000;
/// Most that one logout clears away beside.
const MOST_CLEARED: usize = 500;
/// How long the API server may take.
const TIME: Duration = Duration::from_secs(5);

/// Sessions by their marks, with the second at which they end.
type Marks = BTreeMap<String, i64>;

/// Why a logout was not written down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("too many sessions were logged out")]
    Full,
    #[error("write the ConfigMap of logouts")]
    Write(#[source] Box<kube::Error>),
    #[error("the API server does not answer")]
    TimedOut,
}

/// Sessions that were logged out.
pub struct Logouts {
    maps: Api<ConfigMap>,
    /// `None` until it was read once.
    known: RwLock<Option<Marks>>,
}

impl Logouts {
    /// `client` is the gateway's own.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            maps: Api::namespaced(client, namespace),
            known: RwLock::new(None),
        }
    }

    /// Whether it was logged out; `None` where that is not known yet.
    pub fn has(&self, session: &Sealed) -> Option<bool> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .as_ref()
            .map(|marks| marks.contains_key(&session.id.mark()))
    }

    /// Keeps what is known up to date until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        let config = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
        let mut events = watcher::watcher(self.maps.clone(), config)
            .default_backoff()
            .boxed();
        let follow = async {
            let mut listed = Marks::new();
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init) => listed = Marks::new(),
                    Ok(Event::InitApply(map)) => listed = marks(map),
                    Ok(Event::InitDone) => self.learn(std::mem::take(&mut listed)),
                    Ok(Event::Apply(map)) => self.learn(marks(map)),
                    Ok(Event::Delete(_)) => {}
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "Watching the logouts failed and is tried again");
                    }
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = stop.cancelled() => {}
        }
    }

    /// What was logged out stays so until it would have ended by itself, even where somebody takes it off the
    /// ConfigMap, or the watch brings what was before our own write.
    fn learn(&self, marks: Marks) {
        let ended_before = ended_before(now());
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        known.retain(|_, ends| *ends >= ended_before);
        known.extend(marks);
    }

    /// Writes down that it is over. What has ended by itself is cleared away.
    ///
    /// # Errors
    /// Where it could not be written: then the session goes on.
    pub async fn add(&self, session: &Sealed, now: Timestamp) -> Result<(), Error> {
        let mark = session.id.mark();
        let over = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let marks = known.as_ref();
            let over = marks.map(|marks| ended(marks, now)).unwrap_or_default();
            if marks.map_or(0, BTreeMap::len) - over.len() >= MOST {
                return Err(Error::Full);
            }
            over
        };
        let ends = session.expires_at.as_second().to_string();
        match timeout(TIME, self.write(&mark, &ends, &over)).await {
            Ok(written) => written.map_err(|error| Error::Write(Box::new(error)))?,
            Err(_) => return Err(Error::TimedOut),
        }
        // Here it holds at once.
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known
            .get_or_insert_default()
            .insert(mark, session.expires_at.as_second());
        Ok(())
    }

    async fn write(&self, mark: &str, ends: &str, over: &[String]) -> kube::Result<()> {
        let mut data: BTreeMap<&str, Option<&str>> =
            over.iter().map(|mark| (mark.as_str(), None)).collect();
        data.insert(mark, Some(ends));
        let patch = Patch::Merge(json!({ "data": data }));
        let params = PatchParams {
            field_manager: Some(GATEWAY.to_owned()),
            ..PatchParams::default()
        };
        match self.maps.patch(CONFIG_MAP, &params, &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            patched => return patched.map(drop),
        }
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(CONFIG_MAP.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(mark.to_owned(), ends.to_owned())])),
            ..ConfigMap::default()
        };
        match self.maps.create(&PostParams::default(), &map).await {
            // Another gateway was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.maps.patch(CONFIG_MAP, &params, &patch).await.map(drop)
            }
            created => created.map(drop),
        }
    }
}

fn marks(map: ConfigMap) -> Marks {
    let data = map.data.unwrap_or_default();
    data.into_iter()
        // What is no number was not written by us: it stays, and ends nothing earlier than it must.
        .map(|(mark, ends)| (mark, ends.parse().unwrap_or(i64::MAX)))
        .collect()
}

/// Marks of sessions that have ended by themselves.
fn ended(marks: &Marks, now: Timestamp) -> Vec<String> {
    let ended_before = ended_before(now);
    let over = marks.iter().filter(|(_, ends)| **ends < ended_before);
    over.map(|(mark, _)| mark.clone())
        .take(MOST_CLEARED)
        .collect()
}

/// Clocks of gateways differ.
fn ended_before(now: Timestamp) -> i64 {
    now.as_second() - 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_by_itself_is_cleared_away_and_nothing_else() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let marks = Marks::from([
            ("old".to_owned(), now.as_second() - 61),
            ("just".to_owned(), now.as_second() - 60),
            ("new".to_owned(), now.as_second() + 1),
            ("strange".to_owned(), i64::MAX),
        ]);
        assert_eq!(ended(&marks, now), ["old"]);
    }
}
