//! What the shipped roles give, asked of the API server: what each needs, and what it must not have.

use anyhow::ensure;
use serde_json::{Value, json};

use super::ground::Plane;
use super::step::{ADA, ADMIN, DORA, HUGO, IVAN, OPERATOR, VERA, Who};

type Question = (&'static str, &'static str, &'static str);

const MAY: &[(Who, &[Question])] = &[
    (
        VERA,
        &[
            ("list", "fairlead.dev", "devices"),
            ("watch", "fairlead.dev", "capabilityinvocations"),
        ],
    ),
    (
        ADA,
        &[
            ("approve", "fairlead.dev", "pairingrequests"),
            ("patch", "fairlead.dev", "pairingrequests/status"),
        ],
    ),
    (
        IVAN,
        &[
            ("create", "fairlead.dev", "capabilityinvocations"),
            ("invoke", "fairlead.dev", "capabilities"),
        ],
    ),
    (
        HUGO,
        &[
            ("create", "fairlead.dev", "capabilityinvocations"),
            ("invoke", "fairlead.dev", "devices"),
        ],
    ),
    (
        DORA,
        &[
            ("patch", "fairlead.dev", "devices"),
            ("create", "fairlead.dev", "pairingcodes"),
        ],
    ),
    (
        OPERATOR,
        &[
            ("get", "", "secrets"),
            ("create", "", "secrets"),
            ("create", "events.k8s.io", "events"),
        ],
    ),
];

const MAY_NOT: &[(Who, &[Question])] = &[
    (
        VERA,
        &[
            ("create", "fairlead.dev", "capabilityinvocations"),
            ("patch", "fairlead.dev", "pairingrequests/status"),
            ("get", "", "secrets"),
        ],
    ),
    (
        ADA,
        &[
            ("patch", "fairlead.dev", "pairingrequests"),
            ("create", "fairlead.dev", "pairingcodes"),
            ("patch", "fairlead.dev", "devices"),
            ("invoke", "fairlead.dev", "devices"),
        ],
    ),
    (
        IVAN,
        &[
            ("approve", "fairlead.dev", "pairingrequests"),
            ("patch", "fairlead.dev", "capabilityinvocations/status"),
            ("patch", "fairlead.dev", "devices"),
        ],
    ),
    (HUGO, &[("invoke", "fairlead.dev", "capabilities")]),
    (
        DORA,
        &[
            ("approve", "fairlead.dev", "pairingrequests"),
            ("invoke", "fairlead.dev", "devices"),
            ("create", "fairlead.dev", "devices"),
            ("patch", "fairlead.dev", "devices/status"),
            ("get", "", "secrets"),
        ],
    ),
    (
        OPERATOR,
        &[
            ("list", "", "secrets"),
            ("watch", "", "secrets"),
            ("approve", "fairlead.dev", "pairingrequests"),
        ],
    ),
];

/// What the ClusterRole of gateways must never contain: here gateways hold more, so the role itself is read.
const NOT_FOR_GATEWAYS: &[(&str, &str)] = &[
    ("", "secrets"),
    ("", "configmaps"),
    ("fairlead.dev", "pairingrequests/status"),
    ("authentication.k8s.io", "tokenreviews"),
];

pub async fn check(plane: &Plane) -> anyhow::Result<()> {
    for (table, expected) in [(MAY, true), (MAY_NOT, false)] {
        for (who, questions) in table {
            for (verb, group, resource) in *questions {
                let found = plane.may(*who, &attributes(verb, group, resource)).await?;
                ensure!(
                    found == expected,
                    "{} may {verb} {resource}.{group}: {found}",
                    who.0
                );
            }
        }
    }
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/fairlead-gateway";
    let role = plane
        .ask(
            ADMIN,
            None,
            http::Method::GET,
            path,
            "application/json",
            &Value::Null,
        )
        .await??;
    let rules = role["rules"].as_array().cloned().unwrap_or_default();
    ensure!(!rules.is_empty(), "the role of gateways is empty");
    for rule in &rules {
        for (group, resource) in NOT_FOR_GATEWAYS {
            ensure!(
                !(contains(&rule["apiGroups"], group) && contains(&rule["resources"], resource)),
                "gateways have {resource}: {rule}"
            );
        }
        for verb in ["update", "delete", "deletecollection", "*"] {
            ensure!(
                !contains(&rule["verbs"], verb),
                "gateways may {verb}: {rule}"
            );
        }
    }
    Ok(())
}

fn contains(list: &Value, text: &str) -> bool {
    list.as_array()
        .is_some_and(|list| list.iter().any(|entry| entry == text || entry == "*"))
}

fn attributes(verb: &str, group: &str, resource: &str) -> Value {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    json!({
        "namespace": "default", "verb": verb, "group": group, "resource": resource, "subresource": subresource,
    })
}
