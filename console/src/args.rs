//! The command line of the console, as a part of the gateway's.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use clap::Args;

use crate::Limits;

/// `--console-...`.
#[derive(Args, Clone, Debug)]
pub struct ConsoleArgs {
    /// Where the console API is served, over HTTPS. Without it there is none.
    #[arg(long, env = "FAIRLEAD_CONSOLE_ADDRESS")]
    pub console_address: Option<SocketAddr>,
    /// HOST:PORT under which people reach it; the gateway's Lease tells it to kubectl fairlead.
    #[arg(long, env = "FAIRLEAD_CONSOLE_ADVERTISE", requires = "console_address")]
    pub console_advertise: Option<String>,
    /// Folder with tls.crt and tls.key for it; that of --tls-dir where it is not given. May be filled after the start and
    /// replaced at any time.
    #[arg(long, env = "FAIRLEAD_CONSOLE_TLS_DIR", requires = "console_address")]
    pub console_tls_dir: Option<PathBuf>,
    /// Folder with the keys of sessions: current, and previous where there is one. Without it nobody can log in; tokens
    /// are taken all the same.
    #[arg(long, env = "FAIRLEAD_CONSOLE_KEYS_DIR", requires = "console_address")]
    pub console_keys_dir: Option<PathBuf>,
    /// Requests per second from one address. Raise it where many people come from behind one.
    #[arg(long, env = "FAIRLEAD_CONSOLE_REQUESTS_PER_SECOND_PER_ADDRESS", default_value_t = Limits::default().requests_per_second_per_address)]
    pub console_requests_per_second_per_address: NonZeroU32,
    /// Requests per second of one user, whatever addresses they come from.
    #[arg(long, env = "FAIRLEAD_CONSOLE_REQUESTS_PER_SECOND_PER_USER", default_value_t = Limits::default().requests_per_second_per_user)]
    pub console_requests_per_second_per_user: NonZeroU32,
    /// Most event streams and downloads at once; one user may have half of them.
    #[arg(long, env = "FAIRLEAD_CONSOLE_MAX_STREAMS", default_value_t = Limits::default().streams, value_parser = streams)]
    pub console_max_streams: usize,
}

impl ConsoleArgs {
    pub fn limits(&self) -> Limits {
        Limits {
            requests_per_second_per_address: self.console_requests_per_second_per_address,
            requests_per_second_per_user: self.console_requests_per_second_per_user,
            streams: self.console_max_streams,
        }
    }
}

/// Semaphores take no more.
fn streams(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1_000_000).contains(&count) => Ok(count),
        _ => Err("give a number from 1 to 1000000".to_owned()),
    }
}
