//! What can stand at the end of a command line that is being typed.
//!
//! kubectl completes a plugin by a second program beside it, `kubectl_complete-NAME`: it gives that the words after the
//! plugin's name, reads a completion from each line, and from a last line `:NUMBER` what the shell does with them (as cobra
//! defines it). The program is [`PROGRAM`], a script that asks this one.
//!
//! - [`line`](mod@line): which kind of word is being typed. Pure;
//! - this file: the words of that kind, out of the cluster within [`PATIENCE`]. Whatever fails, completes nothing: a shell
//!   has no place for an error.

mod line;

use std::{io, path::Path, time::Duration};

use clap::Parser as _;
use crds::{CapabilityInvocation, Device, Guarded, PairingRequest};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _, api::ListParams, config::Kubeconfig};
use tokio::time::timeout;

use self::line::{Typed, Wanted};
use crate::{
    args::Args,
    cluster::{Cluster, Select, list, list_trimmed},
    commands::invocations::{is_open, without_values},
    exit::Exit,
    show::{harmless, out},
};

/// The file that kubectl looks for in `PATH`.
pub const NAME: &str = "kubectl_complete-fairlead";
/// What is in it.
pub const PROGRAM: &str = "#!/bin/sh\n# Completes `kubectl fairlead` for kubectl.\nexec kubectl-fairlead __complete -- \"$@\"\n";

/// How long a person who pressed Tab waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most words that are offered.
const MOST: usize = 500;
/// cobra's ShellCompDirectiveDefault: where nothing is offered, the shell offers files.
const FILES: &str = ":0\n";
/// cobra's ShellCompDirectiveNoFileComp.
const NO_FILES: &str = ":4\n";

/// A word and what it means.
type Offer = (String, String);

pub async fn run(words: &[String]) -> anyhow::Result<Exit> {
    let typed = line::read(words);
    let (offers, directive) = if typed.wanted == Wanted::Files {
        (Vec::new(), FILES)
    } else {
        let offers = timeout(PATIENCE, observe(&typed)).await;
        (offers.ok().flatten().unwrap_or_default(), NO_FILES)
    };
    out(&(lines(&offers, &typed) + directive))?;
    Ok(Exit::Done)
}

/// Those that begin as what was typed, after what was typed before the last comma.
fn lines(offers: &[Offer], typed: &Typed) -> String {
    let (before, begun) = match (&typed.wanted, typed.last.rfind(',')) {
        (Wanted::Devices | Wanted::Capabilities(_), Some(at)) => typed.last.split_at(at + 1),
        _ => ("", typed.last.as_str()),
    };
    // A shell would take a control character of a name for the end of the word, or worse.
    let begins = offers
        .iter()
        .filter(|(word, _)| word.starts_with(begun) && harmless(word) == *word);
    begins
        .take(MOST)
        .map(|(word, means)| match harmless(means).as_str() {
            "" => format!("{before}{word}\n"),
            means => format!("{before}{word}\t{means}\n"),
        })
        .collect()
}

async fn observe(typed: &Typed) -> Option<Vec<Offer>> {
    if let Wanted::Words(offers) = &typed.wanted {
        return Some(offers.clone());
    }
    if typed.wanted == Wanted::Contexts {
        let contexts = Kubeconfig::read().ok()?.contexts.into_iter();
        return Some(contexts.map(|context| plain(context.name)).collect());
    }
    let mut line = vec!["kubectl-fairlead".to_owned()];
    line.extend(typed.cluster.iter().cloned());
    line.push("devices".to_owned());
    let cluster = Args::try_parse_from(line).ok()?.cluster;
    let cluster = cluster.connect().await.ok()?;
    match &typed.wanted {
        Wanted::Devices => devices(&cluster).await,
        Wanted::Capabilities(device) => capabilities(&cluster, device).await,
        Wanted::Invocations { open } => invocations(&cluster, *open).await,
        Wanted::Requests => requests(&cluster).await,
        Wanted::Namespaces => {
            let namespaces: Api<Namespace> = Api::all(cluster.client);
            let list = namespaces.list_metadata(&params()).await.ok()?;
            Some(list.items.iter().map(|one| plain(one.name_any())).collect())
        }
        Wanted::Contexts | Wanted::Files | Wanted::Words(_) => None,
    }
}

fn params() -> ListParams {
    ListParams::default().limit(u32::try_from(MOST).unwrap_or(u32::MAX))
}

fn plain(word: String) -> Offer {
    (word, String::new())
}

async fn devices(cluster: &Cluster) -> Option<Vec<Offer>> {
    let devices: Api<Device> = cluster.api();
    let list = devices.list_metadata(&params()).await.ok()?;
    Some(list.items.iter().map(|one| plain(one.name_any())).collect())
}

async fn capabilities(cluster: &Cluster, device: &str) -> Option<Vec<Offer>> {
    let devices: Api<Device> = cluster.api();
    let status = devices.get(device).await.ok()?.status?;
    let declared = status.capabilities.into_iter();
    let offers = declared.map(|one| (one.name, one.description.unwrap_or_default()));
    Some(offers.collect())
}

async fn invocations(cluster: &Cluster, open: bool) -> Option<Vec<Offer>> {
    let invocations = cluster.api::<Guarded<CapabilityInvocation>>();
    let listed = list_trimmed(&invocations, Select::default(), without_values).await;
    let wanted = listed.ok()?.objects.into_iter().filter(|one| {
        let stored = one
            .status
            .as_ref()
            .is_some_and(|status| status.artefact.is_some());
        if open { is_open(one) } else { stored }
    });
    let offers = wanted.map(|one| {
        let means = format!("{} on {}", one.spec.capability, one.spec.device_ref.name);
        (one.name_any(), means)
    });
    Some(offers.collect())
}

async fn requests(cluster: &Cluster) -> Option<Vec<Offer>> {
    let select = Select::fields("status.phase=Pending");
    let requests = cluster.api::<Guarded<PairingRequest>>();
    let offers = list(&requests, select).await.ok()?.objects.into_iter();
    Some(
        offers
            .map(|one| (one.name_any(), one.spec.requested_name))
            .collect(),
    )
}

/// Lets everybody run it who can read it.
pub fn make_executable(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let mode = std::fs::metadata(path)?.permissions().mode();
        let readable = mode & 0o444;
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode | (readable >> 2)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(wanted: Wanted, last: &str) -> Typed {
        Typed {
            wanted,
            last: last.to_owned(),
            cluster: Vec::new(),
        }
    }

    #[test]
    fn what_begins_as_what_was_typed_is_offered_with_what_it_means() {
        let offers = [
            ("echo".to_owned(), "says\nit".to_owned()),
            plain("disk".to_owned()),
            plain("e\nvil".to_owned()),
        ];
        let capability = |last| typed(Wanted::Capabilities("lamp".to_owned()), last);
        assert_eq!(lines(&offers, &capability("e")), "echo\tsays\u{fffd}it\n");
        assert_eq!(
            lines(&offers, &capability("")),
            "echo\tsays\u{fffd}it\ndisk\n"
        );
        assert_eq!(lines(&offers, &capability("a,di")), "a,disk\n");
    }
}
