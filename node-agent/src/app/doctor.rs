//! `doctor`: what is wrong with this device. Needs no agent that runs, and disturbs none.

use std::path::PathBuf;

use crate::{
    args::Output,
    capability::{About, live::Source},
    config::{Config, proxy::Proxy},
    doctor::{
        Verdict,
        judge::judge,
        observe::{Places, observe},
    },
    exit::Exit,
    mediation, terminal,
};

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Doctor {
    /// How it is written.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Whether all is well. A configuration that cannot be read is a finding, and no reason to look at nothing else.
pub(super) async fn doctor(
    state_dir: Option<PathBuf>,
    config_path: Option<PathBuf>,
    proxy: Option<Proxy>,
    doctor: Doctor,
) -> anyhow::Result<Exit> {
    let (config, problem) = match Config::read(config_path.as_deref()) {
        Ok(config) => (config, None),
        Err(problem) => (Config::default(), Some(problem)),
    };
    let folder = super::folder(state_dir, &config)?;
    let report = judge(
        &observe(Places {
            dialer: super::dialer(proxy.as_ref(), &config),
            socket: mediation::socket::path_in(&config.mediation, &folder),
            folder,
            uses_screen: config.desktop.is_used(),
            configuration: problem,
            capabilities: Source::new(
                config_path,
                config,
                About::default(),
                super::OWN_PROGRAM.as_ref(),
            ),
        })
        .await,
    );
    match doctor.output {
        Output::Text => terminal::say(&report.to_string()),
        Output::Json => terminal::say(&serde_json::to_string_pretty(&report)?),
    }
    Ok(match report.result {
        Verdict::Skipped | Verdict::Ok | Verdict::Warning => Exit::Done,
        Verdict::Failed => Exit::Failed,
    })
}
