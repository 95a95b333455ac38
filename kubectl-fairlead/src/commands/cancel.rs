//! `cancel`: stops invocations that have not ended, and waits for their ends.

use std::{pin::pin, time::Duration};

use clap::error::ErrorKind;
use crds::{CapabilityInvocation, Guarded, v1alpha1::capability_invocation::InvocationPhase};
use futures::{StreamExt as _, stream};
use kube::{Api, ResourceExt};

use super::{
    invocations::{is_open, without_values},
    invoke::follow::{Followed, cancel, follow},
};
use crate::{
    args::usage,
    cluster::{Cluster, Select, list_trimmed, told},
    exit::Exit,
    show::{note, out},
    terminal::{Interrupts, Presses},
};

/// How long the ends are waited for. A device that is there stops within seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Invocations that are cancelled at once.
const PARALLEL: usize = 8;

#[derive(Clone, Debug, clap::Args)]
pub struct Cancel {
    /// Names of the invocations.
    invocations: Vec<String>,
    /// All open invocations of this device.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// All open invocations with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = crate::commands::fleet::selector)]
    selector: Option<String>,
    /// Wait for the ends.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    wait: bool,
}

impl Cancel {
    pub async fn run(self, cluster: &Cluster) -> anyhow::Result<Exit> {
        let names = self.names(cluster).await?;
        if names.is_empty() {
            note("nothing to cancel: no open invocation matches");
            return Ok(Exit::Done);
        }
        let interrupts = Interrupts::listen()?;
        interrupts
            .counted(
                "left alone; what was asked for stays asked for",
                async |presses| self.all(cluster, names, &presses).await,
            )
            .await
    }

    async fn all(
        &self,
        cluster: &Cluster,
        names: Vec<String>,
        presses: &Presses,
    ) -> anyhow::Result<Exit> {
        let results = stream::iter(names).map(|name| async move {
            let result = self.one(cluster, &name, presses.clone()).await;
            (name, result)
        });
        let mut results = pin!(results.buffer_unordered(PARALLEL));
        let mut worst = Exit::Done;
        while let Some((name, result)) = results.next().await {
            let (exit, text) = match result {
                Ok((exit, text)) => (exit, text),
                Err(error) => (Exit::Failed, format!("not cancelled: {error:#}")),
            };
            worst = worst.worse(exit);
            out(&format!("{name} {text}\n"))?;
        }
        Ok(worst)
    }

    async fn names(&self, cluster: &Cluster) -> anyhow::Result<Vec<String>> {
        let chosen = self.device.is_some() || self.selector.is_some();
        if chosen != self.invocations.is_empty() {
            let words = "give the names of INVOCATIONS, or --device, or -l SELECTOR";
            return Err(usage(ErrorKind::MissingRequiredArgument, words).into());
        }
        if !chosen {
            return Ok(self.invocations.clone());
        }
        let fields = self
            .device
            .as_ref()
            .map(|device| format!("spec.deviceRef.name={device}"));
        let select = Select {
            fields: fields.as_deref(),
            labels: self.selector.as_deref(),
        };
        let invocations: Api<Guarded<CapabilityInvocation>> = cluster.api();
        let listed = list_trimmed(&invocations, select, without_values).await;
        let listed = listed.map_err(told)?;
        listed.unreadable.iter().for_each(|line| note(line));
        let open = listed.objects.iter().filter(|one| is_open(one));
        Ok(open.map(ResourceExt::name_any).collect())
    }

    /// Cancels one; returns how that went, in words.
    async fn one(
        &self,
        cluster: &Cluster,
        name: &str,
        presses: Presses,
    ) -> anyhow::Result<(Exit, String)> {
        let invocations: Api<CapabilityInvocation> = cluster.api();
        let found = invocations.get(name).await.map_err(told)?;
        if !is_open(&found) {
            return Ok((Exit::Done, format!("had ended before: {}", phase(&found))));
        }
        cancel(cluster, name).await?;
        if !self.wait {
            return Ok((Exit::Done, "is being cancelled".to_owned()));
        }
        Ok(
            match follow(cluster, name, PATIENCE, presses, |_| {}).await? {
                Followed::Ended(ended) => {
                    let phase = phase(&ended);
                    // The device may have come to another end before it heard of the wish.
                    let exit = if phase == InvocationPhase::Unknown.as_str() {
                        Exit::Unknown
                    } else {
                        Exit::Done
                    };
                    (exit, phase.to_owned())
                }
                Followed::Open => {
                    let text =
                        "is being cancelled, and has not ended yet: the device does not answer";
                    (Exit::StillOpen, text.to_owned())
                }
                Followed::Left => (Exit::Interrupted, "is being cancelled".to_owned()),
            },
        )
    }
}

fn phase(invocation: &CapabilityInvocation) -> &'static str {
    let status = invocation.status.as_ref();
    status
        .map(|status| status.phase)
        .unwrap_or_default()
        .as_str()
}
