//! Makes pairing requests, finds those of a key, and watches one until it has ended.

use crds::{Guarded, PairingRequest, digest, names::GATEWAY, v1alpha1::PairingRequestSpec};
use futures::{Stream, StreamExt as _};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::Semaphore;

use super::{
    api::{Error, call},
    decide::{self, Place},
};

/// Requests read at once.
const PAGE: u32 = 100;
/// Most pages that are looked at for the requests of one key. Whoever may make a PairingRequest may make as many as he
/// likes for any key.
const MOST_PAGES: usize = 20;
/// Searches at once: each may hold a page in memory.
const READERS: usize = 4;

pub struct Requests {
    client: Client,
    readers: Semaphore,
}

/// Requests that gateways made for a key.
#[derive(Debug, Default)]
pub struct Found {
    pub requests: Vec<PairingRequest>,
    /// Whether there may be others.
    pub is_partial: bool,
}

impl Requests {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            readers: Semaphore::new(READERS),
        }
    }

    /// Makes a request, named by the digest of its spec: the same one made twice is one.
    pub async fn create(&self, namespace: &str, spec: PairingRequestSpec) -> Result<Place, Error> {
        let name = digest::request_name(&digest::of_spec(&spec)?);
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let request = PairingRequest {
            metadata,
            spec,
            status: None,
        };
        let params = PostParams {
            field_manager: Some(GATEWAY.to_owned()),
            ..PostParams::default()
        };
        match call(self.namespaced(namespace).create(&params, &request)).await {
            Ok(_) => {}
            Err(error) if error.code() == Some(409) => {}
            Err(error) => return Err(error),
        }
        Ok(Place {
            namespace: namespace.to_owned(),
            name,
        })
    }

    /// The requests that gateways made for the key: in that namespace, or in all.
    pub async fn of_key(&self, key: &str, namespace: Option<&str>) -> Result<Found, Error> {
        // Any tenant may make a request for any key: one that cannot be read must not hide the device's own.
        let api: Api<Guarded<PairingRequest>> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        // Never closed.
        let _turn = self.readers.acquire().await;
        let mut page = ListParams::default()
            .fields(&format!("spec.publicKeySha256={key}"))
            .limit(PAGE);
        let mut found = Found::default();
        for _ in 0..MOST_PAGES {
            let requests = call(api.list(&page)).await?;
            let made = requests.items.into_iter().filter_map(Guarded::readable);
            found
                .requests
                .extend(made.filter(|request| decide::is_made_for(request, key)));
            match requests.metadata.continue_ {
                Some(token) if !token.is_empty() => page.continue_token = Some(token),
                Some(_) | None => return Ok(found),
            }
        }
        found.is_partial = true;
        Ok(found)
    }

    pub async fn get(&self, place: &Place) -> Result<Option<PairingRequest>, Error> {
        call(self.namespaced(&place.namespace).get_opt(&place.name)).await
    }

    /// The request as it is and as it becomes; `None` when it is not there. Goes on when the API server does not
    /// answer for a while.
    pub fn watch(
        &self,
        place: &Place,
    ) -> impl Stream<Item = Option<PairingRequest>> + Send + use<> {
        let name = place.name.clone();
        watcher::watch_object(self.namespaced(&place.namespace), &place.name)
            .default_backoff()
            .filter_map(move |request| {
                std::future::ready(match request {
                    Ok(request) => Some(request),
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            request = name,
                            "Watching failed, trying again"
                        );
                        None
                    }
                })
            })
    }

    fn namespaced(&self, namespace: &str) -> Api<PairingRequest> {
        Api::namespaced(self.client.clone(), namespace)
    }
}
