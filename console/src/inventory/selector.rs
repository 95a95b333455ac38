//! Label selectors, as `kubectl get -l` takes them.
//!
//! ```text
//! selector    = requirement *("," requirement)
//! requirement = key | "!" key | key ("=" | "==" | "!=") value | key ("in" | "notin") "(" value *("," value) ")"
//! ```
//!
//! What Kubernetes takes is taken, with what it means there: `!=` and `notin` select what does not have the key, too.
//! Comparisons with numbers (`>`, `<`) are not.

use std::{fmt, str::FromStr};

use kube::core::{Expression, Selector, SelectorExt as _};

/// Most bytes of a selector.
const MAX_TEXT: usize = 1024;
/// Most requirements of one.
const MAX_REQUIREMENTS: usize = 16;
/// Most values of a requirement.
const MAX_VALUES: usize = 32;
/// Longest prefix of a key.
const MAX_PREFIX: usize = 253;
/// Longest name of a key, and longest value.
const MAX_PART: usize = 63;

/// Selects devices by their labels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LabelSelector(Selector);

/// What is no selector.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidSelector {
    #[error("a selector is {MAX_TEXT} bytes long at most")]
    TooLong,
    #[error("a selector has {MAX_REQUIREMENTS} requirements at most")]
    TooManyRequirements,
    #[error("`in` and `notin` take {MAX_VALUES} values at most")]
    TooManyValues,
    #[error(
        "requirement {0} is empty: write KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (A,B) or KEY notin (A,B)"
    )]
    Empty(usize),
    #[error("requirement {0} compares numbers, which labels of devices are not")]
    Compares(usize),
    #[error("the values of requirement {0} stand in no parentheses: write KEY in (A,B)")]
    NoValues(usize),
    #[error(
        "the key of requirement {0} is none: up to 63 letters, digits and -_. , with an optional prefix DOMAIN/"
    )]
    Key(usize),
    #[error(
        "a value of requirement {0} is none: up to 63 letters, digits and -_. , letters or digits at both ends"
    )]
    Value(usize),
}

impl LabelSelector {
    pub fn matches(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }
}

/// The same for every selector that was written alike, but for white space.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LabelSelector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > MAX_TEXT {
            return Err(InvalidSelector::TooLong);
        }
        let mut selector = Selector::default();
        let (mut rest, mut nth) = (text, 0);
        loop {
            nth += 1;
            if nth > MAX_REQUIREMENTS {
                return Err(InvalidSelector::TooManyRequirements);
            }
            let (requirement, after) = split_requirement(rest);
            selector.extend(expression(requirement.trim(), nth)?);
            match after {
                Some(after) => rest = after,
                None => return Ok(Self(selector)),
            }
        }
    }
}

/// The text up to the first comma that is not in parentheses, and what is after it.
fn split_requirement(text: &str) -> (&str, Option<&str>) {
    let mut inside = false;
    let end = text.find(|character| {
        match character {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        character == ',' && !inside
    });
    match end {
        Some(end) => (&text[..end], Some(&text[end + 1..])),
        None => (text, None),
    }
}

fn expression(text: &str, nth: usize) -> Result<Expression, InvalidSelector> {
    if text.is_empty() {
        return Err(InvalidSelector::Empty(nth));
    }
    if let Some(absent) = text.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(key(absent, nth)?));
    }
    if text.contains(['<', '>']) {
        return Err(InvalidSelector::Compares(nth));
    }
    // A set's values may be anything but these signs, so they are looked for first where there are no parentheses.
    if let Some((before, _)) = text.split_once('(') {
        return set(text, before, nth);
    }
    if let Some((before, after)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(key(before, nth)?, value(after, nth)?));
    }
    if let Some((before, after)) = text.split_once('=') {
        let after = after.strip_prefix('=').unwrap_or(after);
        return Ok(Expression::Equal(key(before, nth)?, value(after, nth)?));
    }
    match text.split_whitespace().nth(1) {
        Some("in" | "notin") => Err(InvalidSelector::NoValues(nth)),
        _ => Ok(Expression::Exists(key(text, nth)?)),
    }
}

/// `text` is `KEY in (A,B)`, `before` what stands before the parenthesis.
fn set(text: &str, before: &str, nth: usize) -> Result<Expression, InvalidSelector> {
    let mut words = before.split_whitespace();
    let (Some(name), Some(operator), None) = (words.next(), words.next(), words.next()) else {
        return Err(InvalidSelector::Key(nth));
    };
    let inside = text[before.len() + 1..]
        .strip_suffix(')')
        .ok_or(InvalidSelector::NoValues(nth))?;
    if inside.split(',').count() > MAX_VALUES {
        return Err(InvalidSelector::TooManyValues);
    }
    let key = key(name, nth)?;
    let values = inside
        .split(',')
        .map(|text| value(text, nth))
        .collect::<Result<_, _>>()?;
    match operator {
        "in" => Ok(Expression::In(key, values)),
        "notin" => Ok(Expression::NotIn(key, values)),
        _ => Err(InvalidSelector::Key(nth)),
    }
}

fn key(text: &str, nth: usize) -> Result<String, InvalidSelector> {
    let text = text.trim();
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_prefix = |prefix: &str| prefix.len() <= MAX_PREFIX && console_api::id::is_name(prefix);
    if !name.is_empty() && is_part(name) && prefix.is_none_or(is_prefix) {
        Ok(text.to_owned())
    } else {
        Err(InvalidSelector::Key(nth))
    }
}

fn value(text: &str, nth: usize) -> Result<String, InvalidSelector> {
    let text = text.trim();
    if is_part(text) {
        Ok(text.to_owned())
    } else {
        Err(InvalidSelector::Value(nth))
    }
}

/// Whether it may be the name of a key, or a value; a value may be empty.
fn is_part(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let at_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_PART
        && bytes.iter().copied().all(inside)
        && at_end(bytes.first())
        && at_end(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let selector: LabelSelector = selector.parse().unwrap();
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        selector.matches(&labels.collect())
    }

    #[test]
    fn selects_what_kubectl_selects() {
        let lamp = [("room", "a"), ("example.com/kind", "lamp"), ("empty", "")];
        for selector in [
            "room",
            "room=a",
            "room==a",
            " room = a ",
            "room!=b",
            "absent!=b",
            "!absent",
            "room in (a,b)",
            "room in(b, a)",
            "room notin (b)",
            "absent notin (b)",
            "example.com/kind=lamp,room in (a),!absent",
            "empty=",
            "empty in (,x)",
        ] {
            assert!(matches(selector, &lamp), "{selector}");
        }
        for selector in [
            "!room",
            "room=b",
            "room!=a",
            "room in (b)",
            "room notin (a,b)",
            "absent",
            "room,absent",
        ] {
            assert!(!matches(selector, &lamp), "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_why() {
        use InvalidSelector as Invalid;
        let of = |text: &str| text.parse::<LabelSelector>().unwrap_err();
        for (text, expected) in [
            ("", Invalid::Empty(1)),
            ("a,", Invalid::Empty(2)),
            ("a,,b", Invalid::Empty(2)),
            ("a>1", Invalid::Compares(1)),
            ("a in b", Invalid::NoValues(1)),
            ("a in (b", Invalid::NoValues(1)),
            ("a like (b)", Invalid::Key(1)),
            ("=b", Invalid::Key(1)),
            ("a b", Invalid::Key(1)),
            ("-a", Invalid::Key(1)),
            ("Not.A.Domain/a", Invalid::Key(1)),
            ("a=b c", Invalid::Value(1)),
            ("a===b", Invalid::Value(1)),
            ("a=-b", Invalid::Value(1)),
            ("a in (b),c=ü", Invalid::Value(2)),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        assert_eq!(
            of(&"a,".repeat(MAX_REQUIREMENTS + 1)),
            Invalid::TooManyRequirements
        );
        assert_eq!(
            of(&format!("a in ({})", ",".repeat(MAX_VALUES))),
            Invalid::TooManyValues
        );
        assert_eq!(of(&"a".repeat(MAX_TEXT + 1)), Invalid::TooLong);
    }

    #[test]
    fn what_is_shown_of_a_selector_is_that_selector() {
        for text in ["a", "!a,b=c", "a in (x,y)", "a notin (x),b!=c"] {
            let selector: LabelSelector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text);
        }
    }
}
