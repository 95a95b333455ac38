//! `describe`: all that is known of a device. What the caller may not see is named, not left out.

use std::fmt::Write as _;

use crds::{
    CapabilityInvocation, Device, Guarded, PairingRequest,
    v1alpha1::device::{Availability, DeviceStatus, Granted},
};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::Value;

use super::{invocations::without_values, request::words};
use crate::{
    attention,
    clock::now,
    cluster::{Cluster, Listed, Select, is_missing, list, list_trimmed, told},
    commands::fleet,
    exit::Exit,
    show::{
        Many, Shown, age, harmless, out,
        table::{Table, Tone},
    },
    terminal::Colours,
};

/// Invocations and events that are shown.
const NEWEST: usize = 10;

/// What is known beside the Device itself.
struct Beside {
    requests: Seen<PairingRequest>,
    invocations: Seen<CapabilityInvocation>,
    events: Seen<Event>,
}

/// A list, or why there is none.
type Seen<K> = Result<Vec<K>, String>;

pub async fn run(cluster: &Cluster, name: &str, shown: Shown) -> anyhow::Result<Exit> {
    let device = match cluster.api::<Device>().get(name).await {
        Ok(device) => device,
        Err(error) if is_missing(&error) => {
            anyhow::bail!("{}", fleet::missing(cluster, name).await)
        }
        Err(error) => return Err(told(error)),
    };
    if let Some(text) = shown.for_programs(std::slice::from_ref(&device), Many::One)? {
        out(&text)?;
        return Ok(Exit::Done);
    }
    let beside = observe(cluster, &device).await;
    out(&text(&device, &beside, now(), shown.colours))?;
    Ok(Exit::Done)
}

async fn observe(cluster: &Cluster, device: &Device) -> Beside {
    let name = device.name_any();
    let of_key = format!("spec.publicKeySha256={}", device.spec.public_key_sha256);
    let of_device = format!("spec.deviceRef.name={name}");
    let requests: Api<Guarded<PairingRequest>> = cluster.api();
    let invocations: Api<Guarded<CapabilityInvocation>> = cluster.api();
    let events: Api<Event> = cluster.api();
    let about = ListParams::default()
        .fields(&format!("regarding.kind=Device,regarding.name={name}"))
        .limit(500);
    let (requests, invocations, events) = tokio::join!(
        list(&requests, Select::fields(&of_key)),
        list_trimmed(&invocations, Select::fields(&of_device), without_values),
        events.list(&about),
    );
    Beside {
        requests: seen(requests),
        invocations: seen(invocations),
        events: events
            .map(|list| list.items)
            .map_err(|error| format!("{:#}", told(error))),
    }
}

fn seen<K>(listed: kube::Result<Listed<K>>) -> Seen<K> {
    listed
        .map(|listed| listed.objects)
        .map_err(|error| format!("{:#}", told(error)))
}

fn text(device: &Device, beside: &Beside, now: Timestamp, colours: Colours) -> String {
    let none = DeviceStatus::default();
    let status = device.status.as_ref().unwrap_or(&none);
    let mut text = head(device, status, now);
    section(
        &mut text,
        "Capabilities",
        &capabilities(device, status),
        colours,
    );
    inputs(&mut text, status);
    section(&mut text, "Conditions", &conditions(status, now), colours);
    seen_section(
        &mut text,
        "Pairing requests",
        &beside.requests,
        |items| requests(items, now),
        colours,
    );
    seen_section(
        &mut text,
        "Invocations",
        &beside.invocations,
        |items| invocations(items, now),
        colours,
    );
    seen_section(
        &mut text,
        "Events",
        &beside.events,
        |items| events(items, now),
        colours,
    );
    text
}

fn head(device: &Device, status: &DeviceStatus, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // A string takes everything.
        let _ = writeln!(text, "{:<14}{}", format!("{name}:"), harmless(value));
    };
    line("Name", &device.name_any());
    line("Namespace", &device.namespace().unwrap_or_default());
    if let Some(name) = &device.spec.display_name {
        line("Display name", name);
    }
    line("Kind", &format!("{:?}", device.spec.client_kind));
    line("Key", &device.spec.public_key_sha256);
    line(
        "Key words",
        &words(&device.spec.public_key_sha256).unwrap_or_default(),
    );
    let trust = status
        .trust
        .map_or_else(|| "not known yet".to_owned(), |trust| format!("{trust:?}"));
    line(
        "Trust",
        &format!("{trust} (decided: {:?})", device.spec.trust),
    );
    let reason = status
        .presence_reason
        .map(|reason| format!(" ({reason:?})"))
        .unwrap_or_default();
    line(
        "Presence",
        &format!("{:?}{reason}", attention::presence(device)),
    );
    if let Some(session) = &status.session {
        let began = age::since(session.connected_at.as_ref().map(|time| time.0), now);
        let how = match &session.ended_at {
            None => format!("for {began}"),
            Some(ended) => format!("ended {}", age::until(Some(ended.0), now)),
        };
        line(
            "Session",
            &format!("{} {how}, epoch {}", session.gateway, session.epoch),
        );
    }
    match &status.certificate {
        None => line("Certificate", "none"),
        Some(certificate) => line(
            "Certificate",
            &format!(
                "ends {}, generation {}, serial {}",
                age::until(Some(certificate.not_after.0), now),
                certificate.generation,
                certificate.serial
            ),
        ),
    }
    if let Some(platform) = &status.platform {
        line(
            "Platform",
            &format!(
                "{} {}, host {}, agent {}",
                platform.os, platform.arch, platform.hostname, platform.agent_version
            ),
        );
    }
    for note in attention::notes(device, now) {
        line("Attention", &note);
    }
    text
}

fn section(text: &mut String, title: &str, table: &Table, colours: Colours) {
    text.push('\n');
    text.push_str(title);
    text.push_str(":\n");
    if table.rows.is_empty() {
        text.push_str("  none\n");
        return;
    }
    for line in table.render(colours).lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
}

fn seen_section<K>(
    text: &mut String,
    title: &str,
    seen: &Seen<K>,
    table: impl FnOnce(&[K]) -> Table,
    colours: Colours,
) {
    match seen {
        Ok(items) => section(text, title, &table(items), colours),
        Err(why) => {
            let _ = writeln!(text, "\n{title}:\n  not shown: {}", harmless(why));
        }
    }
}

fn capabilities(device: &Device, status: &DeviceStatus) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "GRANTED",
        "AVAILABLE",
        "EXECUTION",
        "VERSION",
        "DESCRIPTION",
    ]);
    for capability in &status.capabilities {
        let tone = match (capability.granted, capability.availability) {
            (Granted::Pending, _) | (Granted::Granted, Availability::Unavailable) => Tone::Warning,
            (Granted::Granted, Availability::Available) => Tone::Plain,
            (Granted::NotGranted, _) => Tone::Faint,
        };
        table.push(
            tone,
            vec![
                capability.name.clone(),
                format!("{:?}", capability.granted),
                format!("{:?}", capability.availability),
                capability.execution.as_str().to_owned(),
                capability.version.clone().unwrap_or_else(|| "-".to_owned()),
                capability
                    .description
                    .clone()
                    .unwrap_or_else(|| "-".to_owned()),
            ],
        );
    }
    let declared = |name: &String| {
        status
            .capabilities
            .iter()
            .any(|capability| capability.name == *name)
    };
    for name in device
        .spec
        .grants
        .capabilities
        .iter()
        .filter(|name| !declared(name))
    {
        let dash = || "-".to_owned();
        let cells = vec![
            name.clone(),
            "Granted".to_owned(),
            "not declared".to_owned(),
            dash(),
            dash(),
            dash(),
        ];
        table.push(Tone::Faint, cells);
    }
    table
}

/// What each capability takes, as its JSON Schema: the one thing that a caller needs and that a row has no room for.
fn inputs(text: &mut String, status: &DeviceStatus) {
    let mut none = true;
    text.push_str("\nInputs:\n");
    for capability in &status.capabilities {
        let Some(schema) = &capability.input_schema else {
            continue;
        };
        none = false;
        let _ = writeln!(text, "  {}:", harmless(&capability.name));
        // A text that is no JSON is shown as it is.
        let lines = serde_json::from_str(schema)
            .ok()
            .and_then(|schema: Value| serde_saphyr::to_string(&schema).ok())
            .unwrap_or_else(|| schema.clone());
        for line in lines.lines() {
            let _ = writeln!(text, "    {}", harmless(line));
        }
    }
    if none {
        text.push_str("  any JSON: no capability says what it takes\n");
    }
}

fn conditions(status: &DeviceStatus, now: Timestamp) -> Table {
    let mut table = Table::new(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for condition in &status.conditions {
        let tone = if condition.status == "True" {
            Tone::Plain
        } else {
            Tone::Warning
        };
        table.push(
            tone,
            vec![
                condition.type_.clone(),
                condition.status.clone(),
                condition.reason.clone(),
                age::since(Some(condition.last_transition_time.0), now),
                condition.message.clone(),
            ],
        );
    }
    table
}

fn requests(requests: &[PairingRequest], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "PHASE", "BY", "AGE"]);
    for request in requests {
        let status = request.status.clone().unwrap_or_default();
        let by = status.approval.and_then(|decision| decision.decided_by);
        table.push(
            Tone::Plain,
            vec![
                request.name_any(),
                format!("{:?}", status.phase),
                by.unwrap_or_else(|| "-".to_owned()),
                age::since(
                    request
                        .metadata
                        .creation_timestamp
                        .as_ref()
                        .map(|time| time.0),
                    now,
                ),
            ],
        );
    }
    table
}

fn invocations(invocations: &[CapabilityInvocation], now: Timestamp) -> Table {
    let mut newest: Vec<_> = invocations.iter().collect();
    newest.sort_by_key(|invocation| {
        std::cmp::Reverse(
            invocation
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0),
        )
    });
    let mut table = Table::new(&["NAME", "CAPABILITY", "PHASE", "ERROR", "BY", "AGE"]);
    for invocation in newest.into_iter().take(NEWEST) {
        let status = invocation.status.clone().unwrap_or_default();
        let error = status.error.map(|error| format!("{:?}", error.code));
        table.push(
            Tone::Plain,
            vec![
                invocation.name_any(),
                invocation.spec.capability.clone(),
                status.phase.as_str().to_owned(),
                error.unwrap_or_else(|| "-".to_owned()),
                invocation
                    .spec
                    .requested_by
                    .clone()
                    .unwrap_or_else(|| "-".to_owned()),
                age::since(
                    invocation
                        .metadata
                        .creation_timestamp
                        .as_ref()
                        .map(|time| time.0),
                    now,
                ),
            ],
        );
    }
    table
}

fn events(events: &[Event], now: Timestamp) -> Table {
    let at = |event: &Event| {
        let series = event
            .series
            .as_ref()
            .map(|series| series.last_observed_time.0);
        series.or(event.event_time.as_ref().map(|time| time.0))
    };
    let mut newest: Vec<_> = events.iter().collect();
    newest.sort_by_key(|event| std::cmp::Reverse(at(event)));
    let mut table = Table::new(&["LAST", "TYPE", "REASON", "NOTE"]);
    for event in newest.into_iter().take(NEWEST) {
        let tone = if event.type_.as_deref() == Some("Warning") {
            Tone::Warning
        } else {
            Tone::Plain
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.push(
            tone,
            vec![
                age::since(at(event), now),
                text(&event.type_),
                text(&event.reason),
                text(&event.note),
            ],
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_not_be_seen_is_named_and_what_there_is_none_of_is_said() {
        let device: Device = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
            "metadata": {"name": "lamp", "namespace": "kitchen"},
            "spec": {"publicKeySha256": "00".repeat(32), "grants": {"capabilities": ["gone"]}},
            "status": {"capabilities": [{"name": "disk", "granted": "Pending", "description": "x\u{1b}[2J",
                "inputSchema": r#"{"type":"object","required":["path"],"properties":{"path":{"type":"string"}}}"#}]},
        }))
        .unwrap();
        let beside = Beside {
            requests: Err("you may not list pairingrequests".to_owned()),
            invocations: Ok(Vec::new()),
            events: Ok(Vec::new()),
        };
        let text = text(
            &device,
            &beside,
            "2030-01-01T00:00:00Z".parse().unwrap(),
            Colours::Off,
        );
        for part in [
            "Name:         lamp",
            "Key words:    abandon",
            "Attention:    waits for a grant: disk",
            "not shown: you may not list pairingrequests",
            "Invocations:\n  none",
            "not declared",
            "Inputs:\n  disk:\n    properties:\n",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
