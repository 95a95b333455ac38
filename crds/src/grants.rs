//! What a device may run: what was granted, of what it declares.

use crate::v1alpha1::{
    DeclaredCapability, DeviceSpec, Grants,
    device::{Availability, DeviceCapability, Granted},
};

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

/// The capabilities of a device's status: what it declares now, and whether it may.
///
/// What was there before and is not granted stays as it was decided (`NotGranted`); what is new and not granted is
/// `Pending` until somebody decides. On a device that never declared anything, what the approver left out is
/// `NotGranted`: he saw it.
pub fn surface(
    declared: &[(DeclaredCapability, Availability)],
    spec: &DeviceSpec,
    before: &[DeviceCapability],
) -> Vec<DeviceCapability> {
    let mut surface: Vec<DeviceCapability> = declared
        .iter()
        .map(|(declared, availability)| {
            let known = before
                .iter()
                .find(|capability| capability.name == declared.name);
            let granted = match known {
                _ if spec.grants.capabilities.contains(&declared.name) => Granted::Granted,
                Some(known) if known.granted == Granted::Pending => Granted::Pending,
                None if !before.is_empty() => Granted::Pending,
                Some(_) | None => Granted::NotGranted,
            };
            DeviceCapability {
                name: declared.name.clone(),
                availability: *availability,
                execution: declared.execution,
                granted,
                version: declared.version.clone(),
                description: declared.description.clone(),
                input_schema: declared.input_schema.clone(),
                output_schema: declared.output_schema.clone(),
                default_timeout_seconds: declared.default_timeout_seconds,
                max_timeout_seconds: declared.max_timeout_seconds,
                concurrency: declared.concurrency,
                ..DeviceCapability::default()
            }
        })
        .collect();
    surface.sort_by(|a, b| a.name.cmp(&b.name));
    surface.dedup_by(|a, b| a.name == b.name);
    surface
}

#[cfg(test)]
mod tests;
