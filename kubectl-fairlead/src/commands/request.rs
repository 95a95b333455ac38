//! A pairing request, as a person compares it with the device before deciding. Pure.

use std::fmt::Write as _;

use crds::PairingRequest;
use jiff::Timestamp;
use kube::ResourceExt as _;
use pairing::key::KeyFingerprint;

use crate::show::{age, harmless};

/// The fingerprint of a key in words; `None` for what is no fingerprint.
pub fn words(public_key_sha256: &str) -> Option<String> {
    let fingerprint: KeyFingerprint = public_key_sha256.parse().ok()?;
    Some(fingerprint.words().join(" "))
}

/// The words of a request's key; of one whose key the operator makes, there are none.
pub fn words_of(request: &PairingRequest) -> String {
    request
        .spec
        .public_key_sha256
        .as_deref()
        .and_then(words)
        .unwrap_or_else(|| "-".to_owned())
}

/// What an approver looks at.
pub fn shown(request: &PairingRequest, now: Timestamp) -> String {
    let spec = &request.spec;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // A string takes everything.
        let _ = writeln!(text, "  {name:<14}{}", harmless(value));
    };
    line("request", &request.name_any());
    line("asks to be", &spec.requested_name);
    line("key words", &words_of(request));
    line(
        "key",
        spec.public_key_sha256
            .as_deref()
            .unwrap_or("made by the operator"),
    );
    line("host", &spec.platform.hostname);
    line(
        "platform",
        &format!(
            "{} {}, agent {}",
            spec.platform.os, spec.platform.arch, spec.platform.agent_version
        ),
    );
    if let Some(source) = &spec.source {
        line(
            "came from",
            &format!("{}, to {}", source.remote_address, source.gateway),
        );
    }
    if let Some(by) = &spec.requested_by {
        line("made by", by);
    }
    line("by", &format!("{:?}", spec.method));
    if let Some(code) = &spec.pairing_code_ref {
        line("code", &code.name);
    }
    let capabilities: Vec<_> = spec
        .capabilities
        .iter()
        .map(|capability| format!("{} ({})", capability.name, capability.execution.as_str()))
        .collect();
    line(
        "can",
        if capabilities.is_empty() {
            "nothing"
        } else {
            ""
        },
    );
    for capability in &capabilities {
        line("", capability);
    }
    line(
        "waits until",
        &age::until(spec.expires_at.as_ref().map(|time| time.0), now),
    );
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_is_compared_is_shown_and_gives_no_orders() {
        let request: PairingRequest = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
            "metadata": {"name": "preq-1"},
            "spec": {
                "requestedName": "kiosk", "publicKeySha256": "00".repeat(32), "csr": "x", "method": "Pin",
                "platform": {"os": "linux", "arch": "arm64", "agentVersion": "1", "hostname": "vm\u{1b}[2J"},
                "source": {"gateway": "gateway-0", "remoteAddress": "10.0.0.7"},
                "capabilities": [{"name": "system.health"}],
                "expiresAt": "2030-01-01T00:05:00Z",
            },
        }))
        .unwrap();
        let text = shown(&request, "2030-01-01T00:00:00Z".parse().unwrap());
        for part in [
            "preq-1",
            "kiosk",
            "abandon",
            "linux arm64",
            "10.0.0.7, to gateway-0",
            "system.health (Automatic)",
            "in 5m",
            "Pin",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
