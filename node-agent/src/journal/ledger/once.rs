//! Who has which idempotency key, and who waits for the end of whom.

use std::collections::{BTreeMap, HashMap};

use super::{
    super::{
        mark::Mark,
        record::{Follow, Uid},
        tombstones::Keyed,
    },
    Entry, Ledger, Phase,
};

/// What a result takes besides its output: names, digest, message.
pub const FRAME_BYTES: u64 = 4 * 1024;

/// As bounded as what it is about: an invocation or a tombstone has one key, and who follows is open.
#[derive(Debug, Default)]
pub(super) struct Once {
    /// The first of each key.
    holders: HashMap<[u8; 32], Uid>,
    following: BTreeMap<Uid, Follow>,
}

impl Once {
    /// The last one in the file holds the key: it got it when the one before was forgotten.
    pub(super) fn hold(&mut self, mark: &Mark, uid: &Uid) {
        self.holders.insert(mark.key(), uid.clone());
    }

    pub(super) fn let_go(&mut self, mark: &Mark, uid: &Uid) {
        if self.holders.get(&mark.key()) == Some(uid) {
            self.holders.remove(&mark.key());
        }
    }

    pub(super) fn follow(&mut self, uid: &Uid, follow: &Follow) {
        self.following.insert(uid.clone(), follow.clone());
    }

    pub(super) fn leave(&mut self, uid: &Uid) {
        self.following.remove(uid);
    }

    pub(super) fn is_following(&self, uid: &Uid) -> bool {
        self.following.contains_key(uid)
    }

    pub(super) fn follow_of(&self, uid: &Uid) -> Option<&Follow> {
        self.following.get(uid)
    }
}

/// The first invocation of a key.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    pub uid: &'a Uid,
    pub name: &'a str,
    pub mark: Mark,
}

impl Ledger {
    /// Who came first with this key, for as long as anything is remembered of it.
    pub fn holder(&self, mark: &Mark) -> Option<Holder<'_>> {
        let uid = self.once.holders.get(&mark.key())?;
        let (name, mark) = if let Some(Entry { name, mark, .. }) = self.entries.get(uid) {
            (name, (*mark)?)
        } else {
            let Keyed { name, mark } = self.tombstones.keyed(uid)?;
            (name, *mark)
        };
        Some(Holder { uid, name, mark })
    }

    /// The name of one that waits for the end of another, and what it waits for.
    pub fn following(&self, uid: &Uid) -> Option<(&str, &Follow)> {
        let follow = self.once.following.get(uid)?;
        Some((&self.entries.get(uid)?.name, follow))
    }

    /// All of those.
    pub fn followers(&self) -> impl Iterator<Item = (&Uid, &Follow)> {
        self.once.following.iter()
    }

    /// Who waits for one that ended, or of which nothing is known any more; and which.
    pub fn owed(&self) -> impl Iterator<Item = (&Uid, &Uid)> {
        let followers = self.followers().map(|(uid, follow)| (uid, &follow.first));
        followers.filter(|(_, first)| matches!(self.phase(first), Some(Phase::Ended) | None))
    }

    /// Bytes that the results of those that wait may take.
    pub fn reserved(&self) -> u64 {
        let bytes = |follow: &Follow| u64::from(follow.max_output_bytes) + FRAME_BYTES;
        self.once.following.values().map(bytes).sum()
    }
}
