//! Canonical JSON (RFC 8785) of a value that was read.
//!
//! The library that knows the form is asked for what is hard about it, numbers with a fraction or an exponent. The rest is
//! written here, for the library takes most of the time in which a schema is read, and devices choose how many are.

use serde_json::{Map, Number, Value};

/// Writes a value. `None` where a number has no such form.
pub fn text(value: &Value) -> Option<String> {
    let mut text = String::new();
    write(value, &mut text)?;
    Some(text)
}

fn write(value: &Value, into: &mut String) -> Option<()> {
    match value {
        Value::Null => into.push_str("null"),
        Value::Bool(true) => into.push_str("true"),
        Value::Bool(false) => into.push_str("false"),
        Value::Number(number) => write_number(number, into)?,
        Value::String(text) => write_text(text, into),
        Value::Array(items) => {
            into.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                write(item, into)?;
            }
            into.push(']');
        }
        Value::Object(members) => {
            into.push('{');
            for (index, (name, member)) in in_order(members).into_iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                write_text(name, into);
                into.push(':');
                write(member, into)?;
            }
            into.push('}');
        }
    }
    Some(())
}

/// The order is that of UTF-16, which differs from that of UTF-8 where a name has a character beyond all surrogates.
fn in_order(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = members.iter().collect();
    let is_other = |name: &str| name.chars().any(|character| character > '\u{d7ff}');
    if members.iter().any(|(name, _)| is_other(name)) {
        members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    }
    members
}

/// Whole numbers that doubles hold exactly are written as they are; all others are those of the library.
fn write_number(number: &Number, into: &mut String) -> Option<()> {
    if let Some(whole) = number.as_i64()
        && whole.unsigned_abs() <= crate::values::MAX_EXACT.unsigned_abs()
    {
        into.push_str(&whole.to_string());
        return Some(());
    }
    into.push_str(&serde_json_canonicalizer::to_string(number).ok()?);
    Some(())
}

fn write_text(text: &str, into: &mut String) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        into.push('"');
        into.push_str(text);
        into.push('"');
    } else {
        into.push_str(&Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_form_is_that_of_the_library() {
        for value in [
            json!(null),
            json!([true, false, []]),
            json!({"b": 1, "a": {"z": "", "y": [{}]}}),
            json!([
                0,
                -0.0,
                1.0,
                1.5,
                -7,
                1e21,
                1e-7,
                1e300,
                333_333_333.333_333_3
            ]),
            json!([i64::MAX, i64::MIN, u64::MAX, 9_007_199_254_740_993_i64]),
            json!("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\"\\/\u{7f}\u{80}\u{2028}é\u{1f600}"),
            json!({"\u{e000}": 1, "\u{1f600}": 2, "\u{ffff}": 3, "\u{d7ff}": 4, "a": 5}),
            json!({"\n": 1, "\"": 2, "": 3}),
        ] {
            let expected = serde_json_canonicalizer::to_string(&value).unwrap();
            assert_eq!(text(&value), Some(expected));
        }
    }
}
