//! What many objects have alike is kept once: in a fleet, that is most of what a device says.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher as _, Hasher, RandomState},
    io,
    sync::Arc,
};

use crds::v1alpha1::device::DeviceCapability;
use serde::Serialize;

use super::Software;

/// Fewest kept values at which it is looked which of them nobody holds any more.
const SWEEP_AT: usize = 1024;

/// Hands out the one copy of a value. What nobody holds any more is dropped in time: what is kept is at most twice
/// what is held, and [`SWEEP_AT`].
#[derive(Default)]
pub struct Interner {
    texts: Texts,
    pub(super) labels: Values<BTreeMap<String, String>>,
    pub(super) software: Values<Software>,
    pub(super) capabilities: Values<Vec<DeviceCapability>>,
}

#[derive(Default)]
struct Texts {
    kept: HashSet<Arc<str>>,
    sweep_at: usize,
}

/// Values are told apart by what is written of them, then by comparison.
pub(super) struct Values<T> {
    kept: HashMap<u64, Vec<Arc<T>>>,
    count: usize,
    sweep_at: usize,
    state: RandomState,
}

impl Interner {
    pub fn text(&mut self, text: &str) -> Arc<str> {
        let Texts { kept, sweep_at } = &mut self.texts;
        if let Some(known) = kept.get(text) {
            return Arc::clone(known);
        }
        if kept.len() >= (*sweep_at).max(SWEEP_AT) {
            kept.retain(|text| Arc::strong_count(text) > 1);
            kept.shrink_to_fit();
            *sweep_at = kept.len() * 2;
        }
        let new: Arc<str> = text.into();
        kept.insert(Arc::clone(&new));
        new
    }
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self {
            kept: HashMap::new(),
            count: 0,
            sweep_at: SWEEP_AT,
            state: RandomState::new(),
        }
    }
}

impl<T: Clone + PartialEq + Serialize> Values<T> {
    pub(super) fn get(&mut self, value: &T) -> Arc<T> {
        let mut hashed = Hashed(self.state.build_hasher());
        // A value that cannot be written is one of few that share a place; it is compared all the same.
        let _ = serde_json::to_writer(&mut hashed, value);
        let hash = hashed.0.finish();
        let alike = self.kept.get(&hash).into_iter().flatten();
        if let Some(known) = alike.into_iter().find(|known| ***known == *value) {
            return Arc::clone(known);
        }
        if self.count >= self.sweep_at {
            self.sweep();
        }
        let new = Arc::new(value.clone());
        self.kept.entry(hash).or_default().push(Arc::clone(&new));
        self.count += 1;
        new
    }

    fn sweep(&mut self) {
        self.kept.retain(|_, alike| {
            alike.retain(|value| Arc::strong_count(value) > 1);
            !alike.is_empty()
        });
        self.count = self.kept.values().map(Vec::len).sum();
        self.sweep_at = (self.count * 2).max(SWEEP_AT);
    }
}

/// Hashes what is written to it.
struct Hashed<H>(H);

impl<H: Hasher> io::Write for Hashed<H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_is_kept_once() {
        let mut interner = Interner::default();
        assert!(Arc::ptr_eq(&interner.text("a"), &interner.text("a")));
        let mut values = Values::default();
        let kept = values.get(&vec!["x"]);
        assert!(Arc::ptr_eq(&kept, &values.get(&vec!["x"])));
        assert_eq!(*values.get(&vec!["y"]), ["y"]);
    }

    #[test]
    fn what_nobody_holds_is_dropped() {
        let mut interner = Interner::default();
        let mut values = Values::default();
        let (held, kept) = (interner.text("held"), values.get(&usize::MAX));
        for n in 0..10 * SWEEP_AT {
            interner.text(&n.to_string());
            values.get(&n);
        }
        assert!(interner.texts.kept.len() <= 2 * SWEEP_AT);
        assert!(values.count <= 2 * SWEEP_AT);
        assert!(Arc::ptr_eq(&held, &interner.text("held")));
        assert!(Arc::ptr_eq(&kept, &values.get(&usize::MAX)));
    }
}
