//! Who waits for an invocation.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::inventory::Name;

/// Those that are waited for. As many as there are who wait, at most.
#[derive(Default)]
pub struct Followers(Mutex<HashMap<Name, watch::Sender<()>>>);

/// Hears of one invocation, until it is dropped.
pub struct Following<'a> {
    followers: &'a Followers,
    name: Name,
    heard: watch::Receiver<()>,
}

impl Followers {
    pub fn follow(&self, name: Name) -> Following<'_> {
        let heard = self.lock().entry(name.clone()).or_default().subscribe();
        Following {
            followers: self,
            name,
            heard,
        }
    }

    pub fn heard(&self, name: &Name) {
        if let Some(heard) = self.lock().get(name) {
            heard.send_replace(());
        }
    }

    /// Perhaps something happened to each of them.
    pub fn heard_of_all(&self) {
        for heard in self.lock().values() {
            heard.send_replace(());
        }
    }

    /// A panic leaves it whole: each change is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following<'_> {
    /// Waits until something was heard of it since the last time, or since it is followed; `false` where nothing was
    /// until then.
    pub async fn changed(&mut self, until: Instant) -> bool {
        matches!(timeout_at(until, self.heard.changed()).await, Ok(Ok(())))
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        let mut waiting = self.followers.lock();
        // This one is still counted.
        if waiting
            .get(&self.name)
            .is_some_and(|heard| heard.receiver_count() <= 1)
        {
            waiting.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[tokio::test(start_paused = true)]
    async fn who_follows_hears_of_it_and_of_nothing_else() {
        let followers = Followers::default();
        let (one, other) = (Name::new("a", "1"), Name::new("a", "2"));
        let mut first = followers.follow(one.clone());
        let mut second = followers.follow(one.clone());
        followers.heard(&other);
        assert!(!first.changed(in_a_minute()).await);
        // Between two looks, too.
        followers.heard(&one);
        followers.heard(&one);
        assert!(first.changed(in_a_minute()).await && second.changed(in_a_minute()).await);
        assert!(!first.changed(in_a_minute()).await);
        followers.heard_of_all();
        assert!(first.changed(in_a_minute()).await);
        drop(first);
        followers.heard(&one);
        assert!(second.changed(in_a_minute()).await);
        drop(second);
        assert!(followers.lock().is_empty());
    }
}
