//! `pair`: from a code to a device that is there.
//!
//! ```text
//! make the code ──▶ show it ──▶ wait for a request that proves it ──▶ show who came ──▶ y/N ──▶ approve
//!                                                                       └──▶ wait for Issued, then for Online
//! ```
//! Who stops before anybody came takes the code back: none is left lying about. Who stops later leaves the request as it
//! is then.
//!
//! - [`code`]: how a code is shown;
//! - [`wait`]: for the request, the certificate and the device, and what is said meanwhile.

mod code;
mod wait;

use std::time::Duration;

use anyhow::Context as _;
use crds::{
    PairingCode, PairingRequest,
    v1alpha1::{
        PairingCodeSpec,
        pairing_code::{CodeFormat, Delivery},
    },
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ObjectMeta},
};
use tokio::time::timeout;

use self::{
    code::show_code,
    wait::{Came, wait_for_device, wait_for_online, wait_for_request},
};
use super::{
    decide::{GrantArgs, approval, decide},
    request,
};
use crate::{
    clock::now,
    cluster::{Cluster, posting, told},
    exit::Exit,
    show::{note, out},
    terminal::{Interrupts, agrees},
};

/// How long the API server may take to make a code.
const MAKE: Duration = Duration::from_secs(30);

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
        let code = timeout(MAKE, codes.create(&posting(), &self.code()))
            .await
            .with_context(|| {
                format!(
                    "the API server has not answered: look for a code with kubectl get pairingcodes -n {}",
                    cluster.namespace
                )
            })?
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
                "not approved; it waits. To deny it: kubectl fairlead deny -n {} {name}",
                cluster.namespace
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
        let patience = Duration::from_secs(self.wait_online);
        let exit = match wait_for_online(cluster, &device, patience).await? {
            Came::Online => {
                note(&format!("{device} is Online"));
                Exit::Done
            }
            Came::NotYet(why) => {
                note(&format!(
                    "{device} is not there yet ({why}): start `fairlead-agent run` on it, or look at its log"
                ));
                Exit::StillOpen
            }
        };
        out(&format!("device.fairlead.dev/{device}\n"))?;
        Ok(exit)
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
