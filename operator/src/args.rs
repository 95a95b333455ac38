//! The command line.

use std::str::FromStr;

use clap::Parser;
use jiff::SignedDuration;
use pairing::spiffe::SpiffeId;
use runtime::{admin::AdminArgs, log::LogArgs};

use crate::{app::App, authority::plan::Replaced};

/// Reconciles Fairlead's resources and issues certificates.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// The operator's own namespace: its authority, its Lease and what gateways mount are there.
    #[arg(long, env = "FAIRLEAD_NAMESPACE", default_value = "fairlead-system")]
    pub namespace: String,
    /// Trust domain of the devices' SPIFFE ids. It cannot be changed once devices are paired.
    #[arg(
        long,
        env = "FAIRLEAD_TRUST_DOMAIN",
        default_value = "fairlead.local",
        value_parser = trust_domain
    )]
    pub trust_domain: String,
    /// Where devices reach the gateways, as HOST:PORT. It is part of every pairing URI.
    #[arg(long, env = "FAIRLEAD_GATEWAY_ADDRESS")]
    pub gateway_address: HostPort,
    /// A further DNS name for the gateways' serving certificate. May be repeated.
    #[arg(
        long = "gateway-dns-name",
        env = "FAIRLEAD_GATEWAY_DNS_NAMES",
        value_delimiter = ',',
        value_parser = dns_name
    )]
    pub gateway_dns_names: Vec<String>,
    /// Life of the gateways' serving certificate, in seconds: an hour to 30 days. It is replaced at two thirds of its life.
    /// A thief of the key can pose as a gateway for that long.
    #[arg(
        long,
        env = "FAIRLEAD_GATEWAY_CERTIFICATE_TTL_SECONDS",
        default_value_t = 604_800,
        value_parser = clap::value_parser!(u32).range(3600..=2_592_000)
    )]
    pub gateway_certificate_ttl_seconds: u32,
    /// Gives the authority with this pin up: the operator then uses the one in the Secret fairlead-ca, or makes another
    /// one where the Secret is missing, and every device must be paired again. Without effect while another authority is
    /// published. `unknown` where nothing names the old one.
    #[arg(long, env = "FAIRLEAD_REPLACE_AUTHORITY", value_name = "PIN")]
    pub replace_authority: Option<Replaced>,
    /// Name of this process among its replicas. Drawn where absent. In the election it begins with fairlead-operator.
    #[arg(long, env = "FAIRLEAD_OPERATOR_NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

impl Args {
    /// Runs until told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            namespace,
            trust_domain,
            gateway_address,
            gateway_dns_names,
            gateway_certificate_ttl_seconds,
            replace_authority,
            name,
            admin,
            log,
        } = self;
        log.init()?;
        let app = App {
            namespace,
            trust_domain,
            gateway_address: gateway_address.0,
            gateway_dns_names,
            gateway_certificate_ttl: SignedDuration::from_secs(
                gateway_certificate_ttl_seconds.into(),
            ),
            replaced: replace_authority,
            name: name.unwrap_or_else(crate::lease::draw_name),
        };
        app.run(&admin).await
    }
}

/// `HOST:PORT` that can stand in a pairing URI.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort(String);

impl FromStr for HostPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "expected HOST:PORT, for example gateway.example.com:7443 or [2001:db8::1]:7443";
        let (host, port) = text.rsplit_once(':').ok_or(EXPECTED)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host_is_right = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
            }
        };
        let port_is_right = port.parse::<u16>().is_ok_and(|port| port != 0);
        (host_is_right && port_is_right && text.len() <= 300)
            .then(|| Self(text.to_owned()))
            .ok_or(EXPECTED)
    }
}

fn trust_domain(text: &str) -> Result<String, &'static str> {
    SpiffeId::new(text, "namespace", "device")
        .map(|id| id.trust_domain)
        .map_err(|_| "expected a name like fairlead.local: letters, digits, dots, dashes")
}

fn dns_name(text: &str) -> Result<String, &'static str> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    (text.len() <= 253 && text.split('.').all(label))
        .then(|| text.to_owned())
        .ok_or("expected a DNS name like gateway.example.com")
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
    fn a_gateway_address_is_a_host_and_a_port() {
        for right in ["gateway.example:7443", "127.0.0.1:7443", "[::1]:7443"] {
            assert!(right.parse::<HostPort>().is_ok(), "{right}");
        }
        for wrong in [
            "",
            "gateway",
            ":7443",
            "gateway:0",
            "gateway:70000",
            "a@b:1",
            "a/b:1",
            "::1:7443",
            "a#b:1",
        ] {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_cannot_be_in_a_certificate_are_refused() {
        assert!(dns_name("gateway.example.com").is_ok());
        assert!(dns_name("gateway..com").is_err());
        assert!(dns_name("*.example.com").is_err());
        assert!(trust_domain("fairlead.local").is_ok());
        assert!(trust_domain("fair/lead").is_err());
    }
}
