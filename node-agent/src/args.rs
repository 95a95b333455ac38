//! What a person types.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use runtime::log::LogArgs;

use crate::{
    app::{
        doctor::Doctor,
        manual::{Completions, Manual},
    },
    capability::command::confine::Confinement,
    config::proxy::Typed,
    install::{Install, Uninstall},
    mediation::{commands, notify},
};

/// Pairs this device with a Fairlead cluster and runs the capabilities granted to it.
#[derive(Clone, Debug, Parser)]
#[command(name = "fairlead-agent", version, after_help = EXIT_CODES)]
pub struct Args {
    /// Where the key, the identity and the journal are kept [default: /var/lib/fairlead for root, else
    /// $XDG_STATE_HOME/fairlead or ~/.local/state/fairlead].
    #[arg(long, env = "FAIRLEAD_STATE_DIR", global = true, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
    /// What the device's administrator says [default: /etc/fairlead/agent.toml, where there is one].
    #[arg(long, env = "FAIRLEAD_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Proxy on the way to the gateways, `http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`, or "direct" for none [default: `proxy` of
    /// the configuration, else HTTPS_PROXY]. Other users of this machine can see a password that is given here.
    #[arg(
        long,
        env = "FAIRLEAD_PROXY",
        hide_env_values = true,
        global = true,
        value_name = "URL"
    )]
    pub proxy: Option<Typed>,
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// See [`crate::exit::Exit`].
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  done                          7  the request expired undecided
   1  failed, see the message       8  approved, but no certificate
   2  usage                         9  another process uses the state folder
   3  not paired                   10  the state folder cannot be used
   4  already paired               11  no gateway could be reached
   5  the code was not proved      12  the gateway is not the one expected
   6  denied                       13  the configuration is wrong
  14  stopped by a signal before it was done; what was reached is kept
  15  no agent listens at its socket    16  this user may not answer for the device
  17  this host or this user cannot do that
  18  not answered: what was asked is something else, or not asked any more";

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Pairs this device, or goes on with a pairing that was interrupted.
    Pair(Pair),
    /// Serves the cluster until told to stop.
    Run,
    /// Shows what this device is to the cluster.
    Status(Status),
    /// Removes the key, the identity and the journal from this device.
    Unpair(Unpair),
    /// Shows which capabilities this device has, and what is wrong with the files that declare them.
    Capabilities,
    /// Shows what waits for the answer of a person at this device.
    Pending(commands::Pending),
    /// Lets something run that waits for an answer.
    Allow(commands::Allow),
    /// Keeps something from running that waits for an answer.
    Deny(commands::Deny),
    /// Shows what waits for an answer as notifications of this desktop session, with buttons, until told to stop.
    Notify(notify::Notify),
    /// Looks for what is wrong with this device, and says what to do. Exits with 1 where something is.
    Doctor(Doctor),
    /// Makes the agent a service of this host, under systemd; again, after an upgrade.
    Install(Install),
    /// Removes the service; keeps the state, unless told otherwise.
    Uninstall(Uninstall),
    /// Prints what a shell needs to complete this program's command lines.
    Completions(Completions),
    /// Prints a manual page, or writes all of them into a folder.
    Man(Manual),
    /// Bounds itself, then becomes a command. For the agent alone.
    #[command(hide = true)]
    ExecCapability(Confinement),
}

#[derive(Clone, clap::Args)]
pub struct Pair {
    /// The pairing code (7KQ2-X9M4TD), the URI of a QR code (fairlead://...), or - to read it from standard input.
    /// Asked for on a terminal where it is missing. A code given here can be seen by other users of this machine.
    #[arg(env = "FAIRLEAD_CODE", hide_env_values = true)]
    pub code: Option<String>,
    /// Address of a gateway; a URI brings its own. A pairing that was interrupted goes on there.
    #[arg(long, env = "FAIRLEAD_GATEWAY", value_name = "HOST:PORT")]
    pub gateway: Option<String>,
    /// Name to ask for; the approver may choose another [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// Without the code.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("code", &self.code.as_ref().map(|_| ".."))
            .field("gateway", &self.gateway)
            .field("name", &self.name)
            .finish()
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct Status {
    /// How it is written.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How `status` is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object, whose fields stay.
    Json,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Unpair {
    /// Does not ask.
    #[arg(long)]
    pub yes: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn debug_shows_no_code_and_no_password() {
        let args = Args::parse_from(["fairlead-agent", "pair", "7KQ2-X9M4TD"]);
        let shown = format!("{args:?}");
        assert!(!shown.contains("X9M4TD"), "{shown}");
        let proxy = "ftp://ada:s3cret@proxy.test";
        let args = Args::parse_from(["fairlead-agent", "run", "--proxy", proxy]);
        let shown = format!("{args:?} {:?}", args.proxy.as_ref().map(Typed::read));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
