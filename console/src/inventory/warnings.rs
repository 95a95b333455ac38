//! What somebody should look at, each with what to do.

use console_api::inventory::{Warning, WarningCode};
use crds::v1alpha1::device::{Availability, Granted, PresenceReason, TrustDecision};
use jiff::Timestamp;

use super::{Certificate, Known};

/// Most names that a warning gives.
const MAX_NAMED: usize = 5;

/// What is to be said of a device. Of a revoked one nothing: nothing more will come of it.
pub fn warnings(device: &Known, now: Timestamp) -> Vec<Warning> {
    match device.trust_decision {
        TrustDecision::Revoked => Vec::new(),
        TrustDecision::Suspended => vec![warning(
            WarningCode::Suspended,
            "Somebody suspended it: it may not connect. Resume it when it may again.".to_owned(),
        )],
        TrustDecision::Active => [
            device
                .certificates
                .first()
                .and_then(|newest| of_certificate(newest, now)),
            of_presence(device),
            of_grants(device),
            of_availability(device),
        ]
        .into_iter()
        .flatten()
        .collect(),
    }
}

fn warning(code: WarningCode, message: String) -> Warning {
    Warning { code, message }
}

/// A device renews when between a third and a quarter of the life of its certificate is left. Less is a renewal that
/// did not come about.
fn of_certificate(newest: &Certificate, now: Timestamp) -> Option<Warning> {
    let ends = newest.not_after;
    if ends <= now {
        return Some(warning(
            WarningCode::CertificateExpired,
            format!("Its certificate ended at {ends}: it cannot connect. Pair it again."),
        ));
    }
    let life = newest.not_before.duration_until(ends);
    (now.duration_until(ends) < life / 4).then(|| {
        warning(
            WarningCode::CertificateExpiring,
            format!(
                "Its certificate ends at {ends} and was not renewed. It renews by itself while it is connected: see that \
                 it is, and that the operator runs."
            ),
        )
    })
}

fn of_presence(device: &Known) -> Option<Warning> {
    let message = match device.presence_reason? {
        PresenceReason::Connected | PresenceReason::CapabilityUnavailable => return None,
        PresenceReason::NeverConnected => {
            return Some(warning(
                WarningCode::NeverConnected,
                "It was never there. See that its agent runs, and reaches a gateway.".to_owned(),
            ));
        }
        PresenceReason::SessionEnded => {
            "Its stream ended. Where it does not come back by itself, see that it is on, and reaches a gateway."
        }
        PresenceReason::GatewayGone => {
            "The gateway that held its stream is gone. It comes back at another one; where none runs, start one."
        }
    };
    Some(warning(WarningCode::Disconnected, message.to_owned()))
}

fn of_grants(device: &Known) -> Option<Warning> {
    let pending = device
        .capabilities
        .iter()
        .filter(|capability| capability.granted == Granted::Pending)
        .map(|capability| capability.name.as_str());
    let names = named(pending)?;
    Some(warning(
        WarningCode::GrantPending,
        format!("It declares {names}, and nobody has decided. Grant what it may run."),
    ))
}

fn of_availability(device: &Known) -> Option<Warning> {
    let unavailable = device
        .capabilities
        .iter()
        .filter(|capability| {
            capability.granted == Granted::Granted
                && capability.availability == Availability::Unavailable
        })
        .map(|capability| capability.name.as_str());
    let names = named(unavailable)?;
    Some(warning(
        WarningCode::CapabilityUnavailable,
        format!("It cannot run {names} now. The log of its agent says why."),
    ))
}

/// The first names, and how many there are besides; `None` where there are none.
fn named<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<_> = names.collect();
    let said = names[..names.len().min(MAX_NAMED)].join(", ");
    match names.len() {
        0 => None,
        count if count > MAX_NAMED => Some(format!("{said} and {} more", count - MAX_NAMED)),
        _ => Some(said),
    }
}

#[cfg(test)]
mod tests {
    use console_api::inventory::WarningCode as Code;
    use serde_json::json;

    use super::*;
    use crate::inventory::fixtures::{at, known};

    fn codes(spec: serde_json::Value, status: serde_json::Value, now: i64) -> Vec<Code> {
        let device = known("workshop", "lamp", 1, spec, status);
        warnings(&device, at(now))
            .iter()
            .map(|warning| warning.code)
            .collect()
    }

    fn certificate(from: i64, to: i64) -> serde_json::Value {
        json!({ "certificate": { "serial": "1", "fingerprint": "ab".repeat(32), "generation": 1,
            "notBefore": at(from).to_string(), "notAfter": at(to).to_string() } })
    }

    #[test]
    fn a_certificate_is_warned_of_when_it_should_have_been_renewed() {
        for (now, expected) in [
            (0, vec![]),
            (750, vec![]),
            (751, vec![Code::CertificateExpiring]),
            (999, vec![Code::CertificateExpiring]),
            (1000, vec![Code::CertificateExpired]),
        ] {
            assert_eq!(
                codes(json!({}), certificate(0, 1000), now),
                expected,
                "{now}"
            );
        }
    }

    #[test]
    fn what_somebody_decided_is_all_there_is_to_say() {
        let suspended = json!({ "trust": "Suspended" });
        assert_eq!(codes(suspended, certificate(0, 1), 9), [Code::Suspended]);
        assert_eq!(
            codes(json!({ "trust": "Revoked" }), certificate(0, 1), 9),
            []
        );
    }

    #[test]
    fn presence_is_warned_of() {
        for (reason, expected) in [
            ("Connected", vec![]),
            ("CapabilityUnavailable", vec![]),
            ("SessionEnded", vec![Code::Disconnected]),
            ("GatewayGone", vec![Code::Disconnected]),
            ("NeverConnected", vec![Code::NeverConnected]),
        ] {
            assert_eq!(
                codes(json!({}), json!({ "presenceReason": reason }), 0),
                expected
            );
        }
    }

    #[test]
    fn capabilities_are_warned_of_by_name() {
        let capability = |name: String, granted, availability| json!({ "name": name, "granted": granted, "availability": availability });
        let mut capabilities: Vec<_> = (0..7)
            .map(|n| capability(format!("c{n}"), "Pending", "Available"))
            .collect();
        capabilities.push(capability("u".to_owned(), "Granted", "Unavailable"));
        capabilities.push(capability("n".to_owned(), "NotGranted", "Unavailable"));
        let device = known(
            "workshop",
            "lamp",
            1,
            json!({}),
            json!({ "capabilities": capabilities }),
        );
        let warnings = warnings(&device, at(0));
        assert_eq!(warnings[0].code, Code::GrantPending);
        assert!(
            warnings[0]
                .message
                .contains("c0, c1, c2, c3, c4 and 2 more"),
            "{}",
            warnings[0].message
        );
        assert_eq!(warnings[1].code, Code::CapabilityUnavailable);
        assert!(
            warnings[1].message.contains("run u now"),
            "{}",
            warnings[1].message
        );
        assert_eq!(warnings.len(), 2);
    }
}
