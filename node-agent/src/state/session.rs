//! What `status` shows of the connection. Written when that changes, never for a heartbeat; nothing is decided by it.

use serde::{Deserialize, Serialize};

/// `session.json`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub state: State,
    /// `HOST:PORT` of the gateway that is or was connected.
    pub gateway: Option<String>,
    /// Its name.
    pub gateway_name: Option<String>,
    /// Since when the state holds, by this device's clock. RFC 3339.
    pub since: String,
    /// Why the last connection ended, or the last attempt failed.
    pub last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum State {
    #[default]
    Connecting,
    Connected,
    /// A gateway answered that this device may not connect.
    Refused,
    Stopped,
}
