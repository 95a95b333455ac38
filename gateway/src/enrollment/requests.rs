//! Makes pairing requests, finds those of a key, and watches one until it has ended.

use crds::{PairingRequest, digest, names::GATEWAY, v1alpha1::PairingRequestSpec};
use futures::{Stream, StreamExt as _};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};

use super::{
    api::{Error, call},
    decide::Place,
};

/// Most requests of one key that are looked at. More than that are nobody's honest doing.
const MOST: u32 = 100;

pub struct Requests {
    client: Client,
}

impl Requests {
    pub fn new(client: Client) -> Self {
        Self { client }
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

    /// All requests for the key, in all namespaces.
    pub async fn of_key(&self, key: &str) -> Result<Vec<PairingRequest>, Error> {
        let all: Api<PairingRequest> = Api::all(self.client.clone());
        let of_key = ListParams::default()
            .fields(&format!("spec.publicKeySha256={key}"))
            .limit(MOST);
        Ok(call(all.list(&of_key)).await?.items)
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
