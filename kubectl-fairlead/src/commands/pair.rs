//! `pair`: from a code to a device that is there.
//!
//! ```text
//! make the code ──▶ show it ──▶ wait for a request that proves it ──▶ show who came ──▶ y/N ──▶ approve
//!                                                                       └──▶ wait for Issued, then for Online
//! ```
//! Who stops before anybody came takes the code back: none is left lying about. Who stops later leaves the request as it
//! is then.

use std::{pin::pin, time::Duration};

use anyhow::{Context as _, bail};
use crds::{
    Device, Guarded, PairingCode, PairingRequest,
    names::code_secret,
    v1alpha1::{
        PairingCodeSpec,
        device::Presence,
        pairing_code::{CodeFormat, Delivery},
        pairing_request::RequestPhase,
    },
};
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    decide::{GrantArgs, approval, decide},
    request,
};
use crate::{
    clock::now,
    cluster::{Cluster, forbids_watch, is_forbidden, is_missing, told},
    exit::Exit,
    show::{note, out},
    terminal::{Interrupts, agrees},
};

/// How long the API server may take to make a code.
const MAKE: Duration = Duration::from_secs(30);
/// How long the operator may take to draw a code.
const DRAW: Duration = Duration::from_secs(30);
/// How long it may take from the approval to the certificate.
const ISSUE: Duration = Duration::from_mins(1);
/// Between two looks at a Secret: to watch it would take a right that few have.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, clap::Args)]
pub struct Pair {
    /// What the Device will be called, instead of what it asks for.
    #[arg(long)]
    name: Option<String>,
    /// How long the code can be used, in seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(30..=86400))]
    ttl: i64,
    /// Digits alone, for devices without letters.
    #[arg(long)]
    numeric: bool,
    #[command(flatten)]
    grants: GrantArgs,
    /// How long to wait for the device to be there once it is approved, in seconds; 0: not at all.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    wait_online: u64,
}

impl Pair {
    pub async fn run(self, cluster: &Cluster) -> anyhow::Result<Exit> {
        let codes: Api<PairingCode> = cluster.api();
        // From before there is a code: who stops while it is made takes it back, too.
        let mut interrupts = Interrupts::listen()?;
        let code = timeout(MAKE, codes.create(&PostParams::default(), &self.code()))
            .await
            .context(
                "the API server has not answered: look for a code with kubectl get pairingcodes",
            )?
            .map_err(told)
            .context("make a pairing code")?
            .name_any();
        let arrival = async {
            show_code(cluster, &code).await?;
            wait_for_request(cluster, &code, self.ttl).await
        };
        let request = tokio::select! {
            request = arrival => request,
            () = interrupts.next() => {
                take_back(&codes, &code).await;
                return Ok(Exit::Interrupted);
            }
        };
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => {
                note(&format!("no device came before code {code} ended"));
                return Ok(Exit::NotApproved);
            }
            Err(error) => {
                take_back(&codes, &code).await;
                return Err(error);
            }
        };
        let name = request.name_any();
        note(&request::shown(&request, now()));
        let (answer, otherwise) = tokio::select! {
            answer = agrees("The same words at the device? Approve?") => (answer?, Exit::NotApproved),
            () = interrupts.next() => (false, Exit::Interrupted),
        };
        if !answer {
            note(&format!(
                "not approved; it waits. To deny it: kubectl fairlead deny {name}"
            ));
            return Ok(otherwise);
        }
        tokio::select! {
            exit = self.approved(cluster, &request) => exit,
            () = interrupts.next() => {
                note(&format!("left alone: kubectl get pairingrequest {name}"));
                Ok(Exit::Interrupted)
            }
        }
    }

    /// From the yes to a device that is there.
    async fn approved(&self, cluster: &Cluster, request: &PairingRequest) -> anyhow::Result<Exit> {
        let name = request.name_any();
        let decision = approval(request, self.name.clone(), self.grants.grants(), None)?;
        decide(cluster, request, decision).await?;
        note("approved; waiting for the certificate");
        let Some(device) = wait_for_device(cluster, &name).await? else {
            return Ok(Exit::NotApproved);
        };
        if self.wait_online == 0 {
            note(&format!("{device} is paired"));
            out(&format!("device.fairlead.dev/{device}\n"))?;
            return Ok(Exit::Done);
        }
        note(&format!("{device} is paired; waiting for it to be there"));
        let online =
            wait_for_online(cluster, &device, Duration::from_secs(self.wait_online)).await?;
        if online {
            note(&format!("{device} is Online"));
        } else {
            note(&format!(
                "{device} is not there yet: does `fairlead-agent run` run on it?"
            ));
        }
        out(&format!("device.fairlead.dev/{device}\n"))?;
        Ok(if online { Exit::Done } else { Exit::StillOpen })
    }

    fn code(&self) -> PairingCode {
        let format = if self.numeric {
            CodeFormat::Numeric
        } else {
            CodeFormat::Alphanumeric
        };
        PairingCode {
            metadata: ObjectMeta {
                generate_name: Some("pair-".to_owned()),
                ..ObjectMeta::default()
            },
            spec: PairingCodeSpec {
                format,
                delivery: Delivery::Qr,
                ttl_seconds: self.ttl,
                max_uses: 1,
                max_attempts: 5,
                // What the approver gives is what the code allows: nobody can approve more by accident.
                grants: self.grants.grants(),
                ..PairingCodeSpec::default()
            },
            status: None,
        }
    }
}

async fn take_back(codes: &Api<PairingCode>, code: &str) {
    match codes.delete(code, &DeleteParams::default()).await {
        Ok(_) => note(&format!("code {code} was taken back")),
        Err(error) => note(&format!("code {code} is still good: {:#}", told(error))),
    }
}

/// Shows the PIN and the QR code, once the operator has drawn them.
async fn show_code(cluster: &Cluster, code: &str) -> anyhow::Result<()> {
    let secrets: Api<Secret> = cluster.api();
    let name = code_secret(code);
    let end = Instant::now() + DRAW;
    loop {
        match secrets.get(&name).await {
            Ok(secret) => {
                if let Some(text) = shown_code(&secret) {
                    out(&text)?;
                    note("waiting for the device; Ctrl-C takes the code back");
                    return Ok(());
                }
            }
            Err(error) if is_missing(&error) => {}
            Err(error) if is_forbidden(&error) => {
                bail!(
                    "to show the code takes the right to get the Secret {name}: {:#}",
                    told(error)
                )
            }
            Err(error) => return Err(told(error)).context("read the code"),
        }
        if Instant::now() >= end {
            bail!("the operator has not drawn the code: `kubectl fairlead doctor` says why");
        }
        sleep(LOOK).await;
    }
}

/// The code as a person needs it; `None` until it is all there. Pure.
fn shown_code(secret: &Secret) -> Option<String> {
    let part = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    };
    let (pin, uri, qr) = (part("pin")?, part("uri")?, part("qr.txt")?);
    Some(format!(
        "{}\n\nPIN  {pin}\nURI  {uri}\n\nAt the device: fairlead-agent pair\n",
        qr.trim_end()
    ))
}

/// The request that proved the code; `None` where its time is over first.
async fn wait_for_request(
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
async fn wait_for_device(cluster: &Cluster, request: &str) -> anyhow::Result<Option<String>> {
    let requests: Api<PairingRequest> = cluster.api();
    let end = Instant::now() + ISSUE;
    loop {
        let found = requests.get(request).await.map_err(told)?;
        let status = found.status.unwrap_or_default();
        if let (RequestPhase::Issued, Some(device)) = (status.phase, status.device_ref) {
            return Ok(Some(device.name));
        }
        if status.phase.is_terminal() {
            let why = crds::conditions::find(&status.conditions, crds::conditions::READY)
                .map(|ready| ready.message.clone())
                .unwrap_or_default();
            note(&format!("the request is {:?}: {why}", status.phase));
            return Ok(None);
        }
        if Instant::now() >= end {
            bail!("no certificate was issued: `kubectl fairlead doctor` says why");
        }
        sleep(LOOK).await;
    }
}

async fn wait_for_online(
    cluster: &Cluster,
    device: &str,
    patience: Duration,
) -> anyhow::Result<bool> {
    let end = Instant::now() + patience;
    let config = watcher::Config::default().fields(&format!("metadata.name={device}"));
    let devices = watcher(cluster.api::<Guarded<Device>>(), config);
    let mut devices = pin!(devices.default_backoff().applied_objects());
    loop {
        match timeout_at(end, devices.try_next()).await {
            Err(_) | Ok(Ok(None)) => return Ok(false),
            Ok(Ok(Some(Guarded(Ok(found))))) => {
                // Degraded is there, too: it holds a stream, and something of it is not available.
                let status = found.status.unwrap_or_default();
                let connected = status
                    .session
                    .is_some_and(|session| session.ended_at.is_none());
                if status.presence == Some(Presence::Online)
                    || (connected && status.presence == Some(Presence::Degraded))
                {
                    return Ok(true);
                }
            }
            Ok(Ok(Some(_)) | Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_code_is_shown_once_all_of_it_is_there() {
        let mut secret = Secret::default();
        assert_eq!(shown_code(&secret), None);
        let part = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut data = std::collections::BTreeMap::from([
            ("pin".to_owned(), part("PIN-TEXT")),
            ("uri".to_owned(), part("URI-TEXT")),
        ]);
        secret.data = Some(data.clone());
        assert_eq!(shown_code(&secret), None);
        data.insert("qr.txt".to_owned(), part("QR-TEXT\n"));
        secret.data = Some(data);
        let text = shown_code(&secret).unwrap();
        assert!(
            text.starts_with("QR-TEXT\n\nPIN  PIN-TEXT\nURI  URI-TEXT\n"),
            "{text}"
        );
    }

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
