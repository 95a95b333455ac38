//! The API server, asked with the caller's own token.
//!
//! One pool of connections that brings no credentials, and a header per request: what goes out is what the caller could
//! have sent himself. The gateway's own client certificate and token are not in it.

use std::{fmt, time::Duration};

use console_api::problem::ProblemCode;
use http::{HeaderValue, Request, header};
use kube::{
    Client, Config, Resource,
    api::{DeleteParams, GetParams, ListParams, ObjectList, Patch, PatchParams, PostParams},
    config::AuthInfo,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::Token;
use crate::problem::{Answer, Fault};

/// How long the API server may take.
const TIME: Duration = Duration::from_secs(10);

/// A client that brings no credentials of its own.
///
/// # Errors
/// Where the configuration cannot be used.
pub fn without_credentials(config: &Config) -> kube::Result<Client> {
    let mut config = config.clone();
    config.auth_info = AuthInfo::default();
    // What fails is told to the caller, who decides; a create that is sent twice could be done twice.
    config.default_retry = false;
    Client::try_from(config)
}

/// The API server as one caller sees it. Cheap to clone.
#[derive(Clone)]
pub struct OwnApi {
    client: Client,
    authorization: HeaderValue,
}

impl fmt::Debug for OwnApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnApi")
    }
}

/// What `kube` can send: kinds of a static type.
pub trait Kind: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug {}
impl<K: Resource<DynamicType = ()> + DeserializeOwned + Clone + fmt::Debug> Kind for K {}

impl OwnApi {
    /// `client` must bring no credentials.
    pub fn new(client: Client, token: &Token) -> Self {
        Self {
            client,
            authorization: token.header(),
        }
    }

    /// # Errors
    /// What the API server says to the caller.
    pub async fn get<K: Kind>(&self, namespace: &str, name: &str) -> Answer<K> {
        let request = requests::<K>(Some(namespace)).get(name, &GetParams::default());
        self.send(request).await
    }

    /// Of all namespaces where none is given.
    ///
    /// # Errors
    /// What the API server says to the caller.
    pub async fn list<K: Kind>(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Answer<ObjectList<K>> {
        self.send(requests::<K>(namespace).list(params)).await
    }

    /// # Errors
    /// What the API server says to the caller.
    pub async fn create<K: Kind + Serialize>(
        &self,
        namespace: Option<&str>,
        object: &K,
    ) -> Answer<K> {
        let body = serde_json::to_vec(object).map_err(|_| Fault::internal())?;
        self.send(requests::<K>(namespace).create(&PostParams::default(), body))
            .await
    }

    /// A merge patch, of the object or of its status.
    ///
    /// # Errors
    /// What the API server says to the caller.
    pub async fn patch<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: &serde_json::Value,
    ) -> Answer<K> {
        let requests = requests::<K>(Some(namespace));
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let request = match subresource {
            Some(subresource) => requests.patch_subresource(subresource, name, &params, &patch),
            None => requests.patch(name, &params, &patch),
        };
        self.send(request).await
    }

    /// # Errors
    /// What the API server says to the caller.
    pub async fn delete<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        params: &DeleteParams,
    ) -> Answer<()> {
        let request = requests::<K>(Some(namespace)).delete(name, params);
        // The object, where it goes later, or a status, where it has gone.
        self.send::<serde_json::Value>(request).await.map(drop)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Answer<T> {
        let mut request =
            request.map_err(|error| Fault::of_kube(kube::Error::BuildRequest(error)))?;
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, self.authorization.clone());
        match timeout(TIME, self.client.request(request)).await {
            Ok(answer) => answer.map_err(Fault::of_kube),
            Err(_) => Err(Fault::new(
                ProblemCode::Timeout,
                "the cluster took too long: whether it was done is not known",
            )),
        }
    }
}

fn requests<K: Kind>(namespace: Option<&str>) -> kube::core::Request {
    kube::core::Request::new(K::url_path(&(), namespace))
}
