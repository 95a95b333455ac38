//! `suspend`, `resume` and `revoke`: what somebody decides about a device.

use anyhow::Context as _;
use crds::{Device, v1alpha1::device::TrustDecision};
use kube::api::Patch;
use serde_json::json;

use super::request::words;
use crate::{
    cluster::{Cluster, patching, told},
    exit::Exit,
    show::note,
    terminal::agrees,
};

/// Cuts a device off for good.
#[derive(Clone, Debug, clap::Args)]
pub struct Revoke {
    /// Name of the device.
    device: String,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

impl Revoke {
    pub async fn run(self, cluster: &Cluster) -> anyhow::Result<Exit> {
        let found = cluster
            .api::<Device>()
            .get(&self.device)
            .await
            .map_err(told)?;
        let question = format!(
            "Revoke {} ({})? Nothing takes that back: it would have to be paired again, with another key.",
            self.device,
            words(&found.spec.public_key_sha256).unwrap_or_default()
        );
        if !self.yes && !agrees(&question).await? {
            note("not revoked");
            return Ok(Exit::NotApproved);
        }
        set(cluster, &self.device, TrustDecision::Revoked).await
    }
}

pub async fn suspend(cluster: &Cluster, device: &str) -> anyhow::Result<Exit> {
    set(cluster, device, TrustDecision::Suspended).await
}

pub async fn resume(cluster: &Cluster, device: &str) -> anyhow::Result<Exit> {
    set(cluster, device, TrustDecision::Active).await
}

async fn set(cluster: &Cluster, device: &str, trust: TrustDecision) -> anyhow::Result<Exit> {
    let patch = json!({ "spec": { "trust": trust } });
    cluster
        .api::<Device>()
        .patch(device, &patching(), &Patch::Merge(&patch))
        .await
        .map_err(told)
        .with_context(|| format!("change the trust of {device}"))?;
    note(&format!("{device} is {trust:?}"));
    Ok(Exit::Done)
}
