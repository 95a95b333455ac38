//! What a device says about itself, read and bounded. After this, no capability has a name that the API server refuses.

use std::collections::HashSet;

use crds::v1alpha1::{DeclaredCapability, Execution, Platform, device::Availability};
use proto::node;

/// Most capabilities that a device may declare.
pub const MAX_CAPABILITIES: usize = 128;
const MAX_CAPABILITY_NAME: usize = 63;
const MAX_WORD: usize = 64;
const MAX_HOSTNAME: usize = 253;

/// What a device is and can do, as it says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Declared {
    pub platform: Platform,
    pub capabilities: Vec<(DeclaredCapability, Availability)>,
}

impl Declared {
    /// Whether the device declares the capability, and can run it now.
    pub fn availability(&self, capability: &str) -> Option<Availability> {
        self.capabilities
            .iter()
            .find(|(declared, _)| declared.name == capability)
            .map(|(_, availability)| *availability)
    }
}

/// What is wrong with what a device says. The text is for who writes agents.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Invalid {
    #[error("platform.{field} is {bytes} bytes long, {limit} at most")]
    TooLong {
        field: &'static str,
        bytes: usize,
        limit: usize,
    },
    #[error("{count} capabilities, {MAX_CAPABILITIES} at most")]
    TooManyCapabilities { count: usize },
    #[error(
        "capability {index} has a name that is not dotted lower-case words of {MAX_CAPABILITY_NAME} bytes at most"
    )]
    CapabilityName { index: usize },
    #[error("capability {index} is declared twice")]
    DeclaredTwice { index: usize },
    #[error("capability {index} has an execution or availability that this gateway does not know")]
    UnknownEnum { index: usize },
}

/// Reads a registration.
pub fn read(request: node::RegisterRequest) -> Result<Declared, Invalid> {
    let platform = request.platform.unwrap_or_default();
    Ok(Declared {
        platform: Platform {
            os: bounded("os", platform.os, MAX_WORD)?,
            arch: bounded("arch", platform.arch, MAX_WORD)?,
            agent_version: bounded("agent_version", platform.agent_version, MAX_WORD)?,
            hostname: bounded("hostname", platform.hostname, MAX_HOSTNAME)?,
        },
        capabilities: read_capabilities(request.capabilities)?,
    })
}

/// Reads the capabilities of a registration or of an update.
pub fn read_capabilities(
    capabilities: Vec<node::Capability>,
) -> Result<Vec<(DeclaredCapability, Availability)>, Invalid> {
    if capabilities.len() > MAX_CAPABILITIES {
        return Err(Invalid::TooManyCapabilities {
            count: capabilities.len(),
        });
    }
    let mut names = HashSet::with_capacity(capabilities.len());
    for (index, capability) in capabilities.iter().enumerate() {
        if !is_capability_name(&capability.name) {
            return Err(Invalid::CapabilityName { index });
        }
        if !names.insert(capability.name.as_str()) {
            return Err(Invalid::DeclaredTwice { index });
        }
    }
    capabilities
        .into_iter()
        .enumerate()
        .map(|(index, capability)| {
            read_capability(capability).ok_or(Invalid::UnknownEnum { index })
        })
        .collect()
}

/// `None` for an enum's number that is newer than this gateway: what is not understood is not guessed.
fn read_capability(capability: node::Capability) -> Option<(DeclaredCapability, Availability)> {
    let execution = match node::Execution::try_from(capability.execution).ok()? {
        node::Execution::Unspecified | node::Execution::Automatic => Execution::Automatic,
        node::Execution::Mediated => Execution::Mediated,
    };
    let availability = match node::Availability::try_from(capability.availability).ok()? {
        node::Availability::Unspecified | node::Availability::Available => Availability::Available,
        node::Availability::Unavailable => Availability::Unavailable,
    };
    Some((
        DeclaredCapability {
            name: capability.name,
            execution,
            ..DeclaredCapability::default()
        },
        availability,
    ))
}

fn bounded(field: &'static str, text: String, limit: usize) -> Result<String, Invalid> {
    if text.len() > limit {
        return Err(Invalid::TooLong {
            field,
            bytes: text.len(),
            limit,
        });
    }
    Ok(text)
}

/// The pattern of the resource's schema: dotted words that begin and end with a letter or a digit.
fn is_capability_name(name: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_CAPABILITY_NAME
        && name.split('.').all(|word| {
            let bytes = word.as_bytes();
            bytes.first().is_some_and(is_edge)
                && bytes.last().is_some_and(is_edge)
                && bytes
                    .iter()
                    .all(|byte| is_edge(byte) || matches!(byte, b'-' | b'_'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(name: &str) -> node::Capability {
        node::Capability {
            name: name.to_owned(),
            ..node::Capability::default()
        }
    }

    #[test]
    fn names_that_the_schema_takes_are_taken_and_no_others() {
        for name in ["echo", "system.health", "desktop.open-url", "a", "a_b.c0"] {
            assert!(read_capabilities(vec![capability(name)]).is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "A",
            "a b",
            "a/b",
            "ä",
            &"a".repeat(64),
        ] {
            assert_eq!(
                read_capabilities(vec![capability(name)]),
                Err(Invalid::CapabilityName { index: 0 }),
                "{name}"
            );
        }
    }

    #[test]
    fn a_capability_is_declared_once() {
        assert_eq!(
            read_capabilities(vec![capability("echo"), capability("echo")]),
            Err(Invalid::DeclaredTwice { index: 1 })
        );
    }

    #[test]
    fn more_capabilities_than_may_be_are_refused() {
        let many = |count: usize| (0..count).map(|n| capability(&format!("c{n}"))).collect();
        assert_eq!(read_capabilities(many(128)).unwrap().len(), 128);
        assert_eq!(
            read_capabilities(many(129)),
            Err(Invalid::TooManyCapabilities { count: 129 })
        );
    }

    #[test]
    fn an_enum_from_the_future_is_not_guessed() {
        let mut mediated = capability("echo");
        mediated.execution = 17;
        assert_eq!(
            read_capabilities(vec![mediated]),
            Err(Invalid::UnknownEnum { index: 0 })
        );
    }

    #[test]
    fn a_platform_is_bounded() {
        let request = |hostname: String| node::RegisterRequest {
            platform: Some(node::Platform {
                hostname,
                ..node::Platform::default()
            }),
            ..node::RegisterRequest::default()
        };
        assert!(read(request("h".repeat(253))).is_ok());
        assert_eq!(
            read(request("h".repeat(254))),
            Err(Invalid::TooLong {
                field: "hostname",
                bytes: 254,
                limit: 253
            })
        );
    }
}
