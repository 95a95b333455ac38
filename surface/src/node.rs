//! A schema in memory. References are followed once, when it is read: what is shared there is shared here.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use serde_json::{Number, Value};

use crate::{
    pattern::Pattern,
    values,
    work::{Spent, Work, of_text},
};

/// Steps to compare the limits and types of two schemas.
const OF_NODE: usize = 8;

/// One schema.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub cost: Cost,
    /// Hash of `kind`: different kinds may have one hash, but one kind has one hash.
    hash: u64,
}

/// What a check against it is worth, all that it refers to counted each time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cost {
    pub nodes: usize,
    pub pattern_bytes: usize,
    /// Schemas in one another, this one included.
    pub levels: usize,
    /// Steps to compare all of it with its like.
    pub steps: usize,
}

impl Node {
    pub fn new(kind: Kind, cost: Cost) -> Self {
        let mut hasher = Mixer(0);
        kind.hash(&mut hasher);
        Self {
            kind,
            cost,
            hash: hasher.finish(),
        }
    }

    /// Whether both ask for the same in the same words; titles and the like are no part of a node.
    pub fn is_same(&self, other: &Self, work: &Work) -> Result<bool, Spent> {
        if std::ptr::eq(self, other) {
            return Ok(true);
        }
        if self.hash != other.hash {
            return Ok(false);
        }
        work.spend(self.cost.steps.min(other.cost.steps))?;
        Ok(self == other)
    }
}

/// Inner schemas are compared by their hashes first.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.kind == other.kind
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A quick hash, the same in each process. Whoever finds two schemas with one hash gains a comparison that is charged.
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The values of an `enum`.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Listed {
    values: Vec<Value>,
    /// Places in `values`, in the order of what stands there: one is found in few comparisons.
    order: Vec<usize>,
}

impl Listed {
    pub fn new(values: Vec<Value>) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values::order(&values[*a], &values[*b], &mut 0));
        Self { values, order }
    }

    /// As they were written.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Whether the value is one of them.
    pub fn has(&self, value: &Value, work: &Work) -> Result<bool, Spent> {
        let mut left = self.order.as_slice();
        while let Some(middle) = left.get(left.len() / 2) {
            let mut steps = 0;
            let order = values::order(&self.values[*middle], value, &mut steps);
            work.spend(steps)?;
            let place = left.len() / 2;
            left = match order {
                Ordering::Equal => return Ok(true),
                Ordering::Less => &left[place + 1..],
                Ordering::Greater => &left[..place],
            };
        }
        Ok(false)
    }
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub enum Kind {
    /// `true`.
    Anything,
    /// `false`.
    Nothing,
    Rules(Box<Rules>),
}

/// The keywords of a schema. What is absent asks for nothing.
#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub struct Rules {
    pub types: Option<Types>,
    /// `enum`, or `const` as the only one.
    pub values: Option<Listed>,
    /// `const` beside `enum`.
    pub constant: Option<Value>,
    pub numbers: Numbers,
    pub strings: Strings,
    pub arrays: Arrays,
    pub objects: Objects,
    /// `$ref` and `allOf`.
    pub all: Vec<Arc<Node>>,
    pub any: Option<Vec<Arc<Node>>>,
    pub one: Option<Vec<Arc<Node>>>,
    pub not: Option<Arc<Node>>,
    pub condition: Option<Condition>,
}

impl Rules {
    /// Steps to compare this schema with its like, without those in it.
    pub fn own_steps(&self) -> usize {
        let Objects {
            properties,
            patterns,
            required,
            required_with,
            with,
            ..
        } = &self.objects;
        let listed = self.values.iter().flat_map(Listed::values);
        let values = listed.chain(&self.constant).map(values::size);
        let texts = patterns.iter().map(|(pattern, _)| pattern.text());
        let needed = required_with.values().flatten();
        let names = properties
            .keys()
            .chain(required)
            .chain(required_with.keys())
            .chain(needed)
            .chain(with.keys())
            .map(String::as_str)
            .chain(self.strings.pattern.as_ref().map(Pattern::text))
            .chain(texts);
        OF_NODE + values.sum::<usize>() + names.map(|name| of_text(name.len())).sum::<usize>()
    }
}

#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub struct Numbers {
    pub minimum: Option<Number>,
    pub above: Option<Number>,
    pub maximum: Option<Number>,
    pub below: Option<Number>,
    /// Whole and positive.
    pub multiple_of: Option<i64>,
}

#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub struct Strings {
    /// In characters.
    pub min: Option<u64>,
    pub max: Option<u64>,
    pub pattern: Option<Pattern>,
}

#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub struct Arrays {
    pub first: Vec<Arc<Node>>,
    pub rest: Option<Arc<Node>>,
    pub min: Option<u64>,
    pub max: Option<u64>,
    pub unique: bool,
    pub contains: Option<Contains>,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Contains {
    pub node: Arc<Node>,
    pub min: u64,
    pub max: Option<u64>,
}

#[derive(Clone, Debug, Default, Hash, PartialEq)]
pub struct Objects {
    pub properties: BTreeMap<String, Arc<Node>>,
    pub patterns: Vec<(Pattern, Arc<Node>)>,
    /// For those that neither names.
    pub others: Option<Arc<Node>>,
    pub names: Option<Arc<Node>>,
    pub min: Option<u64>,
    pub max: Option<u64>,
    /// In order.
    pub required: Vec<String>,
    /// In order.
    pub required_with: BTreeMap<String, Vec<String>>,
    pub with: BTreeMap<String, Arc<Node>>,
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Condition {
    pub when: Arc<Node>,
    pub then: Option<Arc<Node>>,
    pub otherwise: Option<Arc<Node>>,
}

/// A set of types of values. A whole number is a type of its own: `number` is that and the others.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Types(u8);

impl Types {
    pub const NULL: Self = Self(1);
    pub const BOOLEAN: Self = Self(2);
    pub const OBJECT: Self = Self(4);
    pub const ARRAY: Self = Self(8);
    pub const INTEGER: Self = Self(16);
    pub const NUMBER: Self = Self(16 | 32);
    pub const STRING: Self = Self(64);
    pub const ALL: Self = Self(127);
    pub const NONE: Self = Self(0);
    /// As schemas name them, the more special ones first.
    const NAMED: [(&'static str, Self); 7] = [
        ("null", Self::NULL),
        ("boolean", Self::BOOLEAN),
        ("object", Self::OBJECT),
        ("array", Self::ARRAY),
        ("integer", Self::INTEGER),
        ("number", Self::NUMBER),
        ("string", Self::STRING),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED
            .iter()
            .find_map(|(known, types)| (*known == name).then_some(*types))
    }

    /// That of a value alone.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(number) if crate::values::is_whole(number) => Self::INTEGER,
            Value::Number(_) => Self(32),
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn meets(self, other: Self) -> bool {
        self.and(other) != Self::NONE
    }

    pub fn is_within(self, other: Self) -> bool {
        self.and(other) == self
    }

    /// For people.
    pub fn words(self) -> String {
        let mut left = self;
        let mut words = Vec::new();
        // `number` before `integer`, which it holds.
        for (name, types) in Self::NAMED.iter().rev() {
            let article = if name.starts_with(['a', 'i', 'o']) {
                "an "
            } else if *name == "null" {
                ""
            } else {
                "a "
            };
            if types.is_within(left) {
                words.push(format!("{article}{name}"));
                left = Self(left.0 & !types.0);
            }
        }
        if left != Self::NONE {
            words.push("a number".to_owned());
        }
        words.reverse();
        words.join(" or ")
    }
}
