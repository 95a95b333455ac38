//! Random schemas and values, and changes of them that keep most of what they are.

use serde_json::{Map, Value, json};

/// SplitMix64: the same seed gives the same search.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from((z ^ (z >> 31)) % bound).unwrap_or(0)
    }

    pub fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

const PATTERNS: [&str; 12] = [
    "^a",
    "^[a-z0-9.-]+$",
    "[a-z]{1,253}",
    "(a*)*(a*)*b",
    "(a|b|c|d|e|f|g|h){1,60}x",
    "(.?){200}y",
    "((a?){12}){12}z",
    "\\w\\d\\s[[:alpha:]]\\W",
    "(?i)[a-z]{40}",
    "(|||||||)*b",
    "\\b(\\w|\\d)*\\b",
    "^$",
];
const TYPES: [&str; 7] = [
    "null", "boolean", "object", "array", "integer", "number", "string",
];
const NAMES: [&str; 5] = ["a", "b", "ab", "aaaaaaaaaaaaaaaaaaaaaaaa", "x"];

fn name(chance: &mut Chance) -> String {
    match chance.below(3) {
        0 => (*chance.one_of(&NAMES)).to_owned(),
        1 => format!("{}{}", "a".repeat(chance.below(40)), chance.below(100)),
        _ => format!("n{}", chance.below(400)),
    }
}

pub fn scalar(chance: &mut Chance) -> Value {
    match chance.below(7) {
        0 => Value::Null,
        1 => json!(chance.below(2) == 0),
        2 => json!(chance.below(1000)),
        3 => json!([0.5, 1e300, -2.5, 1e-300][chance.below(4)]),
        4 => json!(name(chance)),
        5 => json!("a".repeat(chance.below(200))),
        _ => json!(chance.below(3)),
    }
}

pub fn value(chance: &mut Chance, depth: usize) -> Value {
    match chance.below(if depth == 0 { 2 } else { 5 }) {
        0 | 1 => scalar(chance),
        2 => (0..chance.below(6))
            .map(|_| value(chance, depth - 1))
            .collect(),
        3 => {
            let members = (0..chance.below(6)).map(|_| (name(chance), value(chance, depth - 1)));
            Value::Object(members.collect())
        }
        _ => {
            let one = value(chance, depth - 1);
            Value::Array(vec![one; chance.below(40)])
        }
    }
}

fn reference(chance: &mut Chance) -> Value {
    json!({"$ref": format!("#/$defs/d{}", chance.below(6))})
}

pub fn schema(chance: &mut Chance, depth: usize) -> Value {
    match chance.below(8) {
        0 => json!({}),
        1 => json!(chance.below(2) == 0),
        2 => reference(chance),
        _ => {
            let keywords = (0..=chance.below(3)).map(|_| keyword(chance, depth));
            Value::Object(keywords.collect())
        }
    }
}

fn schemas(chance: &mut Chance, depth: usize) -> Value {
    let count = 1 + chance.below(4);
    if chance.below(3) == 0 {
        return Value::Array(vec![schema(chance, depth); count * 4]);
    }
    (0..count).map(|_| schema(chance, depth)).collect()
}

fn named(chance: &mut Chance, depth: usize) -> Value {
    let members = (0..chance.below(5)).map(|_| (name(chance), schema(chance, depth)));
    Value::Object(members.collect())
}

fn names(chance: &mut Chance) -> Value {
    let mut names: Vec<String> = (0..chance.below(20)).map(|_| name(chance)).collect();
    names.sort();
    names.dedup();
    json!(names)
}

pub fn keyword(chance: &mut Chance, depth: usize) -> (String, Value) {
    let below = depth.saturating_sub(1);
    let choice = if depth == 0 {
        chance.below(11)
    } else {
        chance.below(30)
    };
    let (keyword, value) = match choice {
        0 => ("type", json!(chance.one_of(&TYPES))),
        1 => ("type", json!([chance.one_of(&TYPES)])),
        2 => ("enum", (0..=chance.below(300)).map(|n| json!(n)).collect()),
        3 => (
            "enum",
            (0..=chance.below(9)).map(|_| value(chance, 2)).collect(),
        ),
        4 => ("const", value(chance, 2)),
        5 => ("minimum", json!(chance.below(9))),
        6 => ("maxLength", json!(chance.below(999))),
        7 => ("maxItems", json!(chance.below(999))),
        8 => ("uniqueItems", json!(true)),
        9 => ("pattern", json!(chance.one_of(&PATTERNS))),
        10 => ("required", names(chance)),
        11 => (
            "dependentRequired",
            json!({name(chance): names(chance), "a": names(chance)}),
        ),
        12 => ("items", schema(chance, below)),
        13 => ("prefixItems", schemas(chance, below)),
        14 => ("contains", schema(chance, below)),
        15 | 16 => ("properties", named(chance, below)),
        17 => {
            let members = (0..=chance.below(2)).map(|_| {
                (
                    (*chance.one_of(&PATTERNS)).to_owned(),
                    schema(chance, below),
                )
            });
            ("patternProperties", Value::Object(members.collect()))
        }
        18 => ("additionalProperties", schema(chance, below)),
        19 => ("propertyNames", schema(chance, below)),
        20 => ("dependentSchemas", named(chance, below)),
        21 | 22 => ("allOf", schemas(chance, below)),
        23 | 24 => ("anyOf", schemas(chance, below)),
        25 => ("oneOf", schemas(chance, below)),
        26 => ("not", schema(chance, below)),
        27 => ("if", schema(chance, below)),
        _ => ("$ref", json!(format!("#/$defs/d{}", chance.below(6)))),
    };
    (keyword.to_owned(), value)
}

/// Definitions refer to later ones alone, so that none is circular by design; what is all the same is refused when read.
pub fn with_definitions(chance: &mut Chance, mut schema: Value) -> Value {
    let definitions: Map<String, Value> = (0..6)
        .map(|n| (format!("d{n}"), self::schema(chance, 2)))
        .collect();
    if let Value::Object(keywords) = &mut schema {
        keywords.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

/// Places in a value: a visit in order.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn at(value: &mut Value, mut place: usize) -> Option<&mut Value> {
    if place == 0 {
        return Some(value);
    }
    place -= 1;
    let inner: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(members) => Box::new(members.values_mut()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    for inner in inner {
        let size = count(inner);
        if place < size {
            return at(inner, place);
        }
        place -= size;
    }
    None
}

/// Changes one place; `fresh` makes something new to put there, `other` lends a piece of itself.
pub fn change(
    chance: &mut Chance,
    value: &mut Value,
    other: &Value,
    fresh: fn(&mut Chance, usize) -> Value,
) {
    let place = chance.below(count(value));
    let mut lent = other.clone();
    let lent_place = chance.below(count(other));
    let lent = at(&mut lent, lent_place).cloned().unwrap_or(Value::Null);
    let Some(here) = at(value, place) else { return };
    let how = chance.below(10);
    match here {
        _ if how == 0 => *here = fresh(chance, 2),
        _ if how == 1 => *here = lent,
        Value::Array(items) => change_list(chance, items, how),
        Value::Object(members) => change_members(chance, members, how),
        Value::String(text) => {
            *text = match how {
                2..5 => text.repeat(2),
                5 => (*chance.one_of(&PATTERNS)).to_owned(),
                _ => format!("{text}{}", chance.below(10)),
            };
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => *here = fresh(chance, 1),
    }
}

fn change_list(chance: &mut Chance, items: &mut Vec<Value>, how: usize) {
    if items.is_empty() {
        items.push(scalar(chance));
    } else if how < 5 {
        let one = items[chance.below(items.len())].clone();
        let more = 1 + chance.below(items.len().max(8));
        items.extend(std::iter::repeat_n(one, more));
    } else if how == 5 {
        let left = 1 + chance.below(items.len());
        items.truncate(left);
    } else {
        // Every item once more, a little different: an `enum` that grows.
        let count = items.len() as u64;
        let mut more = items.clone();
        for item in &mut more {
            if let Some(number) = item.as_u64() {
                *item = json!(number.wrapping_add(count));
            }
        }
        items.extend(more);
    }
}

fn change_members(chance: &mut Chance, members: &mut Map<String, Value>, how: usize) {
    match how {
        2..5 => {
            let (name, value) = keyword(chance, 2);
            members.insert(name, value);
        }
        5 => {
            let name = members.keys().nth(chance.below(members.len())).cloned();
            name.and_then(|name| members.remove(&name));
        }
        _ => {
            let copied = members.values().next().cloned().unwrap_or(Value::Null);
            for _ in 0..chance.below(20) {
                members.insert(name(chance), copied.clone());
            }
        }
    }
}
