//! Whom the use of a bound counts against, and how much of a bound each may have.

use super::rates::{Address, Network};
use crate::caller::tenant;

/// Source of a request, as far as it is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Party {
    /// Missing only where there is no connection, as in tests.
    pub address: Option<Address>,
    /// The user, once the cluster has vouched for them. Without one, the party is a stranger.
    pub user: Option<String>,
}

/// One that a share counts for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Holder {
    User(String),
    Tenant(String),
    /// Users with that address.
    UsersOf(Address),
    /// Strangers with that address.
    StrangersOf(Address),
    /// Strangers of that network.
    Network(Network),
    /// All strangers together.
    Strangers,
    All,
}

impl Party {
    /// Returns a stranger.
    pub fn stranger(address: Option<Address>) -> Self {
        Self {
            address,
            user: None,
        }
    }

    /// Returns the holders that a use counts for, each with the most that it may have of a bound of that size.
    ///
    /// A user has at most an eighth, a tenant a quarter, and the users of one address a half: behind a proxy all users have
    /// one address. An address of strangers has at most an eighth, its networks a quarter, and all strangers a half, so that
    /// users always have room.
    pub fn holders(&self, size: usize) -> Vec<(Holder, usize)> {
        let part = |parts: usize| size.div_ceil(parts).max(1);
        let mut holders = Vec::with_capacity(5);
        if let Some(user) = &self.user {
            holders.push((Holder::User(user.clone()), part(8)));
            let tenant = tenant(user);
            if tenant != user {
                holders.push((Holder::Tenant(tenant.to_owned()), part(4)));
            }
            holders.extend(
                self.address
                    .map(|address| (Holder::UsersOf(address), part(2))),
            );
        } else {
            holders.push((Holder::Strangers, part(2)));
            if let Some(address) = self.address {
                holders.push((Holder::StrangersOf(address), part(8)));
                let mut networks = address.wider_networks().to_vec();
                networks.dedup();
                let networks = networks.into_iter().map(Holder::Network);
                holders.extend(networks.map(|network| (network, part(4))));
            }
        }
        // Last: a party that has its share learns of that first.
        holders.push((Holder::All, size));
        holders
    }
}
