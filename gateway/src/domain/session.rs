//! What the start, a change and the end of a stream write on its Device.
//!
//! Nothing here is written while a device merely stays: a heartbeat costs no write.

use crds::{
    conditions,
    presence::{GatewayLease, presence},
    v1alpha1::{
        Platform,
        device::{
            CapabilityCounts, DeviceCapability, Presence, PresenceReason, Session,
            UndeclaredCapability,
        },
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    device::KnownDevice,
    grants::{self, Known, Shown},
    register::Declared,
};

/// What a gateway has to say about a device's session.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A stream began.
    Start { declared: &'a Declared },
    /// What it declares, or what it may, changed during the session of that epoch.
    Update { declared: &'a Declared, epoch: i64 },
    /// The stream of that epoch, or an earlier one of this gateway, ended.
    End { epoch: i64 },
}

/// New pieces of a Device's status, and the epoch of the session that they are about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pieces {
    #[serde(skip)]
    pub epoch: i64,
    session: SessionPiece,
    last_seen: Time,
    presence: Presence,
    presence_reason: PresenceReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Vec<DeviceCapability>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undeclared: Option<Vec<UndeclaredCapability>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capability_counts: Option<CapabilityCounts>,
    conditions: Vec<Condition>,
}

/// As [`Session`], but an absent end is said, so that a merge patch removes the last one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionPiece {
    gateway: String,
    epoch: i64,
    connected_at: Option<Time>,
    ended_at: Option<Time>,
}

impl Pieces {
    /// A merge patch that applies to this version of the Device and to no other.
    pub fn patch(&self, resource_version: &str) -> Value {
        json!({ "metadata": { "resourceVersion": resource_version }, "status": self })
    }
}

/// What to write, if anything. `None` where nothing changes, or where the session is not this gateway's any more: then
/// another gateway holds the device, and has written so.
pub fn plan(
    device: &KnownDevice,
    gateway: &str,
    change: Change<'_>,
    known: &Known,
    now: Timestamp,
) -> Option<Pieces> {
    let before = &device.status;
    let mine = before
        .session
        .as_ref()
        .filter(|session| session.gateway == gateway && session.ended_at.is_none());
    let (session, declared) = match change {
        Change::Start { declared } => {
            let epoch = before
                .session
                .as_ref()
                .map_or(0, |session| session.epoch)
                .saturating_add(1);
            let session = Session {
                gateway: gateway.to_owned(),
                epoch,
                connected_at: Some(Time(now)),
                ended_at: None,
            };
            (session, Some(declared))
        }
        Change::Update { declared, epoch } => (
            mine.filter(|session| session.epoch == epoch)?.clone(),
            Some(declared),
        ),
        Change::End { epoch } => {
            let session = mine.filter(|session| session.epoch <= epoch)?;
            (
                Session {
                    ended_at: Some(Time(now)),
                    ..session.clone()
                },
                None,
            )
        }
    };

    let mut after = before.clone();
    after.session = Some(session.clone());
    if let Some(declared) = declared {
        after.platform = Some(declared.platform.clone());
        let Shown {
            capabilities,
            undeclared,
            counts,
        } = grants::shown(&declared.capabilities, &device.spec, before, known);
        after.capabilities = capabilities;
        after.undeclared = undeclared;
        after.capability_counts = Some(counts);
    }
    let verdict = presence(&after, GatewayLease::Live, device.spec.presence, now);
    after.presence = Some(verdict.presence);
    after.presence_reason = Some(verdict.reason);
    if let Change::Update { .. } = change
        && after == *before
    {
        return None;
    }

    after.conditions = conditions::set(after.conditions, connected(device, &session, now));
    Some(Pieces {
        epoch: session.epoch,
        session: SessionPiece {
            gateway: session.gateway,
            epoch: session.epoch,
            connected_at: session.connected_at,
            ended_at: session.ended_at,
        },
        last_seen: Time(now),
        presence: verdict.presence,
        presence_reason: verdict.reason,
        platform: declared.and(after.platform),
        capabilities: declared.map(|_| after.capabilities),
        undeclared: declared.map(|_| after.undeclared),
        capability_counts: declared.and(after.capability_counts),
        conditions: after.conditions,
    })
}

fn connected(device: &KnownDevice, session: &Session, now: Timestamp) -> Condition {
    let (holds, reason, message) = if session.ended_at.is_none() {
        (
            true,
            "Connected",
            format!("the device holds a stream to {}", session.gateway),
        )
    } else {
        (
            false,
            "SessionEnded",
            format!("the device's stream to {} ended", session.gateway),
        )
    };
    conditions::condition(
        now,
        device.generation,
        conditions::CONNECTED,
        holds,
        reason,
        message,
    )
}

/// The gateway to which the device has moved since the session of that epoch began here.
pub fn moved_to<'a>(device: &'a KnownDevice, gateway: &str, epoch: i64) -> Option<&'a str> {
    let session = device.status.session.as_ref()?;
    (session.gateway != gateway && session.epoch > epoch).then_some(session.gateway.as_str())
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{
        DeclaredCapability,
        device::{Availability, Granted},
    };

    use super::*;
    use crate::domain::fixtures::{at, declared, minimal_device};

    const MINE: &str = "gateway-a";

    fn with_session(gateway: &str, epoch: i64, ended: bool) -> KnownDevice {
        let mut device = minimal_device();
        device.status.session = Some(Session {
            gateway: gateway.to_owned(),
            epoch,
            connected_at: Some(Time(at(10))),
            ended_at: ended.then(|| Time(at(20))),
        });
        device
    }

    #[test]
    fn a_start_counts_on_from_the_last_session_and_takes_its_end_away() {
        let device = with_session("gateway-b", 7, true);
        let declared = declared(&["echo"]);
        let pieces = plan(
            &device,
            MINE,
            Change::Start {
                declared: &declared,
            },
            &Known::default(),
            at(30),
        )
        .unwrap();
        assert_eq!(pieces.epoch, 8);
        let patch = pieces.patch("41");
        assert_eq!(patch["metadata"], json!({"resourceVersion": "41"}));
        assert_eq!(
            patch["status"]["session"],
            json!({"gateway": MINE, "epoch": 8, "connectedAt": "1970-01-01T00:00:30Z", "endedAt": null})
        );
        assert_eq!(patch["status"]["presence"], "Online");
        assert_eq!(patch["status"]["capabilities"][0]["granted"], "Granted");
    }

    #[test]
    fn the_first_session_is_number_one() {
        let declared = declared(&[]);
        let pieces = plan(
            &minimal_device(),
            MINE,
            Change::Start {
                declared: &declared,
            },
            &Known::default(),
            at(0),
        )
        .unwrap();
        assert_eq!(pieces.epoch, 1);
        assert_eq!(pieces.patch("1")["status"]["capabilities"], json!([]));
    }

    #[test]
    fn an_unavailable_capability_degrades_the_device() {
        let mut declared = declared(&["echo"]);
        declared.capabilities[0].1 = Availability::Unavailable;
        let pieces = plan(
            &minimal_device(),
            MINE,
            Change::Start {
                declared: &declared,
            },
            &Known::default(),
            at(0),
        )
        .unwrap();
        assert_eq!(pieces.presence, Presence::Degraded);
        assert_eq!(
            pieces.presence_reason,
            PresenceReason::CapabilityUnavailable
        );
    }

    #[test]
    fn an_end_is_written_to_the_session_that_ended_and_to_no_other() {
        let end = |device: &KnownDevice, epoch| {
            plan(
                device,
                MINE,
                Change::End { epoch },
                &Known::default(),
                at(30),
            )
        };
        let pieces = end(&with_session(MINE, 7, false), 7).unwrap();
        assert_eq!(pieces.presence, Presence::Degraded);
        assert_eq!(pieces.presence_reason, PresenceReason::SessionEnded);
        let patch = pieces.patch("1");
        assert_eq!(
            patch["status"]["session"]["endedAt"],
            "1970-01-01T00:00:30Z"
        );
        assert_eq!(patch["status"]["conditions"][0]["status"], "False");
        assert!(
            patch["status"].get("capabilities").is_none(),
            "an end says nothing of capabilities"
        );

        assert_eq!(
            end(&with_session(MINE, 8, false), 7),
            None,
            "a newer session of this gateway"
        );
        assert_eq!(
            end(&with_session("gateway-b", 7, false), 7),
            None,
            "another gateway's session"
        );
        assert_eq!(
            end(&with_session(MINE, 7, true), 7),
            None,
            "it has ended already"
        );
        assert_eq!(end(&minimal_device(), 7), None, "there never was one");
    }

    #[test]
    fn an_update_that_changes_nothing_is_not_written() {
        let declared = declared(&["echo"]);
        let start = Change::Start {
            declared: &declared,
        };
        let pieces = plan(&minimal_device(), MINE, start, &Known::default(), at(0)).unwrap();
        let mut device = with_session(MINE, 1, false);
        device.status.platform = pieces.platform;
        device.status.capabilities = pieces.capabilities.unwrap();
        device.status.capability_counts = pieces.capability_counts;
        device.status.presence = Some(Presence::Online);
        device.status.presence_reason = Some(PresenceReason::Connected);
        let update = |device: &KnownDevice| {
            plan(
                device,
                MINE,
                Change::Update {
                    declared: &declared,
                    epoch: 1,
                },
                &Known::default(),
                at(9),
            )
        };
        assert_eq!(update(&device), None);

        device.spec.grants.capabilities.clear();
        let pieces = update(&device).unwrap();
        assert_eq!(pieces.capabilities.unwrap()[0].granted, Granted::NotGranted);
        device.status.session.as_mut().unwrap().epoch = 2;
        assert_eq!(update(&device), None, "another session's");
    }

    #[test]
    fn what_is_new_and_not_granted_waits_for_a_decision() {
        let mut device = with_session(MINE, 1, false);
        let first = declared(&["echo"]);
        device.status.capabilities = grants::shown(
            &first.capabilities,
            &device.spec,
            &device.status,
            &Known::default(),
        )
        .capabilities;
        let mut grown = first.clone();
        grown.capabilities.push((
            DeclaredCapability {
                name: "door.open".to_owned(),
                ..DeclaredCapability::default()
            },
            Availability::Available,
        ));
        let pieces = plan(
            &device,
            MINE,
            Change::Update {
                declared: &grown,
                epoch: 1,
            },
            &Known::default(),
            at(9),
        )
        .unwrap();
        assert_eq!(pieces.capabilities.unwrap()[0].granted, Granted::Pending);
    }

    #[test]
    fn conditions_of_others_stay() {
        let mut device = minimal_device();
        let theirs = conditions::condition(at(1), None, conditions::READY, true, "Ready", "");
        device.status.conditions = vec![theirs.clone()];
        let declared = declared(&[]);
        let pieces = plan(
            &device,
            MINE,
            Change::Start {
                declared: &declared,
            },
            &Known::default(),
            at(2),
        )
        .unwrap();
        assert_eq!(pieces.conditions.len(), 2);
        assert_eq!(pieces.conditions[0], theirs);
    }

    #[test]
    fn a_device_has_moved_when_a_later_session_is_elsewhere() {
        assert_eq!(
            moved_to(&with_session("gateway-b", 8, false), MINE, 7),
            Some("gateway-b")
        );
        assert_eq!(moved_to(&with_session("gateway-b", 6, true), MINE, 7), None);
        assert_eq!(moved_to(&with_session(MINE, 8, false), MINE, 7), None);
        assert_eq!(moved_to(&minimal_device(), MINE, 7), None);
    }
}
