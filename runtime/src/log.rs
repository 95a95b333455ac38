//! How a process logs: to standard error, for people or as JSON.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// `--log-format` and `--log-filter`.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How log lines are written.
    #[arg(long, env = "FAIRLEAD_LOG_FORMAT", value_enum, default_value_t = Format::Plain, global = true)]
    pub log_format: Format,
    /// Which log lines are written, for example `info,kube=debug`.
    #[arg(
        long,
        env = "FAIRLEAD_LOG",
        default_value = "info,kube=warn",
        global = true
    )]
    pub log_filter: String,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

impl LogArgs {
    /// Starts logging for the whole process. Fails on a filter that cannot be read, or when called twice.
    pub fn init(&self) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(&self.log_filter)
            .with_context(|| format!("read --log-filter {:?}", self.log_filter))?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        match self.log_format {
            Format::Plain => builder
                .with_ansi(std::io::stderr().is_terminal())
                .try_init(),
            Format::Json => builder.json().flatten_event(true).try_init(),
        }
        .map_err(anyhow::Error::from_boxed)
        .context("start logging")
    }
}
