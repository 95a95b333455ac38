//! `invoke`: runs a capability, tells on standard error how it goes, and ends as it ends.

use std::{io::Read as _, path::PathBuf, pin::pin, time::Duration};

use anyhow::{Context as _, bail};
use crds::{
    CapabilityInvocation, Guarded,
    names::MAX_INPUT_BYTES,
    v1alpha1::{
        CapabilityInvocationSpec, ObjectReference,
        capability_invocation::{CapabilityInvocationStatus, InvocationPhase, WhenOffline},
    },
};
use futures::TryStreamExt as _;
use kube::{
    Api, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    cluster::{Cluster, forbids_watch, told},
    exit::Exit,
    show::{Format, Many, Shown, harmless, note, out},
    terminal::Interrupts,
};

/// Most bytes that are read of an input: white space goes, and what is left must fit.
const MAX_FILE: u64 = 4 * MAX_INPUT_BYTES as u64;
/// How long the API server may take to make an invocation.
const MAKE: Duration = Duration::from_secs(30);
/// The cluster writes an end by itself so long after the deadline, where nobody else does.
const AFTER_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, clap::Args)]
pub struct Invoke {
    /// Name of the device.
    device: String,
    /// Name of the capability.
    capability: String,
    /// What the capability is given, as JSON; `-` reads it from standard input.
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    input: Option<String>,
    /// The same, out of a file; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Wait for the end.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    wait: bool,
    /// How long it may take, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..=3600))]
    timeout: i64,
    /// Where the device is not there, wait for it for so long, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(1..=604_800))]
    queue: Option<i64>,
    /// Two invocations with the same key are done once.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl Invoke {
    pub async fn run(self, cluster: &Cluster, shown: Shown) -> anyhow::Result<Exit> {
        let input = self.read_input()?;
        let user = cluster.user().await?;
        // From before it is made: what is pressed meanwhile cancels it, too.
        let interrupts = Interrupts::listen()?;
        let invocations: Api<CapabilityInvocation> = cluster.api();
        let object = self.object(input, user);
        let made = timeout(MAKE, invocations.create(&PostParams::default(), &object))
            .await
            .context("the API server has not answered, and it may have been made: kubectl get inv")?
            .map_err(told)
            .with_context(|| format!("run {} on {}", self.capability, self.device))?;
        let name = made.name_any();
        note(&format!("{name} is made"));
        if !self.wait {
            match shown.for_programs(std::slice::from_ref(&made), Many::One)? {
                Some(text) => out(&text)?,
                None => out(&format!("capabilityinvocation.fairlead.dev/{name}\n"))?,
            }
            return Ok(Exit::Done);
        }
        let patience = Duration::from_secs((self.timeout + self.queue.unwrap_or(0)).unsigned_abs());
        match follow(cluster, &name, patience + AFTER_DEADLINE, interrupts).await? {
            Followed::Ended(ended) => finish(&ended, shown),
            Followed::Open => {
                note(&format!("{name} goes on: kubectl get inv {name}"));
                Ok(Exit::StillOpen)
            }
            Followed::Left => Ok(Exit::Interrupted),
        }
    }

    fn object(&self, input: Option<Value>, user: String) -> CapabilityInvocation {
        let mut spec: CapabilityInvocationSpec = CapabilityInvocationSpec {
            device_ref: ObjectReference::new(&self.device),
            capability: self.capability.clone(),
            input,
            timeout_seconds: self.timeout,
            idempotency_key: self.key.clone(),
            max_output_bytes: 65536,
            ttl_seconds_after_finished: 3600,
            // The API server stamps it, or demands that it is true.
            requested_by: Some(user),
            ..CapabilityInvocationSpec::default()
        };
        if let Some(seconds) = self.queue {
            spec.when_offline = WhenOffline::Queue;
            spec.queue_seconds = Some(seconds);
        }
        CapabilityInvocation {
            metadata: ObjectMeta {
                generate_name: Some("inv-".to_owned()),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        }
    }

    fn read_input(&self) -> anyhow::Result<Option<Value>> {
        let text = match (self.input.as_deref(), self.file.as_deref()) {
            (None, None) => return Ok(None),
            (Some("-"), _) => bounded(std::io::stdin().lock()).context("read standard input")?,
            (Some(text), _) => text.to_owned(),
            (None, Some(path)) if path.as_os_str() == "-" => {
                bounded(std::io::stdin().lock()).context("read standard input")?
            }
            (None, Some(path)) => {
                let file = std::fs::File::open(path)
                    .with_context(|| format!("open {}", path.display()))?;
                bounded(file).with_context(|| format!("read {}", path.display()))?
            }
        };
        let value: Value = serde_json::from_str(&text).context("the input is no JSON")?;
        let bytes = serde_json::to_vec(&value)?.len();
        if bytes > MAX_INPUT_BYTES {
            bail!(
                "the input has {bytes} bytes, and {MAX_INPUT_BYTES} at most are taken: give less, or a reference"
            );
        }
        Ok(Some(value))
    }
}

fn bounded(from: impl std::io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = from.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        bail!("it is larger than {MAX_FILE} bytes: give less, or a reference");
    }
    Ok(text)
}

enum Followed {
    Ended(Box<CapabilityInvocation>),
    /// The time to wait is over.
    Open,
    /// The person has left.
    Left,
}

/// Tells how it goes until it has ended. The first Ctrl-C cancels it and waits for what became of it; the second leaves.
async fn follow(
    cluster: &Cluster,
    name: &str,
    patience: Duration,
    mut interrupts: Interrupts,
) -> anyhow::Result<Followed> {
    let end = Instant::now() + patience;
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let changes = watcher(cluster.api::<Guarded<CapabilityInvocation>>(), config);
    let mut changes = pin!(changes.default_backoff().applied_objects());
    let mut told_last = String::new();
    let mut cancelled = false;
    loop {
        let change = tokio::select! {
            change = changes.try_next() => change,
            () = sleep_until(end) => return Ok(Followed::Open),
            () = interrupts.next() => {
                if cancelled {
                    return Ok(Followed::Left);
                }
                cancelled = true;
                note("cancelling; Ctrl-C again leaves it alone");
                tokio::select! {
                    () = cancel(cluster, name) => continue,
                    () = interrupts.next() => return Ok(Followed::Left),
                }
            }
        };
        match change {
            Ok(Some(Guarded(Ok(invocation)))) => {
                let status = invocation.status.clone().unwrap_or_default();
                if status.phase.is_terminal() {
                    return Ok(Followed::Ended(Box::new(invocation)));
                }
                let line = progress(&status);
                if line != told_last {
                    note(&line);
                    told_last = line;
                }
            }
            Ok(Some(Guarded(Err(invalid)))) => bail!("{name} cannot be read: {invalid}"),
            Ok(None) => return Ok(Followed::Open),
            Err(error) => {
                if let Some(error) = forbids_watch(error) {
                    return Err(error)
                        .with_context(|| format!("{name} was made, but cannot be followed"));
                }
            }
        }
    }
}

async fn cancel(cluster: &Cluster, name: &str) {
    let patch = Patch::Merge(json!({ "spec": { "cancel": "Requested" } }));
    let invocations: Api<CapabilityInvocation> = cluster.api();
    let patched = invocations
        .patch(name, &PatchParams::default(), &patch)
        .await;
    if let Err(error) = patched {
        note(&format!("{name} could not be cancelled: {:#}", told(error)));
    }
}

fn progress(status: &CapabilityInvocationStatus) -> String {
    let phase = if status.phase == InvocationPhase::AwaitingMediation {
        "waiting for the person at the device"
    } else {
        status.phase.as_str()
    };
    match &status.progress {
        None => phase.to_owned(),
        Some(progress) => {
            let message = progress
                .message
                .as_deref()
                .map(|text| format!(" {}", harmless(text)));
            format!(
                "{phase} {}%{}",
                progress.percent,
                message.unwrap_or_default()
            )
        }
    }
}

/// Shows what came of it.
fn finish(ended: &CapabilityInvocation, shown: Shown) -> anyhow::Result<Exit> {
    let status = ended.status.clone().unwrap_or_default();
    note(&outcome(&ended.name_any(), &status));
    match shown.for_programs(std::slice::from_ref(ended), Many::One)? {
        Some(text) => out(&text)?,
        None => {
            if let Some(output) = &status.output {
                out(&output_text(output, shown.format)?)?;
            }
        }
    }
    Ok(Exit::of(status.phase))
}

/// How it ended, in words.
fn outcome(name: &str, status: &CapabilityInvocationStatus) -> String {
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
        lines.push(format!("{:?}: {}", error.code, harmless(&error.message)));
        lines.push(error.code.remedy().to_owned());
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
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn parsed(line: &str) -> Invoke {
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        let Command::Invoke(invoke) = args.command else {
            panic!("it is invoke")
        };
        invoke
    }

    #[test]
    fn what_is_typed_is_what_is_asked_for() {
        let invoke = parsed(
            "k invoke lamp disk.clean --input {\"a\":1} --timeout 5 --queue 60 --key k1 --wait=false",
        );
        let input = invoke.read_input().unwrap();
        let object = invoke.object(input, "ada".to_owned());
        assert_eq!(object.spec.device_ref.name, "lamp");
        assert_eq!(object.spec.input, Some(json!({"a": 1})));
        assert_eq!(object.spec.timeout_seconds, 5);
        assert_eq!(
            (object.spec.when_offline, object.spec.queue_seconds),
            (WhenOffline::Queue, Some(60))
        );
        assert_eq!(object.spec.requested_by.as_deref(), Some("ada"));
        assert!(!invoke.wait);
        assert!(parsed("k invoke lamp x").wait);
        assert!(parsed("k invoke lamp x --wait").wait);
    }

    #[test]
    fn what_is_not_said_is_what_the_resource_has_by_itself() {
        let object = parsed("k invoke lamp x").object(None, "ada".to_owned());
        let defaults: CapabilityInvocationSpec = serde_json::from_value(json!({
            "deviceRef": {"name": "lamp"}, "capability": "x", "requestedBy": "ada",
        }))
        .unwrap();
        assert_eq!(object.spec, defaults);
    }

    #[test]
    fn an_input_that_is_no_json_or_too_large_is_refused_before_anything_is_made() {
        let mut invoke = parsed("k invoke lamp x --input {");
        assert!(invoke.read_input().is_err());
        invoke.input = Some(format!("\"{}\"", "x".repeat(MAX_INPUT_BYTES)));
        let error = invoke.read_input().unwrap_err();
        assert!(error.to_string().contains("at most"), "{error}");
        invoke.input = Some(format!("{}1", " ".repeat(MAX_INPUT_BYTES)));
        assert!(invoke.read_input().is_ok(), "white space does not count");
    }

    #[test]
    fn an_end_says_why_and_what_can_be_done() {
        let status: CapabilityInvocationStatus = serde_json::from_value(json!({
            "phase": "Failed", "error": {"code": "DeviceOffline", "message": "no stream\u{1b}[2J"},
        }))
        .unwrap();
        let text = outcome("inv-1", &status);
        assert!(
            text.starts_with("inv-1 Failed\nDeviceOffline: no stream"),
            "{text}"
        );
        assert!(text.contains("whenOffline: Queue"), "{text}");
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
    fn how_it_goes_is_told_in_a_line() {
        let status =
            |value: Value| serde_json::from_value::<CapabilityInvocationStatus>(value).unwrap();
        assert_eq!(progress(&status(json!({"phase": "Queued"}))), "Queued");
        let running = status(
            json!({"phase": "Dispatched", "progress": {"percent": 40, "message": "copying"}}),
        );
        assert_eq!(progress(&running), "Dispatched 40% copying");
        assert!(progress(&status(json!({"phase": "AwaitingMediation"}))).contains("person"));
    }
}
