//! Facts about the machine. The only code that asks the operating system for them.

pub mod clock;
pub mod health;

use proto::node;
use rustix::system::uname;

/// Longest name of a host, as the protocol has it.
const MAX_NAME_BYTES: usize = 253;

/// What a device says about itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    pub os: String,
    pub arch: String,
    pub agent_version: String,
    pub hostname: String,
}

impl Facts {
    pub fn read() -> Self {
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: hostname_from(&uname().nodename().to_string_lossy()),
        }
    }

    pub fn to_platform(&self) -> node::Platform {
        let Self {
            os,
            arch,
            agent_version,
            hostname,
        } = self.clone();
        node::Platform {
            os,
            arch,
            agent_version,
            hostname,
        }
    }
}

/// A host may be called anything; the protocol wants 1 to 253 plain characters.
fn hostname_from(nodename: &str) -> String {
    let name: String = nodename
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        .take(MAX_NAME_BYTES)
        .collect();
    if name.is_empty() {
        "device".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_has_a_plain_name() {
        for (nodename, expected) in [
            ("kiosk-1.example", "kiosk-1.example"),
            ("", "device"),
            ("\u{1b}[31mbox", "31mbox"),
        ] {
            assert_eq!(hostname_from(nodename), expected);
        }
        assert_eq!(hostname_from(&"x".repeat(1000)).len(), MAX_NAME_BYTES);
    }
}
