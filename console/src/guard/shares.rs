//! How much of what all share one holder may have: so that one person alone keeps nobody out.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What each holder has.
#[derive(Debug)]
pub struct Shares<K> {
    most: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// One of a holder's; given back when dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    holder: K,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// `most` for each.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            held: Arc::default(),
        }
    }

    /// One more, unless the holder has as many as he may.
    pub fn enter(&self, holder: K) -> Option<Share<K>> {
        let mut held = lock(&self.held);
        let count = held.entry(holder.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share {
            holder,
            held: Arc::clone(&self.held),
        })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

/// Nothing that is done under this lock can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_his_own_and_gives_it_back() {
        let shares = Shares::new(1);
        let first = shares.enter("ada").unwrap();
        assert!(shares.enter("ada").is_none());
        assert!(shares.enter("bob").is_some());
        drop(first);
        assert!(shares.enter("ada").is_some());
        assert!(lock(&shares.held).is_empty());
    }
}
