//! Makes a pairing code, waits for a device that proves it, shows what it says, and approves it once a person says so.
#![expect(
    clippy::print_stdout,
    reason = "what is printed is for the person who pairs"
)]

mod connect;

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use client::{
    ControlPlaneClient,
    api::{
        ObjectId,
        event::ConsoleEvent,
        pairing::{Approve, NewCode, RequestDetail, RequestPhase},
        query::{RequestsQuery, ScopeQuery},
    },
};
use futures::TryStreamExt as _;

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    connect: connect::Connect,
    /// Where the device will be.
    #[arg(long)]
    namespace: String,
    /// What it will be called, instead of what it asks for.
    #[arg(long)]
    name: Option<String>,
    /// Approve without asking: for tests, where nobody is there to compare anything.
    #[arg(long)]
    yes: bool,
    /// Seconds to wait for the device.
    #[arg(long, default_value_t = 600)]
    timeout: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = args.connect.client().await?;
    let code = client
        .create_code(&NewCode {
            namespace: args.namespace.clone(),
            ttl_seconds: Some(args.timeout.clamp(30, 86400).into()),
            ..NewCode::default()
        })
        .await?
        .id;
    let material = client.wait_for_code(&code, Duration::from_secs(30)).await?;
    println!("PIN {}\nURI {}", material.pin, material.uri);

    let patience = Duration::from_secs(args.timeout.into());
    let request = tokio::time::timeout(patience, arrival(&client, &args.namespace, &code))
        .await
        .context("no device came in time")??;
    let shown = &request.request;
    println!(
        "{} asks to be {}",
        shown.platform.hostname, shown.requested_name
    );
    println!("its key: {}", request.key_words.join(" "));
    if !args.yes && !agrees()? {
        bail!("not approved: it waits until its time is over");
    }
    let approve = Approve {
        spec_digest: request.spec_digest.clone(),
        device_name: args.name,
        grants: None,
        reason: None,
    };
    client.approve(&shown.id, &approve).await?;
    println!("approved {}", shown.id);
    let device = issued(&client, &shown.id).await?;
    println!("device {device}");
    Ok(())
}

/// The request of the device that proves the code. Listens first and looks then, so that none is missed.
async fn arrival(
    client: &ControlPlaneClient,
    namespace: &str,
    code: &ObjectId,
) -> anyhow::Result<RequestDetail> {
    let scope = ScopeQuery {
        namespace: Some(namespace.to_owned()),
    };
    let mut events = client.events(&scope);
    while let Some(received) = events.try_next().await? {
        let candidates = match received.event {
            ConsoleEvent::PairingChanged(request) => vec![request.id],
            ConsoleEvent::Hello | ConsoleEvent::Resync => {
                let query = RequestsQuery {
                    namespace: Some(namespace.to_owned()),
                    phase: Some(RequestPhase::Pending),
                    ..RequestsQuery::default()
                };
                let page = client.requests(&query).await?;
                page.requests
                    .into_iter()
                    .map(|request| request.id)
                    .collect()
            }
            ConsoleEvent::Denied => bail!("the right to see requests is gone"),
            ConsoleEvent::DeviceChanged(_)
            | ConsoleEvent::DeviceDeleted(_)
            | ConsoleEvent::InvocationChanged(_)
            | ConsoleEvent::InvocationDeleted(_)
            | ConsoleEvent::PairingDeleted(_) => Vec::new(),
        };
        for id in candidates {
            let request = client.request(&id).await?;
            if request.code.as_ref() == Some(code) && request.request.phase == RequestPhase::Pending
            {
                return Ok(request);
            }
        }
    }
    bail!("the stream of changes ended")
}

/// The Device that comes of an approved request, within half a minute.
async fn issued(client: &ControlPlaneClient, request: &ObjectId) -> anyhow::Result<ObjectId> {
    for _ in 0..100 {
        let found = client.request(request).await?.request;
        match found.phase {
            RequestPhase::Issued => {
                return found.device.context("an issued request names its device");
            }
            RequestPhase::Pending | RequestPhase::Approved | RequestPhase::Other => {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            RequestPhase::Denied | RequestPhase::Expired | RequestPhase::Failed => {
                bail!("the request is {}", found.phase)
            }
        }
    }
    bail!("no certificate was issued in time: does the operator run?")
}

fn agrees() -> anyhow::Result<bool> {
    println!("The same words at the device? [y/N]");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
