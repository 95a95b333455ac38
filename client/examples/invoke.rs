//! Runs a capability on a device, waits for its end and prints its output.
#![expect(clippy::print_stdout, reason = "what is printed is what was asked for")]

mod connect;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use client::{
    Waited,
    api::{
        ObjectId,
        invocation::{NewInvocation, Phase},
    },
};

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    connect: connect::Connect,
    /// NAMESPACE.NAME of the device.
    device: ObjectId,
    /// Name of the capability.
    capability: String,
    /// JSON that the capability is given.
    #[arg(long)]
    input: Option<String>,
    /// Seconds that it may take.
    #[arg(long, default_value_t = 30)]
    timeout: u32,
    /// Where an output goes that is too large for a resource.
    #[arg(long)]
    artefact: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let client = args.connect.client().await?;
    let input = args
        .input
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .context("read --input")?;
    let new = NewInvocation {
        device: args.device,
        capability: args.capability,
        input,
        timeout_seconds: Some(args.timeout.into()),
        when_offline: None,
        queue_seconds: None,
        idempotency_key: None,
        max_output_bytes: None,
        ttl_seconds_after_finished: None,
    };
    let made = client.invoke(&new).await?;
    let id = &made.summary.id;
    // The cluster writes an end some seconds after the deadline where the device gives none.
    let patience = Duration::from_secs(u64::from(args.timeout) + 15);
    let ended = match client.wait(id, patience).await? {
        Waited::Ended(ended) => ended,
        Waited::Open(open) => {
            println!("{id} is still {}", open.summary.phase);
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("{id} {}", ended.summary.phase);
    if let Some(error) = &ended.error {
        println!("{}: {}\n{}", error.code, error.message, error.remedy);
    }
    if let Some(output) = &ended.output {
        println!("{output}");
    }
    if ended.artefact.is_some()
        && let Some(path) = &args.artefact
    {
        // Under another name until it is known to be whole.
        let partial = path.with_extension("partial");
        let mut file = tokio::fs::File::create(&partial)
            .await
            .context("create the file")?;
        let record = client.artefact(id, &mut file).await?;
        tokio::fs::rename(&partial, path)
            .await
            .context("rename the file")?;
        println!("{} bytes in {}", record.size_bytes, path.display());
    }
    Ok(if ended.summary.phase == Phase::Succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
