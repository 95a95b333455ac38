//! How much of a device is taken, and by what.

use std::collections::BTreeSet;

use crds::v1alpha1::capability_invocation::InvocationPhase;

use super::{Dispatcher, MAX_FLIGHTS, RESERVED_ROOM};
use crate::{
    domain::{invocation::OpenInvocation, register::Declared},
    node::{flight::Flight, outbox::Outbox},
};

impl Dispatcher {
    /// Whether the device takes one more, of whatever capability.
    pub(super) fn has_place(&mut self, declared: &Declared, outbox: &Outbox) -> bool {
        if outbox.room() <= RESERVED_ROOM {
            self.wants_room = true;
            return false;
        }
        self.flights.len() < MAX_FLIGHTS && self.places_left(declared) > 0
    }

    fn places_left(&self, declared: &Declared) -> usize {
        let most = declared.concurrency.min(self.shared.settings.in_flight);
        most.saturating_sub(self.carried().count())
    }

    /// Whether the device runs as many of its capability as it does at once. Those about which it asks a person do not
    /// run; of those with one idempotency key, one does.
    pub(super) fn is_taken(&self, invocation: &OpenInvocation, declared: &Declared) -> bool {
        if invocation.phase() != InvocationPhase::Queued || self.asking.contains(&invocation.uid) {
            // The device has it.
            return false;
        }
        if key_of(invocation).is_some_and(|key| self.knows_key(key))
            && self.places_left(declared) > 1
        {
            // It waits on the device for the first one's end. The last place is for what runs.
            return false;
        }
        let capability = &invocation.spec().capability;
        let mut keys = BTreeSet::new();
        let running = self
            .carried()
            .filter(|flight| !flight.asks)
            .filter_map(|flight| flight.invocation.as_deref())
            .filter(|other| other.spec().capability == *capability)
            .filter(|other| key_of(other).is_none_or(|key| keys.insert(key)));
        running.count() >= declared.concurrency_of(capability)
    }

    /// Whether the device knows the key from this stream.
    fn knows_key(&self, key: &str) -> bool {
        let known = self.flights.values().filter(|flight| flight.is_known());
        known
            .filter_map(|flight| flight.invocation.as_deref())
            .any(|other| key_of(other) == Some(key))
    }

    fn carried(&self) -> impl Iterator<Item = &Flight> {
        self.flights.values().filter(|flight| flight.takes_place())
    }
}

/// Its idempotency key. An empty one is none.
fn key_of(invocation: &OpenInvocation) -> Option<&str> {
    let key = invocation.spec().idempotency_key.as_deref();
    key.filter(|key| !key.is_empty())
}
