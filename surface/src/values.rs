//! JSON values as JSON Schema sees them: `1` and `1.0` are one number.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
};

use serde_json::{Number, Value};

use crate::work::of_text;

/// Largest number that a schema may name, and least, negated: beyond it, doubles skip whole numbers.
pub const MAX_EXACT: i64 = (1 << 53) - 1;

/// Compares two numbers by value.
pub fn compare(a: &Number, b: &Number) -> Ordering {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return a.cmp(&b);
    }
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

/// Compares two values in an order that holds for all of them; values that JSON Schema takes for the same are equal.
/// Adds to `steps` what that took. Members of objects are compared in the order in which the reader keeps them, which is
/// that of their names.
pub fn order(a: &Value, b: &Value, steps: &mut usize) -> Ordering {
    *steps += 2;
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => compare(a, b),
        (Value::String(a), Value::String(b)) => order_of_texts(a, b, steps),
        (Value::Array(a), Value::Array(b)) => a.len().cmp(&b.len()).then_with(|| {
            let mut orders = a.iter().zip(b).map(|(a, b)| order(a, b, steps));
            orders
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        }),
        (Value::Object(a), Value::Object(b)) => a.len().cmp(&b.len()).then_with(|| {
            let mut orders = a.iter().zip(b).map(|((name, a), (other, b))| {
                order_of_texts(name, other, steps).then_with(|| order(a, b, steps))
            });
            orders
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        }),
        (
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
            _,
        ) => rank(a).cmp(&rank(b)),
    }
}

fn order_of_texts(a: &str, b: &str, steps: &mut usize) -> Ordering {
    *steps += of_text(a.len().min(b.len()));
    a.cmp(b)
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// Steps to go through all of a value once.
pub fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + of_text(text.len()),
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(members) => {
            let sizes = members
                .iter()
                .map(|(name, member)| of_text(name.len()) + size(member));
            1 + sizes.sum::<usize>()
        }
    }
}

/// A value as a member of a set: equal to another where JSON Schema takes both for the same.
pub struct Member<'a>(pub &'a Value);

impl PartialEq for Member<'_> {
    fn eq(&self, other: &Self) -> bool {
        order(self.0, other.0, &mut 0).is_eq()
    }
}

impl Eq for Member<'_> {}

impl Hash for Member<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(rank(self.0));
        match self.0 {
            Value::Null => {}
            Value::Bool(value) => value.hash(state),
            Value::Number(number) => match whole(number) {
                Some(whole) => match i64::try_from(whole) {
                    Ok(whole) => state.write_i64(whole),
                    Err(_) => state.write_i128(whole),
                },
                None => state.write_u64(float(number).to_bits()),
            },
            Value::String(text) => text.hash(state),
            Value::Array(items) => {
                state.write_usize(items.len());
                for item in items {
                    Member(item).hash(state);
                }
            }
            Value::Object(members) => {
                state.write_usize(members.len());
                for (name, member) in members {
                    name.hash(state);
                    Member(member).hash(state);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

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
    fn values_that_are_the_same_are_equal_members_and_others_are_not() {
        let hash =
            |value: &Value| BuildHasherDefault::<DefaultHasher>::default().hash_one(Member(value));
        let rows = [
            (
                json!([1, {"a": 2.0, "b": []}]),
                json!([1.0, {"b": [], "a": 2}]),
                true,
            ),
            (json!("1"), json!(1), false),
            (json!([[1], 2]), json!([[1, 2]]), false),
            (json!({"a": 1}), json!({"a": 1, "b": null}), false),
            (json!({"a": 1}), json!({"b": 1}), false),
            (json!(1e300), json!(1e300), true),
            (json!(false), json!(null), false),
        ];
        for (a, b, expected) in rows {
            assert_eq!(Member(&a) == Member(&b), expected, "{a} {b}");
            assert_eq!(hash(&a) == hash(&b), expected, "{a} {b}");
            let back = order(&b, &a, &mut 0).reverse();
            assert_eq!(order(&a, &b, &mut 0), back, "{a} {b}");
        }
    }

    #[test]
    fn the_steps_of_a_comparison_are_those_up_to_the_first_difference() {
        let steps = |a: Value, b: Value| {
            let mut steps = 0;
            order(&a, &b, &mut steps);
            steps
        };
        assert_eq!(steps(json!(1), json!("1")), 2);
        assert_eq!(steps(json!([1, 2, 3]), json!([2, 2, 3])), 4);
        assert_eq!(steps(json!([1, 2, 3]), json!([1, 2, 4])), 8);
        assert_eq!(
            steps(json!("a".repeat(3200)), json!("a".repeat(3201))),
            2 + 201
        );
        assert_eq!(size(&json!({"a": [1, "b"]})), 1 + 1 + 1 + 1 + 2);
    }
}
