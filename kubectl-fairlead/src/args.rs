//! What a person types.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use crate::{
    cluster::{ClusterArgs, Span},
    commands, exit,
    show::Format,
};

/// Pairs devices with a Fairlead cluster, shows them, and runs capabilities on them.
///
/// It asks the API server alone, with the rights of your kubeconfig; only `artifact get` also asks a gateway.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubectl fairlead", bin_name = "kubectl fairlead", version, after_help = exit::help())]
pub struct Args {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How objects are shown. `raw` is for `invoke`: the output and nothing else.
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// With `-o json` and `-o yaml`: also which program set which field.
    #[arg(long, global = true)]
    pub show_managed_fields: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Makes a pairing code, waits for the device, shows what it says, and approves it once you say so.
    Pair(commands::pair::Pair),
    /// Approves a pairing request, after showing it.
    Approve(commands::decide::Approve),
    /// Denies a pairing request, for good.
    Deny(commands::decide::Deny),
    /// Shows the pairing requests that wait for a decision.
    Pending(Many),
    /// Shows devices, those that need attention first.
    Devices(commands::devices::Devices),
    /// Shows all that is known of a device.
    Describe(One),
    /// Runs a capability on a device, and waits for its end. Ctrl-C cancels it.
    Invoke(commands::invoke::Invoke),
    /// Shows what runs and what ran, the newest first.
    #[command(visible_alias = "invs")]
    Invocations(commands::invocations::Invocations),
    /// Stops invocations that have not ended.
    Cancel(commands::cancel::Cancel),
    /// Outputs that are too large for a resource.
    #[command(subcommand)]
    Artifact(Artifact),
    /// Lets a device run capabilities, as it declares them now.
    Grant(commands::grant::Grant),
    /// Cuts a device off until it is resumed.
    Suspend(One),
    /// Lets a suspended device back.
    Resume(One),
    /// Cuts a device off for good.
    Revoke(commands::trust::Revoke),
    /// Looks for what is wrong with the installation, and says what to do.
    Doctor,
    /// Shows who may do something.
    #[command(subcommand)]
    WhoCan(WhoCan),
    /// Shows the versions of this program, of the cluster, and of the agents.
    Version(commands::version::Version),
    /// Prints what a shell, or kubectl, needs to complete this program's command lines.
    Completions(Completions),
    /// Prints what can stand at the end of a command line. Called by `kubectl_complete-fairlead`.
    #[command(name = "__complete", hide = true)]
    Complete(Complete),
}

/// A command line that is not complete.
#[derive(Clone, Debug, clap::Args)]
pub struct Complete {
    /// Its words; the last one is being typed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// A device.
#[derive(Clone, Debug, clap::Args)]
pub struct One {
    /// Name of the device.
    pub device: String,
}

/// Objects of one namespace, or of all.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Many {
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl Many {
    pub fn span(self) -> Span {
        if self.all_namespaces {
            Span::All
        } else {
            Span::One
        }
    }
}

/// What is done with an artifact.
#[derive(Clone, Debug, Subcommand)]
pub enum Artifact {
    /// Fetches the artifact of an invocation from a gateway's console, and checks its digest.
    Get(commands::artifact::Get),
}

/// What somebody may do.
#[derive(Clone, Debug, Subcommand)]
pub enum WhoCan {
    /// Who may run a capability on a device.
    Invoke {
        /// Name of the device.
        device: String,
        /// Name of the capability.
        capability: String,
    },
}

/// Who completes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Completer {
    Bash,
    Elvish,
    Fish,
    Kubectl,
    #[value(name = "powershell")]
    PowerShell,
    Zsh,
}

impl Completer {
    /// `None`: kubectl.
    pub fn shell(self) -> Option<Shell> {
        Some(match self {
            Self::Bash => Shell::Bash,
            Self::Elvish => Shell::Elvish,
            Self::Fish => Shell::Fish,
            Self::Kubectl => return None,
            Self::PowerShell => Shell::PowerShell,
            Self::Zsh => Shell::Zsh,
        })
    }
}

/// What a shell needs.
#[derive(Clone, Debug, clap::Args)]
pub struct Completions {
    /// Which shell; `kubectl` for the program that kubectl asks.
    pub shell: Completer,
    /// Write it into this folder instead, under the name that the shell looks for.
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
}

/// An error of usage that the argument parser cannot see. Ends the process with 2, as its own errors do.
pub fn usage(kind: ErrorKind, words: impl std::fmt::Display) -> clap::Error {
    Args::command().error(kind, words)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_flags_of_kubectl_stand_anywhere() {
        for line in [
            "kubectl-fairlead -n kitchen devices -o wide",
            "kubectl-fairlead devices -n kitchen --context edge -owide --watch",
            "kubectl-fairlead devices -A -o json",
            "kubectl-fairlead invoke lamp system.health --input {} --timeout 5 -o raw",
            "kubectl-fairlead who-can invoke lamp system.health",
            "kubectl-fairlead artifact get inv-1 --to -",
            "kubectl-fairlead invoke lamp,kiosk echo -o json --parallel 4",
            "kubectl-fairlead grant -l site=harbour --pending",
            "kubectl-fairlead invocations lamp --open -w",
            "kubectl-fairlead cancel inv-1 inv-2 --wait=false",
            "kubectl-fairlead version --client -o yaml",
            "kubectl-fairlead describe lamp -o yaml --show-managed-fields",
            "kubectl-fairlead __complete -n kitchen describe --",
        ] {
            let parsed = Args::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "kubectl-fairlead invoke lamp x --input {} -f file",
            "kubectl-fairlead devices -o nonsense",
            "kubectl-fairlead pair --ttl 5",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
