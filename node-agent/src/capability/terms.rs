//! What a capability takes and answers, as it says itself to who grants it and to who invokes it; and whether inputs and
//! outputs are that.

use std::sync::LazyLock;

use proto::node::{self, FailureCode};
use serde_json::Value;
use surface::Schema;

use super::{Capability, Failure};

/// Most bytes of a version.
pub const MAX_VERSION_BYTES: usize = 32;
/// Most bytes of a description, as gateways have it: they refuse a device that says more.
const MAX_DESCRIPTION_BYTES: usize = 256;
/// Most bytes of all schemas of a device: a gateway refuses a device that declares more.
pub const MAX_SCHEMAS_BYTES: usize = 64 * 1024;
/// Most runs at once that can be declared.
const MAX_CONCURRENCY: u32 = 64;
/// Larger outputs are not looked at: to read them again takes many times their size.
const MAX_CHECKED_BYTES: usize = 256 * 1024;

/// What a capability takes and answers. What is empty or 0 is not said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Terms {
    /// [`MAX_VERSION_BYTES`] at most.
    pub version: String,
    pub input: Option<Schema>,
    pub output: Option<Schema>,
    /// 3600 at most.
    pub default_timeout_seconds: u32,
    /// 3600 at most.
    pub max_timeout_seconds: u32,
}

/// Those of who has none.
pub(super) static NONE: LazyLock<Terms> = LazyLock::new(Terms::default);

impl Terms {
    /// Of something that is built in. Schemas are JSON.
    pub(super) fn built_in(input: Option<&str>, output: Option<&str>) -> Self {
        let schema = |text: &str| {
            Schema::parse(text.as_bytes()).expect("schemas of what is built in are tested")
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            input: input.map(schema),
            output: output.map(schema),
            ..Self::default()
        }
    }

    /// Bytes of its schemas.
    pub fn schema_bytes(&self) -> usize {
        let schemas = [&self.input, &self.output].into_iter().flatten();
        schemas.map(|schema| schema.text().len()).sum()
    }

    /// Memory of the regular expressions in its schemas, in bytes.
    pub fn pattern_bytes(&self) -> usize {
        let schemas = [&self.input, &self.output].into_iter().flatten();
        schemas.map(Schema::pattern_bytes).sum()
    }

    /// Whether the input, which is JSON, is what the capability takes.
    ///
    /// # Errors
    /// `INVALID_INPUT`, with the place.
    pub fn takes(&self, input: &[u8]) -> Result<(), Failure> {
        let Some(schema) = &self.input else {
            return Ok(());
        };
        let invalid = |what: String| {
            Failure::new(
                FailureCode::InvalidInput,
                format!("it does not take the input: {what}"),
            )
        };
        let input: Value =
            serde_json::from_slice(input).map_err(|error| invalid(error.to_string()))?;
        schema
            .check(&input)
            .map_err(|mismatch| invalid(mismatch.to_string()))
    }

    /// The output, if it is what the capability answers. It ran, whatever comes of this.
    ///
    /// # Errors
    /// `CAPABILITY_FAILED`, with the place.
    pub fn answers(&self, output: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let Some(schema) = &self.output else {
            return Ok(output);
        };
        // Empty, it stands in a file: that is a large one, too.
        if output.is_empty() || output.len() > MAX_CHECKED_BYTES {
            return Ok(output);
        }
        let failed = |what: String| {
            Failure::new(
                FailureCode::CapabilityFailed,
                format!("it ran, and its output is not what it declares: {what}"),
            )
        };
        let value: Value =
            serde_json::from_slice(&output).map_err(|error| failed(error.to_string()))?;
        match schema.check(&value) {
            Ok(()) => Ok(output),
            Err(mismatch) => Err(failed(mismatch.to_string())),
        }
    }
}

/// What a gateway is told of a capability.
pub(super) fn declared(capability: &dyn Capability) -> node::Capability {
    let text = |schema: &Option<Schema>| {
        let text = schema
            .as_ref()
            .map(|schema| schema.text().as_bytes().to_vec());
        text.unwrap_or_default()
    };
    let Terms {
        version,
        input,
        output,
        default_timeout_seconds,
        max_timeout_seconds,
    } = capability.terms();
    let mut description = capability.description().to_owned();
    description.truncate(description.floor_char_boundary(MAX_DESCRIPTION_BYTES));
    node::Capability {
        name: capability.name().to_owned(),
        execution: capability.execution().into(),
        availability: capability.availability().into(),
        version: version.clone(),
        description,
        input_schema: text(input),
        output_schema: text(output),
        default_timeout_seconds: *default_timeout_seconds,
        max_timeout_seconds: *max_timeout_seconds,
        // More is as many as the device runs: nothing is said.
        concurrency: u32::try_from(capability.concurrency())
            .ok()
            .filter(|runs| *runs <= MAX_CONCURRENCY)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes() -> Terms {
        let schema = r#"{"type":"object","properties":{"minutes":{"maximum":60}}}"#;
        Terms::built_in(Some(schema), Some(schema))
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place_and_whether_it_ran() {
        let terms = minutes();
        assert_eq!(terms.takes(br#"{"minutes":60}"#), Ok(()));
        let failure = terms.takes(br#"{"minutes":61}"#).unwrap_err();
        assert_eq!(failure.code, FailureCode::InvalidInput);
        assert!(
            failure.message.contains("/minutes: must be at most 60"),
            "{failure}"
        );
        let fitting = br#"{"minutes":1}"#.to_vec();
        assert_eq!(terms.answers(fitting.clone()), Ok(fitting));
        let failure = terms.answers(b"[]".to_vec()).unwrap_err();
        assert_eq!(failure.code, FailureCode::CapabilityFailed);
        assert!(failure.message.contains("it ran"), "{failure}");
        assert_eq!(Terms::default().takes(b"[]"), Ok(()));
    }
}
