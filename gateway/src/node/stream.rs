//! One device's stream: one task, one loop.
//!
//! The loop is told to look and looks at the index; it is never sent what happened. It hears the device only while it
//! has room to answer, so that whoever does not read is not read either, and is cut.

#[cfg(feature = "played")]
pub mod played;

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use crds::v1alpha1::{DeclaredCapability, device::Availability};
use jiff::Timestamp;
use pairing::key::KeyFingerprint;
use proto::node::{self, DeviceEvent, device_event, gateway_event::Event};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status, Streaming};

use super::{
    Shared,
    dispatcher::{Begins, Dispatcher},
    live::{Full, Handle},
    metrics::StreamEnd,
    outbox::{CAPACITY, Outbox},
    presence::Session,
    status::Refusal,
    uploads::Uploads,
};
use crate::{
    clock::now,
    domain::{
        device::{DeviceKey, KnownDevice, admit},
        register::{Declared, Invalid, read_capabilities, schema_bytes},
        session::moved_to,
    },
    hang_up::HangUp,
    heavy::{self, Busy},
    renewal::{Asking, NotRenewed},
};

/// How long a device may take to say Hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Heartbeats that may be missed.
const MISSED_HEARTBEATS: u32 = 3;
/// Room that one message of a device may need for its answers.
const ANSWER_ROOM: usize = 2;
/// How long a device that was told to leave may take beyond the moment that it was given.
pub(super) const LEAVE_TIME: Duration = Duration::from_secs(2);

/// The device at the other end, as its certificate says.
#[derive(Clone, Debug)]
pub struct Caller {
    pub key: DeviceKey,
    pub fingerprint: KeyFingerprint,
    /// Until when its certificate is valid: its stream lasts no longer.
    pub not_after: Timestamp,
    /// Ends its connection.
    pub hang_up: HangUp,
}

/// How a stream ends: by the device, or with a reason.
pub(super) enum End {
    Left,
    Refused(Refusal),
}

impl<R: Into<Refusal>> From<R> for End {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

/// A device that wants a stream.
pub struct Arrival<I = Streaming<DeviceEvent>> {
    pub shared: Arc<Shared>,
    pub caller: Caller,
    pub inbound: I,
    pub outbox: Outbox,
}

/// Serves a stream from Hello to its end, and says in Kubernetes that it began and ended.
///
/// A gateway has tens of thousands of these that do nothing: what is needed at the beginning and at the end alone is
/// boxed, so that it takes no room in between.
pub fn run(arrival: Arrival) -> impl Future<Output = ()> + Send {
    let arrival = Box::new(arrival);
    async move {
        if let Some(mut stream) = Box::pin(arrival.enter()).await {
            let end = match stream.serve().await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            Box::pin(stream.leave(end)).await;
        }
    }
}

impl Arrival {
    async fn enter(mut self: Box<Self>) -> Option<Box<Stream>> {
        match self.hello().await {
            Ok((handle, declared)) => Some(Box::new(Stream::new(*self, handle, declared))),
            Err(end) => {
                self.shared.metrics.stream_ended(end.metric());
                end.hang_up(&self.caller);
                self.outbox.end(end.status());
                None
            }
        }
    }

    /// Hello, with a registration that is known, from a device that is trusted.
    async fn hello(&mut self) -> Result<(Arc<Handle>, Declared), End> {
        let Caller {
            key, fingerprint, ..
        } = &self.caller;
        let first = timeout(HELLO_TIME, self.inbound.message())
            .await
            .map_err(|_| Refusal::NotRegistered)?;
        let Some(device_event::Event::Hello(hello)) = heard(first)?.event else {
            return Err(Refusal::NotRegistered.into());
        };
        let declared = self
            .shared
            .registrations
            .take(key, fingerprint, &hello.registration)
            .ok_or(Refusal::NotRegistered)?;
        admit(self.shared.index.devices.get(key).as_deref(), fingerprint).map_err(Refusal::from)?;
        // Before it takes the place of another stream, whose end is then written.
        let paced = self.shared.pace.session(*fingerprint);
        paced.map_err(Refusal::TooManySessions)?;
        let handle = self.shared.live.insert(key).map_err(Refusal::from)?;
        Ok((handle, declared))
    }
}

fn heard(message: Result<Option<DeviceEvent>, Status>) -> Result<DeviceEvent, End> {
    match message {
        Ok(Some(event)) => Ok(event),
        // Larger than it may be, or no protobuf. Everything else is a connection that broke.
        Err(status) if matches!(status.code(), Code::OutOfRange | Code::Internal) => {
            Err(Refusal::Malformed(status.message().to_owned()).into())
        }
        Ok(None) | Err(_) => Err(End::Left),
    }
}

/// `I`: where the device is heard.
pub(super) struct Stream<I = Streaming<DeviceEvent>> {
    shared: Arc<Shared>,
    caller: Caller,
    inbound: I,
    outbox: Outbox,
    handle: Arc<Handle>,
    declared: Arc<Declared>,
    session: Session,
    dispatcher: Dispatcher,
    /// When the device was last heard.
    heard: Instant,
    /// There may be something new.
    look: bool,
    /// The Device as it was when last looked at.
    device: Option<Arc<KnownDevice>>,
    /// When the device, which was told to leave, is cut.
    leave_at: Option<Instant>,
    /// When the certificate of the connection expires; `None` where that is further away than this clock goes.
    expires_at: Option<Instant>,
    /// The other certificate that it asked for.
    renewal: Option<Renewal>,
    /// What it declares by now, until that is read.
    reading: Option<Reading>,
    /// Outputs that are too large for a result.
    uploads: Uploads,
}

type Capabilities = Vec<(DeclaredCapability, Availability)>;
type Reading = Pin<Box<dyn Future<Output = Result<Result<Capabilities, Invalid>, Busy>> + Send>>;
type Renewal = Pin<Box<dyn Future<Output = Result<node::Renewed, NotRenewed>> + Send>>;

/// What a stream keeps while nothing happens, beside its task.
#[cfg(test)]
pub const RESIDENT: usize = size_of::<Stream>();

impl<I> Stream<I> {
    pub(super) fn new(arrival: Arrival<I>, handle: Arc<Handle>, declared: Declared) -> Self {
        let Arrival {
            shared,
            caller,
            inbound,
            outbox,
        } = arrival;
        shared.metrics.streams.inc();
        let left = Duration::try_from(caller.not_after.duration_since(now())).unwrap_or_default();
        let expires_at = Instant::now().checked_add(left);
        Self {
            session: Session::new(Arc::clone(&shared), caller.key.clone()),
            dispatcher: Dispatcher::new(Arc::clone(&shared), caller.key.clone(), now()),
            shared,
            caller,
            inbound,
            outbox,
            handle,
            declared: Arc::new(declared),
            heard: Instant::now(),
            look: true,
            device: None,
            leave_at: None,
            expires_at,
            renewal: None,
            reading: None,
            uploads: Uploads::default(),
        }
    }
}

impl Stream {
    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        self.welcome().await;
        let mut timer = pin!(sleep_until(Instant::now()));
        loop {
            if self.outbox.is_closed() {
                return Err(End::Left);
            }
            if std::mem::take(&mut self.look) {
                self.look()?;
            }
            let (can_hear, wants_room) = (self.can_hear(), self.wants_room());
            timer.as_mut().reset(self.due());
            tokio::select! {
                () = self.handle.told_to_look() => self.look = true,
                done = self.dispatcher.done() => {
                    self.dispatcher.note(done);
                    self.look = true;
                }
                message = self.inbound.message(), if can_hear => self.hear(heard(message)?)?,
                () = self.session.drive() => self.look = true,
                renewed = drive(&mut self.renewal), if can_hear => self.renewed(renewed)?,
                read = drive(&mut self.reading) => {
                    self.reading = None;
                    // Meanwhile nothing was heard.
                    self.heard = Instant::now();
                    self.declares(read.map_err(Refusal::from)?)?;
                }
                step = self.uploads.next(), if can_hear => {
                    let told = self.uploads.note(&self.shared, &self.caller.key, step);
                    self.tell_of_artefacts(told);
                }
                () = self.outbox.has_room(CAPACITY / 2), if wants_room => self.look = true,
                () = &mut timer => self.tick()?,
            }
        }
    }

    /// Says that the session began, but does not keep the device waiting for an API server that is away.
    async fn welcome(&mut self) {
        self.session.begin(&self.declared);
        let written = timeout(self.shared.settings.welcome_within, self.session.drive()).await;
        if written.is_err() {
            tracing::debug!(device = %self.caller.key, "Welcome goes ahead of the session's start");
        }
        self.say_welcome();
    }
}

impl<I> Stream<I> {
    fn say_welcome(&self) {
        let settings = &self.shared.settings;
        self.outbox.push(Event::Welcome(node::Welcome {
            heartbeat_interval_ms: u32::try_from(settings.heartbeat.as_millis())
                .unwrap_or(u32::MAX),
            epoch: u64::try_from(self.session.likely_epoch()).unwrap_or_default(),
            gateway: settings.gateway.clone(),
            gateways: self.shared.gateways(),
            max_artefact_bytes: settings
                .artefacts
                .as_ref()
                .map_or(0, |artefacts| artefacts.max_bytes),
        }));
    }

    /// Compares what is known with what is so, and does what is to be done.
    fn look(&mut self) -> Result<(), End> {
        if self.handle.is_replaced() {
            return Err(Refusal::Replaced.into());
        }
        let device = self.shared.index.devices.get(&self.caller.key);
        admit(device.as_deref(), &self.caller.fingerprint).map_err(Refusal::from)?;
        let Some(device) = device else { return Ok(()) };
        if let Some(epoch) = self.session.epoch()
            && let Some(gateway) = moved_to(&device, &self.shared.settings.gateway, epoch)
        {
            return Err(Refusal::Moved(gateway.to_owned()).into());
        }
        if self
            .device
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &device))
        {
            if self.session.may_differ(&device, &self.declared) {
                self.session.changed();
            }
            self.device = Some(Arc::clone(&device));
            self.dispatcher.changed();
        }
        self.uploads.look(&self.shared, &self.caller.key);
        self.tell_of_artefacts(None);
        self.leave_when_told();
        if let Some(since) = self.session.shown() {
            self.dispatcher.shown(since);
        }
        let begins = match (self.leave_at, self.session.epoch()) {
            (Some(_), _) => Begins::Nothing,
            (None, None) => Begins::Known,
            (None, Some(_)) => Begins::All,
        };
        self.dispatcher
            .look(&device, &self.declared, &self.outbox, begins);
        Ok(())
    }

    fn leave_when_told(&mut self) {
        if self.leave_at.is_none()
            && let Some(after) = self.handle.drain()
        {
            self.leave_at = Some(Instant::now() + after + LEAVE_TIME);
            let reconnect_after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
            self.outbox
                .push(Event::Drain(node::Drain { reconnect_after_ms }));
        }
    }

    fn hear(&mut self, event: DeviceEvent) -> Result<(), End> {
        self.heard = Instant::now();
        match event.event {
            Some(device_event::Event::Heartbeat(node::Heartbeat {})) => {
                self.outbox.push(Event::HeartbeatAck(node::HeartbeatAck {}));
            }
            Some(device_event::Event::Result(result)) => {
                // It does not wait for that any more.
                self.uploads
                    .forget(&self.shared, &self.caller.key, &result.uid);
                self.dispatcher.result(result);
                self.look = true;
            }
            Some(device_event::Event::AwaitingMediation(node::AwaitingMediation { uid })) => {
                self.dispatcher.awaiting_mediation(&uid);
                // It makes room for another one.
                self.look = true;
            }
            Some(device_event::Event::Accepted(node::Accepted { uid })) => {
                self.dispatcher.accepted(&uid);
            }
            Some(device_event::Event::Progress(progress)) => self.dispatcher.progress(&progress),
            Some(device_event::Event::Renew(renew)) => self.renew(renew.pkcs10),
            Some(device_event::Event::CapabilityUpdate(update)) => {
                let paced = self.shared.pace.declaration(self.caller.fingerprint);
                paced.map_err(Refusal::TooManyDeclarations)?;
                if heavy::is_small(schema_bytes(&update.capabilities)) {
                    self.declares(read_capabilities(update.capabilities))?;
                } else {
                    self.read(update.capabilities);
                }
            }
            Some(device_event::Event::Hello(_)) => {
                return Err(Refusal::Malformed("Hello is said once".to_owned()).into());
            }
            Some(device_event::Event::ArtefactOffer(offer)) => {
                self.uploads.offer(&self.shared, &self.caller.key, offer);
                self.tell_of_artefacts(None);
            }
            Some(device_event::Event::ArtefactChunk(chunk)) => {
                self.uploads.chunk(&self.shared, &self.caller.key, &chunk);
                self.tell_of_artefacts(None);
            }
            // From a newer agent.
            None => {}
        }
        Ok(())
    }

    /// Reads what the device declares by now, on another thread. Nothing is heard of it until that is done.
    fn read(&mut self, capabilities: Vec<node::Capability>) {
        let (heavy, device) = (self.shared.heavy.clone(), self.caller.key.to_string());
        self.reading = Some(Box::pin(async move {
            heavy.run(device, || read_capabilities(capabilities)).await
        }));
    }

    fn declares(&mut self, read: Result<Capabilities, Invalid>) -> Result<(), End> {
        self.declared = Arc::new(Declared {
            platform: self.declared.platform.clone(),
            capabilities: read.map_err(Refusal::from)?,
            concurrency: self.declared.concurrency,
        });
        self.dispatcher.changed();
        self.session.changed();
        self.look = true;
        Ok(())
    }

    /// What has no room waits for the next look.
    fn tell_of_artefacts(&mut self, event: Option<Event>) {
        if let Some(event) = event {
            self.outbox.push(event);
        }
        while self.outbox.room() >= ANSWER_ROOM
            && let Some(refusal) = self.uploads.refusal()
        {
            self.outbox.push(refusal);
        }
    }

    /// A device that asks again while it is asked for waits for the same answer.
    fn renew(&mut self, pkcs10: Vec<u8>) {
        if self.renewal.is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let asking = Asking {
            device: self.caller.key.clone(),
            key: self.caller.fingerprint,
            not_after: self.caller.not_after,
            pkcs10,
        };
        self.renewal = Some(Box::pin(async move {
            shared.renewals.renew(&shared.index, asking).await
        }));
    }

    /// Where nothing is issued the device is told nothing, and asks again.
    fn renewed(&mut self, renewed: Result<node::Renewed, NotRenewed>) -> Result<(), End> {
        self.renewal = None;
        match renewed {
            Ok(renewed) => self.outbox.push(Event::Renewed(renewed)),
            Err(NotRenewed::Invalid(invalid)) => {
                return Err(Refusal::Malformed(invalid.to_string()).into());
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn can_hear(&self) -> bool {
        self.outbox.room() >= ANSWER_ROOM && self.dispatcher.can_hear() && self.reading.is_none()
    }

    fn wants_room(&self) -> bool {
        self.outbox.room() < ANSWER_ROOM || self.dispatcher.wants_room()
    }

    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.leave_at.is_some_and(|at| at <= now) {
            return Err(Refusal::NoPlace(Full::Draining).into());
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(Refusal::Expired(self.caller.not_after).into());
        }
        if self.cut_at().is_some_and(|at| at <= now) {
            return Err(Refusal::NeverReads.into());
        }
        if self.can_hear() && self.silent_at() <= now {
            return Err(Refusal::Silent.into());
        }
        self.session.begin(&self.declared);
        self.dispatcher.tick();
        self.uploads.tick(&self.shared, &self.caller.key);
        self.look = true;
        Ok(())
    }

    fn due(&self) -> Instant {
        // One that is not heard is not silent, but does not read.
        let silent_at = self.can_hear().then(|| self.silent_at());
        [
            silent_at,
            self.cut_at(),
            self.leave_at,
            self.expires_at,
            self.dispatcher.due(),
            self.session.due(),
            self.uploads.due(),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or_else(|| Instant::now() + self.shared.settings.heartbeat)
    }

    fn silent_at(&self) -> Instant {
        self.heard + self.shared.settings.heartbeat * MISSED_HEARTBEATS
    }

    fn cut_at(&self) -> Option<Instant> {
        self.outbox
            .waiting_since()
            .map(|since| since + self.shared.settings.unread_within)
    }

    /// Ends the stream at once, then writes what is still to be written.
    async fn leave(self: Box<Self>, end: End) {
        let Self {
            shared,
            caller,
            inbound,
            outbox,
            handle,
            session,
            dispatcher,
            ..
        } = *self;
        shared.live.remove(&caller.key, &handle);
        shared.metrics.streams.dec();
        shared.metrics.stream_ended(end.metric());
        end.log(&caller.key);
        end.hang_up(&caller);
        outbox.end(end.status());
        drop(inbound);
        let settle = async {
            let end = async {
                // A newer stream says more than our end would.
                if !handle.is_replaced() {
                    session.end().await;
                }
            };
            dispatcher.settle(end).await;
        };
        tokio::select! {
            () = settle => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

/// Never ends while there is none.
async fn drive<T>(work: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

impl End {
    fn status(self) -> Result<(), Status> {
        match self {
            Self::Left => Ok(()),
            Self::Refused(refusal) => Err(refusal.into()),
        }
    }

    fn metric(&self) -> StreamEnd {
        match self {
            Self::Left => StreamEnd::Left,
            Self::Refused(refusal) => refusal.stream_end(),
        }
    }

    /// Who sends what cannot be read is not read on. It may come back, and behave.
    fn hang_up(&self, caller: &Caller) {
        if let Self::Refused(Refusal::Malformed(_) | Refusal::Invalid(_)) = self {
            caller.hang_up.soon();
        }
    }

    fn log(&self, device: &DeviceKey) {
        match self {
            Self::Refused(Refusal::NotAdmitted(denied)) => {
                tracing::info!(%device, reason = %denied, "Stream cut");
            }
            Self::Refused(Refusal::Malformed(what)) => {
                tracing::warn!(%device, what, "Stream cut: malformed message");
            }
            Self::Refused(refusal) => tracing::debug!(%device, ?refusal, "Stream ended"),
            Self::Left => tracing::debug!(%device, "Stream ended by the device"),
        }
    }
}
