//! What a device may run of what it declares.
//!
//! A grant names a capability and, by its digest, a surface: how it is started, and what it takes. What a device
//! declares beyond that waits for somebody, and what was granted goes on meanwhile. What it declares below that needs
//! nobody. What was granted is known from what the Device shows; so that a capability cannot grow by going away and
//! coming back wider, it stays known there while it is not declared, for as long as its name is granted. The digest in
//! `spec.grants.surfaces` stands above that: where it names something else, only that is granted.

use crds::v1alpha1::{
    DeclaredCapability, Execution,
    device::{
        AcceptedSurface, Availability, CapabilityCounts, DeviceCapability, DeviceSpec,
        DeviceStatus, Granted, UndeclaredCapability,
    },
};
use surface::{Mismatch, Schema, digest, narrows};

use super::register::Declared;

/// What a Device shows of its capabilities.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shown {
    pub capabilities: Vec<DeviceCapability>,
    pub undeclared: Vec<UndeclaredCapability>,
    pub counts: CapabilityCounts,
}

/// Decides on all that a device declares. The same again changes nothing.
pub fn shown(
    declared: &[(DeclaredCapability, Availability)],
    spec: &DeviceSpec,
    before: &DeviceStatus,
) -> Shown {
    let mut capabilities: Vec<DeviceCapability> = declared
        .iter()
        .map(|(declared, availability)| {
            let Verdict { granted, accepted } = judge(declared, spec, before);
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
                surface_sha256: Some(digest_of(
                    declared.execution,
                    declared.input_schema.as_deref(),
                )),
                accepted,
            }
        })
        .collect();
    capabilities.sort_by(|a, b| a.name.cmp(&b.name));
    capabilities.dedup_by(|a, b| a.name == b.name);
    let is_declared = |name: &String| capabilities.iter().any(|one| one.name == *name);
    let mut undeclared: Vec<UndeclaredCapability> = spec
        .grants
        .capabilities
        .iter()
        .filter(|name| !is_declared(name))
        .filter_map(|name| {
            let accepted = accepted_before(name, before)?;
            Some(UndeclaredCapability {
                name: name.clone(),
                accepted,
            })
        })
        .collect();
    undeclared.sort_by(|a, b| a.name.cmp(&b.name));
    undeclared.dedup_by(|a, b| a.name == b.name);
    let count = |granted: &[Granted]| {
        let matching = capabilities
            .iter()
            .filter(|one| granted.contains(&one.granted));
        i64::try_from(matching.count()).unwrap_or(i64::MAX)
    };
    let counts = CapabilityCounts {
        declared: count(&[Granted::Granted, Granted::NotGranted, Granted::Pending]),
        granted: count(&[Granted::Granted]),
        pending: count(&[Granted::Pending]),
    };
    Shown {
        capabilities,
        undeclared,
        counts,
    }
}

/// What is decided on one capability. It may be run where it is granted, or where something of it is accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Verdict {
    granted: Granted,
    /// What was granted, where that is not what is declared.
    accepted: Option<AcceptedSurface>,
}

fn judge(declared: &DeclaredCapability, spec: &DeviceSpec, before: &DeviceStatus) -> Verdict {
    let name = &declared.name;
    let alone = |granted| Verdict {
        granted,
        accepted: None,
    };
    if !spec.grants.capabilities.contains(name) {
        let known = before.capabilities.iter().find(|known| known.name == *name);
        return alone(match known {
            // Beside `accepted` it was granted, and somebody took that back.
            Some(known) if known.granted == Granted::Pending && known.accepted.is_none() => {
                Granted::Pending
            }
            None if !before.capabilities.is_empty() => Granted::Pending,
            // On a device that never declared anything, who approved it saw it and left it out.
            Some(_) | None => Granted::NotGranted,
        });
    }
    let now = digest_of(declared.execution, declared.input_schema.as_deref());
    let pin = spec.grants.surfaces.get(name);
    if pin == Some(&now) {
        return alone(Granted::Granted);
    }
    let of = |accepted: &AcceptedSurface| {
        digest_of(accepted.execution, accepted.input_schema.as_deref())
    };
    let accepted =
        accepted_before(name, before).filter(|known| pin.is_none_or(|pin| *pin == of(known)));
    match accepted {
        // Granted by its name, and this is what its name is seen to mean first.
        None if pin.is_none() => alone(Granted::Granted),
        // Something else was granted, and nobody here knows what: neither can be told to be within the other.
        None => alone(Granted::Pending),
        Some(accepted) if of(&accepted) == now => alone(Granted::Granted),
        Some(accepted) => Verdict {
            granted: if is_within(declared, &accepted) {
                Granted::Granted
            } else {
                Granted::Pending
            },
            accepted: Some(accepted),
        },
    }
}

/// What was granted of a capability when the Device was last written.
fn accepted_before(name: &str, before: &DeviceStatus) -> Option<AcceptedSurface> {
    if let Some(known) = before.capabilities.iter().find(|known| known.name == name) {
        return known.accepted.clone().or_else(|| {
            (known.granted == Granted::Granted).then(|| AcceptedSurface {
                execution: known.execution,
                input_schema: known.input_schema.clone(),
            })
        });
    }
    let known = before.undeclared.iter().find(|known| known.name == name)?;
    Some(known.accepted.clone())
}

fn digest_of(execution: Execution, input_schema: Option<&str>) -> String {
    digest(execution.as_str(), input_schema)
}

/// Whether what is declared is sure to be no more than what was accepted.
fn is_within(declared: &DeclaredCapability, accepted: &AcceptedSurface) -> bool {
    let asks_nobody_any_more =
        accepted.execution == Execution::Mediated && declared.execution == Execution::Automatic;
    let (Ok(new), Ok(old)) = (
        read(declared.input_schema.as_deref()),
        read(accepted.input_schema.as_deref()),
    ) else {
        return false;
    };
    !asks_nobody_any_more && narrows(new.as_ref(), old.as_ref())
}

fn read(schema: Option<&str>) -> Result<Option<Schema>, surface::Invalid> {
    schema
        .map(|text| Schema::parse(text.as_bytes()))
        .transpose()
}

/// What one capability of one device may do now, ready for its invocations.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Its name is not granted.
    NotGranted,
    /// Its name is, and the device declares something else than what was granted.
    Pending,
    Permitted(Permit),
}

impl Standing {
    /// Whether the person at the device is to be asked, whatever the device declares.
    pub fn asks(&self) -> bool {
        match self {
            Self::Permitted(permit) => permit.mediate,
            Self::NotGranted | Self::Pending => true,
        }
    }
}

/// How it may be run.
#[derive(Clone, Debug, Default)]
pub struct Permit {
    /// What was granted, where the device declares something else.
    accepted: Option<Schema>,
    /// What the device takes.
    declared: Option<Schema>,
    /// The person at the device is to be asked, though the device declares that it asks nobody.
    pub mediate: bool,
}

impl Permit {
    /// Whether the input is within what was granted.
    ///
    /// # Errors
    /// Where it is not.
    pub fn is_granted(&self, input: &serde_json::Value) -> Result<(), Mismatch> {
        self.accepted
            .as_ref()
            .map_or(Ok(()), |schema| schema.check(input))
    }

    /// Whether the device takes the input.
    ///
    /// # Errors
    /// Where it does not.
    pub fn is_taken(&self, input: &serde_json::Value) -> Result<(), Mismatch> {
        self.declared
            .as_ref()
            .map_or(Ok(()), |schema| schema.check(input))
    }

    /// Whether there is anything to check an input against.
    pub fn has_schema(&self) -> bool {
        self.accepted.is_some() || self.declared.is_some()
    }
}

/// What one capability may do. It depends on what the device declares and on its Device alone, so it holds for all
/// invocations until one of these changes.
pub fn standing(
    capability: &str,
    declared: &Declared,
    spec: &DeviceSpec,
    status: &DeviceStatus,
) -> Standing {
    let found = declared.capabilities.iter();
    let found = found
        .map(|(declared, _)| declared)
        .find(|declared| declared.name == capability);
    let Some(found) = found else {
        // Whether the device has it is another question.
        return if spec
            .grants
            .capabilities
            .iter()
            .any(|name| name == capability)
        {
            Standing::Permitted(Permit::default())
        } else {
            Standing::NotGranted
        };
    };
    let Verdict { granted, accepted } = judge(found, spec, status);
    if accepted.is_none() {
        match granted {
            Granted::Granted => {}
            Granted::Pending if spec.grants.capabilities.contains(&found.name) => {
                return Standing::Pending;
            }
            Granted::Pending | Granted::NotGranted => return Standing::NotGranted,
        }
    }
    let mediate = accepted
        .as_ref()
        .is_some_and(|accepted| accepted.execution == Execution::Mediated)
        && found.execution == Execution::Automatic;
    let schemas = (
        accepted
            .as_ref()
            .map_or(Ok(None), |accepted| read(accepted.input_schema.as_deref())),
        read(found.input_schema.as_deref()),
    );
    match schemas {
        (Ok(accepted), Ok(declared)) => Standing::Permitted(Permit {
            accepted,
            declared,
            mediate,
        }),
        // What was granted cannot be read any more: it is as good as not known.
        (Err(_), _) | (_, Err(_)) => Standing::Pending,
    }
}

#[cfg(test)]
mod tests;
