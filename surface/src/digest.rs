//! What a grant names.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::canonical;

/// SHA-256, in hexadecimal, of what a grant is about: how a capability is started (`Automatic` or `Mediated`), and the
/// schema of its input, if it has one. Over canonical JSON (RFC 8785), so that white space and the order of keys are
/// no difference.
///
/// A text that is no JSON has a digest, too: that of no schema.
pub fn digest(execution: &str, input_schema: Option<&str>) -> String {
    let mut about = json!({ "execution": execution });
    if let Some(text) = input_schema {
        about["inputSchema"] =
            serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    }
    // Whatever JSON holds can be written; numbers beyond what it holds exactly are no schema's.
    let canonical =
        canonical::text(&about).unwrap_or_else(|| format!("{execution} {input_schema:?}"));
    hex::encode(Sha256::digest(canonical))
}

/// As [`digest()`] of a text that is canonical already, as that of each [`Schema`](crate::Schema) is, without reading it.
/// Of any other text it is the digest of nothing.
pub fn digest_of_canonical(execution: &str, input_schema: Option<&str>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(br#"{"execution":"#);
    hasher.update(Value::from(execution).to_string());
    if let Some(text) = input_schema {
        hasher.update(br#","inputSchema":"#);
        hasher.update(text);
    }
    hasher.update(b"}");
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_canonical_json() {
        // printf '{"execution":"Automatic"}' | sha256sum
        assert_eq!(
            digest("Automatic", None),
            "f3120ac09f2596604930d7295d3b002587fa1ed00f980cd7d7850ee19fba8e02"
        );
        // printf '{"execution":"Mediated","inputSchema":{"maximum":10,"type":"integer"}}' | sha256sum
        assert_eq!(
            digest("Mediated", Some(r#"{ "type": "integer", "maximum": 1e1 }"#)),
            "1f6afe2f1430c393558d68b85a726aef192fc6b11206727f704c87dd3c295a32"
        );
    }

    #[test]
    fn the_digest_of_a_canonical_text_needs_no_reading() {
        for text in [
            None,
            Some("true"),
            Some(r#"{"maximum":10,"type":"integer"}"#),
        ] {
            for execution in ["Automatic", "Mediated"] {
                let expected = digest(execution, text);
                assert_eq!(digest_of_canonical(execution, text), expected);
            }
        }
    }

    #[test]
    fn white_space_and_order_are_no_difference_and_everything_else_is() {
        let of = |text| digest("Automatic", Some(text));
        assert_eq!(
            of(r#"{"type":"string","maxLength":3}"#),
            of(r#" {"maxLength": 3.0, "type": "string"}"#)
        );
        assert_ne!(of(r#"{"maxLength":3}"#), of(r#"{"maxLength":4}"#));
        assert_ne!(of("true"), digest("Automatic", None));
        assert_ne!(of("true"), digest("Mediated", Some("true")));
        assert_ne!(of("{"), of("{{"), "no JSON");
    }
}
