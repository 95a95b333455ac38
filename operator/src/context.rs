//! What the loops share: a client, the authority, the stores, and the clock.

use std::sync::Arc;

use crds::{CapabilityInvocation, Device, PairingCode, PairingRequest};
use jiff::Timestamp;
use kube::{Client, runtime::reflector::Store};
use pairing::opaque::Setup;

use crate::{authority::Authority, gateways::Gateways, report::Report, watch::Guard};

/// What the loops share.
pub struct Context {
    pub client: Client,
    /// `HOST:PORT` that pairing URIs name.
    pub gateway_address: String,
    pub authority: Arc<Authority>,
    /// Makes password files.
    pub setup: Setup,
    /// The user that the API server takes this process for: `decidedBy` of automatic approvals.
    pub user: Option<String>,
    pub codes: Store<Guard<PairingCode>>,
    pub requests: Store<Guard<PairingRequest>>,
    pub devices: Store<Guard<Device>>,
    /// Those that have not ended.
    pub invocations: Store<Guard<CapabilityInvocation>>,
    pub gateways: Gateways,
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
