//! Waits for the end of an invocation, says how it goes, and cancels it on Ctrl-C.

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, bail};
use crds::{
    CapabilityInvocation, Guarded,
    v1alpha1::capability_invocation::{CapabilityInvocationStatus, InvocationPhase},
};
use futures::TryStreamExt as _;
use kube::{
    Api,
    api::Patch,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::{
    cluster::{Cluster, forbids_watch, patching, told},
    show::{harmless, note},
    terminal::Presses,
};

/// What became of the waiting.
pub enum Followed {
    Ended(Box<CapabilityInvocation>),
    /// The time to wait is over.
    Open,
    /// The person has left.
    Left,
}

/// Waits until it has ended. `tell` is given a line whenever it has come further. The first Ctrl-C cancels it and waits
/// for its end; the second leaves.
pub async fn follow(
    cluster: &Cluster,
    name: &str,
    patience: Duration,
    mut presses: Presses,
    tell: impl Fn(&str),
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
            () = presses.reach(if cancelled { 2 } else { 1 }) => {
                if cancelled {
                    return Ok(Followed::Left);
                }
                cancelled = true;
                tokio::select! {
                    asked = cancel(cluster, name) => {
                        if let Err(error) = asked {
                            note(&format!("{name} could not be cancelled: {error:#}"));
                        }
                        continue;
                    }
                    () = presses.reach(2) => return Ok(Followed::Left),
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
                    tell(&line);
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

/// Asks for it to be stopped.
pub async fn cancel(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({ "spec": { "cancel": "Requested" } }));
    let invocations: Api<CapabilityInvocation> = cluster.api();
    invocations
        .patch(name, &patching(), &patch)
        .await
        .map(drop)
        .map_err(told)
}

/// How far it is, in a line.
pub fn progress(status: &CapabilityInvocationStatus) -> String {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
