//! What a device declares beyond what was granted, in words, and how it is granted.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    Device,
    v1alpha1::{
        DeviceStatus,
        device::{DeviceCapability, Granted},
    },
};
use kube::ResourceExt as _;
use serde_json::json;

/// Most bytes of the message. A patch names all that is granted, which is long where that is much.
const MAX_MESSAGE: usize = 2048;
/// Most capabilities that are named.
const MAX_NAMED: usize = 8;

/// `None` where nothing waits for a decision.
pub(super) fn message(device: &Device, status: &DeviceStatus) -> Option<String> {
    let pending: Vec<&DeviceCapability> = status
        .capabilities
        .iter()
        .filter(|capability| capability.granted == Granted::Pending)
        .filter(|capability| !is_granted_by_now(device, capability))
        .collect();
    if pending.is_empty() {
        return None;
    }
    let mut named: Vec<String> = pending
        .iter()
        .take(MAX_NAMED)
        .map(|capability| described(device, capability))
        .collect();
    if pending.len() > MAX_NAMED {
        named.push(format!("and {} more", pending.len() - MAX_NAMED));
    }
    let waits = format!(
        "nobody has granted {}: look at them in status.capabilities",
        named.join(", ")
    );
    let with = |granted: &[&DeviceCapability]| {
        let patch = patch(device, granted);
        format!("{waits}, and grant them with: {patch}")
    };
    [&pending[..], &pending[..1]]
        .iter()
        .map(|granted| with(granted))
        .find(|message| message.len() <= MAX_MESSAGE)
        .or_else(|| {
            let how = "add their names to spec.grants.capabilities, and each surfaceSha256 to spec.grants.surfaces";
            Some(format!("{waits}; to grant them, {how}"))
        })
}

/// The gateway has yet to write what follows from a decision.
fn is_granted_by_now(device: &Device, capability: &DeviceCapability) -> bool {
    let grants = &device.spec.grants;
    let pin = grants.surfaces.get(&capability.name);
    grants.capabilities.contains(&capability.name)
        && match pin {
            Some(pin) => capability.surface_sha256.as_ref() == Some(pin),
            // Where something was accepted, what is beyond that needs its digest; otherwise the name is enough.
            None => capability.accepted.is_none(),
        }
}

fn described(device: &Device, capability: &DeviceCapability) -> String {
    let DeviceCapability {
        name,
        accepted,
        execution,
        ..
    } = capability;
    match accepted {
        _ if !device.spec.grants.capabilities.contains(name) => format!("{name} (new)"),
        None => format!("{name} (not as it was granted; not run until then)"),
        Some(accepted) if accepted.execution != *execution => {
            format!("{name} (asks nobody any more; goes on asking until then)")
        }
        Some(_) => format!("{name} (takes more; what was granted goes on until then)"),
    }
}

/// The command that grants these beside what is granted.
fn patch(device: &Device, pending: &[&DeviceCapability]) -> String {
    let granted = &device.spec.grants.capabilities;
    let surfaces: BTreeMap<&str, &str> = pending
        .iter()
        .filter_map(|one| Some((one.name.as_str(), one.surface_sha256.as_deref()?)))
        .collect();
    let mut grants = json!({ "surfaces": surfaces });
    if pending.iter().any(|one| !granted.contains(&one.name)) {
        let names = granted.iter().chain(pending.iter().map(|one| &one.name));
        grants["capabilities"] = json!(names.collect::<BTreeSet<_>>());
    }
    let patch = json!({ "spec": { "grants": grants } });
    format!(
        "kubectl -n {} patch dev {} --type=merge -p '{patch}'",
        device.namespace().unwrap_or_default(),
        device.name_any()
    )
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::{DeviceSpec, Execution, device::AcceptedSurface};

    use super::*;

    fn lamp(granted: &[&str]) -> Device {
        let mut device = Device::new("lamp", DeviceSpec::default());
        device.metadata.namespace = Some("kitchen".to_owned());
        device.spec.grants.capabilities = granted.iter().map(|name| (*name).to_owned()).collect();
        device
    }

    fn pending(name: &str, accepted: Option<Execution>) -> DeviceCapability {
        DeviceCapability {
            name: name.to_owned(),
            granted: Granted::Pending,
            surface_sha256: Some("ab".repeat(32)),
            accepted: accepted.map(|execution| AcceptedSurface {
                execution,
                input_schema: None,
            }),
            ..DeviceCapability::default()
        }
    }

    fn said(device: &Device, capabilities: &[DeviceCapability]) -> Option<String> {
        let status = DeviceStatus {
            capabilities: capabilities.to_vec(),
            ..DeviceStatus::default()
        };
        message(device, &status)
    }

    #[test]
    fn what_waits_is_named_with_the_command_that_grants_it() {
        let digest = "ab".repeat(32);
        let told = said(
            &lamp(&["grow", "old"]),
            &[
                pending("grow", Some(Execution::Automatic)),
                pending("new", None),
            ],
        );
        assert_eq!(
            told.unwrap(),
            format!(
                "nobody has granted grow (takes more; what was granted goes on until then), new (new): look at them in \
                 status.capabilities, and grant them with: kubectl -n kitchen patch dev lamp --type=merge -p \
                 '{{\"spec\":{{\"grants\":{{\"capabilities\":[\"grow\",\"new\",\"old\"],\
                 \"surfaces\":{{\"grow\":\"{digest}\",\"new\":\"{digest}\"}}}}}}}}'"
            )
        );
        let told = said(
            &lamp(&["grow"]),
            &[pending("grow", Some(Execution::Mediated))],
        )
        .unwrap();
        assert!(told.contains("grow (asks nobody any more"), "{told}");
        assert!(
            !told.contains("\"capabilities\""),
            "what is granted is not repeated: {told}"
        );
        let told = said(&lamp(&["grow"]), &[pending("grow", None)]);
        assert_eq!(told, None, "its name was granted a moment ago");
    }

    #[test]
    fn a_decision_that_the_gateway_has_not_read_yet_is_one() {
        let mut device = lamp(&["grow"]);
        let grown = pending("grow", Some(Execution::Automatic));
        device.spec.grants.surfaces = [("grow".to_owned(), "ab".repeat(32))].into();
        assert_eq!(said(&device, std::slice::from_ref(&grown)), None);
        device.spec.grants.surfaces = [("grow".to_owned(), "cd".repeat(32))].into();
        assert!(
            said(&device, &[grown]).is_some(),
            "the digest of something else"
        );
        let unlike = said(&device, &[pending("grow", None)]).unwrap();
        assert!(unlike.contains("not run until then"), "{unlike}");
    }

    #[test]
    fn the_message_is_bounded() {
        let long = |n| format!("{}{n:03}", "a".repeat(60));
        let names: Vec<String> = (0..128).map(long).collect();
        let all: Vec<_> = names.iter().map(|name| pending(name, None)).collect();
        let told = said(&lamp(&[]), &all).unwrap();
        assert!(told.len() <= MAX_MESSAGE, "{}", told.len());
        assert!(
            told.contains("and 120 more") && told.contains("kubectl"),
            "{told}"
        );
        let granted: Vec<&str> = names[1..].iter().map(String::as_str).collect();
        let told = said(&lamp(&granted), &all[..1]).unwrap();
        assert!(
            told.len() <= MAX_MESSAGE && told.contains("spec.grants.surfaces"),
            "{told}"
        );
    }
}
