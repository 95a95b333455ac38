//! Whether a value is what a schema asks for.
//!
//! Each comparison is charged to a bound ([`Work`]) before it is made. Text is built at most once, where the whole check
//! ends: inner checks, whose answer only decides which way to go on, are [`Silent`].

use std::{cmp::Ordering, collections::HashSet};

use serde_json::{Map, Number, Value};

use crate::{
    mismatch::{Mismatch, Path, Report, Silent, Stop, Told},
    node::{
        Arrays, Condition, Contains, Kind, Listed, Node, Numbers, Objects, Rules, Strings, Types,
    },
    read::shortened,
    values::{self, Member},
    work::{Spent, Work, of_lookup, of_text},
};

/// Most bytes of one name or value of the schema.
const MAX_QUOTED: usize = 64;
/// Steps to look at one schema.
const OF_NODE: usize = 4;
/// Steps to keep an item in a set, beside those for its hash.
const TO_KEEP: usize = 24;
/// Steps to make a value of a name, beside those of its text.
pub const TO_COPY: usize = 12;

/// Says what is wrong with the value, if anything.
pub fn check(node: &Node, value: &Value, work: &Work) -> Result<(), Stop<Mismatch>> {
    of_node::<Told>(node, value, &Path::START, work)
}

/// As [`check`], where nobody asks why.
pub fn is_accepted(node: &Node, value: &Value, work: &Work) -> Result<bool, Spent> {
    match of_node::<Silent>(node, value, &Path::START, work) {
        Ok(()) => Ok(true),
        Err(Stop::Misfit(())) => Ok(false),
        Err(Stop::Spent) => Err(Spent),
    }
}

type Checked<R> = Result<(), Stop<<R as Report>::Misfit>>;

fn misfit<R: Report>(path: &Path<'_>, expected: impl FnOnce() -> String) -> Checked<R> {
    Err(Stop::Misfit(R::misfit(path, expected)))
}

fn of_node<R: Report>(node: &Node, value: &Value, path: &Path<'_>, work: &Work) -> Checked<R> {
    work.spend(OF_NODE)?;
    match &node.kind {
        Kind::Anything => Ok(()),
        Kind::Nothing => misfit::<R>(path, || "must not be there".to_owned()),
        Kind::Rules(rules) => of_rules::<R>(rules, value, path, work),
    }
}

fn of_rules<R: Report>(rules: &Rules, value: &Value, path: &Path<'_>, work: &Work) -> Checked<R> {
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
        return misfit::<R>(path, || {
            let is = Types::of(value).words();
            format!("must be {} and is {is}", types.words())
        });
    }
    if let Some(values) = values
        && !values.has(value, work)?
    {
        return misfit::<R>(path, || format!("must be {}", alternatives(values)));
    }
    if let Some(constant) = constant {
        let mut steps = 0;
        let order = values::order(constant, value, &mut steps);
        work.spend(steps)?;
        if order.is_ne() {
            return misfit::<R>(path, || format!("must be {}", quoted(constant)));
        }
    }
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => of_number::<R>(numbers, number, path)?,
        Value::String(text) => of_string::<R>(strings, text, path, work)?,
        Value::Array(items) => of_array::<R>(arrays, items, path, work)?,
        Value::Object(members) => of_object::<R>(objects, value, members, path, work)?,
    }
    for node in all {
        of_node::<R>(node, value, path, work)?;
    }
    if let Some(nodes) = any
        && !crate::work::any(nodes, |node| is_accepted(node, value, work))?
    {
        return none_of::<R>(nodes, value, path, work);
    }
    if let Some(nodes) = one {
        let mut count = 0;
        for node in nodes {
            count += usize::from(is_accepted(node, value, work)?);
        }
        match count {
            0 => return none_of::<R>(nodes, value, path, work),
            1 => {}
            count => {
                return misfit::<R>(path, || {
                    format!("must fit one alternative and fits {count}")
                });
            }
        }
    }
    if let Some(node) = not
        && is_accepted(node, value, work)?
    {
        return misfit::<R>(path, || {
            "must not be what the schema excludes here".to_owned()
        });
    }
    if let Some(Condition {
        when,
        then,
        otherwise,
    }) = condition
    {
        let follows = if is_accepted(when, value, work)? {
            then
        } else {
            otherwise
        };
        if let Some(node) = follows {
            of_node::<R>(node, value, path, work)?;
        }
    }
    Ok(())
}

/// Where only one alternative is for values of this type, its demand says more than the number of alternatives.
fn none_of<R: Report>(
    nodes: &[std::sync::Arc<Node>],
    value: &Value,
    path: &Path<'_>,
    work: &Work,
) -> Checked<R> {
    let is_for = |node: &Node| match &node.kind {
        Kind::Anything => true,
        Kind::Nothing => false,
        Kind::Rules(rules) => rules
            .types
            .is_none_or(|types| Types::of(value).is_within(types)),
    };
    // A second look at an alternative: were it taken where nobody reads the text, each level would double the work.
    if R::IS_READ {
        let mut fitting = nodes.iter().filter(|node| is_for(node));
        if let (Some(only), None) = (fitting.next(), fitting.next()) {
            of_node::<R>(only, value, path, work)?;
        }
    }
    misfit::<R>(path, || {
        format!("must fit one of {} alternatives", nodes.len())
    })
}

fn of_number<R: Report>(rules: &Numbers, number: &Number, path: &Path<'_>) -> Checked<R> {
    let Numbers {
        minimum,
        above,
        maximum,
        below,
        multiple_of,
    } = rules;
    let bound = |limit: &Option<Number>, fails: fn(Ordering) -> bool, words| match limit {
        Some(limit) if fails(values::compare(number, limit)) => {
            misfit::<R>(path, || format!("must be {words} {limit}"))
        }
        _ => Ok(()),
    };
    bound(minimum, Ordering::is_lt, "at least")?;
    bound(above, Ordering::is_le, "more than")?;
    bound(maximum, Ordering::is_gt, "at most")?;
    bound(below, Ordering::is_ge, "less than")?;
    if let Some(divisor) = multiple_of
        && !is_multiple(number, *divisor)
    {
        return misfit::<R>(path, || format!("must be a multiple of {divisor}"));
    }
    Ok(())
}

fn is_multiple(number: &Number, divisor: i64) -> bool {
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

fn of_string<R: Report>(rules: &Strings, text: &str, path: &Path<'_>, work: &Work) -> Checked<R> {
    let Strings { min, max, pattern } = rules;
    if min.is_some() || max.is_some() {
        work.spend(of_text(text.len()))?;
        let count = text.chars().count();
        sized::<R>(count, *min, *max, "characters", path)?;
    }
    if let Some(pattern) = pattern
        && !pattern.is_match(text, work)?
    {
        return misfit::<R>(path, || {
            format!("must match {}", shortened(pattern.text(), MAX_QUOTED * 2))
        });
    }
    Ok(())
}

fn sized<R: Report>(
    count: usize,
    min: Option<u64>,
    max: Option<u64>,
    what: &str,
    path: &Path<'_>,
) -> Checked<R> {
    let has = count as u64;
    if let Some(min) = min
        && has < min
    {
        return misfit::<R>(path, || {
            format!("must have at least {min} {what} and has {has}")
        });
    }
    if let Some(max) = max
        && has > max
    {
        return misfit::<R>(path, || {
            format!("must have at most {max} {what} and has {has}")
        });
    }
    Ok(())
}

fn of_array<R: Report>(
    rules: &Arrays,
    items: &[Value],
    path: &Path<'_>,
    work: &Work,
) -> Checked<R> {
    let Arrays {
        first,
        rest,
        min,
        max,
        unique,
        contains,
    } = rules;
    sized::<R>(items.len(), *min, *max, "items", path)?;
    let described = if rest.is_some() {
        items.len()
    } else {
        first.len()
    };
    for (index, item) in items.iter().enumerate().take(described) {
        if let Some(node) = first.get(index).or(rest.as_ref()) {
            of_node::<R>(node, item, &path.index(index), work)?;
        }
    }
    if *unique {
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            work.spend(TO_KEEP + values::size(item) * 4)?;
            if !seen.insert(Member(item)) {
                return misfit::<R>(&path.index(index), || {
                    "must not be the same as an item before it".to_owned()
                });
            }
        }
    }
    if let Some(Contains { node, min, max }) = contains {
        let mut fitting = 0;
        for item in items {
            fitting += usize::from(is_accepted(node, item, work)?);
        }
        let what = "items of the kind that contains asks for";
        sized::<R>(fitting, Some(*min), *max, what, path)?;
    }
    Ok(())
}

fn of_object<R: Report>(
    rules: &Objects,
    value: &Value,
    members: &Map<String, Value>,
    path: &Path<'_>,
    work: &Work,
) -> Checked<R> {
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
    let has = |name: &String| {
        work.spend(of_lookup(members.len(), name))?;
        Ok::<bool, Spent>(members.contains_key(name))
    };
    let has_all = |needed: &[String]| {
        for name in needed {
            if !has(name)? {
                return misfit::<R>(path, || {
                    format!("must have the property {}", shortened(name, MAX_QUOTED))
                });
            }
        }
        Ok(())
    };
    has_all(required)?;
    sized::<R>(members.len(), *min, *max, "properties", path)?;
    let are_described =
        names.is_some() || others.is_some() || !properties.is_empty() || !patterns.is_empty();
    for (name, member) in members.iter().filter(|_| are_described) {
        let here = path.name(name);
        if let Some(node) = names {
            work.spend(TO_COPY + of_text(name.len()))?;
            if !is_accepted(node, &Value::String(name.clone()), work)? {
                return misfit::<R>(&here, || "must not have this name".to_owned());
            }
        }
        let mut is_named = false;
        work.spend(of_lookup(properties.len(), name))?;
        if let Some(node) = properties.get(name) {
            is_named = true;
            of_node::<R>(node, member, &here, work)?;
        }
        for (pattern, node) in patterns {
            if pattern.is_match(name, work)? {
                is_named = true;
                of_node::<R>(node, member, &here, work)?;
            }
        }
        match others {
            Some(node) if !is_named && matches!(node.kind, Kind::Nothing) => {
                return misfit::<R>(&here, || {
                    "must not be there: the schema has no such property".to_owned()
                });
            }
            Some(node) if !is_named => of_node::<R>(node, member, &here, work)?,
            Some(_) | None => {}
        }
    }
    for (name, needed) in required_with {
        if has(name)? {
            has_all(needed)?;
        }
    }
    for (name, node) in with {
        if has(name)? {
            of_node::<R>(node, value, path, work)?;
        }
    }
    Ok(())
}

fn alternatives(values: &Listed) -> String {
    let listed: Vec<String> = values.values().iter().map(quoted).collect();
    match listed.as_slice() {
        [only] => only.clone(),
        listed => format!("one of {}", listed.join(", ")),
    }
}

fn quoted(value: &Value) -> String {
    shortened(&value.to_string(), MAX_QUOTED)
}
