//! The command line of the console, as a part of the gateway's.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, value_parser};

use crate::{
    Limits,
    serve::{ConnectionLimits, Patience},
};

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
    /// Most requests with ?wait= at once; one user may have an eighth.
    #[arg(long, env = "FAIRLEAD_CONSOLE_MAX_WAITS", default_value_t = Limits::default().waits, value_parser = count)]
    pub console_max_waits: usize,
    /// Most event streams at once, and a quarter as many downloads; one user may have an eighth.
    #[arg(long, env = "FAIRLEAD_CONSOLE_MAX_STREAMS", default_value_t = Limits::default().streams, value_parser = count)]
    pub console_max_streams: usize,
    /// Most connections at once: a half for strangers, and a half for those on which a user sent a request.
    #[arg(long, env = "FAIRLEAD_CONSOLE_MAX_CONNECTIONS", default_value_t = ConnectionLimits::default().most, value_parser = count)]
    pub console_max_connections: usize,
    /// Most connections of strangers from one address. Raise it behind a proxy, where all users have the proxy's address.
    #[arg(long, env = "FAIRLEAD_CONSOLE_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = ConnectionLimits::default().per_address, value_parser = count)]
    pub console_max_connections_per_address: usize,
    /// New connections per second from one address; twice as many at once. Raise it behind a proxy.
    #[arg(long, env = "FAIRLEAD_CONSOLE_CONNECTIONS_PER_SECOND_PER_ADDRESS", default_value_t = ConnectionLimits::default().per_second)]
    pub console_connections_per_second_per_address: NonZeroU32,
    /// Seconds after which a connection without requests is closed.
    #[arg(long, env = "FAIRLEAD_CONSOLE_IDLE_SECONDS", default_value_t = 60, value_parser = value_parser!(u32).range(1..=86_400))]
    pub console_idle_seconds: u32,
    /// Seconds after which a connection is closed whatever happens on it. Event streams go on with Last-Event-ID.
    #[arg(long, env = "FAIRLEAD_CONSOLE_MAX_CONNECTION_AGE_SECONDS", default_value_t = 3600, value_parser = value_parser!(u32).range(1..=86_400))]
    pub console_max_connection_age_seconds: u32,
}

impl ConsoleArgs {
    pub fn limits(&self) -> Limits {
        Limits {
            requests_per_second_per_address: self.console_requests_per_second_per_address,
            requests_per_second_per_user: self.console_requests_per_second_per_user,
            waits: self.console_max_waits,
            streams: self.console_max_streams,
        }
    }

    pub fn connection_limits(&self) -> ConnectionLimits {
        let standard = ConnectionLimits::default();
        let idle = Duration::from_secs(self.console_idle_seconds.into());
        ConnectionLimits {
            most: self.console_max_connections,
            per_address: self.console_max_connections_per_address,
            per_second: self.console_connections_per_second_per_address,
            patience: Patience {
                stranger: standard.patience.stranger.min(idle),
                user: idle,
            },
            age: Duration::from_secs(self.console_max_connection_age_seconds.into()),
            ..standard
        }
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1_000_000).contains(&count) => Ok(count),
        _ => Err("give a number from 1 to 1000000".to_owned()),
    }
}
