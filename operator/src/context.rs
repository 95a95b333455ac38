//! What the loops share: a client, the authority, the stores, and the clock.

use std::sync::Arc;

use crds::{CapabilityInvocation, Device, PairingCode, PairingRequest};
use jiff::Timestamp;
use kube::{Client, runtime::reflector::Store};
use pairing::opaque::Setup;

use crate::{
    authority::Authority,
    gateways::Gateways,
    invocation::{backlog::Backlog, departed::Departed},
    pairing_code::room::Places,
    policies::Policies,
    report::Report,
    watch::{Guard, Sight},
};

/// What the loops share.
pub struct Context {
    pub client: Client,
    /// `HOST:PORT` that pairing URIs name.
    pub gateway_address: String,
    pub authority: Arc<Authority>,
    /// What the published trust bundle holds for devices, base64.
    pub signed_bundle: String,
    /// Makes password files.
    pub setup: Arc<Setup>,
    /// The user that the API server takes this process for: `decidedBy` of automatic approvals.
    pub user: Option<String>,
    pub codes: Store<Guard<PairingCode>>,
    /// Which of them can be used, and which wait to be.
    pub places: Places,
    pub requests: Store<Guard<PairingRequest>>,
    pub devices: Store<Guard<Device>>,
    /// Since when they have been seen without a break.
    pub devices_sight: Sight,
    /// Those that went while they held a stream.
    pub departed: Arc<Departed>,
    /// Those that have not ended.
    pub invocations: Store<Guard<CapabilityInvocation>>,
    /// Since when they have been seen without a break.
    pub invocations_sight: Sight,
    /// How many of them there are, by device and by namespace.
    pub backlog: Backlog,
    pub gateways: Gateways,
    /// What a signature rests on.
    pub policies: Policies,
    pub report: Report,
    /// Held while a code is made usable: no two live ones may share an id.
    pub drawing: tokio::sync::Mutex<()>,
}

/// What time it is. For `observe` and for signing; a plan is told.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the operator reads the clock"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
pub mod tests {
    //! A context without a cluster.

    use http::{Request, Response};
    use kube::{client::Body, runtime::reflector::store::Writer};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{authority::trust_bundle::encode, metrics::Metrics, policies::Account};

    /// An API server that takes requests and never answers.
    pub fn hanging() -> Client {
        let service = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
        });
        Client::new(service, "system")
    }

    /// Nothing was seen yet.
    pub fn context(client: Client) -> Context {
        let (certificate, key) = Authority::generate("test.example", now()).unwrap();
        let authority = Authority::from_pem(&certificate, &key, "test.example").unwrap();
        let metrics = Metrics::register(&mut Registry::default());
        Context {
            gateway_address: "gateway.example:7443".to_owned(),
            signed_bundle: encode(&authority.sign_bundle(1).unwrap()),
            authority: Arc::new(authority),
            setup: Arc::new(Setup::generate()),
            user: None,
            codes: Writer::new(()).as_reader(),
            places: Places::default(),
            requests: Writer::new(()).as_reader(),
            devices: Writer::new(()).as_reader(),
            devices_sight: Sight::default(),
            departed: Arc::default(),
            invocations: Writer::new(()).as_reader(),
            invocations_sight: Sight::default(),
            backlog: Backlog::default(),
            gateways: Gateways::new(
                Writer::new(()).as_reader(),
                Sight::default(),
                "system".to_owned(),
            ),
            policies: Policies::new(
                Writer::new(()).as_reader(),
                Writer::new(()).as_reader(),
                Account::new(
                    client.clone(),
                    kube::Config::new(http::Uri::from_static("http://localhost")),
                    "system".to_owned(),
                ),
                metrics.clone(),
            ),
            report: Report::new(client.clone(), "operator-0", metrics),
            drawing: tokio::sync::Mutex::default(),
            client,
        }
    }
}
