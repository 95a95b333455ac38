//! The Lease that a gateway renews to say that it is alive. Devices whose gateway's Lease has run out count as away.
//!
//! No election: each process has a Lease of its own. One request per renewal, whatever the number of devices.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// A process's own Lease.
#[derive(Clone, Debug)]
pub struct OwnLease {
    pub namespace: String,
    /// Name of the process, and of its Lease.
    pub name: String,
    pub label: (&'static str, &'static str),
    /// What others may want to know of the process, for example where it is reached.
    pub annotations: Vec<(&'static str, String)>,
    pub field_manager: &'static str,
    /// How long it is valid after a renewal, in seconds. Renewed three times as often.
    pub duration_seconds: i32,
}

impl OwnLease {
    /// Renews until told to stop, then deletes the Lease: a process that stopped in good order ended its sessions
    /// itself, and leaves nothing to wait for.
    pub async fn keep(self, client: Client, stop: CancellationToken) -> anyhow::Result<()> {
        let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
        let every = Duration::from_secs(u64::try_from(self.duration_seconds).unwrap_or(15)) / 3;
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.renew(&leases, every).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    lease = self.name,
                    "Renewing the lease failed"
                );
            }
        }
        if let Err(error) = leases.delete(&self.name, &DeleteParams::default()).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                lease = self.name,
                "Deleting the lease failed"
            );
        }
        Ok(())
    }

    async fn renew(&self, leases: &Api<Lease>, every: Duration) -> kube::Result<()> {
        let (label, value) = self.label;
        let annotations: BTreeMap<_, _> = self.annotations.iter().cloned().collect();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": { label: value },
                "annotations": annotations,
            },
            "spec": {
                "holderIdentity": self.name,
                "leaseDurationSeconds": self.duration_seconds,
                "renewTime": format!("{:.6}", now()),
            },
        });
        let params = PatchParams::apply(self.field_manager).force();
        let patch = Patch::Apply(&lease);
        // A request that hangs must not keep the next renewal from being tried.
        let renewal = leases.patch(&self.name, &params, &patch);
        if let Ok(renewed) = tokio::time::timeout(every, renewal).await {
            return renewed.map(|_| ());
        }
        tracing::warn!(lease = self.name, "Renewing the lease took too long");
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: a renewal says what time it is"
)]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
