//! `system.identity`: who this device is to the cluster, as it knows itself.

use std::sync::LazyLock;

use proto::node::FailureCode;
use serde::Serialize;

use super::{Call, Capability, Failure, Running, terms::Terms};

/// What `system.identity` tells.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    pub namespace: String,
    pub device: String,
    /// 64 hexadecimal digits.
    pub public_key_sha256: String,
    pub hostname: String,
    pub os: String,
    pub arch: String,
    pub agent_version: String,
}

static TERMS: LazyLock<Terms> = LazyLock::new(|| {
    let output = r#"{"type":"object","required":["device","namespace","publicKeySha256"]}"#;
    Terms::built_in(None, Some(output))
});

#[derive(Debug)]
pub(super) struct SystemIdentity {
    about: About,
}

impl SystemIdentity {
    pub(super) fn new(about: About) -> Self {
        Self { about }
    }
}

impl Capability for SystemIdentity {
    fn name(&self) -> &'static str {
        "system.identity"
    }

    fn terms(&self) -> &Terms {
        &TERMS
    }

    fn run(&self, _call: Call) -> Running {
        let output = serde_json::to_vec(&self.about)
            .map_err(|error| Failure::new(FailureCode::Internal, error.to_string()));
        Box::pin(async { output })
    }
}
