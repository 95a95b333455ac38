//! Marks of logouts: until when the sessions of a user are over. Pure.
//!
//! A mark is a moment: all sessions of the user that began at or before it are over. Marks only rise, so marks of several
//! gateways can be joined in any order. Their number is bounded, and a new mark always fits:
//!
//! - the oldest user's mark of a tenant with more than [`MOST_PER_TENANT`] becomes part of the tenant's mark;
//! - the oldest mark of all with more than [`MOST`] becomes part of the floor, which is about every user.
//!
//! Either way sessions end that began before the oldest mark, and none goes on that was logged out.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::subject::Key;
use crate::session::life;

/// Most marks of one ConfigMap; 70 bytes each.
pub const MOST: usize = 1024;
/// Most marks of users of one tenant.
pub const MOST_PER_TENANT: usize = 32;
/// Most keys that one write removes from the ConfigMap.
pub const MOST_REMOVED: usize = 128;
/// Latest moment of a mark, from now: of a session that began as late as it may, by a clock that is ahead. A later one
/// was written by a clock that is wrong, and counts as this.
const LATEST: SignedDuration = SignedDuration::from_mins(5);

/// Key of the floor in a ConfigMap.
const FLOOR: &str = "floor";

/// Contents of a ConfigMap.
pub type Data = BTreeMap<String, String>;

/// Changes to a ConfigMap; `None` removes a key.
pub type Changes = BTreeMap<String, Option<String>>;

/// Marks of one ConfigMap. Moments are milliseconds since 1970.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Marks {
    /// Sessions of every user that began at or before this are over.
    floor: i64,
    of: BTreeMap<Key, i64>,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            floor: i64::MIN,
            of: BTreeMap::new(),
        }
    }
}

/// Returns the mark of a logout: it ends the session that is logged out, and those that began at other gateways, whose
/// clocks may differ by [`life::SKEW`].
pub fn mark(issued_at: Timestamp, now: Timestamp) -> i64 {
    let latest = now.saturating_add(life::SKEW).unwrap_or(now);
    issued_at.max(latest).as_millisecond()
}

impl Marks {
    /// Reads the contents of a ConfigMap. Keys that no gateway wrote are ignored. A value that is not a moment counts as
    /// the latest possible one, and so does a value beyond it: the sessions until now are over, and later ones are not.
    pub fn read(data: &Data, now: Timestamp) -> Self {
        let latest = now.saturating_add(LATEST).unwrap_or(now).as_millisecond();
        let mut marks = Self::default();
        for (text, value) in data {
            let at = value.parse().unwrap_or(latest).min(latest);
            if text == FLOOR {
                marks.floor = at;
            } else if let Some(key) = Key::parse(text) {
                marks.of.insert(key, at);
            }
        }
        marks
    }

    /// Returns the latest moment at or before which sessions of the user are over.
    pub fn latest(&self, key: Key) -> i64 {
        let at = |key| self.of.get(&key).copied().unwrap_or(i64::MIN);
        self.floor.max(at(key)).max(at(key.of_tenant()))
    }

    /// Adds a mark.
    pub fn put(&mut self, key: Key, at: i64) {
        let known = self.of.entry(key).or_insert(at);
        *known = at.max(*known);
    }

    /// Adds all marks of another.
    pub fn join(&mut self, other: &Self) {
        self.floor = self.floor.max(other.floor);
        for (key, at) in &other.of {
            self.put(*key, *at);
        }
    }

    /// Removes the marks that another covers.
    pub fn subtract(&mut self, other: &Self) {
        self.of.retain(|key, at| other.latest(*key) < *at);
        if self.floor <= other.floor {
            self.floor = i64::MIN;
        }
    }

    /// Removes marks whose sessions have ended by themselves, and keeps the bounds.
    pub fn settle(&mut self, now: Timestamp) {
        let over = over_before(now);
        self.of.retain(|_, at| *at >= over);
        self.fold_tenants();
        self.drop_covered();
        if let Some(excess) = self.of.len().checked_sub(MOST).filter(|excess| *excess > 0) {
            self.floor = self.floor.max(oldest(self.of.values().copied(), excess));
            self.drop_covered();
        }
        if self.floor < over {
            self.floor = i64::MIN;
        }
    }

    /// Puts the oldest users' marks of a tenant with too many into the tenant's own.
    fn fold_tenants(&mut self) {
        let mut users: BTreeMap<Key, Vec<i64>> = BTreeMap::new();
        for (key, at) in self.of.iter().filter(|(key, _)| !key.is_of_tenant()) {
            users.entry(key.of_tenant()).or_default().push(*at);
        }
        for (tenant, marks) in users {
            if let Some(excess) = marks
                .len()
                .checked_sub(MOST_PER_TENANT)
                .filter(|excess| *excess > 0)
            {
                self.put(tenant, oldest(marks, excess));
            }
        }
    }

    /// Removes marks that a wider one covers.
    fn drop_covered(&mut self) {
        let (floor, tenants) = (self.floor, self.of.clone());
        self.of.retain(|key, at| {
            let of_tenant = (!key.is_of_tenant())
                .then(|| tenants.get(&key.of_tenant()))
                .flatten();
            *at > floor && of_tenant.is_none_or(|tenant| *at > *tenant)
        });
    }

    /// Returns what must change in a ConfigMap so that it has these marks. Not all that is too much is removed at once.
    pub fn changes(&self, stored: &Data) -> Changes {
        let floor = (self.floor > i64::MIN).then(|| (FLOOR.to_owned(), self.floor));
        let of = self.of.iter().map(|(key, at)| (key.to_text(), *at));
        let wanted: Data = of
            .chain(floor)
            .map(|(key, at)| (key, at.to_string()))
            .collect();
        let removed = stored
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .take(MOST_REMOVED)
            .map(|key| (key.clone(), None));
        let set = wanted
            .iter()
            .filter(|(key, value)| stored.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), Some(value.clone())));
        removed.chain(set).collect()
    }
}

/// Applies changes to the contents of a ConfigMap, as the API server does.
pub fn apply(data: &mut Data, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => data.insert(key.clone(), value.clone()),
            None => data.remove(key),
        };
    }
}

/// Returns the latest of so many of the oldest; `count` is at least one and not more than there are.
fn oldest(marks: impl IntoIterator<Item = i64>, count: usize) -> i64 {
    let mut marks: Vec<i64> = marks.into_iter().collect();
    marks.sort_unstable();
    let at = count.saturating_sub(1);
    marks.get(at).copied().unwrap_or(i64::MIN)
}

/// Returns the moment before which a mark is about no session that could still be alive.
fn over_before(now: Timestamp) -> i64 {
    let life = life::ABSOLUTE + life::SKEW;
    now.saturating_sub(life).unwrap_or(now).as_millisecond()
}

#[cfg(test)]
mod tests;
