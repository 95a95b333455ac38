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

#[cfg(test)]
mod tests {
    use super::{super::tests::call, *};

    #[tokio::test]
    async fn who_the_device_is_to_the_cluster_is_answered_and_nothing_else() {
        let key = "0a".repeat(32);
        let identity = SystemIdentity::new(About {
            namespace: "kitchen".to_owned(),
            device: "lamp".to_owned(),
            public_key_sha256: key.clone(),
            hostname: "box".to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            agent_version: "1.2.3".to_owned(),
        });
        let output = identity.run(call("null")).await.unwrap();
        let output = TERMS.answers(output).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&output).unwrap(),
            serde_json::json!({
                "namespace": "kitchen",
                "device": "lamp",
                "publicKeySha256": key,
                "hostname": "box",
                "os": "linux",
                "arch": "x86_64",
                "agentVersion": "1.2.3",
            })
        );
    }
}
