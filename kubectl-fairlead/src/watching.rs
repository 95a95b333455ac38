//! `--watch`: shows each object as it is now, whenever it changes. An object that was shown is not shown again as it was.

use std::{collections::HashMap, fmt::Debug, pin::pin};

use anyhow::Context as _;
use crds::Guarded;
use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cluster::{Select, forbids_watch},
    exit::Exit,
    show::{Many, Shown, note, out},
    terminal::Interrupts,
};

/// Watches until stopped. `known` was shown before; `wanted` picks what is shown; `row` renders one object for a person.
pub async fn watch<K>(
    api: Api<Guarded<K>>,
    select: Select<'_>,
    known: &[K],
    shown: Shown,
    wanted: impl Fn(&K) -> bool,
    row: impl Fn(K) -> String,
) -> anyhow::Result<Exit>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
    Guarded<K>: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let as_objects = shown.for_programs::<K>(&[], Many::List)?.is_some();
    let mut versions: HashMap<String, Option<String>> = HashMap::new();
    if !as_objects {
        let known = known
            .iter()
            .map(|object| (key(object), object.resource_version()));
        versions.extend(known);
    }
    let config = watcher::Config {
        field_selector: select.fields.map(str::to_owned),
        label_selector: select.labels.map(str::to_owned),
        ..watcher::Config::default()
    };
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut interrupts = Interrupts::listen()?;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = interrupts.next() => return Ok(Exit::Interrupted),
        };
        let (object, gone) = match event {
            None => return Ok(Exit::Failed),
            Some(Err(error)) => match forbids_watch(error) {
                Some(error) => {
                    let kind = K::plural(&()).into_owned();
                    return Err(error).with_context(|| format!("watch {kind}"));
                }
                None => continue,
            },
            Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                (object.0, false)
            }
            Some(Ok(watcher::Event::Delete(object))) => (object.0, true),
            Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => continue,
        };
        let Ok(object) = object else { continue };
        if gone {
            versions.remove(&key(&object));
            note(&format!("{} is deleted", object.name_any()));
            continue;
        }
        let version = object.resource_version();
        if versions.insert(key(&object), version.clone()) == Some(version) || !wanted(&object) {
            continue;
        }
        match shown.for_programs(std::slice::from_ref(&object), Many::One)? {
            Some(text) => out(&text)?,
            None => out(&row(object))?,
        }
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}
