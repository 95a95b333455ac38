//! Shows what changes, until stopped.
#![expect(clippy::print_stdout, reason = "what is printed is what was asked for")]

mod connect;

use clap::Parser;
use client::api::{event::ConsoleEvent, query::ScopeQuery};
use futures::TryStreamExt as _;

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    connect: connect::Connect,
    /// One namespace; without it, all of them.
    #[arg(long)]
    namespace: Option<String>,
    /// Go on after the event with this id.
    #[arg(long)]
    after: Option<String>,
    /// Stop after so many events.
    #[arg(long)]
    count: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = args.connect.client().await?;
    let scope = ScopeQuery {
        namespace: args.namespace,
    };
    let mut events = client.events_after(&scope, args.after.as_deref());
    let mut left = args.count.unwrap_or(usize::MAX);
    while left > 0
        && let Some(received) = events.try_next().await?
    {
        left -= 1;
        let about = match &received.event {
            ConsoleEvent::DeviceChanged(device) => device.id.to_string(),
            ConsoleEvent::InvocationChanged(invocation) => {
                format!("{} {}", invocation.id, invocation.phase)
            }
            ConsoleEvent::PairingChanged(request) => format!("{} {}", request.id, request.phase),
            ConsoleEvent::DeviceDeleted(gone)
            | ConsoleEvent::InvocationDeleted(gone)
            | ConsoleEvent::PairingDeleted(gone) => gone.id.to_string(),
            // After a resync, a program that shows the inventory reads it again.
            ConsoleEvent::Hello | ConsoleEvent::Resync | ConsoleEvent::Denied => String::new(),
        };
        let id = received.id.as_deref().unwrap_or("-");
        println!("{id} {} {about}", received.event.name());
    }
    Ok(())
}
