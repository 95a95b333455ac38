//! From JSON to a [`Node`], and everything that is refused on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Number, Value};

use crate::{
    node::{
        Arrays, Condition, Contains, Cost, Kind, Listed, Node, Numbers, Objects, Rules, Strings,
        Types,
    },
    pattern::Pattern,
    schema::MAX_SCHEMA_BYTES,
    values::{self, MAX_EXACT},
};

/// How deep the text may be nested.
const MAX_DEPTH: usize = 16;
/// Most schemas once every reference is written out.
const MAX_NODES: usize = 256;
/// Most schemas in one another once every reference is written out. Each is a few frames of the stack of the thread that
/// checks or compares.
const MAX_LEVELS: usize = 64;
/// Most memory of all regular expressions once every reference is written out; also of all that are written, whether
/// something refers to them or not.
const MAX_PATTERN_BYTES: usize = 64 * 1024;
/// Most bytes of a message about what is wrong.
const MAX_MESSAGE: usize = 384;
const DEFINITION: &str = "#/$defs/";
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// What says something to people and nothing to a check.
const ANNOTATIONS: [&str; 11] = [
    "$comment",
    "contentEncoding",
    "contentMediaType",
    "default",
    "deprecated",
    "description",
    "examples",
    "format",
    "readOnly",
    "title",
    "writeOnly",
];

/// What is wrong with a schema, for who wrote it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}{what}", place(at))]
pub struct Invalid {
    /// JSON Pointer into the schema; empty for all of it.
    at: String,
    what: String,
}

fn place(at: &str) -> String {
    if at.is_empty() {
        String::new()
    } else {
        format!("at {at}: ")
    }
}

impl Invalid {
    pub(crate) fn at(at: &str, what: impl AsRef<str>) -> Self {
        Self {
            at: shortened(at, MAX_MESSAGE / 3),
            what: shortened(what.as_ref(), MAX_MESSAGE),
        }
    }
}

/// The beginning of a text, without what a terminal obeys.
pub fn shortened(text: &str, bytes: usize) -> String {
    let mut short: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(bytes)
        .collect();
    if short.len() > bytes {
        short.truncate(short.floor_char_boundary(bytes));
    }
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

pub fn fits(bytes: usize) -> Result<(), Invalid> {
    if bytes > MAX_SCHEMA_BYTES {
        let what = format!("it has {bytes} bytes, {MAX_SCHEMA_BYTES} at most");
        return Err(Invalid::at("", what));
    }
    Ok(())
}

/// Reads JSON of a bounded depth.
pub fn json(text: &[u8]) -> Result<Value, Invalid> {
    fits(text.len())?;
    let value = serde_json::from_slice(text)
        .map_err(|error| Invalid::at("", format!("it is no JSON: {error}")))?;
    if depth(&value) > MAX_DEPTH {
        let what = format!("it is nested more than {MAX_DEPTH} levels deep");
        return Err(Invalid::at("", what));
    }
    Ok(value)
}

/// The reader of JSON goes 128 levels deep at most, and so does this.
fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return 0,
    };
    1 + inner.unwrap_or(0)
}

/// Reads a schema. Returns the memory of its regular expressions, too.
pub fn node(value: &Value) -> Result<(Arc<Node>, usize), Invalid> {
    let definitions = match value.get("$defs") {
        None => None,
        Some(Value::Object(definitions)) => Some(definitions),
        Some(_) => return Err(Invalid::at("/$defs", "give an object")),
    };
    let mut reader = Reader {
        definitions,
        read: BTreeMap::new(),
        pattern_bytes: 0,
    };
    let root = reader.node(value, "", Level::Top)?;
    // Also those that nobody refers to: who looks at a schema believes what stands there.
    for name in definitions.into_iter().flat_map(Map::keys) {
        reader.definition(name, "/$defs")?;
    }
    Ok((root, reader.pattern_bytes))
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Level {
    Top,
    Inner,
}

struct Reader<'a> {
    definitions: Option<&'a Map<String, Value>>,
    /// `None` while it is being read.
    read: BTreeMap<&'a str, Option<Arc<Node>>>,
    /// Memory of all regular expressions so far.
    pattern_bytes: usize,
}

impl<'a> Reader<'a> {
    fn node(&mut self, value: &'a Value, at: &str, level: Level) -> Result<Arc<Node>, Invalid> {
        let mut cost = Cost {
            nodes: 1,
            levels: 1,
            ..Cost::default()
        };
        let kind = match value {
            Value::Bool(true) => Kind::Anything,
            Value::Bool(false) => Kind::Nothing,
            Value::Object(keywords) => {
                let mut place = Place {
                    reader: self,
                    keywords,
                    at,
                    cost: &mut cost,
                };
                let rules = place.rules(level)?;
                cost.steps += rules.own_steps();
                if rules == Rules::default() {
                    Kind::Anything
                } else {
                    Kind::Rules(Box::new(rules))
                }
            }
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(Invalid::at(at, "a schema is an object, true or false"));
            }
        };
        Ok(Arc::new(Node::new(kind, cost)))
    }

    fn definition(&mut self, name: &str, at: &str) -> Result<Arc<Node>, Invalid> {
        let found = self
            .definitions
            .and_then(|definitions| definitions.get_key_value(name));
        let Some((name, value)) = found else {
            let what = format!("there is no {DEFINITION}{name}");
            return Err(Invalid::at(at, what));
        };
        match self.read.get(name.as_str()) {
            Some(Some(node)) => return Ok(Arc::clone(node)),
            Some(None) => {
                let what = format!("{DEFINITION}{name} refers to itself, which may not be");
                return Err(Invalid::at(at, what));
            }
            None => {}
        }
        self.read.insert(name, None);
        let node = self.node(value, &format!("/$defs/{name}"), Level::Inner)?;
        self.read.insert(name, Some(Arc::clone(&node)));
        Ok(node)
    }
}

/// One schema that is being read.
struct Place<'r, 'a> {
    reader: &'r mut Reader<'a>,
    keywords: &'a Map<String, Value>,
    at: &'r str,
    cost: &'r mut Cost,
}

impl<'a> Place<'_, 'a> {
    fn rules(&mut self, level: Level) -> Result<Rules, Invalid> {
        self.keywords_are_known(level)?;
        if self.keywords.is_empty() {
            return Ok(Rules::default());
        }
        let mut rules = Rules {
            types: self.types()?,
            numbers: self.numbers()?,
            strings: self.strings()?,
            arrays: self.arrays()?,
            objects: self.objects()?,
            any: self.nodes("anyOf")?,
            one: self.nodes("oneOf")?,
            not: self.child("not")?,
            all: self.nodes("allOf")?.unwrap_or_default(),
            ..Rules::default()
        };
        if let Some(reference) = self.reference()? {
            rules.all.insert(0, reference);
        }
        self.values(&mut rules)?;
        if let Some(when) = self.child("if")? {
            rules.condition = Some(Condition {
                when,
                then: self.child("then")?,
                otherwise: self.child("else")?,
            });
        } else if self.get("then").or(self.get("else")).is_some() {
            return Err(self.wrong("if", "then and else need an if beside them"));
        }
        Ok(rules)
    }

    fn keywords_are_known(&self, level: Level) -> Result<(), Invalid> {
        for (keyword, value) in self.keywords {
            let what = match keyword.as_str() {
                keyword if KEYWORDS.contains(&keyword) || ANNOTATIONS.contains(&keyword) => {
                    continue;
                }
                keyword if keyword.starts_with("x-") => continue,
                "$defs" if level == Level::Top => continue,
                "$schema" if value == DIALECT => continue,
                "$schema" => format!("give {DIALECT}, or leave it out"),
                "$defs" => "definitions stand at the top of the schema".to_owned(),
                "definitions" => "its name is $defs".to_owned(),
                "additionalItems" => {
                    "its name is items, beside prefixItems for the first ones".to_owned()
                }
                "dependencies" => "its name is dependentRequired, or dependentSchemas".to_owned(),
                _ => "this keyword is none that is understood here".to_owned(),
            };
            return Err(self.wrong(keyword, what));
        }
        Ok(())
    }

    fn get(&self, keyword: &str) -> Option<&'a Value> {
        self.keywords.get(keyword)
    }

    fn wrong(&self, keyword: &str, what: impl AsRef<str>) -> Invalid {
        Invalid::at(&format!("{}/{keyword}", self.at), what)
    }

    /// Adds what a schema inside costs.
    fn pays(&mut self, cost: Cost) -> Result<(), Invalid> {
        self.cost.nodes += cost.nodes;
        self.cost.pattern_bytes += cost.pattern_bytes;
        self.cost.steps += cost.steps;
        self.cost.levels = self.cost.levels.max(cost.levels + 1);
        if self.cost.levels > MAX_LEVELS {
            let what = format!(
                "with every reference written out these are schemas within schemas, more than {MAX_LEVELS} levels deep"
            );
            return Err(Invalid::at(self.at, what));
        }
        if self.cost.nodes > MAX_NODES {
            let what =
                format!("with every reference written out these are more than {MAX_NODES} schemas");
            return Err(Invalid::at(self.at, what));
        }
        if self.cost.pattern_bytes.max(self.reader.pattern_bytes) > MAX_PATTERN_BYTES {
            let what = "its patterns are too large together: use shorter ones, or smaller counts";
            return Err(Invalid::at(self.at, what));
        }
        Ok(())
    }

    fn inner(&mut self, value: &'a Value, at: &str) -> Result<Arc<Node>, Invalid> {
        let node = self.reader.node(value, at, Level::Inner)?;
        self.pays(node.cost)?;
        Ok(node)
    }

    fn child(&mut self, keyword: &str) -> Result<Option<Arc<Node>>, Invalid> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        let at = format!("{}/{keyword}", self.at);
        self.inner(value, &at).map(Some)
    }

    fn nodes(&mut self, keyword: &str) -> Result<Option<Vec<Arc<Node>>>, Invalid> {
        let Some(value) = self.get(keyword) else {
            return Ok(None);
        };
        let Some(values) = value.as_array().filter(|values| !values.is_empty()) else {
            return Err(self.wrong(keyword, "give a list of schemas that is not empty"));
        };
        let mut nodes = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let at = format!("{}/{keyword}/{index}", self.at);
            nodes.push(self.inner(value, &at)?);
        }
        Ok(Some(nodes))
    }

    fn named_nodes(&mut self, keyword: &str) -> Result<BTreeMap<String, Arc<Node>>, Invalid> {
        let Some(value) = self.get(keyword) else {
            return Ok(BTreeMap::new());
        };
        let Value::Object(members) = value else {
            return Err(self.wrong(keyword, "give an object of schemas"));
        };
        let mut nodes = BTreeMap::new();
        for (name, value) in members {
            let at = format!("{}/{keyword}/{}", self.at, escaped(name));
            nodes.insert(name.clone(), self.inner(value, &at)?);
        }
        Ok(nodes)
    }

    fn reference(&mut self) -> Result<Option<Arc<Node>>, Invalid> {
        let Some(value) = self.get("$ref") else {
            return Ok(None);
        };
        let name = value
            .as_str()
            .and_then(|text| text.strip_prefix(DEFINITION))
            .filter(|name| !name.is_empty() && !name.contains(['/', '~', '%']));
        let Some(name) = name else {
            return Err(self.wrong("$ref", format!("give {DEFINITION}NAME, and no other place")));
        };
        let at = format!("{}/$ref", self.at);
        let node = self.reader.definition(name, &at)?;
        self.pays(node.cost)?;
        Ok(Some(node))
    }

    fn types(&self) -> Result<Option<Types>, Invalid> {
        let wrong = || {
            let what =
                "give null, boolean, object, array, number, integer or string, or a list of them";
            self.wrong("type", what)
        };
        let named = |value: &Value| value.as_str().and_then(Types::named).ok_or_else(wrong);
        match self.get("type") {
            None => Ok(None),
            Some(Value::Array(list)) if !list.is_empty() => list
                .iter()
                .try_fold(Types::NONE, |types, name| Ok(types.or(named(name)?)))
                .map(Some),
            Some(value) => named(value).map(Some),
        }
    }

    fn values(&self, rules: &mut Rules) -> Result<(), Invalid> {
        if let Some(value) = self.get("enum") {
            let Some(values) = value.as_array().filter(|values| !values.is_empty()) else {
                return Err(self.wrong("enum", "give a list of values that is not empty"));
            };
            for value in values {
                self.is_exact("enum", value)?;
            }
            rules.values = Some(Listed::new(values.clone()));
        }
        if let Some(value) = self.get("const") {
            self.is_exact("const", value)?;
            if rules.values.is_none() {
                rules.values = Some(Listed::new(vec![value.clone()]));
            } else {
                rules.constant = Some(value.clone());
            }
        }
        Ok(())
    }

    /// Beyond, programs disagree about which number it is.
    fn is_exact(&self, keyword: &str, value: &Value) -> Result<(), Invalid> {
        match value {
            Value::Number(number) => self.exact(keyword, number),
            Value::Array(items) => items
                .iter()
                .try_for_each(|item| self.is_exact(keyword, item)),
            Value::Object(members) => members
                .values()
                .try_for_each(|member| self.is_exact(keyword, member)),
            Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        }
    }

    fn exact(&self, keyword: &str, number: &Number) -> Result<(), Invalid> {
        let most = Number::from(MAX_EXACT);
        let least = Number::from(-MAX_EXACT);
        if values::compare(number, &most).is_gt() || values::compare(number, &least).is_lt() {
            let what = format!("numbers are within -{MAX_EXACT} and {MAX_EXACT}");
            return Err(self.wrong(keyword, what));
        }
        Ok(())
    }

    fn number(&self, keyword: &str) -> Result<Option<Number>, Invalid> {
        match self.get(keyword) {
            None => Ok(None),
            Some(Value::Number(number)) => {
                self.exact(keyword, number)?;
                Ok(Some(number.clone()))
            }
            Some(_) => Err(self.wrong(keyword, "give a number")),
        }
    }

    fn count(&self, keyword: &str) -> Result<Option<u64>, Invalid> {
        let Some(number) = self.number(keyword)? else {
            return Ok(None);
        };
        values::whole(&number)
            .and_then(|whole| u64::try_from(whole).ok())
            .map(Some)
            .ok_or_else(|| self.wrong(keyword, "give a whole number, 0 or more"))
    }

    fn numbers(&self) -> Result<Numbers, Invalid> {
        let multiple_of = match self.number("multipleOf")? {
            None => None,
            Some(number) => Some(
                values::whole(&number)
                    .and_then(|whole| i64::try_from(whole).ok())
                    .filter(|whole| *whole > 0)
                    .ok_or_else(|| self.wrong("multipleOf", "give a whole number, 1 or more"))?,
            ),
        };
        Ok(Numbers {
            minimum: self.number("minimum")?,
            above: self.number("exclusiveMinimum")?,
            maximum: self.number("maximum")?,
            below: self.number("exclusiveMaximum")?,
            multiple_of,
        })
    }

    fn pattern(&mut self, at: &str, text: &str) -> Result<Pattern, Invalid> {
        let pattern = Pattern::parse(text).map_err(|error| {
            Invalid::at(
                at,
                format!("this is no pattern that can be matched in bounded time: {error}"),
            )
        })?;
        self.reader.pattern_bytes += pattern.bytes();
        self.pays(Cost {
            pattern_bytes: pattern.bytes(),
            ..Cost::default()
        })?;
        Ok(pattern)
    }

    fn strings(&mut self) -> Result<Strings, Invalid> {
        let pattern = match self.get("pattern") {
            None => None,
            Some(Value::String(text)) => Some(self.pattern(&format!("{}/pattern", self.at), text)?),
            Some(_) => return Err(self.wrong("pattern", "give a string")),
        };
        Ok(Strings {
            min: self.count("minLength")?,
            max: self.count("maxLength")?,
            pattern,
        })
    }

    fn arrays(&mut self) -> Result<Arrays, Invalid> {
        let contains = match self.child("contains")? {
            Some(node) => Some(Contains {
                node,
                min: self.count("minContains")?.unwrap_or(1),
                max: self.count("maxContains")?,
            }),
            None if self
                .get("minContains")
                .or(self.get("maxContains"))
                .is_some() =>
            {
                return Err(self.wrong("contains", "minContains and maxContains need it"));
            }
            None => None,
        };
        let unique = match self.get("uniqueItems") {
            None => false,
            Some(Value::Bool(unique)) => *unique,
            Some(_) => return Err(self.wrong("uniqueItems", "give true or false")),
        };
        Ok(Arrays {
            first: self.nodes("prefixItems")?.unwrap_or_default(),
            rest: self.child("items")?,
            min: self.count("minItems")?,
            max: self.count("maxItems")?,
            unique,
            contains,
        })
    }

    fn objects(&mut self) -> Result<Objects, Invalid> {
        let mut patterns = Vec::new();
        for (text, node) in self.named_nodes("patternProperties")? {
            let at = format!("{}/patternProperties", self.at);
            patterns.push((self.pattern(&at, &text)?, node));
        }
        let required_with = match self.get("dependentRequired") {
            None => BTreeMap::new(),
            Some(Value::Object(members)) => members
                .iter()
                .map(|(name, value)| Ok((name.clone(), self.words("dependentRequired", value)?)))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(self.wrong("dependentRequired", "give an object")),
        };
        Ok(Objects {
            properties: self.named_nodes("properties")?,
            patterns,
            others: self.child("additionalProperties")?,
            names: self.child("propertyNames")?,
            min: self.count("minProperties")?,
            max: self.count("maxProperties")?,
            required: match self.get("required") {
                None => Vec::new(),
                Some(value) => self.words("required", value)?,
            },
            required_with,
            with: self.named_nodes("dependentSchemas")?,
        })
    }

    fn words(&self, keyword: &str, value: &Value) -> Result<Vec<String>, Invalid> {
        let wrong = || self.wrong(keyword, "give a list of names, each once");
        let values = value.as_array().ok_or_else(wrong)?;
        let words: BTreeSet<&str> = values.iter().filter_map(Value::as_str).collect();
        if words.len() != values.len() {
            return Err(wrong());
        }
        Ok(words.into_iter().map(str::to_owned).collect())
    }
}

/// What is read here.
const KEYWORDS: [&str; 36] = [
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "required",
    "then",
    "type",
    "uniqueItems",
];

/// A name as a step of a JSON Pointer (RFC 6901).
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
