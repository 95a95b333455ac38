//! The last changes, and where they begin.

use std::{collections::VecDeque, mem::size_of, sync::Arc};

use console_api::event::ConsoleEvent;

use super::{Change, EventId, Kind};

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub changes: usize,
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            changes: 4096,
            bytes: 8 * 1024 * 1024,
        }
    }
}

/// A change that was told.
#[derive(Debug)]
pub struct Entry {
    pub kind: Kind,
    /// Who has been told up to this version has been told this.
    pub version: u64,
    /// Up to where who is told this has been told. Less than `version` for all but the last of changes that were found
    /// together: which of them came first is not known, so who has been told one of them is told all of them elsewhere.
    pub reaches: u64,
    pub namespace: Arc<str>,
    pub name: &'static str,
    pub data: Arc<str>,
}

/// See the [module](super).
pub struct Ring {
    bounds: Bounds,
    entries: VecDeque<Entry>,
    /// The place of the first entry; the next place is after the last.
    first: u64,
    bytes: usize,
    /// Changes of a kind up to that version are not here any more.
    floor: EventId,
    /// All changes of a kind up to that version have been told.
    head: EventId,
    /// Counts how often it was begun anew.
    begun: u64,
    /// Where the API server went back, from which version and to which: it was restored, and what it said of the
    /// versions in between holds no more.
    went_back: [Option<(u64, u64)>; Kind::ALL.len()],
}

impl Ring {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            floor: EventId::NOTHING,
            head: EventId::NOTHING,
            begun: 0,
            went_back: [None; Kind::ALL.len()],
        }
    }

    pub fn head(&self) -> EventId {
        self.head
    }

    /// The place after the last.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// Where the ring begins, for who has been told that much; `None` where something of it is not here any more.
    pub fn place(&self, told: EventId, kinds: impl IntoIterator<Item = Kind>) -> Option<u64> {
        let mut kinds = kinds.into_iter();
        let reaches_back = |kind: Kind| {
            let told = told.of(kind);
            let is_void =
                self.went_back[kind as usize].is_some_and(|(from, to)| to < told && told <= from);
            self.floor.of(kind) <= told && told > 0 && !is_void
        };
        kinds.all(reaches_back).then_some(self.first)
    }

    /// From a place on; `None` where that is not here any more.
    pub fn from(&self, place: u64) -> Option<impl Iterator<Item = &Entry>> {
        let skip = usize::try_from(place.checked_sub(self.first)?).ok()?;
        Some(self.entries.range(skip.min(self.entries.len())..))
    }

    pub fn tell(&mut self, kind: Kind, version: u64, changes: Vec<Change>) {
        let before = self.head.of(kind);
        let last = changes.len().saturating_sub(1);
        for (nth, change) in changes.into_iter().enumerate() {
            let Some(data) = data(&change.event) else {
                continue;
            };
            self.push(Entry {
                kind,
                version,
                reaches: if nth == last { version } else { before },
                namespace: change.namespace,
                name: change.event.name(),
                data,
            });
        }
        self.reached(kind, version);
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += size(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > self.bounds.changes || self.bytes > self.bounds.bytes {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.first += 1;
            self.bytes -= size(&oldest);
            self.floor.reach(oldest.kind, oldest.version);
        }
    }

    pub fn reached(&mut self, kind: Kind, version: u64) {
        self.head.reach(kind, version);
    }

    pub fn begin(&mut self, kind: Kind, version: u64) {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        self.bytes = 0;
        self.begun += 1;
        let before = std::mem::take(&mut self.head);
        if version < before.of(kind) {
            self.went_back[kind as usize] = Some((before.of(kind), version));
        }
        for other in Kind::ALL {
            let head = if other == kind {
                version
            } else {
                before.of(other)
            };
            self.head.reach(other, head);
        }
        self.floor = self.head;
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn data(event: &ConsoleEvent) -> Option<Arc<str>> {
    event
        .data()
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, event = event.name(), "A change cannot be written");
        })
        .ok()
        .map(Into::into)
}

/// What an entry holds. The namespace is shared with the index.
fn size(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len()
}
