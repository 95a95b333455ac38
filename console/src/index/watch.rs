//! Lists, then watches, for as long as the process lives.
//!
//! Not kube's `watcher`, which keeps to itself the version of a list and those of bookmarks: the cursors of pages and of
//! events are made of them. What is done with them is the same: a watch that breaks is taken up where it broke; where
//! the API server does not know any more what came after that, it begins anew with a list, and meanwhile what is known
//! stays known.

use std::{fmt::Debug, pin::pin, time::Duration};

use crds::Guarded;
use futures::StreamExt as _;
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    runtime::watcher::DefaultBackoff,
};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Objects on a page of a list.
const PAGE: u32 = 500;
/// How long a watch lasts, in seconds, and how long nothing may be heard of it: the API server ends it before.
const WATCH_SECONDS: u32 = 290;
const SILENCE: Duration = Duration::from_mins(5);
/// Between two tries, where the backoff does not say.
const PAUSE: Duration = Duration::from_secs(30);

/// Something that a watch feeds.
pub trait Feed: Send {
    type Object: Clone + Debug + DeserializeOwned + Resource<DynamicType = ()> + Send + 'static;

    const KIND: &'static str;

    /// What follows, until `end_list`, is all there is.
    fn begin_list(&mut self);
    fn listed(&mut self, object: Self::Object);
    /// All there is at that version was listed.
    fn end_list(&mut self, version: u64);
    /// It is new, or changed, at that version.
    fn applied(&mut self, object: Self::Object, version: u64);
    /// It is gone, or does not match the selector any more.
    fn gone(&mut self, object: &Self::Object, version: u64);
    /// There was nothing else up to that version.
    fn reached(&mut self, _version: u64) {}
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("list")]
    List(#[source] kube::Error),
    #[error("watch")]
    Watch(#[source] kube::Error),
    #[error("watch: {0}")]
    Told(String),
    /// What came after the version is not known any more.
    #[error("watch: the version is too old")]
    TooOld,
    #[error("watch: nothing is heard of it")]
    Silent,
    #[error("the API server gives no version that is a number")]
    NoVersion,
}

/// A version, as the API server gave it and as it is compared.
#[derive(Clone)]
struct Version {
    text: String,
    number: u64,
}

impl Version {
    fn read(text: Option<String>) -> Result<Self, Error> {
        let text = text.ok_or(Error::NoVersion)?;
        let number = text.parse().map_err(|_| Error::NoVersion)?;
        Ok(Self { text, number })
    }

    fn of(object: &impl Resource) -> Result<Self, Error> {
        Self::read(object.meta().resource_version.clone())
    }
}

/// Feeds until `stop`. `fields`: a field selector.
pub async fn follow<F: Feed>(
    api: Api<F::Object>,
    fields: Option<String>,
    mut feed: F,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = keep_feeding(&api, fields.as_deref(), &mut feed) => {}
    }
}

async fn keep_feeding<F: Feed>(api: &Api<F::Object>, fields: Option<&str>, feed: &mut F) {
    let mut backoff = DefaultBackoff::default();
    let mut broken = false;
    let mut from = None;
    loop {
        let error = match &mut from {
            None => match list(api, fields, feed).await {
                Ok(version) => {
                    from = Some(version);
                    broken = false;
                    continue;
                }
                Err(error) => error,
            },
            Some(version) => match watch(api, fields, feed, version).await {
                Ok(Heard::Something) => {
                    broken = false;
                    continue;
                }
                // It ended in good order, but a server that ends all of them at once is not to be asked all the time.
                Ok(Heard::Nothing) => {
                    sleep(backoff.next().unwrap_or(PAUSE)).await;
                    continue;
                }
                Err(error) => error,
            },
        };
        if matches!(error, Error::TooOld | Error::NoVersion) {
            from = None;
        }
        // That a version is too old comes of itself where nothing of a kind changes for long. Of the rest one line for each
        // time that it breaks, not for each try.
        if !matches!(error, Error::TooOld) && !std::mem::replace(&mut broken, true) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, kind = F::KIND, "Watching for the console failed");
        }
        sleep(backoff.next().unwrap_or(PAUSE)).await;
    }
}

async fn list<F: Feed>(
    api: &Api<F::Object>,
    fields: Option<&str>,
    feed: &mut F,
) -> Result<Version, Error> {
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = fields.map(str::to_owned);
    feed.begin_list();
    loop {
        let page = api.list(&params).await.map_err(Error::List)?;
        for object in page.items {
            feed.listed(object);
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            let version = Version::read(page.metadata.resource_version)?;
            feed.end_list(version.number);
            return Ok(version);
        }
    }
}

enum Heard {
    Something,
    Nothing,
}

/// Watches from that version on, and moves it.
async fn watch<F: Feed>(
    api: &Api<F::Object>,
    fields: Option<&str>,
    feed: &mut F,
    from: &mut Version,
) -> Result<Heard, Error> {
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.field_selector = fields.map(str::to_owned);
    let events = api.watch(&params, &from.text).await.map_err(of_watch)?;
    let mut events = pin!(events);
    let mut heard = Heard::Nothing;
    loop {
        let event = match timeout(SILENCE, events.next()).await {
            Err(_) => return Err(Error::Silent),
            Ok(None) => return Ok(heard),
            Ok(Some(event)) => event.map_err(of_watch)?,
        };
        heard = Heard::Something;
        *from = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let version = Version::of(&object)?;
                feed.applied(object, version.number);
                version
            }
            WatchEvent::Deleted(object) => {
                let version = Version::of(&object)?;
                feed.gone(&object, version.number);
                version
            }
            WatchEvent::Bookmark(bookmark) => {
                let version = Version::read(Some(bookmark.metadata.resource_version))?;
                feed.reached(version.number);
                version
            }
            WatchEvent::Error(status) if status.code == 410 => return Err(Error::TooOld),
            WatchEvent::Error(status) => return Err(Error::Told(status.message)),
        };
    }
}

fn of_watch(error: kube::Error) -> Error {
    let is_too_old = matches!(&error, kube::Error::Api(status) if status.code == 410);
    if is_too_old {
        Error::TooOld
    } else {
        Error::Watch(error)
    }
}

/// Says once, each time that it is heard of, why an object is left aside.
pub fn valid<K>(object: Guarded<K>) -> Option<K> {
    object
        .0
        .inspect_err(|invalid| {
            tracing::warn!(
                error = invalid.error,
                namespace = invalid.metadata.namespace,
                name = invalid.metadata.name,
                "Object cannot be read, and the console does not show it"
            );
        })
        .ok()
}
