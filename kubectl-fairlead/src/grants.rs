//! What a device may run after a grant. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    Device,
    nearest::did_you_mean,
    v1alpha1::device::{DeviceGrants, Granted},
};

/// What is to be granted and what is to be taken away.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// Names of capabilities.
    pub grant: Vec<String>,
    /// Everything that waits.
    pub pending: bool,
    /// Names of capabilities.
    pub take: Vec<String>,
}

/// Why nothing can be granted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("name the capabilities, or give --pending for all that wait")]
    Nothing,
    #[error("nothing waits for a grant")]
    NonePending,
    #[error("{0} is both granted and taken away")]
    Both(String),
    #[error("{0} is not granted, so it cannot be taken away")]
    NotGranted(String),
    /// The name, and the question for the name that is meant.
    #[error(
        "the device does not declare {0}{1}; give --undeclared to grant the name, as the device declares it when it first does"
    )]
    Undeclared(String, String),
}

/// Whether a capability may be granted that the device does not declare: then nobody has seen what it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Undeclared {
    Refused,
    Allowed,
}

/// All that the device may run from now on. What is granted is granted as the device declares it in the object that was
/// read, by its digest: what it declares a moment later waits again.
pub fn after(
    device: &Device,
    change: &Change,
    undeclared: Undeclared,
) -> Result<DeviceGrants, Error> {
    let declared: BTreeMap<&str, _> = device
        .status
        .iter()
        .flat_map(|status| &status.capabilities)
        .map(|capability| (capability.name.as_str(), capability))
        .collect();
    let mut grant: BTreeSet<&str> = change.grant.iter().map(String::as_str).collect();
    if change.pending {
        let waiting = declared
            .values()
            .filter(|capability| capability.granted == Granted::Pending);
        let before = grant.len();
        grant.extend(waiting.map(|capability| capability.name.as_str()));
        if grant.len() == before && change.take.is_empty() {
            return Err(Error::NonePending);
        }
    }
    if grant.is_empty() && change.take.is_empty() {
        return Err(Error::Nothing);
    }
    let DeviceGrants {
        capabilities,
        mut surfaces,
    } = device.spec.grants.clone();
    let mut names: BTreeSet<String> = capabilities.into_iter().collect();
    for name in &change.take {
        if grant.contains(name.as_str()) {
            return Err(Error::Both(name.clone()));
        }
        if !names.remove(name) {
            return Err(Error::NotGranted(name.clone()));
        }
        surfaces.remove(name);
    }
    for name in grant {
        match declared
            .get(name)
            .and_then(|capability| capability.surface_sha256.clone())
        {
            Some(digest) => {
                surfaces.insert(name.to_owned(), digest);
            }
            None if declared.contains_key(name) || undeclared == Undeclared::Allowed => {
                surfaces.remove(name);
            }
            None => {
                let meant = did_you_mean(name, declared.keys().copied());
                return Err(Error::Undeclared(name.to_owned(), meant));
            }
        }
        names.insert(name.to_owned());
    }
    Ok(DeviceGrants {
        capabilities: names.into_iter().collect(),
        surfaces,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device() -> Device {
        serde_json::from_value(json!({
            "apiVersion": "fairlead.dev/v1alpha1", "kind": "Device", "metadata": {"name": "lamp"},
            "spec": {
                "publicKeySha256": "ab".repeat(32),
                "grants": {"capabilities": ["echo", "old"], "surfaces": {"echo": "11".repeat(32)}},
            },
            "status": {"capabilities": [
                {"name": "echo", "granted": "Pending", "surfaceSha256": "22".repeat(32)},
                {"name": "disk", "granted": "Pending", "surfaceSha256": "33".repeat(32)},
                {"name": "plain", "granted": "NotGranted"},
            ]},
        }))
        .unwrap()
    }

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn granting(texts: &[&str]) -> Change {
        Change {
            grant: names(texts),
            ..Change::default()
        }
    }

    #[test]
    fn what_is_granted_is_what_the_device_declares_now_and_the_rest_stays() {
        let after = after(&device(), &granting(&["disk"]), Undeclared::Refused).unwrap();
        assert_eq!(after.capabilities, names(&["disk", "echo", "old"]));
        assert_eq!(after.surfaces["disk"], "33".repeat(32));
        assert_eq!(
            after.surfaces["echo"],
            "11".repeat(32),
            "nobody decided about that"
        );
    }

    #[test]
    fn all_that_waits_can_be_granted_at_once() {
        let change = Change {
            pending: true,
            ..Change::default()
        };
        let after = after(&device(), &change, Undeclared::Refused).unwrap();
        assert_eq!(after.capabilities, names(&["disk", "echo", "old"]));
        assert_eq!(after.surfaces["echo"], "22".repeat(32));
    }

    #[test]
    fn what_is_taken_away_leaves_no_digest_behind() {
        let change = Change {
            take: names(&["echo"]),
            ..Change::default()
        };
        let after = after(&device(), &change, Undeclared::Refused).unwrap();
        assert_eq!(after.capabilities, names(&["old"]));
        assert!(after.surfaces.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |change: &Change| after(&device(), change, Undeclared::Refused).unwrap_err();
        assert_eq!(refused(&Change::default()), Error::Nothing);
        assert_eq!(
            refused(&granting(&["new"])),
            Error::Undeclared("new".to_owned(), String::new())
        );
        let take = |name: &str| Change {
            take: names(&[name]),
            ..Change::default()
        };
        assert_eq!(refused(&take("disk")), Error::NotGranted("disk".to_owned()));
        let both = Change {
            grant: names(&["echo"]),
            ..take("echo")
        };
        assert_eq!(refused(&both), Error::Both("echo".to_owned()));
        assert!(after(&device(), &granting(&["new"]), Undeclared::Allowed).is_ok());
        assert!(after(&device(), &granting(&["plain"]), Undeclared::Refused).is_ok());
    }
}
