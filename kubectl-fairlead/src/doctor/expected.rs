//! What an installation is made of. Tests hold it against what the checkout ships.

/// Resources of the API group.
pub const RESOURCES: [&str; 4] = [
    "capabilityinvocations",
    "devices",
    "pairingcodes",
    "pairingrequests",
];

/// ValidatingAdmissionPolicies, each with a binding of the same name.
pub const VALIDATING: [&str; 17] = [
    "configmaps.fairlead.dev",
    "device-origin.fairlead.dev",
    "device-status.fairlead.dev",
    "election-lease.fairlead.dev",
    "events.fairlead.dev",
    "gateway-leases.fairlead.dev",
    "gateway-limits.fairlead.dev",
    "invocation-change.fairlead.dev",
    "invocation-rights.fairlead.dev",
    "invocation-status.fairlead.dev",
    "object-metadata.fairlead.dev",
    "pairing-code-approval.fairlead.dev",
    "pairing-code-status.fairlead.dev",
    "pairing-decision.fairlead.dev",
    "pairing-request-origin.fairlead.dev",
    "probe-limits.fairlead.dev",
    "secrets.fairlead.dev",
];

/// MutatingAdmissionPolicies, each with a binding of the same name.
pub const MUTATING: [&str; 3] = [
    "invocation-rights.fairlead.dev",
    "pairing-decision.fairlead.dev",
    "pairing-request-origin.fairlead.dev",
];

/// ClusterRoles of the programs: without them nothing works. Each has a binding of the same name.
pub const PROGRAM_ROLES: [&str; 3] = ["fairlead-gateway", "fairlead-operator", "fairlead-probe"];

/// The oldest Kubernetes that the resources and policies are for.
pub const OLDEST_MINOR: u32 = 34;
/// From here on MutatingAdmissionPolicies are served.
pub const MUTATING_MINOR: u32 = 36;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    /// The names of the objects of a kind in the files of a folder of `crds/`.
    fn shipped(folder: &str, kind: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../crds")
            .join(folder);
        let mut names = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for document in text.split("\n---\n") {
                if document.lines().any(|line| line == format!("kind: {kind}")) {
                    let name = document
                        .lines()
                        .find_map(|line| line.strip_prefix("  name: "))
                        .unwrap();
                    names.insert(name.to_owned());
                }
            }
        }
        names
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_policy_that_is_shipped_is_looked_for_and_no_other() {
        assert_eq!(
            shipped("policies", "ValidatingAdmissionPolicy"),
            set(&VALIDATING)
        );
        assert_eq!(
            shipped("policies", "ValidatingAdmissionPolicyBinding"),
            set(&VALIDATING)
        );
        assert_eq!(
            shipped("policies", "MutatingAdmissionPolicy"),
            set(&MUTATING)
        );
        assert_eq!(
            shipped("policies", "MutatingAdmissionPolicyBinding"),
            set(&MUTATING)
        );
    }

    #[test]
    fn every_resource_and_role_that_is_looked_for_is_shipped() {
        let resources: BTreeSet<_> = crds::definition::definitions()
            .into_iter()
            .map(|definition| definition.spec.names.plural)
            .collect();
        assert_eq!(resources, set(&RESOURCES));
        assert!(shipped("rbac", "ClusterRole").is_superset(&set(&PROGRAM_ROLES)));
        assert!(shipped("rbac", "ClusterRoleBinding").is_superset(&set(&PROGRAM_ROLES)));
    }
}
