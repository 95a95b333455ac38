//! `version`: of this program, of the cluster, and of what the cluster serves.

use std::{collections::BTreeMap, fmt::Write as _};

use crds::{Device, Guarded, names::GROUP};
use kube::{Api, api::ListParams};
use serde::Serialize;

use crate::{
    cluster::{Cluster, told},
    exit::Exit,
    show::{Shown, harmless, note, out},
};

/// The version of this program.
pub const CLIENT: &str = env!("CARGO_PKG_VERSION");

/// Devices whose agents are counted. More would make a quick question a slow one.
const DEVICES: u32 = 500;

#[derive(Clone, Debug, clap::Args)]
pub struct Version {
    /// Of this program alone: no cluster is asked.
    #[arg(long)]
    client: bool,
}

/// What is known.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<String>,
    /// Versions of our API group that are served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<String>,
    /// How many devices of the namespace have which agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    agents: BTreeMap<String, usize>,
}

impl Version {
    /// Whether a cluster is needed.
    pub fn is_local(&self) -> bool {
        self.client
    }

    /// Fails where the cluster does not answer, after it has shown what is known without it.
    pub async fn run(&self, cluster: &Cluster, shown: Shown) -> anyhow::Result<Exit> {
        let mut versions = local();
        let server = match cluster.client.apiserver_version().await {
            Ok(server) => server,
            Err(error) => {
                show(&versions, shown)?;
                return Err(told(error));
            }
        };
        versions.kubernetes = Some(server.git_version);
        match cluster.client.list_api_groups().await {
            Ok(groups) => versions.resources = served(groups.groups),
            Err(error) => note(&format!("the resources are not known: {:#}", told(error))),
        }
        if !versions.resources.is_empty() {
            let devices: Api<Guarded<Device>> = cluster.api();
            match devices.list(&ListParams::default().limit(DEVICES)).await {
                Ok(list) => {
                    if list
                        .metadata
                        .continue_
                        .is_some_and(|token| !token.is_empty())
                    {
                        note(&format!(
                            "the agents are those of the first {DEVICES} devices"
                        ));
                    }
                    versions.agents = agents(list.items);
                }
                Err(error) => note(&format!("the agents are not known: {:#}", told(error))),
            }
        }
        show(&versions, shown)?;
        if versions.resources.is_empty() {
            note("Fairlead is not installed in this cluster: kubectl apply -f crds/generated");
        }
        Ok(Exit::Done)
    }
}

/// Shows what is known without a cluster.
pub fn run_local(shown: Shown) -> anyhow::Result<Exit> {
    show(&local(), shown).map(|()| Exit::Done)
}

fn local() -> Versions {
    Versions {
        client: CLIENT.to_owned(),
        ..Versions::default()
    }
}

fn served(groups: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup>) -> Vec<String> {
    let ours = groups.into_iter().filter(|group| group.name == GROUP);
    ours.flat_map(|group| group.versions)
        .map(|version| version.group_version)
        .collect()
}

fn agents(devices: Vec<Guarded<Device>>) -> BTreeMap<String, usize> {
    let mut agents = BTreeMap::new();
    for Guarded(device) in devices {
        let status = device.ok().and_then(|device| device.status);
        if let Some(platform) = status.and_then(|status| status.platform) {
            *agents.entry(platform.agent_version).or_default() += 1;
        }
    }
    agents
}

fn show(versions: &Versions, shown: Shown) -> anyhow::Result<()> {
    if let Some(text) = shown.value_for_programs(versions)? {
        return Ok(out(&text)?);
    }
    Ok(out(&text(versions))?)
}

fn text(versions: &Versions) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // A string takes everything.
        let _ = writeln!(text, "{:<13}{}", format!("{name}:"), harmless(value));
    };
    line("Client", &versions.client);
    if let Some(kubernetes) = &versions.kubernetes {
        line("Kubernetes", kubernetes);
        if versions.resources.is_empty() {
            line("Resources", "not installed");
        } else {
            line("Resources", &versions.resources.join(", "));
        }
    }
    for (version, number) in &versions.agents {
        line(
            "Agents",
            &format!("{version} on {number} devices of the namespace"),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_shown_and_nothing_else() {
        assert_eq!(text(&local()), format!("Client:      {CLIENT}\n"));
        let versions = Versions {
            kubernetes: Some("v1.37.2".to_owned()),
            resources: vec!["fairlead.dev/v1alpha1".to_owned()],
            agents: [("1.2".to_owned(), 3)].into(),
            ..local()
        };
        let text = text(&versions);
        for part in [
            "v1.37.2",
            "Resources:   fairlead.dev/v1alpha1",
            "1.2 on 3 devices",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
