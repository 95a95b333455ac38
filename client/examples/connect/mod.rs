//! What all examples are told: which console, whom to believe, by what to be known.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use client::{Authentication, ControlPlaneClient, Credentials, Roots};

#[derive(Debug, Args)]
pub struct Connect {
    /// `https://HOST:PORT`.
    #[arg(long, env = "FAIRLEAD_CONSOLE")]
    console: String,
    /// The authority of the console's certificate, PEM; without it, those of this machine.
    #[arg(long, env = "FAIRLEAD_CONSOLE_CA")]
    ca: Option<PathBuf>,
    /// A file with a token; without it `FAIRLEAD_TOKEN`, and without that what kubectl would use. A token has no place
    /// among the arguments of a process, where others see it.
    #[arg(long, env = "FAIRLEAD_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Make a session, as a browser would.
    #[arg(long)]
    session: bool,
}

impl Connect {
    pub async fn client(&self) -> anyhow::Result<ControlPlaneClient> {
        let credentials = match (&self.token_file, std::env::var("FAIRLEAD_TOKEN")) {
            (Some(path), _) => Credentials::file(path),
            (None, Ok(token)) => Credentials::token(token)?,
            (None, Err(_)) => Credentials::infer().await?,
        };
        let roots = match &self.ca {
            None => Roots::Platform,
            Some(path) => Roots::Only(
                std::fs::read(path).with_context(|| format!("read {}", path.display()))?,
            ),
        };
        let authentication = if self.session {
            Authentication::Session
        } else {
            Authentication::Token
        };
        Ok(ControlPlaneClient::builder(&self.console)
            .roots(roots)
            .credentials(credentials)
            .authentication(authentication)
            .build()?)
    }
}
