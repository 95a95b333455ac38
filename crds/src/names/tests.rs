use super::*;

#[test]
fn a_device_is_named_by_what_can_be_used_of_its_wish() {
    for (requested, expected) in [
        ("kiosk-7", Some("kiosk-7")),
        ("Kiosk 7", Some("kiosk-7")),
        ("kiosk.example.org", Some("kiosk-example-org")),
        ("  --kiosk-- ", Some("kiosk")),
        ("a  \t b", Some("a-b")),
        ("_", None),
        ("", None),
        ("Käse", Some("k-se")),
        ("日本", None),
        ("7", Some("7")),
    ] {
        assert_eq!(
            device_name_from(requested).as_deref(),
            expected,
            "{requested:?}"
        );
    }
}

#[test]
fn a_long_wish_leaves_room_for_a_suffix_and_is_a_label() {
    for requested in [
        "x".repeat(500),
        "x-".repeat(500),
        format!("{}-{}", "x".repeat(53), "y".repeat(9)),
    ] {
        let name = device_name_from(&requested).unwrap();
        assert!(name.len() + "-01234567".len() <= 63, "{name}");
        assert!(!name.ends_with('-'), "{name}");
    }
}

#[test]
fn the_secret_of_a_code_and_of_a_device_have_different_names() {
    assert_eq!(code_secret("lobby"), "lobby-code");
    assert_eq!(device_secret("lobby"), "lobby-mtls");
}

#[test]
fn the_config_maps_of_logouts_are_shipped_and_gateways_may_patch_them() {
    let manifest = include_str!("../../rbac/10-console.yaml");
    let count = |line: &str| manifest.lines().filter(|found| *found == line).count();
    let shipped = manifest.matches("name: fairlead-console-logouts-").count();
    assert_eq!(shipped, CONSOLE_LOGOUTS.len());
    for name in CONSOLE_LOGOUTS {
        assert_eq!(count(&format!("  name: {name}")), 1, "{name}");
        assert_eq!(count(&format!("  - {name}")), 1, "{name}");
    }
}

#[test]
fn operators_recognise_the_identity_of_one_of_their_own() {
    assert_eq!(operator_identity("pod-7"), "fairlead-operator-pod-7");
    assert_eq!(
        operator_identity("fairlead-operator-1a2b"),
        "fairlead-operator-1a2b"
    );
    for stranger in ["", "gateway-0", "fairlead-operators", "fairlead"] {
        assert!(!is_operator_identity(stranger), "{stranger}");
    }
}
