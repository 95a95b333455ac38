//! `grant`: what a device, or each of several, may run.

use std::pin::pin;

use anyhow::Context as _;
use crds::Device;
use futures::{StreamExt as _, stream};
use kube::api::Patch;
use serde_json::{Map, Value, json};

use crate::{
    cluster::{Cluster, patching, told},
    commands::fleet::{self, FleetArgs, Member, Seen, Target},
    exit::Exit,
    grants::{self, Change, Undeclared},
    show::{harmless, note, out},
};

#[derive(Clone, Debug, clap::Args)]
#[command(
    override_usage = "kubectl fairlead grant [OPTIONS] DEVICE[,DEVICE…] [CAPABILITY]…\n       \
                            kubectl fairlead grant [OPTIONS] -l SELECTOR [CAPABILITY]…"
)]
pub struct Grant {
    /// Name of the device, or of several with commas between them; then the capabilities that may be run from now on, as
    /// each device declares them now.
    #[arg(value_names = ["DEVICE", "CAPABILITY"], num_args = 0..)]
    words: Vec<String>,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Everything that waits for a grant.
    #[arg(long)]
    pending: bool,
    /// Capabilities that it may not run any more.
    #[arg(long, value_delimiter = ',', value_name = "CAPABILITY,…")]
    take: Vec<String>,
    /// Also what the device does not declare: nobody knows yet what that will take.
    #[arg(long)]
    undeclared: bool,
}

impl Grant {
    pub async fn run(self, cluster: &Cluster) -> anyhow::Result<Exit> {
        let (target, capabilities) = self.fleet.split(&self.words)?;
        let change = Change {
            grant: capabilities.to_vec(),
            pending: self.pending,
            take: self.take.clone(),
        };
        let undeclared = if self.undeclared {
            Undeclared::Allowed
        } else {
            Undeclared::Refused
        };
        let one = matches!(target, Target::One(_));
        let parallel = self.fleet.parallel();
        let members = fleet::find(cluster, target, parallel).await?;
        if let ([member], true) = (members.as_slice(), one) {
            let may = grant(cluster, member, &change, undeclared).await?;
            note(&format!("{} {may}", member.name));
            return Ok(Exit::Done);
        }
        let results = stream::iter(members).map(|member| {
            let change = &change;
            async move {
                let result = match grant(cluster, &member, change, undeclared).await {
                    // On a fleet, some have nothing that waits: the wish is fulfilled.
                    Err(error) if error.downcast_ref() == Some(&grants::Error::NonePending) => {
                        Ok(error.to_string())
                    }
                    result => result,
                };
                (member.name, result)
            }
        });
        let mut results = pin!(results.buffer_unordered(parallel));
        let mut worst = Exit::Done;
        while let Some((name, result)) = results.next().await {
            let (exit, text) = match result {
                Ok(text) => (Exit::Done, text),
                Err(error) => (Exit::Failed, format!("not granted: {error:#}")),
            };
            worst = worst.worse(exit);
            out(&format!("{name} {}\n", harmless(&text)))?;
        }
        Ok(worst)
    }
}

/// Grants to one device; returns what it may run then, in words.
async fn grant(
    cluster: &Cluster,
    member: &Member,
    change: &Change,
    undeclared: Undeclared,
) -> anyhow::Result<String> {
    let name = &member.name;
    let device = match &member.device {
        Seen::Device(device) => device,
        // What is granted is what the device declares, so it must be read.
        Seen::Forbidden(why) | Seen::Wrong(why) => anyhow::bail!("{why}"),
    };
    let after = grants::after(device, change, undeclared)?;
    let patch = patch(device, &after);
    cluster
        .api::<Device>()
        .patch(name, &patching(), &Patch::Merge(&patch))
        .await
        .map_err(told)
        .with_context(|| format!("grant to {name}"))?;
    Ok(if after.capabilities.is_empty() {
        "may run nothing".to_owned()
    } else {
        format!("may run {}", after.capabilities.join(", "))
    })
}

/// On the version that was looked at: what somebody else granted meanwhile is not undone. In a merge patch, a digest goes
/// only by a null.
fn patch(device: &Device, after: &crds::v1alpha1::device::DeviceGrants) -> Value {
    let mut surfaces: Map<String, Value> = device
        .spec
        .grants
        .surfaces
        .keys()
        .map(|name| (name.clone(), Value::Null))
        .collect();
    surfaces.extend(
        after
            .surfaces
            .iter()
            .map(|(name, digest)| (name.clone(), json!(digest))),
    );
    let mut grants = json!({ "capabilities": after.capabilities });
    if !surfaces.is_empty() {
        grants["surfaces"] = Value::Object(surfaces);
    }
    json!({
        "metadata": { "resourceVersion": device.metadata.resource_version },
        "spec": { "grants": grants },
    })
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::device::DeviceGrants;

    use super::*;

    #[test]
    fn a_digest_that_is_taken_away_is_said_so() {
        let mut device = Device::new("lamp", crds::v1alpha1::DeviceSpec::default());
        device.metadata.resource_version = Some("7".to_owned());
        device
            .spec
            .grants
            .surfaces
            .insert("old".to_owned(), "11".repeat(32));
        let after = DeviceGrants {
            capabilities: vec!["new".to_owned()],
            surfaces: [("new".to_owned(), "22".repeat(32))].into(),
        };
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "spec": {"grants": {
                "capabilities": ["new"],
                "surfaces": {"old": null, "new": "22".repeat(32)},
            }},
        });
        assert_eq!(patch(&device, &after), expected);
    }
}
