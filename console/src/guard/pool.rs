//! A bound that is shared: so many at once, and of these so many for each holder.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::party::{Holder, Party};

/// What a pool counts may be places or bytes.
#[derive(Clone, Debug)]
pub struct Pool {
    size: usize,
    held: Arc<Mutex<HashMap<Holder, usize>>>,
}

/// Part of a pool; given back when dropped.
#[derive(Debug)]
pub struct Held {
    holders: Vec<(Holder, usize)>,
    amount: usize,
    pool: Pool,
}

/// Why a pool has no room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Full {
    /// The party has its share.
    Share,
    /// All is in use.
    All,
}

impl Pool {
    pub fn new(size: usize) -> Self {
        Self {
            size,
            held: Arc::default(),
        }
    }

    /// One place for a party.
    ///
    /// # Errors
    /// If there is no room. Nobody waits.
    pub fn enter(&self, party: &Party) -> Result<Held, Full> {
        let mut held = self.open(party);
        held.grow(1)?;
        Ok(held)
    }

    /// Nothing yet, for a party.
    pub fn open(&self, party: &Party) -> Held {
        Held {
            holders: party.holders(self.size),
            amount: 0,
            pool: self.clone(),
        }
    }

    /// Poisoning is harmless: every critical section leaves the counts consistent.
    fn held(&self) -> MutexGuard<'_, HashMap<Holder, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes more.
    ///
    /// # Errors
    /// If there is no room: then nothing is taken.
    pub fn grow(&mut self, amount: usize) -> Result<(), Full> {
        let mut held = self.pool.held();
        for (holder, most) in &self.holders {
            let count = held.get(holder).copied().unwrap_or(0);
            if count.saturating_add(amount) > *most {
                return Err(match holder {
                    Holder::All => Full::All,
                    Holder::User(_)
                    | Holder::Tenant(_)
                    | Holder::UsersOf(_)
                    | Holder::StrangersOf(_)
                    | Holder::Network(_)
                    | Holder::Strangers => Full::Share,
                });
            }
        }
        for (holder, _) in &self.holders {
            *held.entry(holder.clone()).or_default() += amount;
        }
        self.amount += amount;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.pool.held();
        for (holder, _) in &self.holders {
            if let Some(count) = held.get_mut(holder) {
                *count = count.saturating_sub(self.amount);
                if *count == 0 {
                    held.remove(holder);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn party(address: &str, user: Option<&str>) -> Party {
        Party {
            address: Some(address.parse::<IpAddr>().unwrap().into()),
            user: user.map(str::to_owned),
        }
    }

    /// Takes all that each party can have in turn.
    fn taken(pool: &Pool, parties: &[Party]) -> Vec<Held> {
        let all = |party| std::iter::from_fn(move || pool.enter(party).ok());
        parties.iter().flat_map(all).collect()
    }

    #[test]
    fn one_user_address_or_tenant_has_a_part_and_others_have_room() {
        let pool = Pool::new(64);
        let account = |name: usize| format!("system:serviceaccount:kitchen:{name}");
        let one_user: Vec<_> = (0..20)
            .map(|last| party(&format!("192.0.2.{last}"), Some("ada")))
            .collect();
        let one_tenant: Vec<_> = (0..20)
            .map(|n| party(&format!("198.51.100.{n}"), Some(&account(n))))
            .collect();
        let one_address: Vec<_> = (0..20)
            .map(|n| party("203.0.113.1", Some(&format!("user-{n}"))))
            .collect();
        for (parties, expected) in [(&one_user, 8), (&one_tenant, 16), (&one_address, 32)] {
            let held = taken(&pool, parties);
            assert_eq!(held.len(), expected, "{:?}", parties[0]);
            assert_eq!(pool.enter(&parties[0]).unwrap_err(), Full::Share);
            assert!(pool.enter(&party("192.0.2.99", Some("bob"))).is_ok());
            assert!(pool.enter(&party("10.0.0.1", None)).is_ok());
        }
        assert!(pool.held().is_empty());
    }

    #[test]
    fn strangers_have_an_eighth_for_each_address_and_a_half_together() {
        let pool = Pool::new(64);
        let of_one = taken(&pool, &[party("192.0.2.1", None)]);
        assert_eq!(of_one.len(), 8);
        drop(of_one);
        let site: Vec<_> = (0..20)
            .map(|n| party(&format!("2001:db8:1:{n:x}::1"), None))
            .collect();
        assert_eq!(taken(&pool, &site).len(), 16, "one /48");
        let all: Vec<_> = (0..20)
            .map(|n| party(&format!("192.0.{n}.1"), None))
            .collect();
        let held = taken(&pool, &all);
        assert_eq!(held.len(), 32);
        assert!(pool.enter(&party("192.0.2.1", Some("ada"))).is_ok());
    }

    #[test]
    fn users_and_strangers_behind_one_proxy_have_shares_of_their_own() {
        let pool = Pool::new(64);
        let users: Vec<_> = (0..20)
            .map(|n| party("192.0.2.1", Some(&format!("user-{n}"))))
            .collect();
        let _users = taken(&pool, &users);
        let _strangers = taken(&pool, &[party("192.0.2.1", None)]);
        assert_eq!(pool.held()[&Holder::All], 32 + 8);
    }

    #[test]
    fn what_is_full_for_everybody_is_told_apart() {
        let pool = Pool::new(8);
        let users: Vec<_> = (0..8)
            .map(|n| party(&format!("192.0.{n}.1"), Some(&format!("user-{n}"))))
            .collect();
        let held = taken(&pool, &users);
        assert_eq!(held.len(), 8);
        assert_eq!(
            pool.enter(&party("10.0.0.1", Some("ada"))).unwrap_err(),
            Full::All
        );
    }

    #[test]
    fn an_amount_grows_within_the_share_and_comes_back_whole() {
        let pool = Pool::new(800);
        let mut held = pool.open(&party("192.0.2.1", Some("ada")));
        assert_eq!(held.grow(100), Ok(()));
        assert_eq!(held.grow(1), Err(Full::Share));
        assert_eq!(held.grow(0), Ok(()));
        drop(held);
        assert!(pool.held().is_empty());
    }
}
