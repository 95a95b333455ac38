//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use console::args::ConsoleArgs;
use runtime::{admin::AdminArgs, log::LogArgs};

use crate::{
    artefact::{Artefacts, MOST_BYTES, store},
    listener::Limits,
};

/// Terminates the streams of devices.
#[derive(Clone, Debug, Parser)]
#[command(name = "fairlead-gateway", version)]
pub struct Args {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub console: ConsoleArgs,
    /// Namespace of Fairlead's own objects, where the gateway's Lease is.
    #[arg(long, env = "FAIRLEAD_NAMESPACE", default_value = "fairlead-system")]
    pub namespace: String,
    /// Name of this gateway, unique among all: of the pod, where it runs in one.
    #[arg(long, env = "FAIRLEAD_NAME")]
    pub name: String,
    /// Where devices connect.
    #[arg(long, env = "FAIRLEAD_DEVICE_ADDRESS", default_value = "0.0.0.0:7443")]
    pub device_address: SocketAddr,
    /// HOST:PORT under which devices reach this gateway.
    #[arg(long, env = "FAIRLEAD_ADVERTISE", value_parser = host_and_port)]
    pub advertise: String,
    /// Folder where the Secret fairlead-gateway-tls is mounted: tls.crt, tls.key and ca.crt. The operator makes the Secret.
    /// May be filled after the start and replaced at any time.
    #[arg(long, env = "FAIRLEAD_TLS_DIR")]
    pub tls_dir: PathBuf,
    /// Folder where the Secret fairlead-pairing-setup is mounted: opaque-setup. The operator makes the Secret. May be
    /// filled after the start and replaced at any time.
    #[arg(long, env = "FAIRLEAD_PAIRING_SETUP_DIR")]
    pub pairing_setup_dir: PathBuf,
    /// Trust domain of the devices' names.
    #[arg(long, env = "FAIRLEAD_TRUST_DOMAIN", default_value = "fairlead.local")]
    pub trust_domain: String,
    /// How often a device says that it is there, in seconds. After three times as long in silence its stream ends.
    #[arg(long, env = "FAIRLEAD_HEARTBEAT_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub heartbeat_seconds: u64,
    /// How long a pairing request waits for a decision, in seconds.
    #[arg(long, env = "FAIRLEAD_REQUEST_SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u32).range(60..=86_400))]
    pub request_seconds: u32,
    /// Most connections of devices.
    #[arg(long, env = "FAIRLEAD_MAX_DEVICES", default_value_t = Limits::default().devices, value_parser = count)]
    pub max_devices: usize,
    /// Memory for large messages of all devices while they arrive, in MiB.
    #[arg(long, env = "FAIRLEAD_MESSAGE_MEMORY_MIB", default_value_t = Limits::default().message_memory / MIB, value_parser = count)]
    pub message_memory_mib: usize,
    /// Most connections that have not sent a whole ClientHello or wait for their turn. When there are more, a random one of
    /// the address or network that holds most is closed. Each takes a file descriptor and about 6 KiB.
    #[arg(long, env = "FAIRLEAD_MAX_SILENT", default_value_t = Limits::default().silent, value_parser = count)]
    pub max_silent: usize,
    /// Most TLS handshakes that wait for the client's answer. When there are more, a random one of the address or network
    /// that holds most is closed. Each takes about 30 KiB.
    #[arg(long, env = "FAIRLEAD_MAX_HANDSHAKES", default_value_t = Limits::default().handshakes, value_parser = count)]
    pub max_handshakes: usize,
    /// TLS handshakes begun per second, devices and strangers together.
    #[arg(long, env = "FAIRLEAD_HANDSHAKES_PER_SECOND", default_value_t = Limits::default().handshakes_per_second, value_parser = clap::value_parser!(u32).range(1..))]
    pub handshakes_per_second: u32,
    /// Most TLS handshakes begun per second from one address [default: half of --handshakes-per-second]. Raise it where
    /// many devices come from behind one address.
    #[arg(long, env = "FAIRLEAD_HANDSHAKES_PER_SECOND_PER_ADDRESS", value_parser = clap::value_parser!(u32).range(1..))]
    pub handshakes_per_second_per_address: Option<u32>,
    /// Most connections of enrollees that have not proved a code. When there are more, an idle one is closed.
    #[arg(long, env = "FAIRLEAD_MAX_STRANGERS", default_value_t = Limits::default().strangers, value_parser = count)]
    pub max_strangers: usize,
    /// Most of those from one address.
    #[arg(long, env = "FAIRLEAD_MAX_STRANGERS_PER_ADDRESS", default_value_t = Limits::default().strangers_per_address, value_parser = count)]
    pub max_strangers_per_address: usize,
    /// Most connections of enrollees that proved a code and wait for a decision.
    #[arg(long, env = "FAIRLEAD_MAX_WAITING", default_value_t = Limits::default().waiting, value_parser = count)]
    pub max_waiting: usize,
    /// Pairing codes that strangers may try per minute, all together.
    #[arg(long, env = "FAIRLEAD_TRIES_PER_MINUTE", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries_per_minute: u32,
    /// Pairing codes that may be tried per minute from one address.
    #[arg(long, env = "FAIRLEAD_TRIES_PER_MINUTE_PER_ADDRESS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries_per_minute_per_address: u32,
    /// Where outputs go that are too large for a resource: file:///folder, s3://bucket/prefix, gs://bucket/prefix or
    /// az://container/prefix. The same for all gateways. Without it, such outputs fail. See docs/artefacts.md.
    #[arg(long, env = "FAIRLEAD_ARTEFACT_STORE")]
    pub artefact_store: Option<String>,
    /// Largest output that goes there, in bytes.
    #[arg(long, env = "FAIRLEAD_MAX_ARTEFACT_BYTES", default_value_t = 1024 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1..=MOST_BYTES))]
    pub max_artefact_bytes: u64,
    /// How long a stop may take, in seconds.
    #[arg(long, env = "FAIRLEAD_STOP_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub stop_seconds: u64,
}

const MIB: usize = 1024 * 1024;

impl Args {
    /// What connections may hold.
    pub fn limits(&self) -> Limits {
        Limits {
            devices: self.max_devices,
            message_memory: self.message_memory_mib * MIB,
            silent: self.max_silent,
            handshakes: self.max_handshakes,
            handshakes_per_second: self.handshakes_per_second,
            handshakes_per_second_per_address: self
                .handshakes_per_second_per_address
                .unwrap_or(self.handshakes_per_second.div_ceil(2)),
            strangers: self.max_strangers,
            strangers_per_address: self.max_strangers_per_address,
            waiting: self.max_waiting,
            ..Limits::default()
        }
    }

    /// `None` where no store is configured.
    pub fn artefacts(&self) -> Result<Option<Artefacts>, store::OpenError> {
        let store = self.artefact_store.as_deref().map(store::Store::open);
        Ok(store
            .transpose()?
            .map(|store| Artefacts::new(store, self.max_artefact_bytes)))
    }

    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let usable = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && text.len() <= 253 && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if usable {
        Ok(text.to_owned())
    } else {
        Err("give HOST:PORT, as devices can reach it".to_owned())
    }
}

/// A number of places: semaphores take no more.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1_000_000).contains(&count) => Ok(count),
        _ => Err("give a number from 1 to 1000000".to_owned()),
    }
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
    fn an_address_that_devices_cannot_dial_is_refused() {
        for good in ["127.0.0.1:7443", "gateway.example:443", "[::1]:7443"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for bad in [
            "gateway.example",
            ":7443",
            "gateway.example:0",
            "gateway.example:port",
            "",
        ] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
