//! `system.health`: load, memory, disks, uptime, versions.

use proto::node::FailureCode;

use super::{Call, Capability, Failure, Running};
use crate::host::health;

#[derive(Debug)]
pub(super) struct SystemHealth;

impl Capability for SystemHealth {
    fn name(&self) -> &'static str {
        "system.health"
    }

    fn run(&self, _call: Call) -> Running {
        Box::pin(async {
            let internal = |error: String| Failure::new(FailureCode::Internal, error);
            // A network file system that hangs must not take the heartbeats with it.
            let health = tokio::task::spawn_blocking(health::read)
                .await
                .map_err(|error| internal(error.to_string()))?;
            serde_json::to_vec(&health).map_err(|error| internal(error.to_string()))
        })
    }
}
