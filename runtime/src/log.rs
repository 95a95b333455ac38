//! How a process logs: to standard error, for people or as JSON.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

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
        // Not EnvFilter: it brings a regular expression engine, which the agent has no other use for.
        let filter: Targets = self
            .log_filter
            .parse()
            .with_context(|| format!("read --log-filter {:?}", self.log_filter))?;
        let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let layer = match self.log_format {
            Format::Plain => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
            Format::Json => layer.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .try_init()
            .context("start logging")
    }
}
