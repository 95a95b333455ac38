//! What a device is told about its request. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{
    PairingRequest, conditions,
    v1alpha1::pairing_request::{PairingRequestStatus, RequestPhase},
};
use jiff::Timestamp;
use kube::ResourceExt as _;
use proto::node::{Denied, Expired, Failed, Issued, Pending, enroll_response::Step};

use crate::pem;

/// After which a person may try again who was denied, in seconds: for the person at the device, not a rule.
const RETRY_DENIED_SECONDS: u32 = 60;

/// That a person decides, and until when.
pub fn pending(request: &PairingRequest, now: Timestamp) -> Pending {
    Pending {
        namespace: request.namespace().unwrap_or_default(),
        request: request.name_any(),
        expires_in_seconds: u32::try_from(seconds_left(request, now)).unwrap_or(u32::MAX),
    }
}

/// Whole seconds until the request stops waiting; zero where it does not say.
pub fn seconds_left(request: &PairingRequest, now: Timestamp) -> u64 {
    request.spec.expires_at.as_ref().map_or(0, |time| {
        u64::try_from(time.0.duration_since(now).as_secs()).unwrap_or(0)
    })
}

/// How it ended; `None` while it has not, or where what it should have is not there yet.
pub fn end(
    request: &PairingRequest,
    gateways: impl FnOnce() -> Vec<String>,
    now: Timestamp,
) -> Option<Step> {
    let status = request.status.as_ref()?;
    match status.phase {
        RequestPhase::Pending | RequestPhase::Approved => None,
        RequestPhase::Denied => Some(Step::Denied(Denied {
            reason: status
                .approval
                .as_ref()
                .and_then(|approval| approval.reason.clone())
                .unwrap_or_default(),
            retry_after_seconds: RETRY_DENIED_SECONDS,
        })),
        RequestPhase::Expired => Some(Step::Expired(Expired {})),
        RequestPhase::Failed => Some(failed(why(status))),
        RequestPhase::Issued => Some(issued(request, status, gateways, now)),
    }
}

fn issued(
    request: &PairingRequest,
    status: &PairingRequestStatus,
    gateways: impl FnOnce() -> Vec<String>,
    now: Timestamp,
) -> Step {
    let (Some(certificate), Some(signed_bundle), Some(device)) = (
        &status.certificate,
        &status.signed_bundle,
        &status.device_ref,
    ) else {
        return failed("the request is issued, but its certificate is not there");
    };
    // A device that comes back after days cannot use it, and must not take it for an identity.
    if certificate.not_after.0 <= now {
        return failed("the certificate expired before it was fetched: pair with a new code");
    }
    let (Some(chain), Ok(signed_bundle)) = (
        certificates(&certificate.chain),
        STANDARD.decode(signed_bundle),
    ) else {
        return failed("the certificate cannot be read");
    };
    Step::Issued(Issued {
        chain,
        signed_bundle,
        namespace: request.namespace().unwrap_or_default(),
        device: device.name.clone(),
        gateways: gateways(),
    })
}

fn failed(reason: impl Into<String>) -> Step {
    Step::Failed(Failed {
        reason: reason.into(),
    })
}

fn why(status: &PairingRequestStatus) -> String {
    conditions::find(&status.conditions, conditions::READY).map_or_else(
        || "no certificate could be issued".to_owned(),
        |ready| ready.message.clone(),
    )
}

/// `None` where there is none, or one cannot be read.
fn certificates(pem: &str) -> Option<Vec<Vec<u8>>> {
    let certificates = pem::certificates(pem.as_bytes()).ok()?;
    Some(
        certificates
            .iter()
            .map(|certificate| certificate.to_vec())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(status: &Value) -> PairingRequest {
        serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest",
            "metadata": { "name": "preq-1", "namespace": "shop" },
            "spec": { "requestedName": "kiosk", "expiresAt": "2026-01-01T00:15:00Z" },
            "status": status,
        }))
        .unwrap()
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-01-01T{time}Z").parse().unwrap()
    }

    fn told(status: &Value) -> Option<Step> {
        end(
            &request(status),
            || vec!["gateway:7443".to_owned()],
            at("00:05:00"),
        )
    }

    fn pem() -> String {
        let params = rcgen::CertificateParams::default();
        params
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap()
            .pem()
    }

    #[test]
    fn a_request_that_nobody_decided_on_waits() {
        let undecided = request(&json!({}));
        assert_eq!(told(&json!({})), None);
        assert_eq!(told(&json!({ "phase": "Approved" })), None);
        assert_eq!(pending(&undecided, at("00:05:00")).expires_in_seconds, 600);
        assert_eq!(pending(&undecided, at("00:20:00")).expires_in_seconds, 0);
    }

    #[test]
    fn each_end_is_told_with_its_reason() {
        let reason = |step: Option<Step>| match step.unwrap() {
            Step::Denied(denied) => denied.reason,
            Step::Failed(failed) => failed.reason,
            Step::Expired(_) => "expired".to_owned(),
            other @ (Step::Challenge(_)
            | Step::Describe(_)
            | Step::Pending(_)
            | Step::Issued(_)) => {
                panic!("{other:?}")
            }
        };
        let denied = json!({ "phase": "Denied", "approval": { "decision": "Denied", "reason": "not ours" } });
        let failed = json!({ "phase": "Failed", "conditions": [{
            "type": "Ready", "status": "False", "reason": "NameTaken", "message": "another device has this name",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] });
        assert_eq!(reason(told(&denied)), "not ours");
        assert_eq!(reason(told(&failed)), "another device has this name");
        assert_eq!(reason(told(&json!({ "phase": "Expired" }))), "expired");
        assert_eq!(
            reason(told(&json!({ "phase": "Failed" }))),
            "no certificate could be issued"
        );
        assert!(reason(told(&json!({ "phase": "Issued" }))).contains("not there"));
    }

    #[test]
    fn what_was_issued_is_handed_over_while_it_can_be_used() {
        let (leaf, authority) = (pem(), pem());
        let status = |not_after: &str| {
            json!({
                "phase": "Issued",
                "certificate": {
                    "chain": format!("{leaf}{authority}"), "serial": "01",
                    "notBefore": "2026-01-01T00:00:00Z", "notAfter": not_after,
                },
                "caBundle": authority, "signedBundle": "AAEC",
                "deviceRef": { "name": "kiosk" },
            })
        };
        let Some(Step::Issued(issued)) = told(&status("2026-01-02T00:00:00Z")) else {
            panic!("not issued");
        };
        assert_eq!(issued.chain.len(), 2);
        assert_eq!(
            issued.signed_bundle,
            [0, 1, 2],
            "as it stands in the status"
        );
        assert_eq!(
            (issued.namespace.as_str(), issued.device.as_str()),
            ("shop", "kiosk")
        );
        assert_eq!(issued.gateways, ["gateway:7443"]);
        let Some(Step::Failed(failed)) = told(&status("2026-01-01T00:04:00Z")) else {
            panic!("an expired certificate was handed over");
        };
        assert!(failed.reason.contains("new code"));
    }
}
