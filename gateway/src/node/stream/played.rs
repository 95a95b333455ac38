//! Streams without a network, moved by hand: for a world that is played, where somebody else chooses what happens next.
//!
//! What a stream does is that of [`super::Stream`]. Only the choice among what is ready, which elsewhere is chance, and
//! the ways in and out are replaced. Nothing starts here by itself: no watch, no Lease.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use kube::Client;
use prometheus_client::registry::Registry;
use proto::node::DeviceEvent;
use runtime::shutdown::Supervisor;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use super::Caller;
use super::{Arrival, CAPACITY, End, Stream};
use crate::{
    domain::{device::admit, grants::Known, register::Declared},
    heavy::Heavy,
    index::{Changed, Index, watch::Synced},
    node::{
        RESULT_MEMORY, Settings, Shared,
        api::Requests,
        live::Live,
        metrics::Metrics,
        orphans,
        outbox::{self, Outgoing},
        pace::Pace,
        registrations::Registrations,
    },
    renewal::Renewals,
};

/// Things that can be ready at once in a stream: [`Carried::turn`] begins its look at one of them.
pub const CHOICES: usize = 6;

type Settling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A gateway whose index is filled by hand.
pub struct Gateway {
    shared: Arc<Shared>,
    _supervisor: Supervisor,
}

/// One device's stream, from Hello to its last write.
pub struct Carried {
    stream: Option<Box<Stream<()>>>,
    /// Until when the welcome waits for the session's start; nothing else happens before it.
    welcome_by: Option<Instant>,
    settling: Option<Settling>,
}

/// What became of a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turned {
    /// Something happened; perhaps more can.
    Moved,
    /// Nothing is ready.
    Still,
    /// Its last write is done.
    Over,
}

impl Gateway {
    pub fn new(client: Client, settings: Settings) -> Self {
        let supervisor = Supervisor::new();
        let metrics = Metrics::register(&mut Registry::default());
        let shared = Arc::new(Shared {
            requests: Requests::new(client.clone(), &settings.gateway, metrics.clone()),
            renewals: Renewals::new(client),
            index: Arc::new(Index::default()),
            live: Arc::new(Live::new(settings.max_streams)),
            settings,
            registrations: Registrations::default(),
            pace: Pace::default(),
            metrics,
            result_memory: Arc::new(Semaphore::new(RESULT_MEMORY)),
            synced: Synced::already(),
            tasks: supervisor.tasks(),
            known: Known::default(),
            heavy: Heavy::new(supervisor.tasks()),
            streams: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        Self {
            shared,
            _supervisor: supervisor,
        }
    }

    /// What it knows of the cluster. Who changes it says so: [`Self::changed`].
    pub fn index(&self) -> &Index {
        &self.shared.index
    }

    /// Tells the streams that it concerns to look.
    pub fn changed(&self, changed: Changed<'_>) {
        self.shared.live.changed(changed);
    }

    /// Lets a device in that said Hello. Why not, in words, where it is not let in.
    pub fn open(
        &self,
        caller: Caller,
        declared: Declared,
    ) -> Result<(Carried, Outgoing), &'static str> {
        let known = self.shared.index.devices.get(&caller.key);
        admit(known.as_deref(), &caller.fingerprint).map_err(|_| "it is not admitted")?;
        let handle = self
            .shared
            .live
            .insert(&caller.key)
            .map_err(|_| "no place")?;
        let (outbox, outgoing) = outbox::new();
        let welcome_by = Instant::now() + self.shared.settings.welcome_within;
        let arrival = Arrival {
            shared: Arc::clone(&self.shared),
            caller,
            inbound: (),
            outbox,
        };
        let mut stream = Box::new(Stream::new(arrival, handle, declared));
        stream.session.begin(&stream.declared);
        let carried = Carried {
            stream: Some(stream),
            welcome_by: Some(welcome_by),
            settling: None,
        };
        Ok((carried, outgoing))
    }

    /// Ends the sessions that an earlier life left open, once, as after every start.
    pub fn orphans(&self) -> impl Future<Output = ()> + Send + use<> {
        orphans::end(Arc::clone(&self.shared), self.shared.synced.clone())
    }
}

impl Carried {
    /// Does one of the things that are ready, the first from `first` on; `heard` is what came from the device.
    pub fn turn(&mut self, first: usize, heard: &mut VecDeque<DeviceEvent>) -> Turned {
        if let Some(stream) = &mut self.stream {
            match stream.turn(first, &mut self.welcome_by, heard) {
                Ok(true) => return Turned::Moved,
                Ok(false) => return Turned::Still,
                Err(end) => self.leave(end),
            }
        }
        let settles = self.settling.as_mut();
        if settles.is_some_and(|settling| once(settling).is_pending()) {
            return Turned::Still;
        }
        self.settling = None;
        Turned::Over
    }

    /// The connection broke: the stream ends as if the device had left.
    pub fn broke(&mut self) {
        self.leave(End::Left);
    }

    /// Whether the stream is there; otherwise its last writes are under way at most.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// When time alone makes something ready; `None` where nobody can tell.
    pub fn due(&self) -> Option<Instant> {
        let due = self.stream.as_ref()?.due();
        Some(self.welcome_by.map_or(due, |by| by.min(due)))
    }

    fn leave(&mut self, end: End) {
        if let Some(stream) = self.stream.take() {
            self.settling = Some(Box::pin(stream.leave(end)));
        }
    }
}

impl Stream<()> {
    fn turn(
        &mut self,
        first: usize,
        welcome_by: &mut Option<Instant>,
        inbound: &mut VecDeque<DeviceEvent>,
    ) -> Result<bool, End> {
        if let Some(by) = *welcome_by {
            if once(self.session.drive()).is_pending() && Instant::now() < by {
                return Ok(false);
            }
            *welcome_by = None;
            self.say_welcome();
            return Ok(true);
        }
        if self.outbox.is_closed() {
            return Err(End::Left);
        }
        if std::mem::take(&mut self.look) {
            self.look()?;
            return Ok(true);
        }
        for choice in 0..CHOICES {
            if self.choose((first + choice) % CHOICES, inbound)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`Stream::serve`] does, where that one is ready.
    fn choose(&mut self, choice: usize, inbound: &mut VecDeque<DeviceEvent>) -> Result<bool, End> {
        match choice {
            0 if once(self.handle.told_to_look()).is_ready() => self.look = true,
            1 => match once(self.dispatcher.done()) {
                Poll::Ready(done) => {
                    self.dispatcher.note(done);
                    self.look = true;
                }
                Poll::Pending => return Ok(false),
            },
            2 if self.can_hear() => match inbound.pop_front() {
                Some(event) => self.hear(event)?,
                None => return Ok(false),
            },
            3 if once(self.session.drive()).is_ready() => self.look = true,
            4 if self.wants_room() && once(self.outbox.has_room(CAPACITY / 2)).is_ready() => {
                self.look = true;
            }
            5 if self.due() <= Instant::now() => self.tick()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Polls once. Whoever plays looks again after whatever happens.
fn once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
