//! Who holds rights, by roles and bindings. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::GROUP;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use serde::Serialize;

/// Roles and bindings of one namespace, and those of the cluster.
#[derive(Debug, Default)]
pub struct Rbac {
    pub roles: Vec<Role>,
    pub role_bindings: Vec<RoleBinding>,
    pub cluster_roles: Vec<ClusterRole>,
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
}

/// A right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Need {
    verb: &'static str,
    resource: &'static str,
    /// `None`: a right to make one, which no name narrows.
    name: Option<String>,
}

/// The rights that an invocation takes.
pub fn needs(device: &str, capability: &str) -> Vec<Need> {
    vec![
        Need {
            verb: "create",
            resource: "capabilityinvocations",
            name: None,
        },
        Need {
            verb: "invoke",
            resource: "devices",
            name: Some(device.to_owned()),
        },
        Need {
            verb: "invoke",
            resource: "capabilities",
            name: Some(capability.to_owned()),
        },
    ]
}

/// Who holds them all.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// `User`, `Group` or `ServiceAccount`.
    pub kind: String,
    pub name: String,
    /// Of a ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The bindings that give a part of it, each with its role.
    pub through: Vec<String>,
}

type Who = (String, String, Option<String>);

/// Everybody who holds all of them, alone: what a user has and what a group has that he may be in is not added up, for
/// nobody here knows who is in a group.
pub fn holders(rbac: &Rbac, needs: &[Need]) -> Vec<Holder> {
    let mut found: BTreeMap<Who, (BTreeSet<usize>, BTreeSet<String>)> = BTreeMap::new();
    for grant in grants(rbac) {
        let given: BTreeSet<usize> = needs
            .iter()
            .enumerate()
            .filter(|(_, need)| grant.rules.iter().any(|rule| allows(rule, need)))
            .map(|(index, _)| index)
            .collect();
        if given.is_empty() {
            continue;
        }
        for subject in grant.subjects {
            let who = (
                subject.kind.clone(),
                subject.name.clone(),
                subject.namespace.clone(),
            );
            let (has, through) = found.entry(who).or_default();
            has.extend(&given);
            through.insert(grant.through.clone());
        }
    }
    found
        .into_iter()
        .filter(|(_, (has, _))| has.len() == needs.len())
        .map(|((kind, name, namespace), (_, through))| Holder {
            kind,
            name,
            namespace,
            through: through.into_iter().collect(),
        })
        .collect()
}

struct Grant<'a> {
    through: String,
    rules: &'a [PolicyRule],
    subjects: &'a [Subject],
}

fn grants(rbac: &Rbac) -> impl Iterator<Item = Grant<'_>> {
    let of_namespace = rbac.role_bindings.iter().map(|binding| {
        (
            format!("RoleBinding {}", named(binding.metadata.name.as_deref())),
            &binding.role_ref,
            binding.subjects.as_deref(),
        )
    });
    let of_cluster = rbac.cluster_role_bindings.iter().map(|binding| {
        (
            format!(
                "ClusterRoleBinding {}",
                named(binding.metadata.name.as_deref())
            ),
            &binding.role_ref,
            binding.subjects.as_deref(),
        )
    });
    of_namespace
        .chain(of_cluster)
        .filter_map(|(binding, role, subjects)| {
            Some(Grant {
                through: format!("{binding} of {} {}", role.kind, role.name),
                rules: rules(rbac, role)?,
                subjects: subjects.unwrap_or_default(),
            })
        })
}

fn named(name: Option<&str>) -> &str {
    name.unwrap_or_default()
}

/// The rules of a role; `None` where there is no such role, or none that the caller may see.
fn rules<'a>(rbac: &'a Rbac, role: &RoleRef) -> Option<&'a [PolicyRule]> {
    let is_meant = |name: Option<&String>| name == Some(&role.name);
    let rules = if role.kind == "Role" {
        let found = rbac
            .roles
            .iter()
            .find(|role| is_meant(role.metadata.name.as_ref()));
        &found?.rules
    } else {
        let mut roles = rbac.cluster_roles.iter();
        &roles
            .find(|role| is_meant(role.metadata.name.as_ref()))?
            .rules
    };
    rules.as_deref()
}

/// As Kubernetes' own authorizer decides it.
fn allows(rule: &PolicyRule, need: &Need) -> bool {
    let has = |list: Option<&Vec<String>>, wanted: &str| {
        list.is_some_and(|list| list.iter().any(|entry| entry == "*" || entry == wanted))
    };
    let names = rule.resource_names.as_deref().unwrap_or_default();
    let is_meant = names.is_empty() || need.name.as_ref().is_some_and(|name| names.contains(name));
    has(Some(&rule.verbs), need.verb)
        && has(rule.api_groups.as_ref(), GROUP)
        && has(rule.resources.as_ref(), need.resource)
        && is_meant
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn rule(resources: &[&str], verbs: &[&str], names: &[&str]) -> Value {
        json!({"apiGroups": ["fairlead.dev"], "resources": resources, "verbs": verbs, "resourceNames": names})
    }

    fn cluster_role(name: &str, rules: &[Value]) -> ClusterRole {
        read(
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        )
    }

    fn role_binding(name: &str, role: &str, subjects: &Value) -> RoleBinding {
        read(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        }))
    }

    fn user(name: &str) -> Value {
        json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
    }

    fn invoker() -> ClusterRole {
        cluster_role(
            "invoker",
            &[
                rule(&["capabilityinvocations"], &["create"], &[]),
                rule(&["devices"], &["get", "invoke"], &[]),
                rule(&["capabilities"], &["invoke"], &["system.health"]),
            ],
        )
    }

    fn names(rbac: &Rbac, device: &str, capability: &str) -> Vec<String> {
        holders(rbac, &needs(device, capability))
            .into_iter()
            .map(|holder| holder.name)
            .collect()
    }

    #[test]
    fn who_holds_every_right_is_named_with_where_from() {
        let rbac = Rbac {
            cluster_roles: vec![invoker()],
            role_bindings: vec![role_binding(
                "staff",
                "invoker",
                &json!([user("ada"), {"kind": "ServiceAccount", "name": "robot", "namespace": "ci"}]),
            )],
            ..Rbac::default()
        };
        let holders = holders(&rbac, &needs("lamp", "system.health"));
        assert_eq!(holders.len(), 2);
        assert_eq!(holders[0].namespace.as_deref(), Some("ci"));
        assert_eq!(holders[1].name, "ada");
        assert_eq!(
            holders[1].through,
            ["RoleBinding staff of ClusterRole invoker"]
        );
        assert!(
            names(&rbac, "lamp", "disk.format").is_empty(),
            "the role names its capabilities"
        );
    }

    #[test]
    fn rights_of_one_subject_add_up_and_those_of_two_do_not() {
        let mut rbac = Rbac {
            cluster_roles: vec![
                cluster_role(
                    "makes",
                    &[rule(&["capabilityinvocations"], &["create"], &[])],
                ),
                cluster_role("lamp", &[rule(&["devices"], &["invoke"], &["lamp"])]),
                cluster_role("all", &[rule(&["capabilities"], &["*"], &[])]),
            ],
            role_bindings: vec![
                role_binding("1", "makes", &json!([user("ada")])),
                role_binding("2", "lamp", &json!([user("ada")])),
                role_binding("3", "all", &json!([user("bob")])),
            ],
            ..Rbac::default()
        };
        assert!(names(&rbac, "lamp", "x").is_empty());
        rbac.role_bindings
            .push(role_binding("4", "all", &json!([user("ada")])));
        assert_eq!(names(&rbac, "lamp", "x"), ["ada"]);
        assert!(
            names(&rbac, "kiosk", "x").is_empty(),
            "the role names its devices"
        );
    }

    #[test]
    fn a_name_never_allows_to_make_one_and_a_star_allows_all() {
        let narrowed = rule(&["capabilityinvocations"], &["create"], &["inv-1"]);
        let create = &needs("lamp", "x")[0];
        assert!(!allows(&read(narrowed), create));
        let star: PolicyRule =
            read(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        assert!(needs("lamp", "x").iter().all(|need| allows(&star, need)));
        let other: PolicyRule =
            read(json!({"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]}));
        assert!(!allows(&other, create));
    }

    #[test]
    fn a_binding_to_a_role_that_is_not_there_gives_nothing() {
        let rbac = Rbac {
            role_bindings: vec![role_binding("1", "gone", &json!([user("ada")]))],
            ..Rbac::default()
        };
        assert!(names(&rbac, "lamp", "x").is_empty());
    }
}
