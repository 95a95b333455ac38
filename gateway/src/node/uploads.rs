//! The artefacts that one device sends over its stream: one at a time, the others wait to be asked for.
//!
//! Where the store fails, an artefact waits for another try until the time of its invocation is over: the command that made
//! it never runs again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use proto::node::{self, gateway_event::Event};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Shared, api, jitter::jitter, metrics::Artefact};
use crate::{
    artefact::upload::{PARTS_AHEAD, Step, Upload},
    clock::now,
    domain::{
        artefact::{Claim, Collector, Odd, Part, Place, WINDOW},
        device::DeviceKey,
        names::is_uid,
    },
};

/// Offers that wait. No device has more invocations at once.
const MAX_OFFERS: usize = 64;
/// Refusals that wait for room.
const MAX_REFUSALS: usize = 16;
/// How long a device may be silent that was asked to send. Then it is the next one's turn.
const QUIET: Duration = Duration::from_secs(30);
/// How long an invocation is waited for that the index does not have: another gateway may have heard of it before.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOKS: usize = 4;
/// How long before one is tried again that the store failed for.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long before the deadline it is tried for the last time. What the store says then is told; past the deadline, the
/// device says that its time was over.
const LAST_TRY: Duration = Duration::from_secs(2);

/// Costs a word while there is nothing.
#[derive(Default)]
pub struct Uploads(Option<Box<Inner>>);

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Offer>,
    active: Option<Active>,
    refusals: VecDeque<Event>,
}

struct Offer {
    /// With the name that the device says, which is not believed.
    place: Place,
    /// How often it was put off, and until when.
    failures: u32,
    begins_at: Instant,
}

struct Active {
    offer: Offer,
    /// The index has the invocation: once it does not any more, that has ended.
    is_seen: bool,
    steps: mpsc::Receiver<Step>,
    parts: mpsc::Sender<Part>,
    gone: CancellationToken,
    /// `None` until the device was asked.
    collector: Option<Collector>,
    /// When it last sent something, or was asked to.
    heard: Instant,
}

impl Uploads {
    /// A device has an artefact.
    pub fn offer(&mut self, shared: &Arc<Shared>, device: &DeviceKey, offer: node::ArtefactOffer) {
        let node::ArtefactOffer {
            uid,
            name,
            artefact,
        } = offer;
        let claimed = match &shared.settings.artefacts {
            None => Err("the gateways have no store for artefacts".to_owned()),
            Some(artefacts) => Claim::read(&artefact.unwrap_or_default(), artefacts.max_bytes),
        };
        let inner = self.0.get_or_insert_default();
        let is_known = inner.waiting.iter().any(|offer| offer.place.uid == uid)
            || inner
                .active
                .as_ref()
                .is_some_and(|active| active.offer.place.uid == uid);
        if is_known || !is_uid(&uid) {
            return;
        }
        let claim = match claimed {
            Ok(_) if inner.waiting.len() >= MAX_OFFERS => {
                Err("this device offers too many artefacts at once".to_owned())
            }
            claimed => claimed,
        };
        match claim {
            Ok(claim) => inner.waiting.push_back(Offer {
                place: Place {
                    namespace: device.namespace.clone(),
                    name,
                    uid,
                    claim,
                },
                failures: 0,
                begins_at: Instant::now(),
            }),
            Err(message) => inner.refuse(shared, uid, message),
        }
        inner.begin(shared, device);
    }

    /// A piece of what it was asked for. What nobody asked for is no use.
    pub fn chunk(&mut self, shared: &Arc<Shared>, device: &DeviceKey, chunk: &node::ArtefactChunk) {
        let Some(inner) = &mut self.0 else { return };
        let Some(active) = inner
            .active
            .as_mut()
            .filter(|active| active.offer.place.uid == chunk.uid)
        else {
            return;
        };
        let Some(collector) = &mut active.collector else {
            return;
        };
        active.heard = Instant::now();
        let sent = collector.take(chunk.offset, &chunk.data).and_then(|parts| {
            let mut parts = parts.into_iter();
            // As many wait as it may be ahead.
            parts.try_for_each(|part| active.parts.try_send(part).map_err(|_| Odd::NotAsked))
        });
        if let Err(odd) = sent {
            let uid = active.offer.place.uid.clone();
            inner.let_go();
            inner.refuse(shared, uid, odd.to_string());
            inner.begin(shared, device);
        }
    }

    /// Nobody wants the artefact of that invocation any more.
    pub fn forget(&mut self, shared: &Arc<Shared>, device: &DeviceKey, uid: &str) {
        let Some(inner) = &mut self.0 else { return };
        inner.waiting.retain(|offer| offer.place.uid != uid);
        if inner
            .active
            .as_ref()
            .is_some_and(|active| active.offer.place.uid == uid)
        {
            inner.let_go();
            inner.begin(shared, device);
        }
    }

    /// Lets go of what is sent for an invocation that has ended meanwhile.
    pub fn look(&mut self, shared: &Arc<Shared>, device: &DeviceKey) {
        let sent = self.0.as_mut().and_then(|inner| inner.active.as_mut());
        let Some(active) = sent.filter(|active| active.collector.is_some()) else {
            return;
        };
        let uid = active.offer.place.uid.clone();
        if shared.index.invocations.find(device, &uid).is_some() {
            active.is_seen = true;
        } else if active.is_seen {
            self.forget(shared, device, &uid);
            if let Some(inner) = &mut self.0 {
                inner.refuse(shared, uid, "the invocation has ended".to_owned());
            }
        }
    }

    /// Waits for something to tell the device. Never ends while there is nothing.
    pub async fn next(&mut self) -> Option<Step> {
        let active = self.0.as_mut().and_then(|inner| inner.active.as_mut());
        match active {
            Some(active) => active.steps.recv().await,
            None => std::future::pending().await,
        }
    }

    /// What to tell the device. `None` as a step: the upload broke.
    pub fn note(
        &mut self,
        shared: &Arc<Shared>,
        device: &DeviceKey,
        step: Option<Step>,
    ) -> Option<Event> {
        let inner = self.0.as_mut()?;
        let active = inner.active.as_mut()?;
        let uid = active.offer.place.uid.clone();
        let step =
            step.unwrap_or_else(|| Step::Refused("the gateway failed: see its log".to_owned()));
        let event = match step {
            Step::Want(offset) => {
                let size = active.offer.place.claim.size;
                let collector = active
                    .collector
                    .get_or_insert_with(|| Collector::new(size, offset));
                collector.ask(offset);
                active.heard = Instant::now();
                return Some(Event::ArtefactWanted(node::ArtefactWanted {
                    uid,
                    offset,
                    window_bytes: u32::try_from(WINDOW).unwrap_or(u32::MAX),
                }));
            }
            Step::Stored => {
                shared.metrics.artefact(Artefact::Stored);
                Some(Event::ArtefactStored(node::ArtefactStored { uid }))
            }
            Step::Refused(message) => Some(refused(shared, uid, message)),
            Step::PutOff(why) => {
                let open = shared.index.invocations.find(device, &uid);
                let left = open.map(|entry| {
                    let left = entry.invocation.deadline().duration_since(now());
                    Duration::try_from(left).unwrap_or_default()
                });
                match again_after(device, active.offer.failures, left) {
                    Some(wait) => {
                        inner.put_off(shared, device, &why, wait);
                        None
                    }
                    None => Some(refused(shared, uid, why)),
                }
            }
        };
        inner.active = None;
        inner.begin(shared, device);
        event
    }

    /// A refusal that waits to be told.
    pub fn refusal(&mut self) -> Option<Event> {
        self.0.as_mut()?.refusals.pop_front()
    }

    /// When [`Self::tick`] is due.
    pub fn due(&self) -> Option<Instant> {
        let inner = self.0.as_ref()?;
        let Some(active) = &inner.active else {
            return inner.waiting.iter().map(|offer| offer.begins_at).min();
        };
        let awaits = active.collector.as_ref().is_some_and(Collector::awaits);
        awaits.then(|| active.heard + QUIET)
    }

    /// One that was asked and is silent makes room for the next, and is asked again after it.
    pub fn tick(&mut self, shared: &Arc<Shared>, device: &DeviceKey) {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        let Some(inner) = &mut self.0 else { return };
        if let Some(active) = inner.active.take() {
            let Active { offer, .. } = active;
            tracing::debug!(%device, uid = offer.place.uid, "Artefact given up for now: the device sends nothing");
            inner.waiting.push_back(offer);
        }
        inner.begin(shared, device);
    }
}

impl Inner {
    fn let_go(&mut self) {
        if let Some(active) = self.active.take() {
            active.gone.cancel();
        }
    }

    /// Lets the others of the device have their turn before.
    fn put_off(&mut self, shared: &Shared, device: &DeviceKey, why: &str, wait: Duration) {
        let Some(Active { mut offer, .. }) = self.active.take() else {
            return;
        };
        shared.metrics.artefact(Artefact::PutOff);
        tracing::debug!(%device, uid = offer.place.uid, why, "Artefact put off");
        offer.failures = offer.failures.saturating_add(1);
        offer.begins_at = Instant::now() + wait;
        self.waiting.push_back(offer);
    }

    fn refuse(&mut self, shared: &Shared, uid: String, message: String) {
        // Who offers that much that is refused hears of the rest on its next stream.
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(refused(shared, uid, message));
        }
    }

    fn begin(&mut self, shared: &Arc<Shared>, device: &DeviceKey) {
        let Some(artefacts) = &shared.settings.artefacts else {
            return;
        };
        if self.active.is_some() {
            return;
        }
        let now = Instant::now();
        let next = self.waiting.iter().position(|offer| offer.begins_at <= now);
        let Some(offer) = next.and_then(|next| self.waiting.remove(next)) else {
            return;
        };
        let (steps_sender, steps) = mpsc::channel(1);
        let (parts, parts_receiver) = mpsc::channel(PARTS_AHEAD);
        let gone = CancellationToken::new();
        let place = offer.place.clone();
        self.active = Some(Active {
            offer,
            is_seen: false,
            steps,
            parts,
            gone: gone.clone(),
            collector: None,
            heard: Instant::now(),
        });
        let artefacts = artefacts.clone();
        let (node, device) = (Arc::clone(shared), device.clone());
        let work = async move {
            let name = match name_of(&node, &device, &place).await {
                Ok(name) => name,
                Err(step) => {
                    let _ = steps_sender.send(step).await;
                    return;
                }
            };
            let upload = Upload {
                artefacts,
                place: Place { name, ..place },
                steps: steps_sender,
                parts: parts_receiver,
                gone,
            };
            upload.run().await;
        };
        let stop = shared.stop.clone();
        shared.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// The name of an open invocation of that device. What the index does not have yet is waited for, and looked up then: the
/// watch may be far behind, right after the device came from another gateway.
async fn name_of(shared: &Shared, device: &DeviceKey, place: &Place) -> Result<String, Step> {
    for look in 0..=LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        if let Some(entry) = shared.index.invocations.find(device, &place.uid) {
            return Ok(entry.invocation.name.clone());
        }
    }
    let found = shared
        .requests
        .invocation(&device.namespace, &place.name)
        .await;
    match found {
        Ok(Some(found))
            if found.uid == place.uid
                && found.device == *device
                && !found.phase().is_terminal() =>
        {
            Ok(found.name)
        }
        Ok(_) | Err(api::Error::Gone | api::Error::Unreadable) => Err(Step::Refused(
            "this device has no open invocation of that uid: it has ended, or was deleted"
                .to_owned(),
        )),
        Err(error) => Err(Step::PutOff(format!(
            "the gateway cannot look at its invocation: {error}"
        ))),
    }
}

/// How long before it is tried again that so often failed, where so much of its invocation's time is left. `None`: not at
/// all.
fn again_after(device: &DeviceKey, failures: u32, left: Option<Duration>) -> Option<Duration> {
    let wait = FIRST_RETRY
        .saturating_mul(1 << failures.min(10))
        .min(LAST_RETRY)
        .mul_f64(jitter(device, failures));
    match left.map(|left| left.saturating_sub(LAST_TRY)) {
        Some(Duration::ZERO) => None,
        Some(left) => Some(wait.min(left)),
        None => Some(wait),
    }
}

fn refused(shared: &Shared, uid: String, message: String) -> Event {
    shared.metrics.artefact(Artefact::Refused);
    Event::ArtefactRefused(node::ArtefactRefused { uid, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_the_store_failed_for_is_tried_until_its_time_is_over() {
        let device = DeviceKey::new("kitchen", "lamp-1");
        let after = |failures, left: Option<u64>| {
            again_after(&device, failures, left.map(Duration::from_secs))
        };
        for failures in [0, 1, 5, u32::MAX] {
            let wait = after(failures, None).unwrap();
            assert!((FIRST_RETRY / 2..=LAST_RETRY).contains(&wait), "{wait:?}");
        }
        assert_eq!(
            after(10, Some(5)),
            Some(Duration::from_secs(3)),
            "a last time"
        );
        assert_eq!(after(0, Some(2)), None);
    }
}
