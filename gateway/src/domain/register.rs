//! What a device says about itself, read and bounded. After this, no capability has a name that the API server refuses.

use std::collections::HashSet;

use crds::v1alpha1::{DeclaredCapability, Execution, Platform, device::Availability};
use proto::{MAX_TIMEOUT_SECONDS, node};
use surface::{MAX_DEVICE_PATTERN_BYTES, Schema};

use super::words::is_one_line;

/// Most capabilities that a device may declare.
pub const MAX_CAPABILITIES: usize = 128;
const MAX_CAPABILITY_NAME: usize = 63;
const MAX_WORD: usize = 64;
const MAX_HOSTNAME: usize = 253;
const MAX_VERSION: usize = 32;
const MAX_DESCRIPTION: usize = 256;
/// Most bytes of all schemas of a device: what its Device holds, and every watch of it.
pub const MAX_SCHEMAS: usize = 64 * 1024;
/// Most invocations of a device at once.
pub const MAX_CONCURRENCY: usize = 64;
/// Where a device does not say.
const DEFAULT_CONCURRENCY: usize = 8;

/// What a device is and can do, as it says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Declared {
    pub platform: Platform,
    /// Their schemas are such, as canonical JSON.
    pub capabilities: Vec<(DeclaredCapability, Availability)>,
    /// Invocations that it takes at once: 1 to [`MAX_CONCURRENCY`]. 0 takes none, and is nothing that was read.
    pub concurrency: usize,
}

impl Declared {
    /// Whether the device declares the capability, and can run it now.
    pub fn availability(&self, capability: &str) -> Option<Availability> {
        self.capabilities
            .iter()
            .find(|(declared, _)| declared.name == capability)
            .map(|(_, availability)| *availability)
    }

    /// Runs of the capability that the device takes at once.
    pub fn concurrency_of(&self, capability: &str) -> usize {
        let mut capabilities = self.capabilities.iter();
        capabilities
            .find(|(declared, _)| declared.name == capability)
            .and_then(|(declared, _)| usize::try_from(declared.concurrency?).ok())
            .unwrap_or(usize::MAX)
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
    #[error(
        "platform.{field} has control characters in it, or characters that cannot be seen or turn the direction of writing"
    )]
    NotOneLine { field: &'static str },
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
    #[error("capability {name}: {what}")]
    Capability { name: String, what: String },
    #[error(
        "the schemas of all capabilities are {bytes} bytes long, {MAX_SCHEMAS} at most together"
    )]
    SchemasTooLong { bytes: usize },
    #[error(
        "the patterns in the schemas of all capabilities take more than {MAX_DEVICE_PATTERN_BYTES} bytes of memory \
         together: use shorter ones, or smaller counts in them"
    )]
    PatternsTooLarge,
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
        concurrency: match request.concurrency {
            0 => DEFAULT_CONCURRENCY,
            most => usize::try_from(most)
                .unwrap_or(usize::MAX)
                .min(MAX_CONCURRENCY),
        },
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
    let bytes = schema_bytes(&capabilities);
    if bytes > MAX_SCHEMAS {
        return Err(Invalid::SchemasTooLong { bytes });
    }
    // A collected result has room for four, and most devices have one or two.
    let mut read = Vec::with_capacity(capabilities.len());
    let mut pattern_bytes = 0;
    for (index, capability) in capabilities.into_iter().enumerate() {
        read.push(read_capability(index, capability, &mut pattern_bytes)?);
        if pattern_bytes > MAX_DEVICE_PATTERN_BYTES {
            return Err(Invalid::PatternsTooLarge);
        }
    }
    Ok(read)
}

/// Bytes of all schemas: the time that it takes to read them grows with these.
pub fn schema_bytes(capabilities: &[node::Capability]) -> usize {
    capabilities
        .iter()
        .map(|capability| capability.input_schema.len() + capability.output_schema.len())
        .sum()
}

/// An enum's number that is newer than this gateway is not guessed.
fn read_capability(
    index: usize,
    capability: node::Capability,
    pattern_bytes: &mut usize,
) -> Result<(DeclaredCapability, Availability), Invalid> {
    let unknown = |_| Invalid::UnknownEnum { index };
    let node::Capability {
        name,
        execution,
        availability,
        version,
        description,
        input_schema,
        output_schema,
        default_timeout_seconds,
        max_timeout_seconds,
        concurrency,
    } = capability;
    let execution = match node::Execution::try_from(execution).map_err(unknown)? {
        node::Execution::Unspecified | node::Execution::Automatic => Execution::Automatic,
        node::Execution::Mediated => Execution::Mediated,
    };
    let availability = match node::Availability::try_from(availability).map_err(unknown)? {
        node::Availability::Unspecified | node::Availability::Available => Availability::Available,
        node::Availability::Unavailable => Availability::Unavailable,
    };
    let most = u32::try_from(MAX_CONCURRENCY).unwrap_or(u32::MAX);
    let read = || -> Result<_, String> {
        Ok(DeclaredCapability {
            execution,
            version: words("version", version, MAX_VERSION)?,
            description: words("description", description, MAX_DESCRIPTION)?,
            input_schema: schema("input_schema", &input_schema, pattern_bytes)?,
            output_schema: schema("output_schema", &output_schema, pattern_bytes)?,
            default_timeout_seconds: number(
                "default_timeout_seconds",
                default_timeout_seconds,
                MAX_TIMEOUT_SECONDS,
            )?,
            max_timeout_seconds: number(
                "max_timeout_seconds",
                max_timeout_seconds,
                MAX_TIMEOUT_SECONDS,
            )?,
            concurrency: number("concurrency", concurrency, most)?,
            ..DeclaredCapability::default()
        })
    };
    match read() {
        Ok(declared) => Ok((DeclaredCapability { name, ..declared }, availability)),
        Err(what) => Err(Invalid::Capability { name, what }),
    }
}

/// `None` where nothing is said.
fn words(field: &str, text: String, limit: usize) -> Result<Option<String>, String> {
    if text.len() > limit {
        let bytes = text.len();
        return Err(format!("{field} is {bytes} bytes long, {limit} at most"));
    }
    if !is_one_line(&text) {
        return Err(format!("{field} has control characters in it"));
    }
    Ok((!text.is_empty()).then_some(text))
}

/// `None` where nothing is said.
fn schema(field: &str, text: &[u8], pattern_bytes: &mut usize) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let schema = Schema::parse(text).map_err(|invalid| format!("{field}: {invalid}"))?;
    *pattern_bytes += schema.pattern_bytes();
    Ok(Some(schema.text().to_owned()))
}

/// `None` where nothing is said.
fn number(field: &str, number: u32, most: u32) -> Result<Option<i64>, String> {
    if number > most {
        return Err(format!("{field} is {number}, {most} at most"));
    }
    Ok((number > 0).then_some(number.into()))
}

fn bounded(field: &'static str, text: String, limit: usize) -> Result<String, Invalid> {
    if text.len() > limit {
        return Err(Invalid::TooLong {
            field,
            bytes: text.len(),
            limit,
        });
    }
    if !is_one_line(&text) {
        return Err(Invalid::NotOneLine { field });
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
    fn what_a_capability_takes_is_read_and_bounded() {
        type Change = fn(&mut node::Capability);
        let read = |change: Change| {
            let mut one = capability("door.open");
            change(&mut one);
            read_capabilities(vec![one]).map_err(|invalid| invalid.to_string())
        };
        let whole = read(|one| {
            one.version = "1.2".to_owned();
            one.description = "Opens a door".to_owned();
            one.input_schema = b"{ \"type\": \"string\",\n \"maxLength\": 3.0 }".to_vec();
            one.default_timeout_seconds = 10;
            one.max_timeout_seconds = 3600;
            one.concurrency = 64;
        });
        let expected = DeclaredCapability {
            name: "door.open".to_owned(),
            version: Some("1.2".to_owned()),
            description: Some("Opens a door".to_owned()),
            input_schema: Some(r#"{"maxLength":3,"type":"string"}"#.to_owned()),
            default_timeout_seconds: Some(10),
            max_timeout_seconds: Some(3600),
            concurrency: Some(64),
            ..DeclaredCapability::default()
        };
        assert_eq!(whole.unwrap(), [(expected, Availability::Available)]);
        let rows: [(Change, &str); 9] = [
            (
                |one| one.version = "v".repeat(33),
                "version is 33 bytes long, 32 at most",
            ),
            (
                |one| one.version = "1\u{1b}[2J".to_owned(),
                "version has control characters",
            ),
            (
                |one| one.description = "d".repeat(257),
                "description is 257",
            ),
            (
                |one| one.description = "a\u{202e}b".to_owned(),
                "description has control",
            ),
            (
                |one| one.input_schema = b"{\"$ref\":\"#\"}".to_vec(),
                "input_schema: at /$ref",
            ),
            (
                |one| one.output_schema = "{\"title\":\"\u{202e}\"}".into(),
                "output_schema: it has characters in it that change how it is shown",
            ),
            (
                |one| one.max_timeout_seconds = 3601,
                "max_timeout_seconds is 3601, 3600 at most",
            ),
            (
                |one| one.default_timeout_seconds = u32::MAX,
                "default_timeout_seconds",
            ),
            (|one| one.concurrency = 65, "concurrency is 65, 64 at most"),
        ];
        for (change, says) in rows {
            let invalid = read(change).unwrap_err();
            assert!(invalid.starts_with("capability door.open: "), "{invalid}");
            assert!(invalid.contains(says), "{invalid}");
        }
    }

    #[test]
    fn all_schemas_together_are_bounded() {
        let long = format!("{{\"title\":\"{}\"}}", "x".repeat(4084)).into_bytes();
        assert_eq!(long.len(), 4096);
        let many = |count: usize| -> Vec<node::Capability> {
            let of = |n| node::Capability {
                input_schema: long.clone(),
                ..capability(&format!("c{n}"))
            };
            (0..count).map(of).collect()
        };
        assert!(read_capabilities(many(16)).is_ok());
        assert_eq!(
            read_capabilities(many(17)),
            Err(Invalid::SchemasTooLong { bytes: 17 * 4096 })
        );
    }

    #[test]
    fn all_patterns_together_are_bounded() {
        let many = |count: usize| -> Vec<node::Capability> {
            let of = |n| node::Capability {
                output_schema: br#"{"pattern":"[a-z]{1,253}"}"#.to_vec(),
                ..capability(&format!("c{n}"))
            };
            (0..count).map(of).collect()
        };
        assert!(read_capabilities(many(32)).is_ok());
        assert_eq!(
            read_capabilities(many(128)),
            Err(Invalid::PatternsTooLarge),
            "each takes 16 KiB at least"
        );
    }

    #[test]
    fn how_much_a_device_takes_at_once_is_its_own_word_within_bounds() {
        for (said, expected) in [(0, 8), (1, 1), (64, 64), (u32::MAX, 64)] {
            let request = node::RegisterRequest {
                concurrency: said,
                ..node::RegisterRequest::default()
            };
            assert_eq!(read(request).unwrap().concurrency, expected);
        }
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
