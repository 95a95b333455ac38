//! From what was typed to how it ends.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::{
    args::{Args, Artifact, Command, Completions, WhoCan},
    commands, doctor,
    exit::Exit,
    show::Shown,
    who_can,
};

/// The program, but for the reading of its arguments.
pub fn main(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let outcome = runtime.block_on(run(args));
    // Somebody may still be asked a question that nobody will answer: standard input cannot be left in another way.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // A reader that has seen enough has closed its end, as `head` does: that is no failure worth a word.
    let closed = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
    if !closed {
        // Nobody is left to be told where even this fails.
        let _ = writeln!(io::stderr(), "error: {error:#}");
    }
    Exit::Failed.into()
}

async fn run(args: Args) -> anyhow::Result<Exit> {
    let Args {
        cluster,
        output,
        command,
    } = args;
    if let Command::Completions(wanted) = &command {
        return completions(wanted);
    }
    let cluster = cluster.connect().await?;
    let shown = Shown::new(output);
    match command {
        Command::Pair(pair) => pair.run(&cluster).await,
        Command::Approve(approve) => approve.run(&cluster).await,
        Command::Deny(deny) => deny.run(&cluster).await,
        Command::Pending(many) => commands::pending::run(&cluster, many.span(), shown).await,
        Command::Devices(devices) => devices.run(&cluster, shown).await,
        Command::Describe(one) => commands::describe::run(&cluster, &one.device, shown).await,
        Command::Invoke(invoke) => invoke.run(&cluster, shown).await,
        Command::Artifact(Artifact::Get(get)) => get.run(&cluster).await,
        Command::Grant(grant) => grant.run(&cluster).await,
        Command::Suspend(one) => commands::trust::suspend(&cluster, &one.device).await,
        Command::Resume(one) => commands::trust::resume(&cluster, &one.device).await,
        Command::Revoke(revoke) => revoke.run(&cluster).await,
        Command::Doctor => doctor::run(&cluster, shown).await,
        Command::WhoCan(WhoCan::Invoke { device, capability }) => {
            who_can::run(&cluster, &device, &capability, shown).await
        }
        Command::Completions(wanted) => completions(&wanted),
    }
}

fn completions(wanted: &Completions) -> anyhow::Result<Exit> {
    let mut command = Args::command();
    // What the shell completes is the file that kubectl runs.
    let name = "kubectl-fairlead";
    match &wanted.to {
        Some(folder) => {
            clap_complete::generate_to(wanted.shell, &mut command, name, folder)
                .with_context(|| format!("write into {}", folder.display()))?;
        }
        None => clap_complete::generate(wanted.shell, &mut command, name, &mut io::stdout()),
    }
    Ok(Exit::Done)
}
