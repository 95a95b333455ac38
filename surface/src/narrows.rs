//! Whether one schema is sure to accept no more than another.
//!
//! All that is known of a value which the new schema accepts is a list of schemas that it fits ([`Facts`]): the schema
//! itself, and what that refers to. What the old one asks for must follow from one of them, or from the few rules
//! below about several. What is not understood does not follow: that costs a question to a person, and the other
//! mistake would give a device more than anybody granted.

use std::{cell::Cell, cmp::Ordering as O, collections::BTreeSet, sync::Arc};

use serde_json::{Number, Value};

use crate::{
    check::is_accepted,
    node::{Arrays, Contains, Kind, Node, Numbers, Objects, Rules, Strings, Types},
    schema::Schema,
    values,
};

/// Steps after which it is given up. Schemas of people take some hundred.
const MAX_STEPS: u32 = 20_000;

/// Whether every value that `new` accepts is accepted by `old`, as far as this can be shown. `None` accepts anything.
/// Titles, descriptions and examples are no difference.
pub fn narrows(new: Option<&Schema>, old: Option<&Schema>) -> bool {
    let Some(old) = old else {
        return true;
    };
    let proof = Proof {
        steps: Cell::new(MAX_STEPS),
    };
    let mut facts = Facts::default();
    if let Some(new) = new {
        facts.add(new.root());
    }
    proof.follows(&facts, old.root())
}

struct Proof {
    steps: Cell<u32>,
}

/// Schemas that a value is known to fit, all of them.
#[derive(Clone, Default)]
struct Facts<'a>(Vec<&'a Node>);

impl<'a> Facts<'a> {
    /// With all that it refers to.
    fn add(&mut self, node: &'a Node) {
        self.0.push(node);
        if let Kind::Rules(rules) = &node.kind {
            for part in &rules.all {
                self.add(part);
            }
        }
    }

    fn and(&self, node: &'a Node) -> Self {
        let mut more = self.clone();
        more.add(node);
        more
    }

    fn rules(&self) -> impl Iterator<Item = &'a Rules> {
        self.0.iter().filter_map(|node| match &node.kind {
            Kind::Rules(rules) => Some(&**rules),
            Kind::Anything | Kind::Nothing => None,
        })
    }

    /// No value fits.
    fn are_impossible(&self) -> bool {
        self.0.iter().any(|node| node.kind == Kind::Nothing) || self.types() == Types::NONE
    }

    fn types(&self) -> Types {
        self.rules()
            .filter_map(|rules| rules.types)
            .fold(Types::ALL, Types::and)
    }

    /// The only values that may fit, where these are listed.
    fn values(&self) -> Option<impl Iterator<Item = &'a Value>> {
        let values = self.rules().find_map(|rules| rules.values.as_ref())?;
        let fits = move |value: &&Value| self.0.iter().all(|node| is_accepted(node, value));
        let values: Vec<&Value> = values.iter().filter(fits).collect();
        Some(values.into_iter())
    }

    /// What is known of the property of that name.
    fn of_property(&self, name: &str) -> Self {
        let mut facts = Self::default();
        for rules in self.rules() {
            for node in of_name(&rules.objects, name) {
                facts.add(node);
            }
        }
        facts
    }

    /// What is known of the item at that place.
    fn of_item(&self, index: usize) -> Self {
        let mut facts = Self::default();
        for rules in self.rules() {
            if let Some(node) = rules.arrays.first.get(index).or(rules.arrays.rest.as_ref()) {
                facts.add(node);
            }
        }
        facts
    }
}

/// The schemas that a property of that name has to fit.
fn of_name<'a>(objects: &'a Objects, name: &str) -> Vec<&'a Node> {
    let patterns = objects
        .patterns
        .iter()
        .filter(|(pattern, _)| pattern.is_match(name))
        .map(|(_, node)| &**node);
    let mut nodes: Vec<&Node> = objects
        .properties
        .get(name)
        .map(|node| &**node)
        .into_iter()
        .chain(patterns)
        .collect();
    if nodes.is_empty() {
        nodes.extend(objects.others.as_deref());
    }
    nodes
}

impl Proof {
    /// Whether whoever fits all of `facts` fits `old`.
    fn follows(&self, facts: &Facts<'_>, old: &Node) -> bool {
        let Some(steps) = self.steps.get().checked_sub(1) else {
            return false;
        };
        self.steps.set(steps);
        let rules = match &old.kind {
            Kind::Anything => return true,
            _ if facts.are_impossible() => return true,
            Kind::Nothing => return false,
            Kind::Rules(rules) => rules,
        };
        if facts.0.iter().any(|fact| fact.kind == old.kind) {
            return true;
        }
        if let Some(mut values) = facts.values() {
            return values.all(|value| is_accepted(old, value));
        }
        self.rules_follow(facts, rules) || self.follows_in_each_case(facts, old)
    }

    /// Where the facts leave alternatives, it may follow from each.
    fn follows_in_each_case(&self, facts: &Facts<'_>, old: &Node) -> bool {
        let mut alternatives = facts
            .rules()
            .flat_map(|rules| rules.any.iter().chain(&rules.one));
        alternatives.any(|nodes| {
            // One that is among the facts already adds nothing: that case was looked at.
            let is_taken = |node: &Arc<Node>| {
                facts
                    .0
                    .iter()
                    .any(|fact| std::ptr::eq(*fact, Arc::as_ptr(node)))
            };
            !nodes.iter().any(is_taken)
                && nodes.iter().all(|node| self.follows(&facts.and(node), old))
        })
    }

    fn rules_follow(&self, facts: &Facts<'_>, old: &Rules) -> bool {
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
        } = old;
        let known = facts.types();
        let is_among = |node: &Arc<Node>| self.follows(facts, node);
        types.is_none_or(|types| known.is_within(types))
            // Where the facts list values this is not reached.
            && values.is_none()
            && constant.is_none()
            && (!known.meets(Types::NUMBER) || numbers_follow(facts, numbers))
            && (!known.meets(Types::STRING) || strings_follow(facts, strings))
            && (!known.meets(Types::ARRAY) || self.arrays_follow(facts, arrays))
            && (!known.meets(Types::OBJECT) || self.objects_follow(facts, objects))
            && all.iter().all(is_among)
            && any.as_ref().is_none_or(|nodes| nodes.iter().any(is_among))
            && (one.is_none() || facts.rules().any(|rules| rules.one == *one))
            && not.as_ref().is_none_or(|not| self.is_excluded(facts, not))
            && (condition.is_none() || facts.rules().any(|rules| rules.condition == *condition))
    }

    /// Whether what fits the facts does not fit the node: something larger is excluded already, or the types differ.
    fn is_excluded(&self, facts: &Facts<'_>, node: &Node) -> bool {
        let mut excluded = Facts::default();
        excluded.add(node);
        !facts.types().meets(excluded.types())
            || facts
                .rules()
                .filter_map(|rules| rules.not.as_ref())
                .any(|not| self.follows(&excluded, not))
    }

    fn arrays_follow(&self, facts: &Facts<'_>, old: &Arrays) -> bool {
        let Arrays {
            first,
            rest,
            min,
            max,
            unique,
            contains,
        } = old;
        let arrays = || facts.rules().map(|rules| &rules.arrays);
        let listed = arrays().map(|arrays| arrays.first.len()).max().unwrap_or(0);
        let most = arrays().filter_map(|arrays| arrays.max).min();
        let is_there = |index: usize| most.is_none_or(|most| (index as u64) < most);
        // The item after all that are listed stands for those that follow.
        let items_follow = (0..=listed.max(first.len())).all(|index| {
            let old = first.get(index).or(rest.as_ref());
            !is_there(index) || old.is_none_or(|old| self.follows(&facts.of_item(index), old))
        });
        at_least(*min, arrays().filter_map(|arrays| arrays.min))
            && at_most(*max, most)
            && (!unique
                || arrays().any(|arrays| arrays.unique)
                || most.is_some_and(|most| most <= 1))
            && items_follow
            && contains.as_ref().is_none_or(|old| {
                arrays()
                    .filter_map(|arrays| arrays.contains.as_ref())
                    .any(|new| contains_follows(new, old))
            })
    }

    fn objects_follow(&self, facts: &Facts<'_>, old: &Objects) -> bool {
        let Objects {
            properties,
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
        let required_now: BTreeSet<&String> =
            objects().flat_map(|objects| &objects.required).collect();
        let listed: BTreeSet<&String> = objects()
            .flat_map(|objects| objects.properties.keys())
            .chain(properties.keys())
            .collect();
        let is_required_with = |name: &String, needed: &String| {
            required_now.contains(needed)
                || facts.of_property(name).are_impossible()
                || objects().any(|objects| {
                    let with = objects.required_with.get(name);
                    with.is_some_and(|with| with.contains(needed))
                })
        };
        at_least(*min, objects().filter_map(|objects| objects.min))
            && at_most(*max, objects().filter_map(|objects| objects.max).min())
            && required.iter().all(|name| required_now.contains(name))
            && listed.iter().all(|name| {
                let facts = facts.of_property(name);
                of_name(old, name)
                    .into_iter()
                    .all(|old| self.follows(&facts, old))
            })
            && self.others_follow(facts, old)
            && names
                .as_ref()
                .is_none_or(|old| self.names_follow(facts, old))
            && required_with
                .iter()
                .all(|(name, needed)| needed.iter().all(|needed| is_required_with(name, needed)))
            && with.iter().all(|(name, old)| {
                facts.of_property(name).are_impossible()
                    || self.follows(facts, old)
                    || objects().any(|objects| {
                        let with = objects.with.get(name);
                        with.is_some_and(|with| self.follows(&facts.and(with), old))
                    })
            })
    }

    /// Properties that neither side lists by name.
    fn others_follow(&self, facts: &Facts<'_>, old: &Objects) -> bool {
        if old.others.is_none() && old.patterns.is_empty() {
            return true;
        }
        let one = |node: &Arc<Node>, old: &Node| {
            let mut facts = Facts::default();
            facts.add(node);
            self.follows(&facts, old)
        };
        facts.rules().map(|rules| &rules.objects).any(|new| {
            // An absent schema is one that takes anything.
            let others = |old: &Node| {
                new.others
                    .as_ref()
                    .map_or_else(|| self.follows(&Facts::default(), old), |new| one(new, old))
            };
            let patterns_follow = |old: &Node| new.patterns.iter().all(|(_, node)| one(node, old));
            if new.patterns.is_empty()
                && new
                    .others
                    .as_ref()
                    .is_some_and(|node| node.kind == Kind::Nothing)
            {
                // There are none.
                return true;
            }
            if old.patterns.is_empty() {
                return old
                    .others
                    .as_ref()
                    .is_none_or(|old| others(old) && patterns_follow(old));
            }
            // The same patterns divide the names alike.
            old.patterns.len() == new.patterns.len()
                && old.patterns.iter().all(|(pattern, old)| {
                    let new = new.patterns.iter().find(|(new, _)| new == pattern);
                    new.is_some_and(|(_, new)| one(new, old))
                })
                && old.others.as_ref().is_none_or(|old| others(old))
        })
    }

    fn names_follow(&self, facts: &Facts<'_>, old: &Node) -> bool {
        facts.rules().any(|rules| {
            let objects = &rules.objects;
            let is_closed = objects.patterns.is_empty()
                && objects
                    .others
                    .as_ref()
                    .is_some_and(|node| node.kind == Kind::Nothing);
            let accepts = |name: &String| is_accepted(old, &Value::String(name.clone()));
            if is_closed && objects.properties.keys().all(accepts) {
                return true;
            }
            objects.names.as_ref().is_some_and(|new| {
                // A name is a string, whether the schema says so or not.
                let mut facts = Facts::default();
                facts.add(new);
                self.follows(&facts, old)
            })
        })
    }
}

fn contains_follows(new: &Contains, old: &Contains) -> bool {
    new.node == old.node && new.min >= old.min && at_most(old.max, new.max)
}

fn at_least(old: Option<u64>, mut new: impl Iterator<Item = u64>) -> bool {
    old.is_none_or(|old| old == 0 || new.any(|new| new >= old))
}

fn at_most(old: Option<u64>, new: Option<u64>) -> bool {
    old.is_none_or(|old| new.is_some_and(|new| new <= old))
}

fn numbers_follow(facts: &Facts<'_>, old: &Numbers) -> bool {
    let Numbers {
        minimum,
        above,
        maximum,
        below,
        multiple_of,
    } = old;
    let any = |holds: &dyn Fn(&Numbers) -> bool| facts.rules().any(|rules| holds(&rules.numbers));
    let known = |new: &Option<Number>, old: &Number, holds: fn(O) -> bool| {
        new.as_ref()
            .is_some_and(|new| holds(values::compare(new, old)))
    };
    let not_less = |old: &Number| {
        any(&|new| known(&new.minimum, old, O::is_ge) || known(&new.above, old, O::is_ge))
    };
    let more = |old: &Number| {
        any(&|new| known(&new.minimum, old, O::is_gt) || known(&new.above, old, O::is_ge))
    };
    let not_more = |old: &Number| {
        any(&|new| known(&new.maximum, old, O::is_le) || known(&new.below, old, O::is_le))
    };
    let less = |old: &Number| {
        any(&|new| known(&new.maximum, old, O::is_lt) || known(&new.below, old, O::is_le))
    };
    minimum.as_ref().is_none_or(not_less)
        && above.as_ref().is_none_or(more)
        && maximum.as_ref().is_none_or(not_more)
        && below.as_ref().is_none_or(less)
        && multiple_of
            .is_none_or(|old| any(&|new| new.multiple_of.is_some_and(|new| new % old == 0)))
}

fn strings_follow(facts: &Facts<'_>, old: &Strings) -> bool {
    let Strings { min, max, pattern } = old;
    let strings = || facts.rules().map(|rules| &rules.strings);
    at_least(*min, strings().filter_map(|strings| strings.min))
        && at_most(*max, strings().filter_map(|strings| strings.max).min())
        && (pattern.is_none() || strings().any(|strings| strings.pattern == *pattern))
}
