//! What is done to a device. Each is the patch that kubectl would make.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Another name for people; `null` takes it away.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rename {
    /// Up to 253 characters.
    #[cfg_attr(feature = "openapi", schema(max_length = 253))]
    pub display_name: Option<String>,
}

/// What the device may run from now on.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// All capabilities that it may run, 128 at most. What is not here is taken away.
    #[cfg_attr(feature = "openapi", schema(max_items = 128))]
    pub capabilities: Vec<String>,
    /// By the name of a capability: `surfaceSha256` of what is granted under that name. A capability that is not here
    /// is granted as it was, or as the device declares it where it was not granted before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub surfaces: BTreeMap<String, String>,
}
