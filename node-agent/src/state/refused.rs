//! The last renewal that this device did not accept: what `status` and `doctor` show of it. Nothing is decided by it.

use serde::{Deserialize, Serialize};

/// `refused.json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Why.
    pub reason: String,
    /// When, by this device's clock. RFC 3339.
    pub at: String,
}
