//! From what was typed to how it ends.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Generator as _, Shell};

use crate::{
    args::{Args, Artifact, Command, Completions, WhoCan},
    commands, complete, doctor,
    exit::Exit,
    show::{Shown, out},
    who_can,
};

/// The file that this program is.
const FILE: &str = "kubectl-fairlead";

/// Exit code of errors of usage, as the argument parser has it.
const USAGE: u8 = 2;

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
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        // Nobody is left to be told where even this fails.
        let _ = error.print();
        return USAGE.into();
    }
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
        show_managed_fields,
        command,
    } = args;
    let shown = Shown::new(output, show_managed_fields);
    if let Command::Completions(wanted) = &command {
        return completions(wanted);
    }
    if let Command::Complete(typed) = &command {
        return complete::run(&typed.words).await;
    }
    if let Command::Version(version) = &command
        && version.is_local()
    {
        return commands::version::run_local(shown);
    }
    let cluster = cluster.connect().await?;
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
        Command::Invocations(invocations) => invocations.run(&cluster, shown).await,
        Command::Cancel(cancel) => cancel.run(&cluster).await,
        Command::Version(version) => version.run(&cluster, shown).await,
        Command::Complete(typed) => complete::run(&typed.words).await,
        Command::Completions(wanted) => completions(&wanted),
    }
}

/// What a shell reads to complete the file that kubectl runs.
fn script(shell: Shell) -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), FILE, &mut text);
    let text = String::from_utf8(text)?;
    // Of a name with a hyphen, clap_complete makes for bash one word where a subcommand is found and another one where it
    // is looked for: below the first word, nothing would be completed.
    Ok(if shell == Shell::Bash {
        text.replace("kubectl__subcmd__fairlead", "kubectl__fairlead")
    } else {
        text
    })
}

fn completions(wanted: &Completions) -> anyhow::Result<Exit> {
    let (script, name) = match wanted.shell.shell() {
        Some(shell) => (script(shell)?, shell.file_name(FILE)),
        None => (complete::PROGRAM.to_owned(), complete::NAME.to_owned()),
    };
    let Some(folder) = &wanted.to else {
        out(&script)?;
        return Ok(Exit::Done);
    };
    let path = folder.join(name);
    std::fs::write(&path, script).with_context(|| format!("write {}", path.display()))?;
    if wanted.shell.shell().is_none() {
        complete::make_executable(&path)
            .with_context(|| format!("make {} executable", path.display()))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_knows_what_every_subcommand_takes() {
        let text = script(Shell::Bash).unwrap();
        let states: Vec<_> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'))
            .filter(|state| !state.is_empty())
            .collect();
        assert!(states.len() > 15, "{states:?}");
        for state in states {
            assert!(
                text.contains(&format!("\n        {state})\n")),
                "{state} is reached and leads nowhere"
            );
        }
    }

    #[test]
    fn a_script_is_under_the_name_that_its_shell_looks_for() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = Completions {
            shell: crate::args::Completer::Zsh,
            to: Some(folder.path().to_owned()),
        };
        completions(&wanted).unwrap();
        let written = std::fs::read_to_string(folder.path().join("_kubectl-fairlead")).unwrap();
        assert!(written.starts_with("#compdef kubectl-fairlead"));
    }

    #[cfg(unix)]
    #[test]
    fn what_kubectl_asks_is_a_program() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let wanted = Completions {
            shell: crate::args::Completer::Kubectl,
            to: Some(folder.path().to_owned()),
        };
        completions(&wanted).unwrap();
        let path = folder.path().join("kubectl_complete-fairlead");
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
    }
}
