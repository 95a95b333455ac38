//! `approve` and `deny`: the decision on a request, about what was shown and nothing else.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use crds::{
    PairingRequest, digest,
    v1alpha1::{
        Grants,
        pairing_request::{Decision, RequestPhase, Verdict},
    },
};
use kube::{Api, ResourceExt as _, api::Patch};
use serde_json::json;

use super::request;
use crate::{
    clock::now,
    cluster::{Cluster, patching, told},
    exit::Exit,
    show::note,
    terminal::agrees,
};

/// What a device gets, where that is not what it declares.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GrantArgs {
    /// The capabilities that it may run, instead of those that it declares; `none` for none.
    #[arg(long, value_delimiter = ',', value_name = "CAPABILITY,…")]
    grants: Vec<String>,
    /// Labels that the Device gets.
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE,…", value_parser = label)]
    labels: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("give KEY=VALUE")?;
    if key.is_empty() {
        return Err("give KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl GrantArgs {
    /// `None` where nothing was said: then it is what the device declares.
    pub fn grants(&self) -> Option<Grants> {
        if self.grants.is_empty() && self.labels.is_empty() {
            return None;
        }
        let none = matches!(self.grants.as_slice(), [only] if only == "none");
        let capabilities = match self.grants.as_slice() {
            [] => None,
            _ if none => Some(Vec::new()),
            names => Some(names.to_vec()),
        };
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        Some(Grants {
            labels,
            capabilities,
        })
    }
}

/// Yes.
#[derive(Clone, Debug, clap::Args)]
pub struct Approve {
    /// Name of the request.
    request: String,
    /// Name for the Device, instead of the requested one.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    grants: GrantArgs,
    /// Why, for the person at the device.
    #[arg(long)]
    reason: Option<String>,
    /// Do not ask: the request was compared with the device already.
    #[arg(short, long)]
    yes: bool,
}

/// No.
#[derive(Clone, Debug, clap::Args)]
pub struct Deny {
    /// Name of the request.
    request: String,
    /// Why, for the person at the device.
    #[arg(long)]
    reason: Option<String>,
}

impl Approve {
    pub async fn run(self, cluster: &Cluster) -> anyhow::Result<Exit> {
        let requests: Api<PairingRequest> = cluster.api();
        let request = open(&requests, &self.request).await?;
        note(&request::shown(&request, now()));
        if !self.yes && !agrees("The same words at the device? Approve?").await? {
            note(&format!(
                "not approved; to deny it: kubectl fairlead deny -n {} {}",
                cluster.namespace, self.request
            ));
            return Ok(Exit::NotApproved);
        }
        let grants = self.grants.grants();
        let decision = approval(&request, self.name, grants, self.reason)?;
        decide(cluster, &request, decision).await?;
        note(&format!("{} approved", self.request));
        Ok(Exit::Done)
    }
}

impl Deny {
    pub async fn run(self, cluster: &Cluster) -> anyhow::Result<Exit> {
        let requests: Api<PairingRequest> = cluster.api();
        let request = open(&requests, &self.request).await?;
        let decision = Decision {
            decision: Verdict::Denied,
            decided_by: None,
            reason: self.reason,
            device_name: None,
            grants: None,
            spec_digest: Some(digest::of_spec(&request.spec)?),
        };
        decide(cluster, &request, decision).await?;
        note(&format!("{} denied", self.request));
        Ok(Exit::Done)
    }
}

async fn open(requests: &Api<PairingRequest>, name: &str) -> anyhow::Result<PairingRequest> {
    let request = requests.get(name).await.map_err(told)?;
    let phase = request
        .status
        .as_ref()
        .map_or(RequestPhase::Pending, |status| status.phase);
    if phase != RequestPhase::Pending {
        bail!("{name} is {phase:?} and takes no decision any more: the device must ask again");
    }
    Ok(request)
}

/// A yes to what was shown: the digest is made of the spec that was shown, and of nothing that is read later.
pub fn approval(
    request: &PairingRequest,
    device_name: Option<String>,
    grants: Option<Grants>,
    reason: Option<String>,
) -> anyhow::Result<Decision> {
    Ok(Decision {
        decision: Verdict::Approved,
        decided_by: None,
        reason,
        device_name,
        grants,
        spec_digest: Some(digest::of_spec(&request.spec)?),
    })
}

/// Writes it, with who decided: the API server stamps that, or demands that it is true.
pub async fn decide(
    cluster: &Cluster,
    request: &PairingRequest,
    mut decision: Decision,
) -> anyhow::Result<PairingRequest> {
    decision.decided_by = Some(cluster.user().await?);
    let name = request.name_any();
    let patch = json!({ "status": { "approval": decision } });
    cluster
        .api::<PairingRequest>()
        .patch_status(&name, &patching(), &Patch::Merge(&patch))
        .await
        .map_err(told)
        .with_context(|| format!("decide on {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(grants: &[&str], labels: &[(&str, &str)]) -> GrantArgs {
        GrantArgs {
            grants: grants.iter().map(|&text| text.to_owned()).collect(),
            labels: labels
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    #[test]
    fn what_is_not_said_is_left_to_what_the_device_declares() {
        assert_eq!(args(&[], &[]).grants(), None);
        let labels_only = args(&[], &[("site", "harbour")]).grants().unwrap();
        assert_eq!(labels_only.capabilities, None);
        assert_eq!(labels_only.labels["site"], "harbour");
        assert_eq!(
            args(&["none"], &[]).grants().unwrap().capabilities,
            Some(Vec::new())
        );
        let some = args(&["echo", "disk"], &[]).grants().unwrap();
        assert_eq!(
            some.capabilities,
            Some(vec!["echo".to_owned(), "disk".to_owned()])
        );
    }

    #[test]
    fn an_approval_is_about_the_spec_that_was_shown() {
        let mut request =
            PairingRequest::new("preq-1", crds::v1alpha1::PairingRequestSpec::default());
        let first = approval(&request, None, None, None).unwrap();
        request.spec.platform.hostname = "other".to_owned();
        let second = approval(&request, None, None, None).unwrap();
        assert_ne!(first.spec_digest, second.spec_digest);
        assert_eq!(first.decision, Verdict::Approved);
    }

    #[test]
    fn a_label_is_a_pair() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("a").is_err() && label("=b").is_err());
    }
}
