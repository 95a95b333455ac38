//! Which watches there are.

use std::{future::Future, sync::Arc};

use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client, Resource as _};
use tokio_util::sync::CancellationToken;

use super::{
    Index, device_feed::DeviceFeed, event_feed::EventFeed, instances::InstanceFeed,
    invocation_feed::InvocationFeed, request_feed::RequestFeed, watch::follow,
};

/// An index, and what feeds it until `stop`. `system_namespace`: where the Leases of gateways and operators are.
pub fn start(
    client: Client,
    system_namespace: &str,
    stop: CancellationToken,
) -> (Arc<Index>, impl Future<Output = ()> + Send + 'static) {
    let index = Arc::new(Index::default());
    let feeding = feed(
        Arc::clone(&index),
        client,
        system_namespace.to_owned(),
        stop,
    );
    (index, feeding)
}

async fn feed(
    index: Arc<Index>,
    client: Client,
    system_namespace: String,
    stop: CancellationToken,
) {
    let of = || Arc::clone(&index);
    let events: Api<crds::Guarded<Event>> = Api::all(client.clone());
    futures::join!(
        follow(
            Api::all(client.clone()),
            None,
            DeviceFeed::new(of()),
            stop.clone()
        ),
        follow(
            Api::all(client.clone()),
            None,
            InvocationFeed::new(of()),
            stop.clone()
        ),
        follow(
            Api::all(client.clone()),
            None,
            RequestFeed::new(of()),
            stop.clone()
        ),
        follow(
            events,
            Some(of_devices()),
            EventFeed::new(of()),
            stop.clone()
        ),
        follow(
            Api::namespaced(client.clone(), &system_namespace),
            None,
            InstanceFeed::new(of()),
            stop.clone(),
        ),
    );
}

/// Selects the events about Devices: all events of a cluster are more than is to be looked through.
fn of_devices() -> String {
    let (version, kind) = (crds::Device::api_version(&()), crds::Device::kind(&()));
    format!("regarding.apiVersion={version},regarding.kind={kind}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn events_of_devices_alone_are_watched() {
        assert_eq!(
            super::of_devices(),
            "regarding.apiVersion=fairlead.dev/v1alpha1,regarding.kind=Device"
        );
    }
}
