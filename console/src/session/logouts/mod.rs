//! Sessions that were logged out, known to every gateway.
//!
//! A sealed cookie is valid wherever the key is, so its end must be recorded: in ConfigMaps that every gateway watches
//! ([`shard`]). A logout ends all sessions of the user that began before it, so a user has one mark ([`marks`]), under a
//! digest of the name ([`subject`]). Users are spread over the ConfigMaps.
//!
//! A restart loses nothing. A cookie that was stolen is dead at every gateway as soon as the watch delivers the mark.
//! Before the first list has arrived, no session is accepted and none begins.

pub mod marks;
mod shard;
mod subject;

use crds::names::CONSOLE_LOGOUTS;
use futures::future::join_all;
use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use self::{shard::Shard, subject::Key};
use super::Sealed;

pub use shard::Error;

/// Sessions that were logged out.
pub struct Logouts {
    shards: [Shard; CONSOLE_LOGOUTS.len()],
}

/// Moment at or before which all sessions of a user are over, as far as this gateway knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Over {
    /// The ConfigMap has not been read yet.
    Unknown,
    /// No logout is recorded.
    Never,
    Until(Timestamp),
}

impl Logouts {
    /// `client` is the gateway's own.
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            shards: CONSOLE_LOGOUTS.map(|name| Shard::new(client.clone(), namespace, name)),
        }
    }

    /// Returns until when all sessions of the user are over.
    pub fn over(&self, user: &str) -> Over {
        let key = Key::of(user);
        match self.shard(key).latest(key) {
            None => Over::Unknown,
            Some(latest) => Timestamp::from_millisecond(latest).map_or(Over::Never, Over::Until),
        }
    }

    /// Whether the session was logged out; `None` if the ConfigMap has not been read yet.
    pub fn is_over(&self, user: &str, session: &Sealed) -> Option<bool> {
        match self.over(user) {
            Over::Unknown => None,
            Over::Never => Some(false),
            Over::Until(latest) => Some(session.issued_at <= latest),
        }
    }

    /// Ends the session and all sessions of the user that began before `now`. Logouts that wait for the same ConfigMap
    /// are written together.
    ///
    /// # Errors
    /// If the ConfigMap could not be written: then the sessions go on.
    pub async fn end(&self, user: &str, session: &Sealed, now: Timestamp) -> Result<(), Error> {
        let key = Key::of(user);
        let at = marks::mark(session.issued_at, now);
        self.shard(key).put(key, at).await
    }

    /// Keeps what is known up to date until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        let follow = join_all(self.shards.iter().map(Shard::follow));
        tokio::select! {
            _ = follow => {}
            () = stop.cancelled() => {}
        }
    }

    fn shard(&self, key: Key) -> &Shard {
        let [first, ..] = &self.shards;
        self.shards.get(key.shard()).unwrap_or(first)
    }
}
