//! `invocations`: what runs and what ran, the newest first.

use crds::{
    CapabilityInvocation,
    v1alpha1::capability_invocation::{CapabilityInvocationStatus, InvocationPhase},
};
use jiff::Timestamp;
use kube::ResourceExt;

use super::invoke::follow::progress;
use crate::{
    args::Many as Which,
    clock::now,
    cluster::{Cluster, Select, Span, list, list_trimmed, told},
    exit::Exit,
    show::{
        Many, Shown, age, note, out,
        table::{Table, Tone},
    },
    watching,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Invocations {
    /// Name of a device: only its invocations.
    device: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Only those that have not ended.
    #[arg(long)]
    open: bool,
    /// Only those with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Go on with what changes, until stopped.
    #[arg(short, long)]
    watch: bool,
}

impl Invocations {
    pub async fn run(self, cluster: &Cluster, shown: Shown) -> anyhow::Result<Exit> {
        let span = self.which.span();
        let fields = self
            .device
            .as_ref()
            .map(|device| format!("spec.deviceRef.name={device}"));
        let select = Select {
            fields: fields.as_deref(),
            labels: self.selector.as_deref(),
        };
        let api = || cluster.span(span);
        let as_objects = shown
            .for_programs::<CapabilityInvocation>(&[], Many::List)?
            .is_some();
        let listed = if as_objects {
            list::<CapabilityInvocation>(&api(), select).await
        } else {
            list_trimmed(&api(), select, without_values).await
        }
        .map_err(told)?;
        listed.unreadable.iter().for_each(|line| note(line));
        let wanted = |invocation: &CapabilityInvocation| !self.open || is_open(invocation);
        let mut invocations = listed.objects;
        invocations.retain(wanted);
        newest_first(&mut invocations);
        let columns = Columns {
            span,
            wide: shown.is_wide(),
        };
        let table = columns.table(&invocations, now());
        match shown.for_programs(&invocations, Many::List)? {
            // What is watched is a stream of objects, and no list.
            Some(_) if self.watch => {}
            Some(text) => out(&text)?,
            None if invocations.is_empty() && !self.watch => note("no invocations"),
            None => out(&table.render(shown.colours))?,
        }
        if !self.watch {
            return Ok(Exit::Done);
        }
        let widths = table.widths();
        let row = |invocation: CapabilityInvocation| {
            let table = columns.table(&[invocation], now());
            table.render_below(&widths, shown.colours)
        };
        // One that ends while it is watched is shown with its end.
        let before: Vec<String> = invocations.iter().filter_map(ResourceExt::uid).collect();
        let wanted = |invocation: &CapabilityInvocation| {
            wanted(invocation) || invocation.uid().is_some_and(|uid| before.contains(&uid))
        };
        watching::watch(api(), select, &invocations, shown, wanted, row).await
    }
}

/// Takes the input and the output out of it. A table shows neither, and they can be large.
pub fn without_values(invocation: &mut CapabilityInvocation) {
    invocation.spec.input = None;
    if let Some(status) = &mut invocation.status {
        status.output = None;
    }
}

/// Whether it has not ended.
pub fn is_open(invocation: &CapabilityInvocation) -> bool {
    !phase(invocation).is_terminal()
}

fn phase(invocation: &CapabilityInvocation) -> InvocationPhase {
    invocation
        .status
        .as_ref()
        .map(|status| status.phase)
        .unwrap_or_default()
}

fn newest_first(invocations: &mut [CapabilityInvocation]) {
    invocations.sort_by_cached_key(|invocation| {
        (
            std::cmp::Reverse(created(invocation)),
            invocation.namespace(),
            invocation.name_any(),
        )
    });
}

fn created(invocation: &CapabilityInvocation) -> Option<Timestamp> {
    let created = invocation.metadata.creation_timestamp.as_ref();
    created.map(|time| time.0)
}

/// Which columns there are.
#[derive(Clone, Copy)]
struct Columns {
    span: Span,
    wide: bool,
}

impl Columns {
    fn table(self, invocations: &[CapabilityInvocation], now: Timestamp) -> Table {
        let mut header = vec![
            "NAME",
            "DEVICE",
            "CAPABILITY",
            "STATE",
            "ERROR",
            "BY",
            "AGE",
        ];
        if self.wide {
            header.extend(["TOOK", "GATEWAY", "KEY"]);
        }
        if self.span == Span::All {
            header.insert(0, "NAMESPACE");
        }
        let mut table = Table::new(&header);
        for invocation in invocations {
            table.push(tone(phase(invocation)), self.cells(invocation, now));
        }
        table
    }

    fn cells(self, invocation: &CapabilityInvocation, now: Timestamp) -> Vec<String> {
        let none = CapabilityInvocationStatus::default();
        let (spec, status) = (
            &invocation.spec,
            invocation.status.as_ref().unwrap_or(&none),
        );
        let text = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let state = if status.phase.is_terminal() {
            status.phase.as_str().to_owned()
        } else {
            progress(status)
        };
        let error = status.error.as_ref();
        let created = created(invocation);
        let mut cells = vec![
            invocation.name_any(),
            spec.device_ref.name.clone(),
            spec.capability.clone(),
            state,
            error.map_or_else(|| "-".to_owned(), |error| format!("{:?}", error.code)),
            text(spec.requested_by.as_deref()),
            age::since(created, now),
        ];
        if self.wide {
            let finished = status.finished_at.as_ref().map(|time| time.0);
            let took = finished
                .zip(created)
                .map(|(finished, created)| age::length(finished.duration_since(created)));
            cells.extend([
                text(took.as_deref()),
                text(status.gateway.as_deref()),
                text(spec.idempotency_key.as_deref()),
            ]);
        }
        if self.span == Span::All {
            cells.insert(0, invocation.namespace().unwrap_or_default());
        }
        cells
    }
}

fn tone(phase: InvocationPhase) -> Tone {
    match phase {
        InvocationPhase::Queued
        | InvocationPhase::Dispatched
        | InvocationPhase::AwaitingMediation => Tone::Plain,
        InvocationPhase::Succeeded => Tone::Good,
        InvocationPhase::Cancelled => Tone::Faint,
        InvocationPhase::Refused | InvocationPhase::TimedOut => Tone::Warning,
        InvocationPhase::Failed | InvocationPhase::Unknown => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::terminal::Colours;

    fn invocation(name: &str, created: &str, status: &Value) -> CapabilityInvocation {
        serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "CapabilityInvocation",
            "metadata": {"name": name, "namespace": "kitchen", "creationTimestamp": created},
            "spec": {"deviceRef": {"name": "lamp"}, "capability": "echo", "input": {"a": 1}, "requestedBy": "ada"},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_comes_first_with_how_far_it_is_or_how_it_ended() {
        let mut invocations = vec![
            invocation(
                "old",
                "2030-01-01T11:00:00Z",
                &json!({
                    "phase": "Failed", "error": {"code": "DeviceOffline", "message": "x"},
                    "finishedAt": "2030-01-01T11:00:30Z", "gateway": "gateway-0",
                }),
            ),
            invocation(
                "new",
                "2030-01-01T11:59:50Z",
                &json!({"phase": "Dispatched", "progress": {"percent": 40}}),
            ),
        ];
        newest_first(&mut invocations);
        let render = |wide| {
            let columns = Columns {
                span: Span::One,
                wide,
            };
            let now = "2030-01-01T12:00:00Z".parse().unwrap();
            columns.table(&invocations, now).render(Colours::Off)
        };
        let text = render(false);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[1].starts_with("new    lamp     echo         Dispatched 40%   -"),
            "{text}"
        );
        assert!(lines[2].contains("DeviceOffline   ada   60m"), "{text}");
        assert!(
            render(true).contains("30s    gateway-0"),
            "{}",
            render(true)
        );
        assert_eq!(invocations.iter().filter(|one| is_open(one)).count(), 1);
    }

    #[test]
    fn what_no_table_shows_is_not_kept() {
        let mut one = invocation(
            "a",
            "2030-01-01T11:00:00Z",
            &json!({"phase": "Succeeded", "output": [1]}),
        );
        without_values(&mut one);
        assert_eq!((one.spec.input, one.status.unwrap().output), (None, None));
    }
}
