//! Shows every device, those that need attention first, and what waits for a decision.
#![expect(clippy::print_stdout, reason = "what is printed is what was asked for")]

mod connect;

use clap::Parser;
use client::api::query::InventoryQuery;
use futures::TryStreamExt as _;

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    connect: connect::Connect,
    /// One namespace; without it, all of them.
    #[arg(long)]
    namespace: Option<String>,
    /// A part of the id, the display name or the host name.
    #[arg(long)]
    text: Option<String>,
    /// Devices on a page.
    #[arg(long)]
    limit: Option<u32>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = args.connect.client().await?;
    let query = InventoryQuery {
        namespace: args.namespace,
        text: args.text,
        limit: args.limit,
        ..InventoryQuery::default()
    };
    let mut pages = client.inventory_pages(&query);
    let mut first = true;
    while let Some(page) = pages.try_next().await? {
        if first {
            println!(
                "{} devices, {} online",
                page.summary.devices, page.summary.online
            );
            for request in page.pending_pairings {
                println!(
                    "waits for a decision: {} ({})",
                    request.id, request.requested_name
                );
            }
            for withheld in page.withheld {
                println!(
                    "not shown: {}, which takes {}",
                    withheld.field, withheld.permission
                );
            }
            first = false;
        }
        for device in page.devices {
            let presence = device.presence.map_or("-", |presence| presence.as_str());
            println!("{} {presence}", device.id);
        }
    }
    Ok(())
}
