//! `pending`: what waits for a decision.

use crds::PairingRequest;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::request::words_of;
use crate::{
    clock::now,
    cluster::{Cluster, Select, Span, list, told},
    exit::Exit,
    show::{
        Many, Shown, age, note, out,
        table::{Table, Tone},
    },
};

/// Shows the requests that wait, the oldest first.
pub async fn run(cluster: &Cluster, span: Span, shown: Shown) -> anyhow::Result<Exit> {
    let listed =
        list::<PairingRequest>(&cluster.span(span), Select::fields("status.phase=Pending"))
            .await
            .map_err(told)?;
    listed.unreadable.iter().for_each(|line| note(line));
    let mut requests = listed.objects;
    requests.sort_by_key(|request| {
        request
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0)
    });
    if let Some(text) = shown.for_programs(&requests, Many::List)? {
        out(&text)?;
        return Ok(Exit::Done);
    }
    if requests.is_empty() {
        note("nothing waits for a decision");
        return Ok(Exit::Done);
    }
    out(&table(&requests, span, shown.is_wide(), now()).render(shown.colours))?;
    Ok(Exit::Done)
}

fn table(requests: &[PairingRequest], span: Span, wide: bool, now: Timestamp) -> Table {
    let mut header = vec![
        "NAME",
        "REQUESTED",
        "HOST",
        "FROM",
        "WORDS",
        "EXPIRES",
        "AGE",
    ];
    if wide {
        header.extend(["PLATFORM", "METHOD", "CODE", "KEY"]);
    }
    if span == Span::All {
        header.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(&header);
    for request in requests {
        let spec = &request.spec;
        let text = |text: Option<&str>| {
            text.filter(|text| !text.is_empty())
                .unwrap_or("-")
                .to_owned()
        };
        let mut cells = vec![
            request.name_any(),
            text(Some(&spec.requested_name)),
            text(Some(&spec.platform.hostname)),
            text(
                spec.source
                    .as_ref()
                    .map(|source| source.remote_address.as_str()),
            ),
            words_of(request),
            age::until(spec.expires_at.as_ref().map(|time| time.0), now),
            age::since(
                request
                    .metadata
                    .creation_timestamp
                    .as_ref()
                    .map(|time| time.0),
                now,
            ),
        ];
        if wide {
            cells.extend([
                format!("{} {}", spec.platform.os, spec.platform.arch),
                format!("{:?}", spec.method),
                text(
                    spec.pairing_code_ref
                        .as_ref()
                        .map(|code| code.name.as_str()),
                ),
                text(spec.public_key_sha256.as_deref()),
            ]);
        }
        if span == Span::All {
            cells.insert(0, request.namespace().unwrap_or_default());
        }
        table.push(Tone::Warning, cells);
    }
    table
}
