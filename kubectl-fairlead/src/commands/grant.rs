//! `grant`: what a device may run.

use anyhow::Context as _;
use crds::Device;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use crate::{
    cluster::{Cluster, told},
    exit::Exit,
    grants::{self, Change, Undeclared},
    show::note,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Grant {
    /// Name of the device.
    device: String,
    /// Capabilities that it may run from now on, as it declares them now.
    capabilities: Vec<String>,
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
        let devices = cluster.api::<Device>();
        let device = devices.get(&self.device).await.map_err(told)?;
        let change = Change {
            grant: self.capabilities,
            pending: self.pending,
            take: self.take,
        };
        let undeclared = if self.undeclared {
            Undeclared::Allowed
        } else {
            Undeclared::Refused
        };
        let after = grants::after(&device, &change, undeclared)?;
        let patch = patch(&device, &after);
        devices
            .patch(&self.device, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(told)
            .with_context(|| format!("grant to {}", self.device))?;
        let may = if after.capabilities.is_empty() {
            "nothing".to_owned()
        } else {
            after.capabilities.join(", ")
        };
        note(&format!("{} may run {may}", self.device));
        Ok(Exit::Done)
    }
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
