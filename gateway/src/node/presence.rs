//! Writes when a device's session starts, changes and ends.
//!
//! One write at a time for each device, a bounded number at once for all. A write that fails is tried again for as long
//! as it is of use; what changed meanwhile goes with it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;

use super::{Shared, api, jitter::jitter, orphans};
use crate::{
    clock::now,
    domain::{
        device::{DeviceKey, KnownDevice},
        grants::{schema_bytes, shown},
        invocation::{Moment, OpenInvocation},
        register::Declared,
        session::{self, Change},
    },
    heavy,
};

/// How often one write is based anew on what another one wrote.
const CONFLICTS: usize = 8;
/// A device that changes what it declares is not written more often than this.
const BETWEEN_UPDATES: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long an end is tried. After that the device's next session, or the gateway's own end, says it.
const END_TIME: Duration = Duration::from_mins(10);

/// The session of one stream, as the Device shows it.
pub struct Session {
    shared: Arc<Shared>,
    key: DeviceKey,
    /// From when on something is to be written.
    wanted: Option<Instant>,
    attempt: Option<Attempt>,
    failures: u32,
    /// What was written of the start.
    start: Option<Written>,
    tried: Arc<Tried>,
}

/// What may have been written: a request whose answer was lost may have arrived.
#[derive(Default)]
struct Tried {
    /// Nought where nothing was tried.
    epoch: AtomicI64,
    /// The Device showed a session that had not ended. What its gateway sent it may not have marked: it may be gone.
    takes_over: AtomicBool,
}

/// A write about a session.
struct Written {
    epoch: i64,
    moment: Moment,
}

type Attempt = Pin<Box<dyn Future<Output = Result<Option<Written>, api::Error>> + Send>>;

impl Session {
    /// A session whose start is to be written.
    pub fn new(shared: Arc<Shared>, key: DeviceKey) -> Self {
        Self {
            shared,
            key,
            wanted: Some(Instant::now()),
            attempt: None,
            failures: 0,
            start: None,
            tried: Arc::default(),
        }
    }

    /// The epoch that the Device shows, once it does.
    pub fn epoch(&self) -> Option<i64> {
        self.start.as_ref().map(|start| start.epoch)
    }

    /// Since when the Device shows the session, once it does: as the API server answered, for the index brings it later.
    pub fn shown(&self) -> Option<&Moment> {
        self.start.as_ref().map(|start| &start.moment)
    }

    /// What the device is told its epoch is: the one that is written, or about to be.
    pub fn likely_epoch(&self) -> i64 {
        match (self.epoch(), self.tried.epoch.load(Ordering::Acquire)) {
            (Some(epoch), _) => epoch,
            (None, tried) if tried > 0 => tried,
            (None, _) => {
                let device = self.shared.index.devices.get(&self.key);
                let session = device.and_then(|device| Some(device.status.session.as_ref()?.epoch));
                session.unwrap_or(0).saturating_add(1)
            }
        }
    }

    /// What the device declares, or may, has changed.
    pub fn changed(&mut self) {
        if self.wanted.is_none() {
            self.wanted = Some(Instant::now() + BETWEEN_UPDATES);
        }
    }

    /// Whether the Device may show something else than what is so. Only once it shows this session: before, the index
    /// lags behind our own write. Where it would take long to find out, the write finds out, and writes nothing where
    /// nothing differs.
    pub fn may_differ(&self, device: &KnownDevice, declared: &Declared) -> bool {
        let Shared {
            settings, known, ..
        } = &*self.shared;
        self.epoch().is_some_and(|epoch| {
            let change = Change::Update { declared, epoch };
            !is_quick(device, declared)
                || session::plan(device, &settings.gateway, change, known, now()).is_some()
        })
    }

    /// When [`Self::begin`] is due.
    pub fn due(&self) -> Option<Instant> {
        self.wanted.filter(|_| self.attempt.is_none())
    }

    /// Begins what is due, if nothing is under way.
    pub fn begin(&mut self, declared: &Arc<Declared>) {
        if self.attempt.is_some() || self.wanted.is_none_or(|wanted| wanted > Instant::now()) {
            return;
        }
        self.wanted = None;
        let (shared, key, declared) = (
            Arc::clone(&self.shared),
            self.key.clone(),
            Arc::clone(declared),
        );
        let (epoch, tried) = (self.epoch(), Arc::clone(&self.tried));
        self.attempt = Some(Box::pin(async move {
            let change = match epoch {
                None => Change::Start {
                    declared: &declared,
                },
                Some(epoch) => Change::Update {
                    declared: &declared,
                    epoch,
                },
            };
            write(&shared, &key, change, &tried).await
        }));
    }

    /// Waits until what is under way is done. Never ends while nothing is.
    pub async fn drive(&mut self) {
        let result = poll_fn(|context| match &mut self.attempt {
            Some(attempt) => attempt.as_mut().poll(context),
            None => Poll::Pending,
        })
        .await;
        self.attempt = None;
        self.settle(result);
    }

    fn settle(&mut self, result: Result<Option<Written>, api::Error>) {
        match result {
            Ok(written) => {
                self.failures = 0;
                // Of the same epoch as what is written later.
                self.start = self.start.take().or(written);
            }
            // The watch says so too, and the stream is cut.
            Err(api::Error::Gone) => self.failures = 0,
            Err(error) => {
                if self.failures == 0 {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, device = %self.key, "Writing the session failed and is tried again");
                }
                self.wanted = Some(Instant::now() + retry_after(&self.key, self.failures));
                self.failures = self.failures.saturating_add(1);
            }
        }
    }

    /// The epoch of the session with this gateway that the Device shows as open.
    fn open_before(&self) -> Option<i64> {
        let device = self.shared.index.devices.get(&self.key)?;
        let session = device.status.session.as_ref()?;
        (session.gateway == self.shared.settings.gateway && session.ended_at.is_none())
            .then_some(session.epoch)
    }

    /// Writes the end, if the session was ever written. Gives up when a newer stream of the device says more.
    ///
    /// Whoever sees the end takes what is queued for never sent. What this stream sent is marked by now; what the one
    /// before it may have sent is marked here, if that one did not come to say so itself.
    pub async fn end(mut self) {
        if self.tried.epoch.load(Ordering::Acquire) == 0 {
            // Nothing left this process: a device that came and went while it waited for its turn costs no write, unless
            // the stream before this one left its session open, for this one to say more.
            if let Some(epoch) = self.open_before() {
                orphans::mark(&self.shared, &self.key, |_| true).await;
                end(&self.shared, &self.key, epoch).await;
            }
            return;
        }
        // A request that is under way may arrive whatever we do: first it, then the end.
        if self.attempt.is_some() {
            self.drive().await;
        }
        if self.tried.takes_over.load(Ordering::Acquire) {
            let shown = self.shown();
            let is_older = |invocation: &OpenInvocation| {
                shown.is_none_or(|shown| invocation.may_be_older_than(shown))
            };
            orphans::mark(&self.shared, &self.key, is_older).await;
        }
        let tried = self.tried.epoch.load(Ordering::Acquire);
        end(&self.shared, &self.key, tried).await;
    }
}

/// Writes the end of the session of that epoch, or of an earlier one of this gateway.
pub async fn end(shared: &Shared, key: &DeviceKey, epoch: i64) {
    let give_up = Instant::now() + END_TIME;
    let ignored = Tried::default();
    let mut failures = 0;
    while !shared.live.contains(key) {
        match write(shared, key, Change::End { epoch }, &ignored).await {
            Ok(_) | Err(api::Error::Gone) => return,
            Err(error) => {
                if Instant::now() > give_up {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, device = %key, "The end of the session could not be written");
                    return;
                }
                tokio::time::sleep(retry_after(key, failures)).await;
                failures += 1;
            }
        }
    }
}

/// Writes one change; returns what was written. `None`: there was nothing to write.
async fn write(
    shared: &Shared,
    key: &DeviceKey,
    change: Change<'_>,
    tried: &Tried,
) -> Result<Option<Written>, api::Error> {
    if let Change::Start { declared } | Change::Update { declared, .. } = change {
        // Before a place is taken, for others wait for those.
        compare(shared, key, declared).await?;
    }
    let _place = shared.requests.session_place().await;
    let is_start = matches!(change, Change::Start { .. });
    let mut known = shared.index.devices.get(key);
    for _ in 0..CONFLICTS {
        let device = match known.take() {
            Some(device) => device,
            None => Arc::new(shared.requests.device(key).await?.ok_or(api::Error::Gone)?),
        };
        let gateway = &shared.settings.gateway;
        let Some(pieces) = session::plan(&device, gateway, change, &shared.known, now()) else {
            return Ok(None);
        };
        tried.epoch.fetch_max(pieces.epoch, Ordering::AcqRel);
        let before = device.status.session.as_ref();
        if before.is_some_and(|session| session.ended_at.is_none()) {
            tried.takes_over.fetch_or(is_start, Ordering::AcqRel);
        }
        match shared.requests.write_device(&device, &pieces).await {
            Ok(version) => {
                return Ok(Some(Written {
                    epoch: pieces.epoch,
                    moment: Moment { at: now(), version },
                }));
            }
            // The index lags, or the operator wrote: look at what is there.
            Err(api::Error::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(api::Error::Conflict)
}

fn is_quick(device: &KnownDevice, declared: &Declared) -> bool {
    heavy::is_small(schema_bytes(&declared.capabilities, &device.status))
}

/// Compares what the device declares with what was granted, on another thread where that may take long: what follows finds
/// the verdicts.
async fn compare(shared: &Shared, key: &DeviceKey, declared: &Declared) -> Result<(), api::Error> {
    let Some(device) = shared.index.devices.get(key) else {
        return Ok(());
    };
    if is_quick(&device, declared) {
        return Ok(());
    }
    let (known, declared) = (shared.known.clone(), declared.capabilities.clone());
    let compare = move || drop(shown(&declared, &device.spec, &device.status, &known));
    let compared = shared.heavy.run(key.to_string(), compare).await;
    compared.map_err(|_| api::Error::Busy)
}

/// Longer each time, and different for each device.
fn retry_after(device: &DeviceKey, failures: u32) -> Duration {
    let wait = FIRST_RETRY
        .saturating_mul(1 << failures.min(10))
        .min(LAST_RETRY);
    wait.mul_f64(jitter(device, failures))
}
