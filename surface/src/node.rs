//! A schema in memory. References are followed once, when it is read: what is shared there is shared here.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Number, Value};

use crate::pattern::Pattern;

/// One schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: Kind,
    pub cost: Cost,
}

/// What a check against it is worth, all that it refers to counted each time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cost {
    pub nodes: usize,
    pub pattern_bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `true`.
    Anything,
    /// `false`.
    Nothing,
    Rules(Box<Rules>),
}

/// The keywords of a schema. What is absent asks for nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub types: Option<Types>,
    /// `enum`, or `const` as the only one.
    pub values: Option<Vec<Value>>,
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

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    pub minimum: Option<Number>,
    pub above: Option<Number>,
    pub maximum: Option<Number>,
    pub below: Option<Number>,
    /// Whole and positive.
    pub multiple_of: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Strings {
    /// In characters.
    pub min: Option<u64>,
    pub max: Option<u64>,
    pub pattern: Option<Pattern>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arrays {
    pub first: Vec<Arc<Node>>,
    pub rest: Option<Arc<Node>>,
    pub min: Option<u64>,
    pub max: Option<u64>,
    pub unique: bool,
    pub contains: Option<Contains>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Contains {
    pub node: Arc<Node>,
    pub min: u64,
    pub max: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    pub properties: BTreeMap<String, Arc<Node>>,
    pub patterns: Vec<(Pattern, Arc<Node>)>,
    /// For those that neither names.
    pub others: Option<Arc<Node>>,
    pub names: Option<Arc<Node>>,
    pub min: Option<u64>,
    pub max: Option<u64>,
    pub required: Vec<String>,
    pub required_with: BTreeMap<String, Vec<String>>,
    pub with: BTreeMap<String, Arc<Node>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub when: Arc<Node>,
    pub then: Option<Arc<Node>>,
    pub otherwise: Option<Arc<Node>>,
}

/// A set of types of values. A whole number is a type of its own: `number` is that and the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
