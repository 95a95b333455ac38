//! Whether one schema is sure to accept no more than another.
//!
//! All that is known of a value which the new schema accepts is a list of schemas that it fits ([`Facts`]): the schema
//! itself, and what that refers to. What the old one asks for must follow from one of them, or from the few rules
//! below about several. What is not understood does not follow: that costs a question to a person, and the other
//! mistake would give a device more than anybody granted.
//!
//! A proof has a bound on its steps ([`Work`]), which grows with the text of the new schema and depends on nothing else. Past
//! the bound the new schema counts as wider.

use std::{cell::Cell, collections::BTreeSet, sync::Arc};

use serde_json::Value;

use crate::{
    check::{TO_COPY, is_accepted},
    facts::{Facts, of_name},
    limits::{at_least, at_most, numbers_follow, strings_follow},
    node::{Arrays, Condition, Contains, Kind, Node, Objects, Rules, Types},
    schema::Schema,
    work::{Spent, Work, all, any, of_lookup, of_text},
};

/// Steps of a proof about a schema without text. Schemas of people take some hundred to some thousand.
const LEAST_STEPS: u32 = 3072;
/// Further steps for each byte of the new schema's text.
const STEPS_PER_BYTE: u32 = 10;
/// Most conclusions that rest on one another.
const MAX_DEPTH: u32 = 128;

/// What a comparison of two schemas found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Every value that the new schema accepts is accepted by the old one.
    Narrower,
    /// That could not be shown.
    Wider,
    /// Neither was shown within the bound. The new schema counts as wider.
    TooCostly,
}

/// A verdict, and the steps that it took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Comparison {
    pub verdict: Verdict,
    /// [`most_steps`] at most.
    pub steps: u32,
}

/// Whether every value that `new` accepts is accepted by `old`, as far as this can be shown. `None` accepts anything.
/// Titles, descriptions and examples are no difference.
pub fn narrows(new: Option<&Schema>, old: Option<&Schema>) -> bool {
    compare(new, old).verdict == Verdict::Narrower
}

/// As [`narrows`], with the steps that it took. The same two schemas give the same result at any time on any machine.
pub fn compare(new: Option<&Schema>, old: Option<&Schema>) -> Comparison {
    let (Some(old), false) = (old, new == old) else {
        return Comparison {
            verdict: Verdict::Narrower,
            steps: 0,
        };
    };
    let proof = Proof {
        work: Work::new(most_steps(new)),
        depth: Cell::new(0),
    };
    let verdict = match proof.narrows(new, old) {
        Ok(true) => Verdict::Narrower,
        Ok(false) => Verdict::Wider,
        Err(Spent) => Verdict::TooCostly,
    };
    Comparison {
        verdict,
        steps: proof.work.steps(),
    }
}

/// Most steps of a comparison with that new schema.
pub fn most_steps(new: Option<&Schema>) -> u32 {
    let bytes = new.map_or(0, |new| new.text().len());
    LEAST_STEPS + u32::try_from(bytes).unwrap_or(u32::MAX / STEPS_PER_BYTE) * STEPS_PER_BYTE
}

struct Proof {
    work: Work,
    depth: Cell<u32>,
}

impl Proof {
    fn narrows(&self, new: Option<&Schema>, old: &Schema) -> Result<bool, Spent> {
        let facts = match new {
            Some(new) => Facts::of(new.root(), &self.work)?,
            None => Facts::default(),
        };
        self.follows(&facts, old.root())
    }

    /// Whether whoever fits all of `facts` fits `old`.
    fn follows(&self, facts: &Facts<'_>, old: &Node) -> Result<bool, Spent> {
        let depth = self.depth.get();
        if depth >= MAX_DEPTH {
            return Err(Spent);
        }
        self.depth.set(depth + 1);
        let follows = self.follows_here(facts, old);
        self.depth.set(depth);
        follows
    }

    fn follows_here(&self, facts: &Facts<'_>, old: &Node) -> Result<bool, Spent> {
        // The facts are gone through once for each limit that the old schema may set.
        self.work.spend(8 + 4 * facts.steps())?;
        let rules = match &old.kind {
            Kind::Anything => return Ok(true),
            _ if facts.are_impossible() => return Ok(true),
            Kind::Nothing => return Ok(false),
            Kind::Rules(rules) => rules,
        };
        if any(facts.nodes(), |fact| fact.is_same(old, &self.work))? {
            return Ok(true);
        }
        if let Some(values) = facts.values() {
            return all(values, |value| {
                Ok(is_accepted(old, value, &self.work)? || !facts.accept(value, &self.work)?)
            });
        }
        Ok(self.rules_follow(facts, rules)? || self.follows_in_each_case(facts, old)?)
    }

    /// Where the facts leave alternatives, it may follow from each.
    fn follows_in_each_case(&self, facts: &Facts<'_>, old: &Node) -> Result<bool, Spent> {
        let mut alternatives = facts
            .rules()
            .flat_map(|rules| rules.any.iter().chain(&rules.one));
        any(&mut alternatives, |nodes| {
            // One that is among the facts already adds nothing: that case was looked at.
            self.work.spend(nodes.len() * facts.steps())?;
            if nodes.iter().any(|node| facts.hold(node)) {
                return Ok(false);
            }
            all(nodes, |node| {
                self.follows(&facts.and(node, &self.work)?, old)
            })
        })
    }

    fn rules_follow(&self, facts: &Facts<'_>, old: &Rules) -> Result<bool, Spent> {
        let Rules {
            types,
            values,
            constant,
            numbers,
            strings,
            arrays,
            objects,
            all: every,
            any: some,
            one,
            not,
            condition,
        } = old;
        let known = facts.types();
        let is_among = |node: &Arc<Node>| self.follows(facts, node);
        let is_within = |types: &Types| known.is_within(*types);
        // Where the facts list values, `values` and `constant` are not reached.
        Ok(types.as_ref().is_none_or(is_within)
            && values.is_none()
            && constant.is_none()
            && (!known.meets(Types::NUMBER) || numbers_follow(facts, numbers))
            && (!known.meets(Types::STRING) || strings_follow(facts, strings, &self.work)?)
            && (!known.meets(Types::ARRAY) || self.arrays_follow(facts, arrays)?)
            && (!known.meets(Types::OBJECT) || self.objects_follow(facts, objects)?)
            && all(every, is_among)?
            && self.holds_if(some.as_ref(), |nodes| any(nodes, is_among))?
            && self.holds_if(one.as_ref(), |one| {
                let known = facts.rules().filter_map(|rules| rules.one.as_ref());
                any(known, |known| self.are_same(known, one))
            })?
            && self.holds_if(not.as_ref(), |not| self.is_excluded(facts, not))?
            && self.holds_if(condition.as_ref(), |condition| {
                let known = facts.rules().filter_map(|rules| rules.condition.as_ref());
                any(known, |known| self.is_same_condition(known, condition))
            })?)
    }

    /// What is not asked for holds.
    fn holds_if<T>(
        &self,
        asked: Option<&T>,
        holds: impl FnOnce(&T) -> Result<bool, Spent>,
    ) -> Result<bool, Spent> {
        self.work.spend(1)?;
        asked.map_or(Ok(true), holds)
    }

    fn are_same(&self, new: &[Arc<Node>], old: &[Arc<Node>]) -> Result<bool, Spent> {
        self.work.spend(1 + new.len())?;
        Ok(new.len() == old.len()
            && all(new.iter().zip(old), |(new, old)| {
                new.is_same(old, &self.work)
            })?)
    }

    fn is_same_condition(&self, new: &Condition, old: &Condition) -> Result<bool, Spent> {
        let is_same = |new: &Option<Arc<Node>>, old: &Option<Arc<Node>>| match (new, old) {
            (Some(new), Some(old)) => new.is_same(old, &self.work),
            (None, None) => Ok(true),
            (Some(_), None) | (None, Some(_)) => Ok(false),
        };
        self.work.spend(1)?;
        Ok(new.when.is_same(&old.when, &self.work)?
            && is_same(&new.then, &old.then)?
            && is_same(&new.otherwise, &old.otherwise)?)
    }

    /// Whether what fits the facts does not fit the node: something larger is excluded already, or the types differ.
    fn is_excluded(&self, facts: &Facts<'_>, node: &Node) -> Result<bool, Spent> {
        let excluded = Facts::of(node, &self.work)?;
        if !facts.types().meets(excluded.types()) {
            return Ok(true);
        }
        let known = facts.rules().filter_map(|rules| rules.not.as_ref());
        any(known, |not| self.follows(&excluded, not))
    }

    fn arrays_follow(&self, facts: &Facts<'_>, old: &Arrays) -> Result<bool, Spent> {
        let Arrays {
            first,
            rest,
            min,
            max,
            unique,
            contains,
        } = old;
        let arrays = || facts.rules().map(|rules| &rules.arrays);
        let most = arrays().filter_map(|arrays| arrays.max).min();
        let is_sized = at_least(*min, arrays().filter_map(|arrays| arrays.min))
            && at_most(*max, most)
            && (!unique
                || arrays().any(|arrays| arrays.unique)
                || most.is_some_and(|most| most <= 1));
        if !is_sized {
            return Ok(false);
        }
        let listed = match rest {
            Some(_) => arrays().map(|arrays| arrays.first.len()).max(),
            None => None,
        };
        let is_there = |index: usize| most.is_none_or(|most| (index as u64) < most);
        // The item after all that are listed stands for those that follow.
        let items_follow = all(0..=listed.unwrap_or(0).max(first.len()), |index| {
            self.work.spend(1)?;
            match first.get(index).or(rest.as_ref()) {
                Some(old) if is_there(index) => {
                    self.follows(&facts.of_item(index, &self.work)?, old)
                }
                Some(_) | None => Ok(true),
            }
        })?;
        Ok(items_follow
            && self.holds_if(contains.as_ref(), |old| {
                let known = arrays().filter_map(|arrays| arrays.contains.as_ref());
                any(known, |new| self.contains_follows(new, old))
            })?)
    }

    fn contains_follows(&self, new: &Contains, old: &Contains) -> Result<bool, Spent> {
        self.work.spend(1)?;
        Ok(new.min >= old.min
            && at_most(old.max, new.max)
            && new.node.is_same(&old.node, &self.work)?)
    }

    fn objects_follow(&self, facts: &Facts<'_>, old: &Objects) -> Result<bool, Spent> {
        let Objects {
            properties: _,
            patterns: _,
            others: _,
            names,
            min,
            max,
            required,
            required_with,
            with,
        } = old;
        let objects = || facts.rules().map(|rules| &rules.objects);
        let is_sized = at_least(*min, objects().filter_map(|objects| objects.min))
            && at_most(*max, objects().filter_map(|objects| objects.max).min());
        Ok(is_sized
            && all(required, |name| self.is_required(facts, name))?
            && self.members_follow(facts, old)?
            && self.others_follow(facts, old)?
            && self.holds_if(names.as_ref(), |old| self.names_follow(facts, old))?
            && all(required_with, |(name, needed)| {
                all(needed, |needed| self.is_required_with(facts, name, needed))
            })?
            && all(with, |(name, old)| self.schema_follows(facts, name, old))?)
    }

    fn is_required(&self, facts: &Facts<'_>, name: &String) -> Result<bool, Spent> {
        self.work.spend(facts.steps())?;
        any(facts.rules(), |rules| {
            self.is_listed(&rules.objects.required, name)
        })
    }

    /// `names` are in order.
    fn is_listed(&self, names: &[String], name: &String) -> Result<bool, Spent> {
        if names.is_empty() {
            return Ok(false);
        }
        self.work.spend(of_lookup(names.len(), name))?;
        Ok(names.binary_search(name).is_ok())
    }

    /// Whether the property of that name never comes without the other.
    fn is_required_with(
        &self,
        facts: &Facts<'_>,
        name: &String,
        needed: &String,
    ) -> Result<bool, Spent> {
        Ok(self.is_required(facts, needed)?
            || facts.of_property(name, &self.work)?.are_impossible()
            || any(facts.rules(), |rules| {
                let with = &rules.objects.required_with;
                self.work.spend(of_lookup(with.len(), name))?;
                match with.get(name) {
                    Some(with) => self.is_listed(with, needed),
                    None => Ok(false),
                }
            })?)
    }

    /// Whether an object that has the property of that name fits the node.
    fn schema_follows(&self, facts: &Facts<'_>, name: &String, old: &Node) -> Result<bool, Spent> {
        Ok(facts.of_property(name, &self.work)?.are_impossible()
            || self.follows(facts, old)?
            || any(facts.rules(), |rules| {
                let with = &rules.objects.with;
                self.work.spend(of_lookup(with.len(), name))?;
                match with.get(name) {
                    Some(with) => self.follows(&facts.and(with, &self.work)?, old),
                    None => Ok(false),
                }
            })?)
    }

    /// Properties that one of the sides lists by name.
    fn members_follow(&self, facts: &Facts<'_>, old: &Objects) -> Result<bool, Spent> {
        if old.properties.is_empty() && old.patterns.is_empty() && old.others.is_none() {
            return Ok(true);
        }
        let known = facts.rules().map(|rules| &rules.objects);
        let mut listed = BTreeSet::new();
        for name in known
            .chain([old])
            .flat_map(|objects| objects.properties.keys())
        {
            self.work.spend(of_lookup(listed.len(), name))?;
            listed.insert(name);
        }
        all(listed, |name| {
            let facts = facts.of_property(name, &self.work)?;
            let old = of_name(old, name, &self.work)?;
            all(old, |old| self.follows(&facts, old))
        })
    }

    /// Properties that neither side lists by name.
    fn others_follow(&self, facts: &Facts<'_>, old: &Objects) -> Result<bool, Spent> {
        if old.others.is_none() && old.patterns.is_empty() {
            return Ok(true);
        }
        // What follows from nothing follows from all facts, too.
        let nothing = Objects::default();
        let known = facts.rules().map(|rules| &rules.objects);
        any(known.chain([&nothing]), |new| {
            self.others_follow_from(new, old)
        })
    }

    fn others_follow_from(&self, new: &Objects, old: &Objects) -> Result<bool, Spent> {
        let one = |node: &Node, old: &Node| self.follows(&Facts::of(node, &self.work)?, old);
        // An absent schema is one that takes anything.
        let others = |old: &Arc<Node>| match &new.others {
            Some(new) => one(new, old),
            None => self.follows(&Facts::default(), old),
        };
        self.work.spend(1)?;
        if is_closed(new) {
            return Ok(true);
        }
        if old.patterns.is_empty() {
            return self.holds_if(old.others.as_ref(), |old| {
                Ok(others(old)? && all(&new.patterns, |(_, new)| one(new, old))?)
            });
        }
        // The same patterns divide the names alike.
        Ok(old.patterns.len() == new.patterns.len()
            && all(&old.patterns, |(pattern, old)| {
                let text = of_text(pattern.text().len());
                self.work.spend(new.patterns.len() * text)?;
                let new = new.patterns.iter().find(|(new, _)| new == pattern);
                new.map_or(Ok(false), |(_, new)| one(new, old))
            })?
            && self.holds_if(old.others.as_ref(), others)?)
    }

    fn names_follow(&self, facts: &Facts<'_>, old: &Node) -> Result<bool, Spent> {
        any(facts.rules(), |rules| {
            let objects = &rules.objects;
            self.work.spend(1)?;
            let accepts = |name: &String| {
                self.work.spend(TO_COPY + of_text(name.len()))?;
                is_accepted(old, &Value::String(name.clone()), &self.work)
            };
            if is_closed(objects) && all(objects.properties.keys(), accepts)? {
                return Ok(true);
            }
            // A name is a string, whether the schema says so or not.
            match &objects.names {
                Some(new) => self.follows(&Facts::of(new, &self.work)?, old),
                None => Ok(false),
            }
        })
    }
}

/// There are no properties but those that are listed by name.
fn is_closed(objects: &Objects) -> bool {
    let is_nothing = |node: &Arc<Node>| matches!(node.kind, Kind::Nothing);
    objects.patterns.is_empty() && objects.others.as_ref().is_some_and(is_nothing)
}
