//! How an invocation ended, for a person, for the next program, and in one line of several.

use anyhow::Context as _;
use crds::{
    CapabilityInvocation,
    v1alpha1::capability_invocation::{CapabilityInvocationStatus, InvocationPhase},
};
use kube::ResourceExt as _;
use serde_json::Value;

use crate::{
    cluster::Cluster,
    commands::artifact::Console,
    exit::Exit,
    remedies::remedy,
    show::{Format, Many, Shown, harmless, note, out},
};

/// Most characters of an output in a line.
const MAX_TEXT: usize = 160;

/// Shows what came of it. An output in the gateways' store is fetched where the caller wants the output alone.
pub async fn show(
    cluster: &Cluster,
    console: &Console,
    ended: &CapabilityInvocation,
    shown: Shown,
) -> anyhow::Result<Exit> {
    let status = ended.status.clone().unwrap_or_default();
    let name = ended.name_any();
    note(&in_words(ended, &status));
    if let Some(text) = shown.for_programs(std::slice::from_ref(ended), Many::One)? {
        out(&text)?;
    } else if let Some(text) = output(&status, shown.format)? {
        out(&text)?;
    } else if status.artefact.is_some() && shown.format == Some(Format::Raw) {
        // Exit code 0 and no output would tell the next program that the capability answered nothing.
        console.to_stdout(cluster, &name).await.with_context(|| {
            format!("{name} succeeded, and its output, an artifact, could not be fetched")
        })?;
    }
    Ok(Exit::of(status.phase))
}

/// The output of a success that is in the resource; `None` where there is none to show.
fn output(
    status: &CapabilityInvocationStatus,
    format: Option<Format>,
) -> anyhow::Result<Option<String>> {
    match &status.output {
        Some(output) => Ok(Some(output_text(output, format)?)),
        // An answer of `null` reads back as an absent one.
        None if status.phase == InvocationPhase::Succeeded && status.artefact.is_none() => {
            Ok(Some(output_text(&Value::Null, format)?))
        }
        None => Ok(None),
    }
}

/// How it ended, in words.
fn in_words(invocation: &CapabilityInvocation, status: &CapabilityInvocationStatus) -> String {
    let name = invocation.name_any();
    let mut lines = vec![format!("{name} {}", status.phase.as_str())];
    if let Some(mediation) = &status.mediation {
        let reason = mediation.reason.as_deref().unwrap_or("no reason given");
        lines.push(format!(
            "by {}: {}",
            harmless(&mediation.by),
            harmless(reason)
        ));
    }
    if let Some(error) = &status.error {
        let spec = &invocation.spec;
        lines.push(format!("{:?}: {}", error.code, harmless(&error.message)));
        lines.push(remedy(error.code, &spec.device_ref.name, &spec.capability));
    }
    if let Some(artefact) = &status.artefact {
        lines.push(format!(
            "the output has {} bytes: kubectl fairlead artifact get {name}",
            artefact.size_bytes
        ));
    }
    if let Some(other) = &status.duplicate_of {
        lines.push(format!("the same key was used before, by {other}"));
    }
    lines.join("\n")
}

/// How it ended, after the phase, in one line of several.
pub fn in_a_line(status: &CapabilityInvocationStatus) -> String {
    let text = match (&status.error, &status.artefact, &status.output) {
        (Some(error), _, _) => format!("{:?}: {}", error.code, error.message),
        (None, Some(artefact), _) => format!("an artifact of {} bytes", artefact.size_bytes),
        (None, None, Some(output)) => output.to_string(),
        (None, None, None) => "null".to_owned(),
    };
    let mut short: String = harmless(&text).chars().take(MAX_TEXT).collect();
    if short.len() < text.len() && text.chars().count() > MAX_TEXT {
        short.push('…');
    }
    short
}

/// The output for a person, or as it is: a text by itself, anything else as JSON without white space.
fn output_text(output: &Value, format: Option<Format>) -> anyhow::Result<String> {
    Ok(match (format, output) {
        (Some(Format::Raw), Value::String(text)) => text.clone(),
        (Some(Format::Raw), output) => serde_json::to_string(output)? + "\n",
        (_, output) => serde_json::to_string_pretty(output)? + "\n",
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(status: Value) -> (CapabilityInvocation, CapabilityInvocationStatus) {
        let invocation = serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "CapabilityInvocation",
            "metadata": {"name": "inv-1"}, "spec": {"deviceRef": {"name": "lamp"}, "capability": "x"},
        }))
        .unwrap();
        (invocation, serde_json::from_value(status).unwrap())
    }

    #[test]
    fn an_end_says_why_and_what_can_be_typed() {
        let (invocation, status) = ended(json!({
            "phase": "Failed", "error": {"code": "DeviceOffline", "message": "no stream\u{1b}[2J"},
        }));
        let text = in_words(&invocation, &status);
        assert!(
            text.starts_with("inv-1 Failed\nDeviceOffline: no stream"),
            "{text}"
        );
        assert!(text.contains("--queue SECONDS"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_raw_output_is_what_the_capability_answered_and_nothing_else() {
        let raw = |value: &Value| output_text(value, Some(Format::Raw)).unwrap();
        assert_eq!(raw(&json!("text")), "text");
        assert_eq!(raw(&json!({"a": 1})), "{\"a\":1}\n");
        assert_eq!(
            output_text(&json!({"a": 1}), None).unwrap(),
            "{\n  \"a\": 1\n}\n"
        );
    }

    #[test]
    fn a_success_without_output_answered_null_and_a_failure_answered_nothing() {
        let of = |status: Value| output(&ended(status).1, Some(Format::Raw)).unwrap();
        assert_eq!(of(json!({"phase": "Succeeded"})).as_deref(), Some("null\n"));
        assert_eq!(
            of(json!({"phase": "Succeeded", "output": null})).as_deref(),
            Some("null\n")
        );
        assert_eq!(of(json!({"phase": "Failed"})), None);
        let artefact = json!({"key": "k", "sizeBytes": 3, "sha256": "ab".repeat(32)});
        assert_eq!(
            of(json!({"phase": "Succeeded", "artefact": artefact})),
            None
        );
    }

    #[test]
    fn a_line_of_several_stays_one_line_and_short() {
        let (_, status) = ended(json!({"phase": "Succeeded", "output": "a\n".repeat(500)}));
        let line = in_a_line(&status);
        assert!(
            line.ends_with('…') && line.chars().count() == MAX_TEXT + 1,
            "{line}"
        );
        let (_, status) =
            ended(json!({"phase": "Failed", "error": {"code": "Refused", "message": "no\nway"}}));
        assert_eq!(in_a_line(&status), "Refused: no\u{fffd}way");
    }
}
