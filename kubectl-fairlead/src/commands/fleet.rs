//! Which devices a command is for: one, several that are named, or all with certain labels.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::error::ErrorKind;
use crds::{Device, nearest::did_you_mean};
use futures::{StreamExt as _, stream};
use kube::{Api, ResourceExt, api::ListParams};

use crate::{
    args::usage,
    cluster::{Cluster, Select, is_forbidden, is_missing, list, told},
};

/// Most devices of one command. A larger fleet takes several commands, each with a narrower selector.
pub const MOST: usize = 1000;
/// Names that a mistyped one is compared with.
const NAMES: u32 = 500;

/// How several devices are chosen, and how many are worked on at once.
#[derive(Clone, Debug, clap::Args)]
pub struct FleetArgs {
    /// All devices with these labels, in the place of DEVICE; for example `site=harbour,!spare`.
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = selector)]
    selector: Option<String>,
    /// With several devices: at most so many at once.
    #[arg(long, default_value_t = 8, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
}

/// A label selector. An empty one would select everything: that is what a variable of a script expands to that is not set.
pub fn selector(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("an empty selector would mean all of them: give LABEL=VALUE".to_owned());
    }
    Ok(text.to_owned())
}

/// Which devices are meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    One(String),
    /// In the order of their names, each once.
    Named(Vec<String>),
    Labelled(String),
}

impl FleetArgs {
    pub fn parallel(&self) -> usize {
        usize::from(self.parallel)
    }

    /// Splits what was typed into the devices and the words after them. With a selector there is no word for devices.
    pub fn split<'a>(&self, words: &'a [String]) -> Result<(Target, &'a [String]), clap::Error> {
        if let Some(selector) = &self.selector {
            return Ok((Target::Labelled(selector.clone()), words));
        }
        let Some((first, rest)) = words.split_first() else {
            let kind = ErrorKind::MissingRequiredArgument;
            return Err(usage(kind, "give DEVICE, DEVICE,DEVICE or -l SELECTOR"));
        };
        let names: BTreeSet<&str> = first.split(',').filter(|name| !name.is_empty()).collect();
        let target = match names.len() {
            0 => {
                return Err(usage(
                    ErrorKind::InvalidValue,
                    "the name of a device is missing",
                ));
            }
            1 if !first.contains(',') => Target::One(first.clone()),
            _ => Target::Named(names.into_iter().map(str::to_owned).collect()),
        };
        Ok((target, rest))
    }
}

/// A device that a command is for.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub device: Seen,
}

/// What the caller sees of a device.
#[derive(Debug)]
pub enum Seen {
    Device(Box<Device>),
    /// The caller may not read it; the API server's words.
    Forbidden(String),
    /// Why nothing can be done with it.
    Wrong(String),
}

/// Reads the devices. Fails where no device is meant, or more than [`MOST`].
pub async fn find(
    cluster: &Cluster,
    target: Target,
    parallel: usize,
) -> anyhow::Result<Vec<Member>> {
    let names = match target {
        Target::One(name) => vec![name],
        Target::Named(names) => names,
        Target::Labelled(selector) => return labelled(cluster, &selector).await,
    };
    if names.len() > MOST {
        bail!("{} devices are named: name at most {MOST}", names.len());
    }
    let found = stream::iter(names).map(|name| async move {
        let device = read(cluster, &name).await;
        Member { name, device }
    });
    Ok(found.buffered(parallel).collect().await)
}

async fn labelled(cluster: &Cluster, selector: &str) -> anyhow::Result<Vec<Member>> {
    let select = Select {
        labels: Some(selector),
        ..Select::default()
    };
    let listed = list::<Device>(&cluster.api(), select).await.map_err(told)?;
    for line in &listed.unreadable {
        crate::show::note(line);
    }
    let mut members: Vec<_> = listed
        .objects
        .into_iter()
        .map(|device| Member {
            name: device.name_any(),
            device: Seen::Device(Box::new(device)),
        })
        .collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    match members.len() {
        0 => bail!(
            "no device in namespace {} has the labels {selector}: see kubectl get devices --show-labels",
            cluster.namespace
        ),
        number if number > MOST => {
            bail!("{number} devices have the labels {selector}: narrow the selector to {MOST}")
        }
        _ => Ok(members),
    }
}

async fn read(cluster: &Cluster, name: &str) -> Seen {
    let devices: Api<Device> = cluster.api();
    match devices.get(name).await {
        Ok(device) => Seen::Device(Box::new(device)),
        Err(error) if is_forbidden(&error) => Seen::Forbidden(format!("{:#}", told(error))),
        Err(error) if is_missing(&error) => Seen::Wrong(missing(cluster, name).await),
        Err(error) => Seen::Wrong(format!("{:#}", told(error))),
    }
}

/// The error about a device that does not exist, with the name that is most likely meant.
pub async fn missing(cluster: &Cluster, name: &str) -> String {
    let devices: Api<Device> = cluster.api();
    let params = ListParams::default().limit(NAMES);
    let known = devices.list_metadata(&params).await;
    let known: Vec<String> = known
        .map(|list| list.items.iter().map(ResourceExt::name_any).collect())
        .unwrap_or_default();
    let meant = did_you_mean(name, known.iter().map(String::as_str));
    format!("no device {name} in namespace {}{meant}", cluster.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(selector: Option<&str>, words: &[&str]) -> Result<(Target, Vec<String>), clap::Error> {
        let args = FleetArgs {
            selector: selector.map(str::to_owned),
            parallel: 8,
        };
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let (target, rest) = args.split(&words)?;
        Ok((target, rest.to_vec()))
    }

    #[test]
    fn devices_are_named_with_commas_or_chosen_by_labels() {
        let rest = vec!["echo".to_owned()];
        assert_eq!(
            split(None, &["lamp", "echo"]).unwrap(),
            (Target::One("lamp".to_owned()), rest.clone())
        );
        assert_eq!(
            split(None, &["lamp,kiosk,lamp", "echo"]).unwrap(),
            (
                Target::Named(vec!["kiosk".to_owned(), "lamp".to_owned()]),
                rest.clone()
            )
        );
        assert_eq!(
            split(Some("site=harbour"), &["echo"]).unwrap(),
            (Target::Labelled("site=harbour".to_owned()), rest)
        );
    }

    #[test]
    fn a_variable_that_is_not_set_does_not_select_everything() {
        assert!(selector("").is_err() && selector(" ").is_err());
        assert_eq!(selector("a=b"), Ok("a=b".to_owned()));
    }

    #[test]
    fn a_list_of_one_still_answers_as_a_list() {
        let (target, _) = split(None, &["lamp,", "echo"]).unwrap();
        assert_eq!(target, Target::Named(vec!["lamp".to_owned()]));
    }

    #[test]
    fn no_device_at_all_is_an_error_of_usage() {
        assert!(split(None, &[]).is_err());
        assert!(split(None, &[",", "echo"]).is_err());
    }
}
