//! JSON values as JSON Schema sees them: `1` and `1.0` are one number.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// Largest number that a schema may name, and least, negated: beyond it, doubles skip whole numbers.
pub const MAX_EXACT: i64 = (1 << 53) - 1;

/// Compares two numbers by value.
pub fn compare(a: &Number, b: &Number) -> Ordering {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => float(a).total_cmp(&float(b)),
    }
}

/// The number, if it is whole.
pub fn whole(number: &Number) -> Option<i128> {
    if let Some(number) = number.as_i64() {
        return Some(number.into());
    }
    if let Some(number) = number.as_u64() {
        return Some(number.into());
    }
    let float = float(number);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is whole and, by the bound, fits"
    )]
    let whole = (float.fract() == 0.0 && float.abs() < 1e30).then_some(float as i128);
    whole
}

/// Whether it has no fraction. Larger ones than [`whole`] gives have none.
pub fn is_whole(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || float(number).fract() == 0.0
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

/// Whether both are the same value.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b) == Ordering::Equal,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
            _,
        ) => a == b,
    }
}

/// Two values that are the same have the same key.
pub fn key(value: &Value, into: &mut String) {
    match value {
        Value::Number(number) => match whole(number) {
            Some(whole) => into.push_str(&whole.to_string()),
            None => into.push_str(&float(number).to_string()),
        },
        Value::Array(items) => {
            into.push('[');
            for item in items {
                key(item, into);
                into.push(',');
            }
            into.push(']');
        }
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            into.push('{');
            for name in names {
                into.push_str(&Value::String(name.clone()).to_string());
                into.push(':');
                key(&members[name], into);
                into.push(',');
            }
            into.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => into.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        let rows = [
            (json!(1), json!(1.0), Ordering::Equal),
            (json!(-1), json!(u64::MAX), Ordering::Less),
            (json!(1.5), json!(1), Ordering::Greater),
            (json!(i64::MAX), json!(1e20), Ordering::Less),
            (json!(-0.0), json!(0), Ordering::Equal),
            (json!(1e300), json!(1), Ordering::Greater),
        ];
        for (a, b, expected) in rows {
            let (Value::Number(x), Value::Number(y)) = (&a, &b) else {
                unreachable!("numbers")
            };
            assert_eq!(compare(x, y), expected, "{a} {b}");
        }
    }

    #[test]
    fn what_is_the_same_has_the_same_key() {
        let of = |value: &Value| {
            let mut text = String::new();
            key(value, &mut text);
            text
        };
        let rows = [
            (
                json!([1, {"a": 2.0, "b": []}]),
                json!([1.0, {"b": [], "a": 2}]),
                true,
            ),
            (json!("1"), json!(1), false),
            (json!([[1], 2]), json!([[1, 2]]), false),
            (json!({"a": 1}), json!({"a": 1, "b": null}), false),
        ];
        for (a, b, expected) in rows {
            assert_eq!(same(&a, &b), expected, "{a} {b}");
            assert_eq!(of(&a) == of(&b), expected, "{a} {b}");
        }
    }
}
