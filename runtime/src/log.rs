//! How a process logs: to standard error, for people or as JSON.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing::Level;
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// It warns with the whole answer of the API server where it cannot read one: with Secrets, or with lists of megabytes.
const KUBE_CLIENT: &str = "kube_client";

/// `--log-format` and `--log-filter`.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How log lines are written.
    #[arg(long, env = "FAIRLEAD_LOG_FORMAT", value_enum, default_value_t = Format::Plain, global = true)]
    pub log_format: Format,
    /// Which log lines are written, for example `info,kube=debug`. Of kube_client only errors, unless it is named: its
    /// warnings show whole objects.
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
        let filter = self.filter()?;
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

    fn filter(&self) -> anyhow::Result<Targets> {
        // Not EnvFilter: it brings a regular expression engine, which the agent has no other use for.
        let filter: Targets = self
            .log_filter
            .parse()
            .with_context(|| format!("read --log-filter {:?}", self.log_filter))?;
        let is_named = filter
            .iter()
            .any(|(target, _)| target.starts_with(KUBE_CLIENT));
        Ok(if is_named {
            filter
        } else {
            filter.with_target(KUBE_CLIENT, Level::ERROR)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Targets {
        let args = LogArgs {
            log_format: Format::Plain,
            log_filter: text.to_owned(),
        };
        args.filter().unwrap()
    }

    #[test]
    fn what_the_api_server_answered_is_logged_only_for_who_asks_for_it_by_name() {
        for text in ["info,kube=warn", "debug", "info,kube=debug"] {
            let filter = filter(text);
            assert!(
                !filter.would_enable("kube_client::client", &Level::WARN),
                "{text}"
            );
            assert!(filter.would_enable("kube_client::client", &Level::ERROR));
            assert!(filter.would_enable("gateway::app", &Level::INFO));
        }
        let named = filter("info,kube_client=debug");
        assert!(named.would_enable("kube_client::client", &Level::DEBUG));
    }
}
