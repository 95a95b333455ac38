//! Sends outputs to the gateway at hand, as it asks for them.
//!
//! A task of its own, with what it is to do in [`Uploads`]: the loop changes that and never waits. Half of the places in
//! the stream's queue are left to results and heartbeats, whatever the size of an output.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::node::{self, DeviceEvent, device_event::Event as ToGateway};
use tokio::sync::{Notify, mpsc};

use super::plan::Event;
use crate::{capability::spool::Spools, journal::Uid};

/// Longest chunk.
const CHUNK: u64 = 64 * 1024;

/// What is to be sent. Cheap to clone. As bounded as the journal, which knows of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Uploads(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    outbound: Option<mpsc::Sender<DeviceEvent>>,
    outputs: BTreeMap<Uid, node::ArtefactOffer>,
    /// Offered on the stream at hand.
    offered: BTreeSet<Uid>,
    /// What the gateway at hand asks for.
    asked: BTreeMap<Uid, Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    /// From where it asked last.
    from: u64,
    /// What is sent next.
    next: u64,
    /// How far it may be sent.
    until: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Next {
    Offer(Uid, node::ArtefactOffer),
    Chunk { uid: Uid, offset: u64, length: u64 },
}

impl State {
    fn next(&self) -> Option<Next> {
        let new = self
            .outputs
            .iter()
            .find(|(uid, _)| !self.offered.contains(*uid));
        if let Some((uid, offer)) = new {
            return Some(Next::Offer(uid.clone(), offer.clone()));
        }
        let (uid, asked) = self
            .asked
            .iter()
            .find(|(_, asked)| asked.next < asked.until)?;
        Some(Next::Chunk {
            uid: uid.clone(),
            offset: asked.next,
            length: (asked.until - asked.next).min(CHUNK),
        })
    }

    /// Asked for more than before, it goes on; asked for what it was asked for before, it goes back there: what was sent
    /// since then is lost.
    fn want(&mut self, uid: &Uid, from: u64, window: u64) {
        let Some(offer) = self.outputs.get(uid) else {
            return;
        };
        let size = offer
            .artefact
            .as_ref()
            .map_or(0, |artefact| artefact.size_bytes);
        let until = from.saturating_add(window).min(size);
        let asked = self.asked.entry(uid.clone()).or_insert(Asked {
            from,
            next: from,
            until,
        });
        if from <= asked.from {
            asked.next = from;
        }
        asked.next = asked.next.max(from);
        (asked.from, asked.until) = (from, until);
    }

    /// Unless it was asked for otherwise meanwhile.
    fn sent(&mut self, uid: &Uid, offset: u64, length: u64) {
        if let Some(asked) = self.asked.get_mut(uid)
            && asked.next == offset
        {
            asked.next += length;
        }
    }
}

impl Uploads {
    /// There is a stream. Everything is offered again.
    pub fn opened(&self, outbound: mpsc::Sender<DeviceEvent>) {
        self.change(|state| {
            state.outbound = Some(outbound);
            state.offered.clear();
            state.asked.clear();
        });
    }

    pub fn closed(&self) {
        self.change(|state| state.outbound = None);
    }

    /// An output waits to be stored.
    pub fn add(&self, uid: &Uid, result: &node::Result) {
        let offer = node::ArtefactOffer {
            uid: result.uid.clone(),
            name: result.name.clone(),
            artefact: result.artefact.clone(),
        };
        self.change(|state| {
            state.outputs.insert(uid.clone(), offer);
        });
    }

    /// It does not any more.
    pub fn remove(&self, uid: &Uid) {
        self.change(|state| {
            state.outputs.remove(uid);
            state.asked.remove(uid);
            state.offered.remove(uid);
        });
    }

    /// The gateway at hand asks for an output.
    pub fn want(&self, uid: &Uid, from: u64, window: u64) {
        self.change(|state| state.want(uid, from, window));
    }

    /// Sends, until the agent goes. What cannot be read is told to the loop.
    pub async fn run(self, spools: Spools, events: mpsc::Sender<Event>) {
        loop {
            let (next, outbound) = {
                let state = self.state();
                (state.next(), state.outbound.clone())
            };
            let (Some(next), Some(outbound)) = (next, outbound) else {
                self.0.changed.notified().await;
                continue;
            };
            let event = match &next {
                Next::Offer(_, offer) => ToGateway::ArtefactOffer(offer.clone()),
                Next::Chunk {
                    uid,
                    offset,
                    length,
                } => match read(&spools, uid, *offset, *length).await {
                    Ok(data) => ToGateway::ArtefactChunk(node::ArtefactChunk {
                        uid: uid.as_str().to_owned(),
                        offset: *offset,
                        data,
                    }),
                    Err(message) => {
                        self.remove(uid);
                        let uid = uid.clone();
                        if events
                            .send(Event::NotStored { uid, message })
                            .await
                            .is_err()
                        {
                            return;
                        }
                        continue;
                    }
                },
            };
            let room = outbound.max_capacity().div_ceil(2);
            let sent = match outbound.reserve_many(room).await {
                Ok(mut places) => places
                    .next()
                    .map(|place| place.send(DeviceEvent { event: Some(event) })),
                Err(_) => None,
            };
            self.change(|state| {
                let is_same = state
                    .outbound
                    .as_ref()
                    .is_some_and(|other| other.same_channel(&outbound));
                match (sent, next) {
                    // Of another stream.
                    _ if !is_same => {}
                    (None, _) => state.outbound = None,
                    (Some(()), Next::Offer(uid, _)) => {
                        state.offered.insert(uid);
                    }
                    (
                        Some(()),
                        Next::Chunk {
                            uid,
                            offset,
                            length,
                        },
                    ) => state.sent(&uid, offset, length),
                }
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.notify_one();
    }

    /// Each change is whole whenever a panic may have come.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(spools: &Spools, uid: &Uid, offset: u64, length: u64) -> Result<Vec<u8>, String> {
    let (spools, uid) = (spools.clone(), uid.clone());
    let length = usize::try_from(length).unwrap_or_default();
    let read = tokio::task::spawn_blocking(move || spools.read(&uid, offset, length)).await;
    match read {
        Ok(Ok(data)) => Ok(data),
        Ok(Err(error)) => Err(format!(
            "this device cannot read its output back: {}",
            error.kind()
        )),
        Err(_) => Err("this device cannot read its output back".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(size: u64) -> (State, Uid) {
        let uid = Uid::parse("a").unwrap();
        let mut state = State::default();
        let offer = node::ArtefactOffer {
            artefact: Some(node::Artefact {
                size_bytes: size,
                ..node::Artefact::default()
            }),
            ..node::ArtefactOffer::default()
        };
        state.outputs.insert(uid.clone(), offer);
        assert!(matches!(state.next(), Some(Next::Offer(..))));
        state.offered.insert(uid.clone());
        assert_eq!(state.next(), None);
        (state, uid)
    }

    fn send(state: &mut State) -> Option<(u64, u64)> {
        let Some(Next::Chunk {
            uid,
            offset,
            length,
        }) = state.next()
        else {
            return None;
        };
        state.sent(&uid, offset, length);
        Some((offset, length))
    }

    #[test]
    fn it_sends_what_was_asked_for_and_no_more() {
        let (mut state, uid) = state(3 * CHUNK + 5);
        state.want(&uid, 0, 2 * CHUNK);
        assert_eq!(send(&mut state), Some((0, CHUNK)));
        assert_eq!(send(&mut state), Some((CHUNK, CHUNK)));
        assert_eq!(send(&mut state), None, "the window is full");
        state.want(&uid, CHUNK, 2 * CHUNK);
        assert_eq!(send(&mut state), Some((2 * CHUNK, CHUNK)));
        state.want(&uid, 2 * CHUNK, 2 * CHUNK);
        assert_eq!(send(&mut state), Some((3 * CHUNK, 5)));
        assert_eq!(send(&mut state), None, "the end");
    }

    #[test]
    fn asked_for_the_same_again_it_goes_back() {
        let (mut state, uid) = state(4 * CHUNK);
        state.want(&uid, CHUNK, 4 * CHUNK);
        assert_eq!(send(&mut state), Some((CHUNK, CHUNK)));
        state.want(&uid, CHUNK, 4 * CHUNK);
        assert_eq!(send(&mut state), Some((CHUNK, CHUNK)));
        state.want(&uid, 0, 4 * CHUNK);
        assert_eq!(send(&mut state), Some((0, CHUNK)));
    }

    #[test]
    fn what_is_sent_while_it_is_asked_anew_does_not_count() {
        let (mut state, uid) = state(4 * CHUNK);
        state.want(&uid, 0, 4 * CHUNK);
        send(&mut state);
        state.want(&uid, 0, 4 * CHUNK);
        state.sent(&uid, CHUNK, CHUNK);
        assert_eq!(send(&mut state), Some((0, CHUNK)));
    }
}
