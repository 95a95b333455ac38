//! Pieces of schema that the derive cannot express: bounds on what maps and lists contain, and free JSON.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::v1alpha1::capability_invocation::ErrorCode;

/// Most capabilities that one device may declare or be granted.
pub const MAX_CAPABILITIES: usize = 128;

/// Largest whole number that every reader of JSON reads exactly: 2^53 - 1. What only grows has no bound of its own.
pub const MAX_WHOLE: i64 = 9_007_199_254_740_991;

/// `echo`, `system.health`, `desktop.open-url`: dotted lower-case words.
pub const CAPABILITY_NAME: &str =
    r"^[a-z0-9]([-a-z0-9_]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9_]*[a-z0-9])?)*$";

/// SHA-256 in lower-case hexadecimal digits.
pub const SHA256_HEX: &str = r"^[0-9a-f]{64}$";

/// Base64 (RFC 4648, section 4) with its padding.
pub const BASE64: &str = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$";

/// Name of an object (RFC 1123 subdomain).
pub const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// A moment of UTC that every program of ours can read. The format `date-time` alone allows more: offsets of 99 hours,
/// and the last day of the year 9999, which is later than `jiff::Timestamp::MAX`. An object with one moment that cannot
/// be read is hidden as a whole.
pub const MOMENT: &str =
    r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$";

/// Conditions as in the Kubernetes API conventions, with the bounds that the reference schema leaves out.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 64, "minLength": 1, "description": "What the condition is about."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "reason": {"type": "string", "maxLength": 64, "minLength": 1, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", "description": "Why, in one word for programs."},
                "message": {"type": "string", "maxLength": 1024, "description": "Why, in words for people."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 64, "pattern": MOMENT, "description": "When the status last changed."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_WHOLE, "description": "The metadata.generation that the condition is about."}
            }
        }
    })
}

/// Label keys and values as Kubernetes takes them: what is approved must not fail when the Device is made.
pub fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
        },
        "x-kubernetes-validations": [{
            "rule": "self.all(key, !format.qualifiedName().validate(key).hasValue())",
            "message": "a label's key is a name, or a domain and a name: site, example.org/site"
        }]
    })
}

/// A set of capability names.
pub fn capability_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_CAPABILITIES,
        "x-kubernetes-list-type": "set",
        "items": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": CAPABILITY_NAME}
    })
}

/// Digests by the name of a capability.
pub fn surfaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_CAPABILITIES,
        "additionalProperties": {"type": "string", "minLength": 64, "maxLength": 64, "pattern": SHA256_HEX},
        "x-kubernetes-validations": [{
            "rule": "self.all(name, size(name) <= 63)",
            "message": "the name of a capability is 63 characters long at most"
        }]
    })
}

/// Any JSON value. Its size is bounded by the gateway, for a schema cannot.
pub fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// A moment, with the bounds that the reference schema leaves out: see [`MOMENT`].
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "maxLength": 64, "pattern": MOMENT})
}

/// A moment as Kubernetes writes its own: one way to write it, so that a digest over it has one value.
pub fn whole_second(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "date-time",
        "maxLength": 20,
        "pattern": r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
    })
}

/// Keeps what each value of an enum means, as the title: the schema of a custom resource has only one description for
/// all of them, which [`crate::definition`] adds this to.
pub fn name_variants(schema: &mut Schema) {
    name(schema, |_| None);
}

/// The same for the codes of errors, each with what the user can do.
pub fn name_codes(schema: &mut Schema) {
    name(schema, |code| {
        let code: ErrorCode = serde_json::from_value(code.into()).ok()?;
        Some(code.remedy())
    });
}

fn name(schema: &mut Schema, more: fn(&str) -> Option<&'static str>) {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let variants: Vec<String> = schema
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|variant| {
            let name = text(variant, "const")?;
            let mut line = format!("{name}: {}", text(variant, "description")?);
            if let Some(more) = more(&name) {
                line.push_str(" What to do: ");
                line.push_str(more);
            }
            Some(line)
        })
        .collect();
    if !variants.is_empty() {
        schema.insert("title".to_owned(), variants.join("\n").into());
    }
}
