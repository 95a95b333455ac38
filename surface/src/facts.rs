//! What is known of a value that a schema accepts.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    check::is_accepted,
    node::{Kind, Node, Objects, Rules, Types},
    work::{self, Spent, Work, of_lookup},
};

/// Schemas that a value is known to fit, all of them.
#[derive(Clone, Default)]
pub struct Facts<'a>(Vec<&'a Node>);

impl<'a> Facts<'a> {
    /// That a value fits this node, and all that it refers to.
    pub fn of(node: &'a Node, work: &Work) -> Result<Self, Spent> {
        let mut facts = Self::default();
        facts.add(node, work)?;
        Ok(facts)
    }

    fn add(&mut self, node: &'a Node, work: &Work) -> Result<(), Spent> {
        work.spend(2)?;
        self.0.push(node);
        if let Kind::Rules(rules) = &node.kind {
            for part in &rules.all {
                self.add(part, work)?;
            }
        }
        Ok(())
    }

    pub fn and(&self, node: &'a Node, work: &Work) -> Result<Self, Spent> {
        work.spend(1 + self.0.len() / 4)?;
        let mut more = self.clone();
        more.add(node, work)?;
        Ok(more)
    }

    /// Steps to go through all of them once.
    pub fn steps(&self) -> usize {
        1 + self.0.len()
    }

    pub fn nodes(&self) -> impl Iterator<Item = &'a Node> {
        self.0.iter().copied()
    }

    pub fn rules(&self) -> impl Iterator<Item = &'a Rules> {
        self.0.iter().filter_map(|node| match &node.kind {
            Kind::Rules(rules) => Some(&**rules),
            Kind::Anything | Kind::Nothing => None,
        })
    }

    /// No value fits.
    pub fn are_impossible(&self) -> bool {
        let is_nothing = |node: &&Node| matches!(node.kind, Kind::Nothing);
        self.0.iter().any(is_nothing) || self.types() == Types::NONE
    }

    pub fn types(&self) -> Types {
        self.rules()
            .filter_map(|rules| rules.types)
            .fold(Types::ALL, Types::and)
    }

    /// The only values that may fit, where these are listed.
    pub fn values(&self) -> Option<&'a [Value]> {
        let listed = self.rules().find_map(|rules| rules.values.as_ref())?;
        Some(listed.values())
    }

    /// Whether the value fits all of them.
    pub fn accept(&self, value: &Value, work: &Work) -> Result<bool, Spent> {
        work::all(&self.0, |node| is_accepted(node, value, work))
    }

    /// What is known of the property of that name.
    pub fn of_property(&self, name: &str, work: &Work) -> Result<Self, Spent> {
        let mut facts = Self::default();
        work.spend(self.steps())?;
        for rules in self.rules() {
            for node in of_name(&rules.objects, name, work)? {
                facts.add(node, work)?;
            }
        }
        Ok(facts)
    }

    /// What is known of the item at that place.
    pub fn of_item(&self, index: usize, work: &Work) -> Result<Self, Spent> {
        let mut facts = Self::default();
        work.spend(self.steps())?;
        for rules in self.rules() {
            if let Some(node) = rules.arrays.first.get(index).or(rules.arrays.rest.as_ref()) {
                facts.add(node, work)?;
            }
        }
        Ok(facts)
    }

    /// Whether the node is one of them, at the same place of the same schema.
    pub fn hold(&self, node: &Arc<Node>) -> bool {
        self.0
            .iter()
            .any(|fact| std::ptr::eq(*fact, Arc::as_ptr(node)))
    }
}

/// The schemas that a property of that name has to fit.
pub fn of_name<'a>(objects: &'a Objects, name: &str, work: &Work) -> Result<Vec<&'a Node>, Spent> {
    let mut nodes: Vec<&Node> = Vec::new();
    if !objects.properties.is_empty() {
        work.spend(of_lookup(objects.properties.len(), name))?;
        nodes.extend(objects.properties.get(name).map(|node| &**node));
    }
    for (pattern, node) in &objects.patterns {
        if pattern.is_match(name, work)? {
            nodes.push(node);
        }
    }
    if nodes.is_empty() {
        nodes.extend(objects.others.as_deref());
    }
    Ok(nodes)
}
