//! The few requests that streams make: reading one object, and writing a status to the version of an object that was
//! seen. Bounded in number and in time, for the API server is the scarce resource.

use std::time::Duration;

use crds::{
    CapabilityInvocation, Device, conditions::ANSWERED_LATE, names::GATEWAY,
    v1alpha1::capability_invocation::CapabilityInvocationStatus,
};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    api::{Api, Patch, PatchParams},
    core::{NamespaceResourceScope, Request, Resource},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::metrics::{Kind, Metrics, Outcome};
use crate::{
    artefact::store,
    domain::{
        device::{DeviceKey, KnownDevice},
        invocation::OpenInvocation,
        names::is_object_name,
        session::Pieces,
    },
};

/// How long one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a request may take that is worth little, and that others may have to wait for.
const MINOR_TIME: Duration = Duration::from_secs(2);
/// How many of these are under way at once. Of progress, more is left out.
const MINOR_REQUESTS: usize = 8;
/// Most characters of an event's note, which is 1 KiB long at most.
const MAX_NOTE: usize = 250;
/// How many writes of sessions are under way at once. Ten thousand devices that come back wait for each other, and
/// leave room for invocations.
const SESSION_WRITES: usize = 24;
/// How many requests for invocations are under way at once.
const INVOCATION_REQUESTS: usize = 64;
/// What the API server answers with: of the object that was written, its version is all that is of interest, and its
/// output would travel back.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Requests to the API server.
pub struct Requests {
    client: Client,
    sessions: Semaphore,
    invocations: Semaphore,
    /// Of progress and events.
    minor: Semaphore,
    recorder: Recorder,
    metrics: Metrics,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the object has changed meanwhile")]
    Conflict,
    #[error("the object is gone")]
    Gone,
    /// Trying again does not help.
    #[error("the API server refuses it: {0}")]
    Invalid(String),
    /// Trying again may.
    #[error("ask the API server")]
    Unavailable(#[source] Box<kube::Error>),
    #[error("the API server does not answer")]
    TimedOut,
    /// So many are under way that this one was left out.
    #[error("as many requests of the kind are under way as may be")]
    Busy,
    /// Written by another version of us.
    #[error("the object cannot be read")]
    Unreadable,
    /// Another invocation is waited for. Trying again helps.
    #[error("the invocation with the same key has not ended yet")]
    NotYet,
    /// Whether an artefact is there cannot be told. Trying again may help.
    #[error(transparent)]
    Store(store::Error),
}

#[derive(Deserialize)]
struct Written {
    metadata: WrittenMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMetadata {
    resource_version: String,
}

impl Requests {
    pub fn new(client: Client, gateway: &str, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: GATEWAY.to_owned(),
            instance: Some(gateway.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            sessions: Semaphore::new(SESSION_WRITES),
            invocations: Semaphore::new(INVOCATION_REQUESTS),
            minor: Semaphore::new(MINOR_REQUESTS),
            metrics,
        }
    }

    /// Waits for a place among those who write about sessions. Look at the index after it, not before.
    pub async fn session_place(&self) -> SemaphorePermit<'_> {
        place(&self.sessions).await
    }

    /// As if as much that is worth little were under way as may.
    #[cfg(test)]
    pub fn take_minor_places(&self) -> SemaphorePermit<'_> {
        let all = u32::try_from(MINOR_REQUESTS).expect("a small number");
        self.minor.try_acquire_many(all).expect("nobody asks")
    }

    /// As if as many wrote about sessions as may.
    #[cfg(test)]
    pub fn take_session_places(&self) -> SemaphorePermit<'_> {
        let all = u32::try_from(SESSION_WRITES).expect("a small number");
        self.sessions.try_acquire_many(all).expect("nobody writes")
    }

    /// Reads a device; `None` where it is gone.
    pub async fn device(&self, key: &DeviceKey) -> Result<Option<KnownDevice>, Error> {
        let device: Option<Device> = self.get(&key.namespace, &key.name).await?;
        device
            .map(|device| KnownDevice::read(device).ok_or(Error::Unreadable))
            .transpose()
    }

    /// Reads an invocation; `None` where it is gone.
    pub async fn invocation(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<OpenInvocation>, Error> {
        let _place = place(&self.invocations).await;
        let invocation: Option<CapabilityInvocation> = self.get(namespace, name).await?;
        invocation
            .map(|invocation| OpenInvocation::read(invocation).ok_or(Error::Unreadable))
            .transpose()
    }

    /// Writes pieces of the status of that version of a device; returns the version that came of it.
    pub async fn write_device(
        &self,
        device: &KnownDevice,
        pieces: &Pieces,
    ) -> Result<String, Error> {
        let patch = pieces.patch(&device.resource_version);
        let (namespace, name) = (&device.key.namespace, &device.key.name);
        let written = self
            .patch::<Device, _>(namespace, name, &Patch::Merge(patch), None)
            .await;
        self.metrics.wrote(Kind::Device, outcome(&written));
        written
    }

    /// Writes the status of that version of an invocation; returns the version that came of it.
    pub async fn write_invocation(
        &self,
        invocation: &OpenInvocation,
        status: &CapabilityInvocationStatus,
    ) -> Result<String, Error> {
        let _place = place(&self.invocations).await;
        self.replace(invocation, "/status", status).await
    }

    /// As [`Self::write_invocation`], but gives up soon, and at once where others wait.
    pub async fn write_progress(
        &self,
        invocation: &OpenInvocation,
        status: &CapabilityInvocationStatus,
    ) -> Result<String, Error> {
        let _place = self.minor.try_acquire().map_err(|_| Error::Busy)?;
        let request = self.replace(invocation, "/status", status);
        tokio::time::timeout(MINOR_TIME, request)
            .await
            .unwrap_or(Err(Error::TimedOut))
    }

    /// Tells people in an event that a device answered late. The condition says so, too: where as many are told as may be,
    /// it waits a moment and no longer.
    pub async fn tell_late(&self, invocation: &OpenInvocation, note: &str) -> Result<(), Error> {
        let told = self.publish_late(invocation, note).await;
        self.metrics.wrote(Kind::Event, outcome(&told));
        told
    }

    async fn publish_late(&self, invocation: &OpenInvocation, note: &str) -> Result<(), Error> {
        let _place = tokio::time::timeout(MINOR_TIME, place(&self.minor))
            .await
            .map_err(|_| Error::Busy)?;
        let event = Event {
            type_: EventType::Warning,
            reason: ANSWERED_LATE.to_owned(),
            action: "Report".to_owned(),
            note: Some(note.chars().take(MAX_NOTE).collect()),
            secondary: None,
        };
        let regarding = ObjectReference {
            api_version: Some(CapabilityInvocation::api_version(&()).into_owned()),
            kind: Some(CapabilityInvocation::kind(&()).into_owned()),
            namespace: Some(invocation.device.namespace.clone()),
            name: Some(invocation.name.clone()),
            uid: Some(invocation.uid.clone()),
            ..ObjectReference::default()
        };
        let request = self.recorder.publish(&event, &regarding);
        match tokio::time::timeout(MINOR_TIME, request).await {
            Ok(published) => published.map_err(classify),
            Err(_) => Err(Error::TimedOut),
        }
    }

    /// Writes the conditions of that version of an invocation that has ended, and nothing else of it.
    pub async fn write_conditions(
        &self,
        invocation: &OpenInvocation,
        conditions: &[Condition],
    ) -> Result<(), Error> {
        let _place = place(&self.invocations).await;
        self.replace(invocation, "/status/conditions", conditions)
            .await
            .map(|_| ())
    }

    /// Puts a value there, in that version of an invocation; returns the version that came of it.
    async fn replace(
        &self,
        invocation: &OpenInvocation,
        place: &str,
        value: impl Serialize,
    ) -> Result<String, Error> {
        // No merge patch: there, a null in a device's output would mean that something is to be removed.
        let patch = json!([
            { "op": "replace", "path": "/metadata/resourceVersion", "value": invocation.resource_version },
            { "op": "add", "path": place, "value": value },
        ]);
        let (namespace, name) = (&invocation.device.namespace, &invocation.name);
        let written = self
            .patch::<CapabilityInvocation, _>(
                namespace,
                name,
                &Patch::Merge(patch),
                Some("application/json-patch+json"),
            )
            .await;
        self.metrics.wrote(Kind::Invocation, outcome(&written));
        written
    }

    async fn get<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, Error>
    where
        K: Clone
            + std::fmt::Debug
            + DeserializeOwned
            + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        named(namespace, name)?;
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        within(api.get_opt(name)).await
    }

    /// `kind`: another kind of patch than the one that the body pretends to be.
    async fn patch<K, P>(
        &self,
        namespace: &str,
        name: &str,
        patch: &Patch<P>,
        kind: Option<&'static str>,
    ) -> Result<String, Error>
    where
        K: Resource<DynamicType = ()>,
        P: Serialize,
    {
        named(namespace, name)?;
        let params = PatchParams {
            field_manager: Some(GATEWAY.to_owned()),
            ..PatchParams::default()
        };
        let mut request = Request::new(K::url_path(&(), Some(namespace)))
            .patch_subresource("status", name, &params, patch)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let headers = request.headers_mut();
        if let Ok(value) = METADATA_ONLY.parse() {
            headers.insert("accept", value);
        }
        if let Some(Ok(value)) = kind.map(str::parse) {
            headers.insert("content-type", value);
        }
        let written: Written = within(self.client.request(request)).await?;
        Ok(written.metadata.resource_version)
    }
}

/// Names go into the path of a URL as they are, and a device may have said them: what cannot be a name names nothing.
fn named(namespace: &str, name: &str) -> Result<(), Error> {
    if is_object_name(namespace) && is_object_name(name) {
        Ok(())
    } else {
        Err(Error::Gone)
    }
}

/// They are never closed.
async fn place(semaphore: &Semaphore) -> SemaphorePermit<'_> {
    semaphore
        .acquire()
        .await
        .expect("the semaphore is never closed")
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(REQUEST_TIME, request).await {
        Ok(answer) => answer.map_err(classify),
        Err(_) => Err(Error::TimedOut),
    }
}

fn classify(error: kube::Error) -> Error {
    if let kube::Error::Api(status) = &error {
        match status.code {
            404 | 410 => return Error::Gone,
            409 => return Error::Conflict,
            400 | 413 | 422 => return Error::Invalid(status.message.clone()),
            _ => {}
        }
    }
    Error::Unavailable(Box::new(error))
}

fn outcome<T>(written: &Result<T, Error>) -> Outcome {
    match written {
        Ok(_) => Outcome::Written,
        Err(Error::Conflict) => Outcome::Conflict,
        Err(Error::Gone) => Outcome::Gone,
        Err(Error::Invalid(_)) => Outcome::Invalid,
        Err(
            Error::Unavailable(_)
            | Error::TimedOut
            | Error::Busy
            | Error::Unreadable
            | Error::NotYet
            | Error::Store(_),
        ) => Outcome::Unavailable,
    }
}
