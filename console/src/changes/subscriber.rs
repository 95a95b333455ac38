//! One who follows what changes.

use std::sync::Arc;

use console_api::event::ConsoleEvent;
use tokio::sync::watch;

use super::{EventId, Kind, Shared};
use crate::inventory::See;

/// Walks the ring at its own pace.
pub struct Subscriber {
    shared: Arc<Shared>,
    moved: watch::Receiver<()>,
    scope: Option<Box<str>>,
    see: See,
    /// Up to where it has been told.
    told: EventId,
    /// Where it goes on in the ring.
    place: u64,
    /// Which beginning of the ring that place belongs to.
    begun: u64,
    greeting: Greeting,
}

/// What comes before the changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Greeting {
    Hello,
    HelloThenResync,
    Resync,
    Done,
}

/// Something that a subscriber is told, as it goes over the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    pub id: EventId,
    /// [`ConsoleEvent::name`].
    pub event: &'static str,
    /// [`ConsoleEvent::data`].
    pub data: Arc<str>,
}

impl Told {
    /// Of an event that cannot fail to be written: one without data.
    fn of(id: EventId, event: &ConsoleEvent) -> Self {
        Self {
            id,
            event: event.name(),
            data: event.data().unwrap_or_default().into(),
        }
    }
}

impl Subscriber {
    pub(super) fn new(
        shared: Arc<Shared>,
        from: Option<EventId>,
        scope: Option<String>,
        see: See,
    ) -> Self {
        let moved = shared.moved.subscribe();
        let ring = shared.read();
        let (told, place, greeting) = match from {
            None => (ring.head(), ring.end(), Greeting::Hello),
            Some(told) => {
                match ring.place(told, Kind::ALL.into_iter().filter(|kind| sees(see, *kind))) {
                    Some(place) => (told, place, Greeting::Hello),
                    None => (told, ring.end(), Greeting::HelloThenResync),
                }
            }
        };
        let begun = ring.begun();
        drop(ring);
        Self {
            shared,
            moved,
            scope: scope.map(Into::into),
            see,
            told,
            place,
            begun,
            greeting,
        }
    }

    /// Up to where it has been told, or there was nothing to tell it: for an `id` that goes with a sign of life.
    pub fn position(&self) -> EventId {
        self.told
    }

    /// What comes next: first `hello`. Waits until there is something. May be dropped while it waits.
    pub async fn next(&mut self) -> Told {
        loop {
            // Marks what is there as seen, before it is looked at: what comes meanwhile wakes it.
            self.moved.borrow_and_update();
            if let Some(told) = self.poll() {
                return told;
            }
            if self.moved.changed().await.is_err() {
                // Nothing more will change in a process that ends.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What comes next, if it is there.
    pub(super) fn poll(&mut self) -> Option<Told> {
        match self.greeting {
            Greeting::Hello => {
                self.greeting = Greeting::Done;
                return Some(Told::of(self.told, &ConsoleEvent::Hello));
            }
            Greeting::HelloThenResync => {
                self.greeting = Greeting::Resync;
                return Some(Told::of(self.told, &ConsoleEvent::Hello));
            }
            Greeting::Resync => return Some(self.resync()),
            Greeting::Done => {}
        }
        let shared = Arc::clone(&self.shared);
        let ring = shared.read();
        let Some(entries) = ring.from(self.place).filter(|_| ring.begun() == self.begun) else {
            drop(ring);
            return Some(self.resync());
        };
        for entry in entries {
            self.place += 1;
            let is_new = entry.version > self.told.of(entry.kind);
            self.told.reach(entry.kind, entry.reaches);
            let is_in_scope = self
                .scope
                .as_deref()
                .is_none_or(|scope| scope == &*entry.namespace);
            if is_new && is_in_scope && sees(self.see, entry.kind) {
                return Some(Told {
                    id: self.told,
                    event: entry.name,
                    data: Arc::clone(&entry.data),
                });
            }
        }
        // It has heard all there is.
        self.told.reach_all(ring.head());
        None
    }

    /// Goes on where the ring ends.
    fn resync(&mut self) -> Told {
        let ring = self.shared.read();
        self.told = ring.head();
        self.place = ring.end();
        self.begun = ring.begun();
        self.greeting = Greeting::Done;
        Told::of(self.told, &ConsoleEvent::Resync)
    }
}

fn sees(see: See, kind: Kind) -> bool {
    match kind {
        Kind::Device => true,
        Kind::Invocation => see.invocations,
        Kind::Request => see.pairings,
    }
}
