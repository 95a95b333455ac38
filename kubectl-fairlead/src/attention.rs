//! Which devices need somebody, in which order, and why. Pure.
//!
//! The order is that of the console: degraded, stale, offline, online; then namespace and name.

use crds::{
    Device,
    v1alpha1::device::{Availability, Granted, Presence, PresenceReason, TrustDecision},
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::show::{age, table::Tone};

/// What is said of a device that somebody should look at, the most urgent first.
pub fn notes(device: &Device, now: Timestamp) -> Vec<String> {
    match device.spec.trust {
        // Nothing of it counts any more.
        TrustDecision::Revoked => return vec!["revoked".to_owned()],
        TrustDecision::Suspended => return vec!["suspended".to_owned()],
        TrustDecision::Active => {}
    }
    let Some(status) = &device.status else {
        return vec!["no status: does the operator run?".to_owned()];
    };
    let mut notes = Vec::new();
    match status
        .certificate
        .as_ref()
        .map(|certificate| certificate.not_after.0)
    {
        None => notes.push("no certificate".to_owned()),
        Some(end) if end <= now => {
            notes.push(format!("certificate ended {}", age::until(Some(end), now)));
        }
        Some(end) => {
            // Renewal begins at two thirds and ends at three quarters of its life.
            let begun = status
                .certificate
                .as_ref()
                .map_or(end, |certificate| certificate.not_before.0);
            let (life, left) = (end.duration_since(begun), end.duration_since(now));
            if left.as_secs() * 5 < life.as_secs() {
                notes.push(format!(
                    "certificate ends in {} and was not renewed",
                    age::length(left)
                ));
            }
        }
    }
    match status.presence_reason {
        Some(PresenceReason::SessionEnded) => notes.push("lost its stream".to_owned()),
        Some(PresenceReason::GatewayGone) => notes.push("its gateway is gone".to_owned()),
        Some(PresenceReason::NeverConnected) => notes.push("was never there".to_owned()),
        Some(PresenceReason::Connected | PresenceReason::CapabilityUnavailable) | None => {}
    }
    let names = |wanted: &dyn Fn(&crds::v1alpha1::device::DeviceCapability) -> bool| {
        let names: Vec<_> = status
            .capabilities
            .iter()
            .filter(|capability| wanted(capability))
            .map(|capability| capability.name.as_str())
            .collect();
        few(&names)
    };
    if let Some(names) = names(&|capability| capability.granted == Granted::Pending) {
        notes.push(format!("waits for a grant: {names}"));
    }
    if let Some(names) = names(&|capability| {
        capability.granted == Granted::Granted
            && capability.availability == Availability::Unavailable
    }) {
        notes.push(format!("unavailable: {names}"));
    }
    notes
}

/// Three names, and how many more.
fn few(names: &[&str]) -> Option<String> {
    let (shown, more) = names.split_at_checked(3).unwrap_or((names, &[]));
    match (shown, more) {
        ([], _) => None,
        (shown, []) => Some(shown.join(", ")),
        (shown, more) => Some(format!("{} and {} more", shown.join(", "), more.len())),
    }
}

/// Whether a device is there; who never said anything is not.
pub fn presence(device: &Device) -> Presence {
    device
        .status
        .as_ref()
        .and_then(|status| status.presence)
        .unwrap_or(Presence::Offline)
}

/// Sorts by who needs somebody first.
pub fn sort(devices: &mut [Device]) {
    devices.sort_by_cached_key(|device| {
        (
            rank(presence(device)),
            device.namespace(),
            device.name_any(),
        )
    });
}

fn rank(presence: Presence) -> u8 {
    match presence {
        Presence::Degraded => 0,
        Presence::Stale => 1,
        Presence::Offline => 2,
        Presence::Online => 3,
    }
}

/// How a device's row looks.
pub fn tone(device: &Device, notes: &[String]) -> Tone {
    if device.spec.trust != TrustDecision::Active {
        return Tone::Faint;
    }
    match presence(device) {
        Presence::Online if notes.is_empty() => Tone::Good,
        Presence::Online | Presence::Degraded => Tone::Warning,
        Presence::Stale | Presence::Offline => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2030-01-01T12:00:00Z";

    fn device(name: &str, status: &serde_json::Value) -> Device {
        serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
            "metadata": {"name": name, "namespace": "kitchen"},
            "spec": {"publicKeySha256": "ab".repeat(32)},
            "status": status,
        }))
        .unwrap()
    }

    fn healthy() -> serde_json::Value {
        json!({
            "presence": "Online", "presenceReason": "Connected",
            "certificate": {
                "serial": "01", "fingerprint": "cd".repeat(32), "generation": 1,
                "notBefore": "2030-01-01T00:00:00Z", "notAfter": "2030-01-02T00:00:00Z",
            },
        })
    }

    fn said(status: &serde_json::Value) -> Vec<String> {
        notes(&device("lamp", status), NOW.parse().unwrap())
    }

    #[test]
    fn a_device_that_is_well_needs_nobody() {
        assert!(said(&healthy()).is_empty());
    }

    #[test]
    fn what_somebody_should_look_at_is_said() {
        let mut status = healthy();
        status["certificate"]["notAfter"] = json!("2030-01-01T11:00:00Z");
        assert_eq!(said(&status), ["certificate ended 60m ago"]);

        status["certificate"]["notAfter"] = json!("2030-01-01T14:00:00Z");
        assert_eq!(
            said(&status),
            ["certificate ends in 120m and was not renewed"]
        );

        let mut status = healthy();
        status["presenceReason"] = json!("GatewayGone");
        status["capabilities"] = json!([
            {"name": "a", "granted": "Pending"}, {"name": "b", "granted": "Pending"},
            {"name": "c", "granted": "Pending"}, {"name": "d", "granted": "Pending"},
            {"name": "e", "granted": "Granted", "availability": "Unavailable"},
            {"name": "f", "granted": "NotGranted", "availability": "Unavailable"},
        ]);
        assert_eq!(
            said(&status),
            [
                "its gateway is gone",
                "waits for a grant: a, b, c and 1 more",
                "unavailable: e"
            ]
        );
    }

    #[test]
    fn of_a_revoked_device_nothing_else_counts() {
        let mut device = device("lamp", &json!({"presenceReason": "SessionEnded"}));
        device.spec.trust = TrustDecision::Revoked;
        let notes = notes(&device, NOW.parse().unwrap());
        assert_eq!(notes, ["revoked"]);
        assert_eq!(tone(&device, &notes), Tone::Faint);
    }

    #[test]
    fn those_that_need_somebody_come_first() {
        let of = |name: &str, presence: &str| device(name, &json!({"presence": presence}));
        let mut devices = vec![
            of("e", "Online"),
            of("d", "Offline"),
            of("c", "Stale"),
            of("b", "Degraded"),
            of("a", "Online"),
            device("f", &json!({})),
        ];
        sort(&mut devices);
        let names: Vec<_> = devices.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["b", "c", "d", "f", "a", "e"]);
    }
}
