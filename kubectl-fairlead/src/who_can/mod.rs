//! `who-can invoke`: who holds the rights that an invocation takes, out of the roles and bindings that the caller may list.
//!
//! Kubernetes answers whether one user may do something, and not which ones may; so this reads RBAC itself. Other
//! authorizers that a cluster has, and members of groups, are not in there: the answer names groups, not people.

mod rules;

use k8s_openapi::{
    Resource,
    api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{Api, api::ListParams};
use serde::de::DeserializeOwned;

use crate::{
    cluster::{Cluster, is_forbidden, told},
    exit::Exit,
    show::{
        Shown, note, out,
        table::{Table, Tone},
    },
};
use rules::{Holder, Rbac, holders, needs};

/// Objects that are read at once.
const PAGE: u32 = 500;
/// Most objects of one kind that are read.
const MAX_OBJECTS: usize = 50_000;

pub async fn run(
    cluster: &Cluster,
    device: &str,
    capability: &str,
    shown: Shown,
) -> anyhow::Result<Exit> {
    let (rbac, hidden) = observe(cluster).await?;
    let holders = holders(&rbac, &needs(device, capability));
    for what in &hidden {
        note(&format!(
            "you may not list {what}: what they allow is missing here"
        ));
    }
    if let Some(text) = shown.value_for_programs(&holders)? {
        out(&text)?;
    } else if holders.is_empty() {
        note(&format!(
            "nobody that these roles name may invoke {capability} on {device}"
        ));
    } else {
        out(&table(&holders).render(shown.colours))?;
    }
    // An answer that may lack somebody is none that a script should believe.
    Ok(if hidden.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn table(holders: &[Holder]) -> Table {
    let mut table = Table::new(&["KIND", "NAME", "NAMESPACE", "THROUGH"]);
    for holder in holders {
        table.push(
            Tone::Plain,
            vec![
                holder.kind.clone(),
                holder.name.clone(),
                holder.namespace.clone().unwrap_or_else(|| "-".to_owned()),
                holder.through.join(", "),
            ],
        );
    }
    table
}

/// What the caller may list, and what he may not.
async fn observe(cluster: &Cluster) -> anyhow::Result<(Rbac, Vec<String>)> {
    let client = &cluster.client;
    let mut hidden = Vec::new();
    let namespace = cluster.namespace.as_str();
    let rbac = Rbac {
        roles: all(
            &cluster.api::<Role>(),
            &format!("roles in {namespace}"),
            &mut hidden,
        )
        .await?,
        role_bindings: all(
            &cluster.api::<RoleBinding>(),
            &format!("rolebindings in {namespace}"),
            &mut hidden,
        )
        .await?,
        cluster_roles: all(
            &Api::<ClusterRole>::all(client.clone()),
            "clusterroles",
            &mut hidden,
        )
        .await?,
        cluster_role_bindings: all(
            &Api::<ClusterRoleBinding>::all(client.clone()),
            "clusterrolebindings",
            &mut hidden,
        )
        .await?,
    };
    Ok((rbac, hidden))
}

async fn all<K>(api: &Api<K>, what: &str, hidden: &mut Vec<String>) -> anyhow::Result<Vec<K>>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut objects = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        match api.list(&params).await {
            Ok(page) => {
                objects.extend(page.items);
                params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            }
            Err(error) if is_forbidden(&error) => {
                hidden.push(what.to_owned());
                return Ok(objects);
            }
            Err(error) => return Err(told(error)),
        }
        if params.continue_token.is_none() || objects.len() >= MAX_OBJECTS {
            return Ok(objects);
        }
    }
}
