//! What a device may run from its approval on.

use crate::v1alpha1::{DeclaredCapability, Grants};

/// What a device gets at approval: what the approver gave, else what it declared; never more than the code allows.
///
/// Sorted and without doubles, so that the same decision gives the same object.
pub fn at_approval(
    declared: &[DeclaredCapability],
    given: Option<&Grants>,
    ceiling: Option<&Grants>,
) -> Vec<String> {
    let wanted: Vec<String> = match given.and_then(|grants| grants.capabilities.as_ref()) {
        Some(given) => given.clone(),
        None => declared
            .iter()
            .map(|capability| capability.name.clone())
            .collect(),
    };
    let ceiling = ceiling.and_then(|grants| grants.capabilities.as_ref());
    let mut granted: Vec<String> = wanted
        .into_iter()
        .filter(|name| ceiling.is_none_or(|ceiling| ceiling.contains(name)))
        .collect();
    granted.sort();
    granted.dedup();
    granted
}

#[cfg(test)]
mod tests;
