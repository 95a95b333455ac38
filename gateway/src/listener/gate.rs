//! From the first turn of a handshake to a place: what a connection may hold once it is known who is at its other end.

use std::{
    future::poll_fn, io, net::SocketAddr, pin::Pin, sync::Arc, task::Poll,
    thread::available_parallelism, time::Duration,
};

use pairing::key::KeyFingerprint;
use runtime::origin::Origin;
use rustls::ServerConfig;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Limits, PeerStream, a_second_at_once,
    stream::{Reservation, Reserved},
};
use crate::{
    hang_up::HangUp,
    limits::Places,
    metrics::{Handshake, Kind, Metrics},
    peer::{Admission, Identity, Peer},
    pool::{Bounds, Pool, Yields},
    stay::Stay,
    turns::{Turn, Turns},
};

/// When those may try again who found no place.
const RETRY_STRANGER: Duration = Duration::from_secs(5);
const RETRY_DEVICE: Duration = Duration::from_secs(30);

/// Most times that bytes of the client's answer may arrive before it is whole. Each costs a turn.
const MOST_PIECES: usize = 16;

#[derive(Clone)]
pub(super) struct Gate {
    tls: TlsAcceptor,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    /// Turns at the key exchange, at the pace of all.
    pub(super) first: Arc<Turns>,
    /// Turns at the check of the client's answer. There are as many as first turns, so they need no pace.
    second: Arc<Turns>,
    handshaking: Pool,
    devices: Arc<Semaphore>,
    device_keys: Places<KeyFingerprint>,
    strangers: Pool,
    waiting: Pool,
    turned_away: Pool,
}

impl Gate {
    pub(super) fn new(tls: Arc<ServerConfig>, limits: Limits, metrics: Metrics) -> Self {
        // Half of the processors, so that handshakes leave room for the devices that are connected.
        let slots = available_parallelism().map_or(1, |all| all.get().div_ceil(2));
        let slots = Arc::new(Semaphore::new(slots));
        let pool = |members, per_origin, yields| {
            Pool::new(Bounds {
                members,
                per_origin,
                yields,
            })
        };
        let pace = a_second_at_once(limits.handshakes_per_second);
        Self {
            tls: tls.into(),
            limits,
            metrics,
            first: Arc::new(Turns::new(Arc::clone(&slots), Some(pace))),
            second: Arc::new(Turns::new(slots, None)),
            handshaking: pool(limits.handshakes, limits.handshakes, Yields::Member),
            devices: Arc::new(Semaphore::new(limits.devices)),
            device_keys: Places::default(),
            strangers: pool(
                limits.strangers,
                limits.strangers_per_address,
                Yields::Member,
            ),
            // Whoever is ended here has to search for its request anew, so equals stay.
            waiting: pool(
                limits.waiting,
                limits.waiting.div_ceil(2),
                Yields::MemberOfLarger,
            ),
            turned_away: pool(limits.turned_away, limits.turned_away, Yields::Member),
        }
    }

    pub(super) async fn admit(
        &self,
        tcp: TcpStream,
        remote: SocketAddr,
        turn: Turn,
    ) -> Option<PeerStream> {
        let origin = Origin::from(remote.ip());
        let Some(member) = self.handshaking.enter(origin) else {
            self.metrics.handshake(Handshake::Dropped);
            return None;
        };
        let shaken = tokio::select! {
            shaken = timeout(self.limits.handshake_time, self.shake_hands(tcp, origin, turn)) => shaken,
            () = member.ended() => {
                self.metrics.handshake(Handshake::Shed);
                return None;
            }
        };
        drop(member);
        let (outcome, stream) = match shaken {
            Ok(Ok((tls, identity))) => match self.place(identity, remote) {
                Some((peer, reserved)) => {
                    let outcome = match peer.admission {
                        Admission::Device | Admission::Enrollee(_) => Handshake::Served,
                        Admission::TurnedAway { .. } => Handshake::TurnedAway,
                    };
                    let stream = PeerStream {
                        tls,
                        peer,
                        reserved,
                    };
                    (outcome, Some(stream))
                }
                None => (Handshake::Dropped, None),
            },
            Ok(Err(error)) => {
                tracing::debug!(%remote, error = &error as &dyn std::error::Error, "A handshake failed");
                (Handshake::Failed, None)
            }
            Err(_) => (Handshake::TimedOut, None),
        };
        self.metrics.handshake(outcome);
        stream
    }

    /// Computes in turns, and holds none while it waits for the client.
    async fn shake_hands(
        &self,
        tcp: TcpStream,
        origin: Origin,
        turn: Turn,
    ) -> io::Result<(TlsStream<TcpStream>, Identity)> {
        tcp.set_nodelay(true)?;
        let mut accepting = self.tls.accept(tcp);
        let mut turn = Some(turn);
        for _ in 0..MOST_PIECES {
            let accepted = poll_fn(|cx| Poll::Ready(Pin::new(&mut accepting).poll(cx))).await;
            drop(turn.take());
            if let Poll::Ready(accepted) = accepted {
                let tls = accepted?;
                let identity = Identity::of(tls.get_ref().1).map_err(io::Error::other)?;
                return Ok((tls, identity));
            }
            if let Some(tcp) = accepting.get_ref() {
                tcp.readable().await?;
            }
            turn = self.second.turn(origin).await;
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a handshake in too many pieces",
        ))
    }

    /// Gives the peer what it may hold; `None` where there is not even a place for an answer.
    fn place(&self, identity: Identity, remote: SocketAddr) -> Option<(Arc<Peer>, Reserved)> {
        let hang_up = HangUp::default();
        let placed = match &identity {
            Identity::Device(certified) => self.place_device(certified.key, &hang_up),
            Identity::Enrollee { .. } => self.place_stranger(remote),
        };
        let (admission, reserved) = placed
            .or_else(|(why, retry_after)| {
                let place = self.turned_away.enter(remote.ip().into()).ok_or(())?;
                let ended = place.ended();
                let time = self.limits.turned_away_time;
                let reserved = Reserved {
                    _place: Reservation::TurnedAway(place),
                    _open: self.metrics.connection(Kind::TurnedAway),
                    is_new: false,
                    end: Box::pin(async move {
                        tokio::select! {
                            () = sleep(time) => {}
                            () = ended => {}
                        }
                    }),
                };
                Ok::<_, ()>((Admission::TurnedAway { why, retry_after }, reserved))
            })
            .ok()?;
        Some((
            Arc::new(Peer {
                remote,
                identity,
                admission,
                hang_up,
            }),
            reserved,
        ))
    }

    fn place_device(
        &self,
        key: KeyFingerprint,
        hang_up: &HangUp,
    ) -> Result<(Admission, Reserved), (&'static str, Duration)> {
        // A device that was revoked still shakes hands; alone it must not take the places of all.
        let of_device = self
            .device_keys
            .enter(key, self.limits.connections_per_device)
            .ok_or((
                "this device has as many connections as it may",
                RETRY_STRANGER,
            ))?;
        let among_all = Arc::clone(&self.devices)
            .try_acquire_owned()
            .map_err(|_| ("this gateway has as many devices as it may", RETRY_DEVICE))?;
        let (told, time) = (hang_up.told(), self.limits.handshake_time);
        let reserved = Reserved {
            _place: Reservation::Device {
                _among_all: among_all,
                _of_device: of_device,
            },
            _open: self.metrics.connection(Kind::Device),
            is_new: true,
            end: Box::pin(async move {
                tokio::select! {
                    () = told => {}
                    () = sleep(time) => {}
                }
            }),
        };
        Ok((Admission::Device, reserved))
    }

    fn place_stranger(
        &self,
        remote: SocketAddr,
    ) -> Result<(Admission, Reserved), (&'static str, Duration)> {
        let member = self
            .strangers
            .enter(remote.ip().into())
            .ok_or(("too many enrol at this gateway", RETRY_STRANGER))?;
        let until = Instant::now() + self.limits.stranger_time;
        let stay = Arc::new(Stay::new(member, until, self.waiting.clone()));
        let reserved = Reserved {
            _place: Reservation::Enrollee,
            _open: self.metrics.connection(Kind::Enrollee),
            is_new: false,
            end: Box::pin(Arc::clone(&stay).over()),
        };
        Ok((Admission::Enrollee(stay), reserved))
    }
}
