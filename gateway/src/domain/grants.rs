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
use surface::Schema;

pub use self::known::Known;
use self::known::{Surface, read};
use super::register::{Declared, MAX_SCHEMAS};

mod known;

/// Most bytes of schemas of one device that are compared at once: what it may declare, and as much that was granted.
const MAX_COMPARED: usize = 2 * MAX_SCHEMAS;

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
    known: &Known,
) -> Shown {
    let mut declared: Vec<_> = declared.iter().collect();
    declared.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let mut comparing = Comparing {
        known,
        left: MAX_COMPARED,
    };
    let mut capabilities: Vec<DeviceCapability> = declared
        .into_iter()
        .map(|(declared, availability)| {
            let Verdict { granted, accepted } = judge(declared, spec, before, &mut comparing);
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
                surface_sha256: Some(of_declared(declared).digest()),
                accepted,
            }
        })
        .collect();
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

fn judge(
    declared: &DeclaredCapability,
    spec: &DeviceSpec,
    before: &DeviceStatus,
    comparing: &mut Comparing<'_>,
) -> Verdict {
    match ground(declared, spec, before) {
        Ground::Known(granted) => Verdict {
            granted,
            accepted: None,
        },
        Ground::Accepted(accepted) => Verdict {
            granted: if comparing.is_within(of_declared(declared), of_accepted(&accepted)) {
                Granted::Granted
            } else {
                Granted::Pending
            },
            accepted: Some(accepted),
        },
    }
}

/// Compares surfaces of one device, up to a bound for all of them together.
struct Comparing<'a> {
    known: &'a Known,
    /// Bytes of schemas that may still be compared.
    left: usize,
}

impl Comparing<'_> {
    /// Past the bound nothing is within anything: the rest waits for somebody. Whether a verdict is known already makes no
    /// difference to that, so the same again is the same.
    fn is_within(&mut self, new: Surface<'_>, old: Surface<'_>) -> bool {
        let Some(left) = self.left.checked_sub(new.bytes() + old.bytes()) else {
            return false;
        };
        self.left = left;
        self.known.is_within(new, old)
    }
}

/// What follows from names and digests alone.
enum Ground {
    Known(Granted),
    /// Something else was granted than what is declared, and goes on.
    Accepted(AcceptedSurface),
}

fn ground(declared: &DeclaredCapability, spec: &DeviceSpec, before: &DeviceStatus) -> Ground {
    let name = &declared.name;
    if !spec.grants.capabilities.contains(name) {
        let shown = before.capabilities.iter().find(|shown| shown.name == *name);
        return Ground::Known(match shown {
            // Beside `accepted` it was granted, and somebody took that back.
            Some(shown) if shown.granted == Granted::Pending && shown.accepted.is_none() => {
                Granted::Pending
            }
            None if !before.capabilities.is_empty() => Granted::Pending,
            // On a device that never declared anything, who approved it saw it and left it out.
            Some(_) | None => Granted::NotGranted,
        });
    }
    let now = of_declared(declared).digest();
    let pin = spec.grants.surfaces.get(name);
    if pin == Some(&now) {
        return Ground::Known(Granted::Granted);
    }
    let accepted = accepted_before(name, before)
        .map(|accepted| (of_accepted(&accepted).digest(), accepted))
        .filter(|(digest, _)| pin.is_none_or(|pin| pin == digest));
    match accepted {
        // Granted by its name, and this is what its name is seen to mean first.
        None if pin.is_none() => Ground::Known(Granted::Granted),
        // Something else was granted, and nobody here knows what: neither can be told to be within the other.
        None => Ground::Known(Granted::Pending),
        Some((digest, _)) if digest == now => Ground::Known(Granted::Granted),
        Some((_, accepted)) => Ground::Accepted(accepted),
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

fn of_declared(declared: &DeclaredCapability) -> Surface<'_> {
    Surface {
        execution: declared.execution,
        input_schema: declared.input_schema.as_deref(),
    }
}

fn of_accepted(accepted: &AcceptedSurface) -> Surface<'_> {
    Surface {
        execution: accepted.execution,
        input_schema: accepted.input_schema.as_deref(),
    }
}

/// Bytes of all schemas that [`shown`] reads: the time that it takes grows with these.
pub fn schema_bytes(
    declared: &[(DeclaredCapability, Availability)],
    before: &DeviceStatus,
) -> usize {
    let bytes = |schema: &Option<String>| schema.as_ref().map_or(0, String::len);
    let declared = declared.iter().map(|(one, _)| bytes(&one.input_schema));
    let of_shown = |shown: &DeviceCapability| {
        let accepted = shown.accepted.as_ref();
        let schema = accepted.map_or(&shown.input_schema, |accepted| &accepted.input_schema);
        bytes(schema)
    };
    let shown = before.capabilities.iter().map(of_shown);
    let undeclared = before.undeclared.iter();
    let undeclared = undeclared.map(|one| bytes(&one.accepted.input_schema));
    declared.chain(shown).chain(undeclared).sum()
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
    /// Bytes of the schemas that were read.
    pub fn schema_bytes(&self) -> usize {
        match self {
            Self::Permitted(Permit {
                accepted, declared, ..
            }) => {
                let schemas = accepted.iter().chain(declared);
                schemas.map(|schema| schema.text().len()).sum()
            }
            Self::NotGranted | Self::Pending => 0,
        }
    }

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
    pub accepted: Option<Schema>,
    /// What the device takes.
    pub declared: Option<Schema>,
    /// The person at the device is to be asked, though the device declares that it asks nobody.
    pub mediate: bool,
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
    let accepted = match ground(found, spec, status) {
        Ground::Known(Granted::Granted) => None,
        Ground::Known(Granted::Pending) if spec.grants.capabilities.contains(&found.name) => {
            return Standing::Pending;
        }
        Ground::Known(Granted::Pending | Granted::NotGranted) => return Standing::NotGranted,
        Ground::Accepted(accepted) => Some(accepted),
    };
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
