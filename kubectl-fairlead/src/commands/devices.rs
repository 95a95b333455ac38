//! `devices`: those that need somebody first; with `--watch`, every change after that.

use crds::{Device, v1alpha1::device::DeviceStatus};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::request::words;
use crate::{
    args::Many as Which,
    attention,
    clock::now,
    cluster::{Cluster, Select, Span, list, told},
    exit::Exit,
    show::{Many, Shown, age, note, out, table::Table},
    watching,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Devices {
    #[command(flatten)]
    which: Which,
    /// Only those with these labels, for example `site=harbour,!spare`.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Go on with what changes, until stopped.
    #[arg(short, long)]
    watch: bool,
}

impl Devices {
    pub async fn run(self, cluster: &Cluster, shown: Shown) -> anyhow::Result<Exit> {
        let span = self.which.span();
        let select = Select {
            labels: self.selector.as_deref(),
            ..Select::default()
        };
        let listed = list::<Device>(&cluster.span(span), select)
            .await
            .map_err(told)?;
        listed.unreadable.iter().for_each(|line| note(line));
        let mut devices = listed.objects;
        attention::sort(&mut devices);
        let columns = Columns {
            span,
            wide: shown.is_wide(),
        };
        let table = columns.table(&devices, now());
        match shown.for_programs(&devices, Many::List)? {
            // What is watched is a stream of objects, and no list.
            Some(_) if self.watch => {}
            Some(text) => out(&text)?,
            None if devices.is_empty() && !self.watch => note("no devices"),
            None => out(&table.render(shown.colours))?,
        }
        if self.watch {
            let widths = table.widths();
            let row = |device: Device| {
                let table = columns.table(&[device], now());
                table.render_below(&widths, shown.colours)
            };
            return watching::watch(cluster.span(span), select, &devices, shown, |_| true, row)
                .await;
        }
        Ok(Exit::Done)
    }
}

/// Which columns there are.
#[derive(Clone, Copy)]
struct Columns {
    span: Span,
    wide: bool,
}

impl Columns {
    fn table(self, devices: &[Device], now: Timestamp) -> Table {
        let mut header = vec![
            "NAME",
            "PRESENCE",
            "TRUST",
            "HOST",
            "SEEN",
            "GRANTED",
            "ATTENTION",
            "AGE",
        ];
        if self.wide {
            header.extend(["KIND", "GATEWAY", "CERTIFICATE", "AGENT", "WORDS"]);
        }
        if self.span == Span::All {
            header.insert(0, "NAMESPACE");
        }
        let mut table = Table::new(&header);
        for device in devices {
            let notes = attention::notes(device, now);
            table.push(
                attention::tone(device, &notes),
                self.cells(device, &notes, now),
            );
        }
        table
    }

    fn cells(self, device: &Device, notes: &[String], now: Timestamp) -> Vec<String> {
        let none = DeviceStatus::default();
        let status = device.status.as_ref().unwrap_or(&none);
        let platform = status.platform.as_ref();
        let text = |text: Option<&str>| {
            text.filter(|text| !text.is_empty())
                .unwrap_or("-")
                .to_owned()
        };
        let mut cells = vec![
            device.name_any(),
            format!("{:?}", attention::presence(device)),
            status
                .trust
                .map_or_else(|| "-".to_owned(), |trust| format!("{trust:?}")),
            text(platform.map(|platform| platform.hostname.as_str())),
            seen(status, now),
            granted(status),
            if notes.is_empty() {
                "-".to_owned()
            } else {
                notes.join("; ")
            },
            age::since(
                device
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map(|time| time.0),
                now,
            ),
        ];
        if self.wide {
            let end = status
                .certificate
                .as_ref()
                .map(|certificate| certificate.not_after.0);
            cells.extend([
                format!("{:?}", device.spec.client_kind),
                text(
                    status
                        .session
                        .as_ref()
                        .map(|session| session.gateway.as_str()),
                ),
                age::until(end, now),
                text(platform.map(|platform| platform.agent_version.as_str())),
                text(words(&device.spec.public_key_sha256).as_deref()),
            ]);
        }
        if self.span == Span::All {
            cells.insert(0, device.namespace().unwrap_or_default());
        }
        cells
    }
}

/// `now` while it holds a stream: `lastSeen` is when that began.
fn seen(status: &DeviceStatus, now: Timestamp) -> String {
    let ended = status
        .session
        .as_ref()
        .and_then(|session| session.ended_at.as_ref());
    let last = ended.or(status.last_seen.as_ref()).map(|time| time.0);
    match status.presence {
        Some(crds::v1alpha1::device::Presence::Online) => "now".to_owned(),
        _ if last.is_some() => format!("{} ago", age::since(last, now)),
        _ => "never".to_owned(),
    }
}

fn granted(status: &DeviceStatus) -> String {
    status.capability_counts.map_or_else(
        || "-".to_owned(),
        |counts| {
            let waiting = if counts.pending > 0 {
                format!(" ({} wait)", counts.pending)
            } else {
                String::new()
            };
            format!("{}/{}{waiting}", counts.granted, counts.declared)
        },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::terminal::Colours;

    fn devices() -> Vec<Device> {
        let device = |namespace: &str, name: &str, presence: &str| {
            serde_json::from_value(json!({
                "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device",
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2030-01-01T00:00:00Z"},
                "spec": {"publicKeySha256": "00".repeat(32)},
                "status": {
                    "presence": presence, "trust": "Trusted", "lastSeen": "2030-01-01T11:00:00Z",
                    "platform": {"os": "linux", "arch": "arm64", "agentVersion": "1.2", "hostname": "vm"},
                    "session": {"gateway": "gateway-0", "epoch": 1},
                    "capabilityCounts": {"declared": 3, "granted": 2, "pending": 1},
                    "certificate": {
                        "serial": "01", "fingerprint": "cd".repeat(32), "generation": 1,
                        "notBefore": "2030-01-01T06:00:00Z", "notAfter": "2030-01-02T06:00:00Z",
                    },
                },
            }))
            .unwrap()
        };
        vec![
            device("a", "lamp", "Online"),
            device("b", "kiosk-7", "Stale"),
        ]
    }

    fn rendered(span: Span, wide: bool) -> String {
        let now = "2030-01-01T12:00:00Z".parse().unwrap();
        Columns { span, wide }
            .table(&devices(), now)
            .render(Colours::Off)
    }

    #[test]
    fn a_row_says_whether_somebody_is_needed() {
        let text = rendered(Span::One, false);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].starts_with("NAME      PRESENCE   TRUST     HOST   SEEN"),
            "{text}"
        );
        assert!(
            lines[1].contains("Online     Trusted   vm     now"),
            "{text}"
        );
        assert!(lines[1].contains("2/3 (1 wait)"), "{text}");
        assert!(lines[2].contains("60m ago"), "{text}");
    }

    #[test]
    fn more_columns_where_they_are_asked_for() {
        let text = rendered(Span::All, true);
        assert!(text.starts_with("NAMESPACE   NAME"), "{text}");
        for part in ["GATEWAY", "gateway-0", "in 18h", "1.2", "abandon"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!rendered(Span::One, false).contains("abandon"));
    }
}
