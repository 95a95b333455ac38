//! What is wrong with an invocation before it is made. Pure.

use crds::{Device, nearest::did_you_mean};

/// Returns the error of a capability that the device does not declare.
///
/// Nothing is found where the device declares nothing yet, or the invocation waits for the device: what it declares when
/// it comes is what counts, and the gateway decides.
pub fn not_declared(device: &Device, capability: &str, waits: bool) -> Option<String> {
    let declared = &device.status.as_ref()?.capabilities;
    let known = || declared.iter().map(|declared| declared.name.as_str());
    if waits || declared.is_empty() || known().any(|name| name == capability) {
        return None;
    }
    let name = device.metadata.name.as_deref().unwrap_or_default();
    let meant = did_you_mean(capability, known());
    Some(format!(
        "{name} does not declare {capability}{meant}{} kubectl fairlead describe {name} shows what it can do",
        if meant.is_empty() { ";" } else { "" }
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(capabilities: &[&str]) -> Device {
        let capabilities: Vec<_> = capabilities
            .iter()
            .map(|name| json!({"name": name}))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device", "metadata": {"name": "lamp"},
            "spec": {"publicKeySha256": "ab".repeat(32)},
            "status": {"capabilities": capabilities},
        }))
        .unwrap()
    }

    #[test]
    fn a_mistyped_capability_is_found_with_the_one_that_is_meant() {
        let lamp = device(&["echo", "system.health"]);
        assert_eq!(not_declared(&lamp, "echo", false), None);
        let found = not_declared(&lamp, "sytem.health", false).unwrap();
        assert!(
            found.starts_with("lamp does not declare sytem.health; did you mean system.health?"),
            "{found}"
        );
        let found = not_declared(&lamp, "door.open", false).unwrap();
        assert!(
            found.contains("door.open; kubectl fairlead describe lamp"),
            "{found}"
        );
    }

    #[test]
    fn what_may_be_declared_later_is_left_to_the_gateway() {
        assert_eq!(not_declared(&device(&["echo"]), "door.open", true), None);
        assert_eq!(not_declared(&device(&[]), "door.open", false), None);
        assert_eq!(
            not_declared(
                &Device::new("lamp", crds::v1alpha1::DeviceSpec::default()),
                "x",
                false
            ),
            None
        );
    }
}
