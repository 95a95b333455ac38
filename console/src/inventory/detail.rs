//! All that is known of a device.

use console_api::{
    inventory::{Action, CapabilityRecord, DeviceDetail, EventRecord, Withheld},
    invocation::InvocationSummary,
    pairing::RequestSummary,
};
use crds::v1alpha1::device::DeviceCapability;
use jiff::Timestamp;

use super::{Certificate, Known, Said, See, Session, warnings, withheld};
use crate::{record, registry::Permission};

/// What is known beside the Device. `None`: the caller may not see it.
#[derive(Debug, Default)]
pub struct Around {
    pub pairings: Option<Vec<RequestSummary>>,
    pub recent_invocations: Option<Vec<InvocationSummary>>,
    pub events: Option<Vec<EventRecord>>,
}

/// A device, whole. `actions` are what the caller may do with it.
pub fn detail(
    device: &Known,
    around: Around,
    actions: Vec<Action>,
    now: Timestamp,
) -> DeviceDetail {
    let see = See {
        pairings: around.pairings.is_some(),
        invocations: around.recent_invocations.is_some(),
        events: around.events.is_some(),
    };
    DeviceDetail {
        device: device.record(),
        key_words: record::key_words(&device.public_key_sha256),
        certificates: device
            .certificates
            .iter()
            .map(Certificate::record)
            .collect(),
        session: device.session.as_ref().map(Session::record),
        capabilities: device.capabilities.iter().map(capability).collect(),
        conditions: device.conditions.iter().map(Said::record).collect(),
        warnings: warnings(device, now),
        actions,
        pairings: around.pairings.unwrap_or_default(),
        recent_invocations: around.recent_invocations.unwrap_or_default(),
        events: around.events.unwrap_or_default(),
        withheld: left_out(see),
    }
}

fn left_out(see: See) -> Vec<Withheld> {
    let fields = [
        (see.pairings, "pairings", Permission::PairingRead),
        (
            see.invocations,
            "recentInvocations",
            Permission::InvocationRead,
        ),
        (see.events, "events", Permission::EventsRead),
    ];
    let left_out = fields.into_iter().filter(|(seen, ..)| !seen);
    left_out
        .map(|(_, field, permission)| withheld(field, permission))
        .collect()
}

fn capability(capability: &DeviceCapability) -> CapabilityRecord {
    CapabilityRecord {
        name: capability.name.clone(),
        availability: record::availability(capability.availability),
        execution: record::execution(capability.execution),
        granted: record::granted(capability.granted),
        version: capability.version.clone(),
        description: capability.description.clone(),
        input_schema: capability.input_schema.clone(),
        output_schema: capability.output_schema.clone(),
        default_timeout_seconds: capability.default_timeout_seconds,
        max_timeout_seconds: capability.max_timeout_seconds,
        surface_sha256: capability.surface_sha256.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inventory::fixtures::{at, known};

    #[test]
    fn what_the_caller_may_not_see_is_named() {
        let device = known("workshop", "lamp", 1, json!({}), json!({}));
        let detail = super::detail(&device, Around::default(), Vec::new(), at(0));
        let named: Vec<_> = detail
            .withheld
            .iter()
            .map(|withheld| (withheld.field.as_str(), withheld.permission.as_str()))
            .collect();
        assert_eq!(
            named,
            [
                ("pairings", "pairing.read"),
                ("recentInvocations", "invocation.read"),
                ("events", "events.read"),
            ]
        );
        let around = Around {
            pairings: Some(Vec::new()),
            recent_invocations: Some(Vec::new()),
            events: Some(Vec::new()),
        };
        assert_eq!(
            super::detail(&device, around, Vec::new(), at(0)).withheld,
            []
        );
    }

    #[test]
    fn certificates_are_shown_from_the_newest_back() {
        let certificate = |generation: i64| {
            json!({ "serial": generation.to_string(), "fingerprint": "ab".repeat(32),
            "generation": generation, "notBefore": at(generation).to_string(), "notAfter": at(900).to_string() })
        };
        let status = json!({ "certificate": certificate(3), "certificateHistory": [certificate(2), certificate(1)] });
        let device = known("workshop", "lamp", 1, json!({}), status);
        let detail = super::detail(&device, Around::default(), Vec::new(), at(0));
        let generations: Vec<_> = detail
            .certificates
            .iter()
            .map(|certificate| certificate.generation)
            .collect();
        assert_eq!(generations, [3, 2, 1]);
        assert_eq!(detail.key_words.len(), 6);
    }
}
