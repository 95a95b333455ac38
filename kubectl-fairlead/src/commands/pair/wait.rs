//! What `pair` waits for, and what it says where that takes long.

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, bail};
use crds::{
    Device, Guarded, PairingRequest,
    v1alpha1::{device::Presence, pairing_request::RequestPhase},
};
use futures::TryStreamExt as _;
use kube::{
    Api,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    attention,
    clock::now,
    cluster::patience::{Waiting, not_true},
    cluster::{Cluster, forbids_watch, told},
    show::note,
};

/// How long it may take from the approval to the certificate.
const ISSUE: Duration = Duration::from_mins(1);
/// Between two looks at the request.
const LOOK: Duration = Duration::from_millis(300);

/// The request that proved the code; `None` where its time is over first.
pub async fn wait_for_request(
    cluster: &Cluster,
    code: &str,
    ttl: i64,
) -> anyhow::Result<Option<PairingRequest>> {
    // A code that was proved in its last second still brings its request.
    let end = Instant::now() + Duration::from_secs(ttl.unsigned_abs() + 5);
    let requests = watcher(
        cluster.api::<Guarded<PairingRequest>>(),
        watcher::Config::default(),
    );
    let mut requests = pin!(requests.default_backoff().applied_objects());
    loop {
        let Ok(next) = timeout_at(end, requests.try_next()).await else {
            return Ok(None);
        };
        match next {
            Ok(Some(Guarded(Ok(request)))) if proves(&request, code) => return Ok(Some(request)),
            Ok(Some(_)) => {}
            Ok(None) => bail!("the API server ended the watch on pairing requests"),
            Err(error) => {
                if let Some(error) = forbids_watch(error) {
                    return Err(error).context("watch pairing requests");
                }
            }
        }
    }
}

fn proves(request: &PairingRequest, code: &str) -> bool {
    let pending = request
        .status
        .as_ref()
        .is_none_or(|status| status.phase == RequestPhase::Pending && status.approval.is_none());
    pending
        && request
            .spec
            .pairing_code_ref
            .as_ref()
            .is_some_and(|of| of.name == code)
}

/// The Device of an approved request; `None` where the request ends in another way.
pub async fn wait_for_device(cluster: &Cluster, request: &str) -> anyhow::Result<Option<String>> {
    let requests: Api<PairingRequest> = cluster.api();
    let end = Instant::now() + ISSUE;
    let mut waiting = Waiting::begin();
    loop {
        let found = requests.get(request).await.map_err(told)?;
        let status = found.status.unwrap_or_default();
        if let (RequestPhase::Issued, Some(device)) = (status.phase, status.device_ref) {
            return Ok(Some(device.name));
        }
        if status.phase.is_terminal() {
            let why = not_true(&status.conditions).unwrap_or_default();
            note(&format!("the request is {:?}: {why}", status.phase));
            return Ok(None);
        }
        let why = not_true(&status.conditions);
        if Instant::now() >= end {
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            bail!(
                "{request} is approved, and no certificate was issued{why}; see kubectl fairlead doctor, and kubectl describe pairingrequest -n {} {request}",
                cluster.namespace
            );
        }
        if waiting.is_long() {
            waiting
                .tell(&why.unwrap_or_else(|| "the operator has not looked at it yet".to_owned()));
        }
        sleep(LOOK).await;
    }
}

/// Whether a device came.
pub enum Came {
    Online,
    /// Not within the time, and why, as far as that is known.
    NotYet(String),
}

pub async fn wait_for_online(
    cluster: &Cluster,
    device: &str,
    patience: Duration,
) -> anyhow::Result<Came> {
    let mut why = "it was never seen".to_owned();
    let end = Instant::now() + patience;
    let config = watcher::Config::default().fields(&format!("metadata.name={device}"));
    let devices = watcher(cluster.api::<Guarded<Device>>(), config);
    let mut devices = pin!(devices.default_backoff().applied_objects());
    loop {
        match timeout_at(end, devices.try_next()).await {
            Err(_) | Ok(Ok(None)) => return Ok(Came::NotYet(why)),
            Ok(Ok(Some(Guarded(Ok(found))))) => {
                let notes = attention::notes(&found, now());
                if !notes.is_empty() {
                    why = notes.join("; ");
                }
                // Degraded is there, too: it holds a stream, and something of it is not available.
                let status = found.status.unwrap_or_default();
                let connected = status
                    .session
                    .is_some_and(|session| session.ended_at.is_none());
                if status.presence == Some(Presence::Online)
                    || (connected && status.presence == Some(Presence::Degraded))
                {
                    return Ok(Came::Online);
                }
            }
            Ok(Ok(Some(_)) | Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_request_of_this_code_that_waits_is_meant() {
        let request = |code: &str, status: serde_json::Value| -> PairingRequest {
            serde_json::from_value(json!({
                "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingRequest", "metadata": {"name": "preq-1"},
                "spec": {"requestedName": "kiosk", "pairingCodeRef": {"name": code}},
                "status": status,
            }))
            .unwrap()
        };
        assert!(proves(
            &request("mine", json!({"phase": "Pending"})),
            "mine"
        ));
        assert!(!proves(
            &request("other", json!({"phase": "Pending"})),
            "mine"
        ));
        assert!(!proves(
            &request("mine", json!({"phase": "Denied"})),
            "mine"
        ));
        let decided = json!({"phase": "Pending", "approval": {"decision": "Approved"}});
        assert!(!proves(&request("mine", decided), "mine"));
    }
}
