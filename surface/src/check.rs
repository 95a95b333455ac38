//! Whether a value is what a schema asks for.

use std::{collections::HashSet, fmt};

use serde_json::{Map, Value};

use crate::{
    node::{Arrays, Contains, Kind, Node, Numbers, Objects, Rules, Strings, Types},
    read::{escaped, shortened},
    values,
};

/// Most bytes of a place.
const MAX_PLACE: usize = 192;
/// Most bytes of what is expected there.
const MAX_EXPECTED: usize = 288;
/// Most bytes of one name or value of the schema.
const MAX_QUOTED: usize = 64;

/// Where a value is not what a schema asks for. The text names the place as a JSON Pointer (RFC 6901) and what is
/// expected there, in 512 bytes at most; it does not repeat what was there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Mismatch {
    at: String,
    expected: String,
}

impl Mismatch {
    /// JSON Pointer; empty for the whole value.
    pub fn place(&self) -> &str {
        &self.at
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.expected)
    }
}

/// The steps from the value to what is looked at.
struct Path<'a> {
    before: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Start,
    Name(&'a str),
    Index(usize),
}

impl Path<'_> {
    fn write(&self, into: &mut String) {
        if let Some(before) = self.before {
            before.write(into);
        }
        match self.step {
            Step::Start => {}
            Step::Name(name) => {
                into.push('/');
                into.push_str(&escaped(name));
            }
            Step::Index(index) => {
                into.push('/');
                into.push_str(&index.to_string());
            }
        }
    }

    fn expects(&self, expected: impl AsRef<str>) -> Mismatch {
        let mut at = String::new();
        self.write(&mut at);
        Mismatch {
            at: shortened(&at, MAX_PLACE),
            expected: shortened(expected.as_ref(), MAX_EXPECTED),
        }
    }

    fn name<'a>(&'a self, name: &'a str) -> Path<'a> {
        Path {
            before: Some(self),
            step: Step::Name(name),
        }
    }

    fn index(&self, index: usize) -> Path<'_> {
        Path {
            before: Some(self),
            step: Step::Index(index),
        }
    }
}

pub fn check(node: &Node, value: &Value) -> Result<(), Mismatch> {
    let start = Path {
        before: None,
        step: Step::Start,
    };
    of_node(node, value, &start)
}

/// As [`check`], where nobody asks why.
pub fn is_accepted(node: &Node, value: &Value) -> bool {
    check(node, value).is_ok()
}

fn of_node(node: &Node, value: &Value, path: &Path<'_>) -> Result<(), Mismatch> {
    match &node.kind {
        Kind::Anything => Ok(()),
        Kind::Nothing => Err(path.expects("must not be there")),
        Kind::Rules(rules) => of_rules(rules, value, path),
    }
}

fn of_rules(rules: &Rules, value: &Value, path: &Path<'_>) -> Result<(), Mismatch> {
    let Rules {
        types,
        values,
        constant,
        numbers,
        strings,
        arrays,
        objects,
        all,
        any,
        one,
        not,
        condition,
    } = rules;
    if let Some(types) = types
        && !Types::of(value).is_within(*types)
    {
        let is = Types::of(value).words();
        return Err(path.expects(format!("must be {} and is {is}", types.words())));
    }
    let listed = |values: &[Value]| values.iter().any(|known| values::same(known, value));
    if let Some(values) = values
        && !listed(values)
    {
        return Err(path.expects(format!("must be {}", alternatives(values))));
    }
    if let Some(constant) = constant
        && !values::same(constant, value)
    {
        return Err(path.expects(format!("must be {}", quoted(constant))));
    }
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => of_number(numbers, number, path)?,
        Value::String(text) => of_string(strings, text, path)?,
        Value::Array(items) => of_array(arrays, items, path)?,
        Value::Object(members) => of_object(objects, value, members, path)?,
    }
    for node in all {
        of_node(node, value, path)?;
    }
    if let Some(nodes) = any
        && !nodes.iter().any(|node| is_accepted(node, value))
    {
        return Err(none_of(nodes, value, path));
    }
    if let Some(nodes) = one {
        match nodes.iter().filter(|node| is_accepted(node, value)).count() {
            0 => return Err(none_of(nodes, value, path)),
            1 => {}
            count => {
                let expected = format!("must fit one alternative and fits {count}");
                return Err(path.expects(expected));
            }
        }
    }
    if let Some(node) = not
        && is_accepted(node, value)
    {
        return Err(path.expects("must not be what the schema excludes here"));
    }
    if let Some(condition) = condition {
        let follows = if is_accepted(&condition.when, value) {
            &condition.then
        } else {
            &condition.otherwise
        };
        if let Some(node) = follows {
            of_node(node, value, path)?;
        }
    }
    Ok(())
}

/// Where one alternative alone is for values of this type, what it asks for says more.
fn none_of(nodes: &[std::sync::Arc<Node>], value: &Value, path: &Path<'_>) -> Mismatch {
    let is_for = |node: &Node| match &node.kind {
        Kind::Anything => true,
        Kind::Nothing => false,
        Kind::Rules(rules) => rules
            .types
            .is_none_or(|types| Types::of(value).is_within(types)),
    };
    let mut fitting = nodes.iter().filter(|node| is_for(node));
    if let (Some(only), None) = (fitting.next(), fitting.next())
        && let Err(mismatch) = of_node(only, value, path)
    {
        return mismatch;
    }
    path.expects(format!("must fit one of {} alternatives", nodes.len()))
}

fn of_number(
    rules: &Numbers,
    number: &serde_json::Number,
    path: &Path<'_>,
) -> Result<(), Mismatch> {
    let Numbers {
        minimum,
        above,
        maximum,
        below,
        multiple_of,
    } = rules;
    let bound =
        |limit: &Option<serde_json::Number>, fails: fn(std::cmp::Ordering) -> bool, words| {
            match limit {
                Some(limit) if fails(values::compare(number, limit)) => {
                    Err(path.expects(format!("must be {words} {limit}")))
                }
                _ => Ok(()),
            }
        };
    bound(minimum, std::cmp::Ordering::is_lt, "at least")?;
    bound(above, std::cmp::Ordering::is_le, "more than")?;
    bound(maximum, std::cmp::Ordering::is_gt, "at most")?;
    bound(below, std::cmp::Ordering::is_ge, "less than")?;
    if let Some(divisor) = multiple_of
        && !is_multiple(number, *divisor)
    {
        return Err(path.expects(format!("must be a multiple of {divisor}")));
    }
    Ok(())
}

fn is_multiple(number: &serde_json::Number, divisor: i64) -> bool {
    match values::whole(number) {
        Some(whole) => whole % i128::from(divisor) == 0,
        // The remainder of two doubles is exact.
        #[expect(
            clippy::cast_precision_loss,
            reason = "it is a number that doubles hold"
        )]
        None => number
            .as_f64()
            .is_some_and(|float| float % divisor as f64 == 0.0),
    }
}

fn of_string(rules: &Strings, text: &str, path: &Path<'_>) -> Result<(), Mismatch> {
    let Strings { min, max, pattern } = rules;
    if min.is_some() || max.is_some() {
        let count = text.chars().count();
        sized(count, *min, *max, "characters", path)?;
    }
    if let Some(pattern) = pattern
        && !pattern.is_match(text)
    {
        let quoted = shortened(pattern.text(), MAX_QUOTED * 2);
        return Err(path.expects(format!("must match {quoted}")));
    }
    Ok(())
}

fn sized(
    count: usize,
    min: Option<u64>,
    max: Option<u64>,
    what: &str,
    path: &Path<'_>,
) -> Result<(), Mismatch> {
    let has = count as u64;
    if let Some(min) = min
        && has < min
    {
        return Err(path.expects(format!("must have at least {min} {what} and has {has}")));
    }
    if let Some(max) = max
        && has > max
    {
        return Err(path.expects(format!("must have at most {max} {what} and has {has}")));
    }
    Ok(())
}

fn of_array(rules: &Arrays, items: &[Value], path: &Path<'_>) -> Result<(), Mismatch> {
    let Arrays {
        first,
        rest,
        min,
        max,
        unique,
        contains,
    } = rules;
    sized(items.len(), *min, *max, "items", path)?;
    for (index, item) in items.iter().enumerate() {
        if let Some(node) = first.get(index).or(rest.as_ref()) {
            of_node(node, item, &path.index(index))?;
        }
    }
    if *unique {
        let mut seen = HashSet::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let mut key = String::new();
            values::key(item, &mut key);
            if !seen.insert(key) {
                let path = path.index(index);
                return Err(path.expects("must not be the same as an item before it"));
            }
        }
    }
    if let Some(Contains { node, min, max }) = contains {
        let fitting = items.iter().filter(|item| is_accepted(node, item)).count();
        sized(
            fitting,
            Some(*min),
            *max,
            "items of the kind that contains asks for",
            path,
        )?;
    }
    Ok(())
}

fn of_object(
    rules: &Objects,
    value: &Value,
    members: &Map<String, Value>,
    path: &Path<'_>,
) -> Result<(), Mismatch> {
    let Objects {
        properties,
        patterns,
        others,
        names,
        min,
        max,
        required,
        required_with,
        with,
    } = rules;
    let lacks = |name: &String| {
        (!members.contains_key(name)).then(|| {
            let name = shortened(name, MAX_QUOTED);
            path.expects(format!("must have the property {name}"))
        })
    };
    if let Some(mismatch) = required.iter().find_map(lacks) {
        return Err(mismatch);
    }
    sized(members.len(), *min, *max, "properties", path)?;
    for (name, member) in members {
        let here = path.name(name);
        if let Some(node) = names
            && !is_accepted(node, &Value::String(name.clone()))
        {
            return Err(here.expects("must not have this name"));
        }
        let mut is_named = false;
        if let Some(node) = properties.get(name) {
            is_named = true;
            of_node(node, member, &here)?;
        }
        for (pattern, node) in patterns {
            if pattern.is_match(name) {
                is_named = true;
                of_node(node, member, &here)?;
            }
        }
        match others {
            Some(node) if !is_named && node.kind == Kind::Nothing => {
                return Err(here.expects("must not be there: the schema has no such property"));
            }
            Some(node) if !is_named => of_node(node, member, &here)?,
            Some(_) | None => {}
        }
    }
    for (name, needed) in required_with {
        if members.contains_key(name)
            && let Some(mismatch) = needed.iter().find_map(lacks)
        {
            return Err(mismatch);
        }
    }
    for (name, node) in with {
        if members.contains_key(name) {
            of_node(node, value, path)?;
        }
    }
    Ok(())
}

fn alternatives(values: &[Value]) -> String {
    let listed: Vec<String> = values.iter().map(quoted).collect();
    match listed.as_slice() {
        [only] => only.clone(),
        listed => format!("one of {}", listed.join(", ")),
    }
}

fn quoted(value: &Value) -> String {
    shortened(&value.to_string(), MAX_QUOTED)
}
