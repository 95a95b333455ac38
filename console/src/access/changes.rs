//! Roles and bindings, watched by the gateway: when one changes, what was decided is forgotten.
//!
//! Their names and versions only; nothing of them is kept. Where the gateway may not watch them, decisions are forgotten
//! by time alone.

use std::{fmt::Debug, sync::Arc, time::Duration};

use crds::Guarded;
use futures::StreamExt as _;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::Access;

/// The API server's authorizer learns of a change by a watch of its own, and maybe after us.
const AGAIN: Duration = Duration::from_secs(1);

/// How many kinds are watched.
pub(super) const KINDS: usize = 4;

/// Until `stop`.
pub async fn follow(client: Client, access: Arc<Access>, stop: CancellationToken) {
    let changed = Notify::new();
    let watches = async {
        tokio::join!(
            watch::<Role>(client.clone(), &access, 0, &changed),
            watch::<RoleBinding>(client.clone(), &access, 1, &changed),
            watch::<ClusterRole>(client.clone(), &access, 2, &changed),
            watch::<ClusterRoleBinding>(client.clone(), &access, 3, &changed),
        )
    };
    let forget = async {
        loop {
            changed.notified().await;
            access.forget();
            sleep(AGAIN).await;
            access.forget();
        }
    };
    tokio::select! {
        _ = watches => {}
        () = forget => {}
        () = stop.cancelled() => {}
    }
}

async fn watch<K>(client: Client, access: &Access, number: usize, changed: &Notify)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&());
    let mut is_told = false;
    // All tenants share this list: a binding that one of them made unreadable must not hide the changes of others.
    let api = Api::<Guarded<PartialObjectMeta<K>>>::all(client);
    let mut events = watcher(api, Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => {
                is_told = false;
                access.works(number, true);
                changed.notify_one();
            }
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => {
                // What happens meanwhile is not known.
                access.works(number, false);
                changed.notify_one();
                // Once, and not with every try.
                if !std::mem::replace(&mut is_told, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, %kind, "Watching roles failed: decisions are forgotten by time until it works");
                }
            }
        }
    }
}
