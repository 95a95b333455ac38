//! The order in which devices need attention.

use std::sync::Arc;

use console_api::inventory::Presence;
use crds::v1alpha1::device;

/// How soon somebody should look at a device. Where nothing is known of its presence, it has never been there.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rank {
    Degraded,
    Stale,
    Offline,
    Online,
}

impl Rank {
    /// In order.
    pub const ALL: [Self; 4] = [Self::Degraded, Self::Stale, Self::Offline, Self::Online];

    pub fn of(presence: Option<device::Presence>) -> Self {
        match presence {
            Some(device::Presence::Degraded) => Self::Degraded,
            Some(device::Presence::Stale) => Self::Stale,
            Some(device::Presence::Offline) | None => Self::Offline,
            Some(device::Presence::Online) => Self::Online,
        }
    }

    /// The rank of what is asked for by that presence; `None` where there is none such.
    pub fn asked(presence: Presence) -> Option<Self> {
        match presence {
            Presence::Degraded => Some(Self::Degraded),
            Presence::Stale => Some(Self::Stale),
            Presence::Offline => Some(Self::Offline),
            Presence::Online => Some(Self::Online),
            Presence::Other => None,
        }
    }
}

/// Namespace and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Name {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl From<&console_api::ObjectId> for Name {
    fn from(id: &console_api::ObjectId) -> Self {
        Self::new(id.namespace(), id.name())
    }
}

/// Where a device stands in the order.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    pub rank: Rank,
    pub name: Name,
}
