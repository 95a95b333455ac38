//! Accepts connections and bounds everything that a stranger can hold.
//!
//! Ours rather than tonic's, so that [`Peer`] reaches the handlers, and so that handshakes, strangers and devices are
//! counted and timed apart: nobody without a certificate of ours can keep devices out. Who finds no place gets an
//! answer that says so, as long as there is a place for answers.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crds::names::PROOF_SECONDS;
use pairing::key::KeyFingerprint;
use runtime::{origin::Origin, shutdown::Tasks};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::{
    hang_up::HangUp,
    limits::{Bucket, HeldPlace, Paces, Places},
    metrics::{Handshake, Kind, Metrics, Open},
    peer::{Admission, Identity, Peer},
    stay::{Place, Stay},
};

/// What connections may hold. Together they bound the memory of the process: so many connections of each kind, with
/// windows and headers of a few kilobytes each, and so much for messages beyond that.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Handshakes in flight; more wait. One address may have half of them, those that wait among them.
    pub handshakes: usize,
    pub handshake_time: Duration,
    /// Handshakes begun, on the average; a second's worth at once.
    pub handshakes_per_second: u32,
    /// The same, of one address. Who connects more often waits for a moment, and beyond that is dropped, before he costs
    /// the others anything.
    pub handshakes_per_second_per_address: u32,
    /// Connections of devices.
    pub devices: usize,
    /// Those of one device. More than one, for it may be back before we know that it went.
    pub connections_per_device: usize,
    /// Bytes that large messages of all devices may take while they arrive.
    pub message_memory: usize,
    /// Connections of enrollees that have not proved a code.
    pub strangers: usize,
    pub strangers_per_address: usize,
    /// From the handshake to the proof.
    pub stranger_time: Duration,
    /// Connections of enrollees that proved a code.
    pub waiting: usize,
    /// Connections that are only answered that there is no place; past this they are dropped.
    pub turned_away: usize,
    pub turned_away_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 64,
            handshake_time: Duration::from_secs(5),
            handshakes_per_second: 200,
            handshakes_per_second_per_address: 100,
            devices: 25_000,
            connections_per_device: 8,
            message_memory: 64 * 1024 * 1024,
            strangers: 128,
            strangers_per_address: 16,
            stranger_time: Duration::from_secs(PROOF_SECONDS.unsigned_abs()),
            waiting: 1024,
            turned_away: 64,
            turned_away_time: Duration::from_secs(3),
        }
    }
}

/// When those may try again who found no place.
const RETRY_STRANGER: Duration = Duration::from_secs(5);
const RETRY_DEVICE: Duration = Duration::from_secs(30);

/// Pause after an `accept` that failed for want of a resource. It would fail again at once.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const MOST_ACCEPT_BACKOFF: Duration = Duration::from_secs(2);

/// How long a connection may wait for the turn of its address.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that were accepted and whose handshake is not over, for each of those that may shake hands. More wait in
/// the kernel's backlog.
const ACCEPTED_PER_HANDSHAKE: usize = 16;

/// Bytes that the kernel keeps for a connection each way. By itself it lets them grow to megabytes, for one who never
/// reads as for everybody else.
const SOCKET_BUFFER: u32 = 64 * 1024;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// The device port.
pub struct Listener {
    tcp: TcpListener,
    gate: Gate,
}

impl Listener {
    pub fn bind(
        address: SocketAddr,
        tls: Arc<ServerConfig>,
        limits: Limits,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let gate = Gate {
            tls: tls.into(),
            limits,
            metrics,
            devices: Arc::new(Semaphore::new(limits.devices)),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            waiting: Arc::new(Semaphore::new(limits.waiting)),
            turned_away: Arc::new(Semaphore::new(limits.turned_away)),
            stranger_origins: Places::default(),
            device_keys: Places::default(),
        };
        Ok(Self {
            tcp: listen(address)?,
            gate,
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Accepts until told to stop, and hands on those whose handshake is over. Afterwards the port is closed, but the
    /// channel is kept open until the server lets it go: its end would make the server hang up on everybody.
    pub async fn accept(
        self,
        tasks: Tasks,
        accepted: mpsc::Sender<io::Result<PeerStream>>,
    ) -> anyhow::Result<()> {
        let Self { tcp, gate } = self;
        let stop = tasks.token();
        let limits = gate.limits;
        let room = Arc::new(Semaphore::new(limits.handshakes * ACCEPTED_PER_HANDSHAKE));
        let turns = Arc::new(Turns::new(limits));
        let origins = Places::default();
        let mut paces = Paces::new(a_second_at_once(limits.handshakes_per_second_per_address));
        let mut backoff = ACCEPT_BACKOFF;
        loop {
            let next = async {
                let place = Arc::clone(&room).acquire_owned().await?;
                anyhow::Ok((place, tcp.accept().await))
            };
            let (place, connection) = tokio::select! {
                next = next => next?,
                () = stop.cancelled() => break,
                () = accepted.closed() => break,
            };
            let (tcp, remote) = match connection {
                Ok(connection) => connection,
                // The other end was quicker to go than we to accept.
                Err(error) if is_the_others_fault(&error) => continue,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        ?backoff,
                        "Accepting failed"
                    );
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(MOST_ACCEPT_BACKOFF);
                    continue;
                }
            };
            backoff = ACCEPT_BACKOFF;
            // Before it takes anything of what all share: else one address could sit silently on all slots, or use up
            // the pace of all.
            let origin = Origin::from(remote.ip());
            let entered = paces
                .turn(origin, PATIENCE, Instant::now())
                .and_then(|turn| {
                    Some((turn, origins.enter(origin, limits.handshakes.div_ceil(2))?))
                });
            let Some((turn, of_origin)) = entered else {
                gate.metrics.handshake(Handshake::Dropped);
                continue;
            };
            let (gate, turns) = (gate.clone(), Arc::clone(&turns));
            let (accepted, stop) = (accepted.clone(), stop.clone());
            tasks.spawn(async move {
                let admit = async {
                    sleep(turn).await;
                    let _slot = turns.slot().await?;
                    gate.admit(tcp, remote).await
                };
                let admitted = tokio::select! {
                    admitted = admit => admitted,
                    () = stop.cancelled() => None,
                };
                drop((place, of_origin));
                if let Some(stream) = admitted {
                    // Fails only when the server is gone, and the connection with it.
                    let _ = accepted.send(Ok(stream)).await;
                }
            });
        }
        drop(tcp);
        accepted.closed().await;
        Ok(())
    }
}

/// Who may shake hands now, of all: first come, first served.
struct Turns {
    slots: Semaphore,
    pace: Mutex<Bucket>,
}

impl Turns {
    fn new(limits: Limits) -> Self {
        Self {
            slots: Semaphore::new(limits.handshakes),
            pace: Mutex::new(a_second_at_once(limits.handshakes_per_second)),
        }
    }

    async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        let slot = self.slots.acquire().await.ok()?;
        // Held while waiting: those who come later wait for it.
        let mut pace = self.pace.lock().await;
        while let Err(wait) = pace.take(Instant::now()) {
            sleep(wait).await;
        }
        Some(slot)
    }
}

fn a_second_at_once(per_second: u32) -> Bucket {
    Bucket::new(per_second, Duration::from_secs(1), per_second)
}

/// Accepted connections inherit the buffers' size.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_the_others_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[derive(Clone)]
struct Gate {
    tls: TlsAcceptor,
    limits: Limits,
    metrics: Metrics,
    devices: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    stranger_origins: Places<Origin>,
    device_keys: Places<KeyFingerprint>,
}

impl Gate {
    async fn admit(&self, tcp: TcpStream, remote: SocketAddr) -> Option<PeerStream> {
        let (outcome, stream) = match timeout(self.limits.handshake_time, self.shake_hands(tcp))
            .await
        {
            Ok(Ok((tls, identity))) => match self.place(identity, remote) {
                Some((peer, reserved)) => {
                    let outcome = match peer.admission {
                        Admission::Device | Admission::Enrollee(_) => Handshake::Served,
                        Admission::TurnedAway { .. } => Handshake::TurnedAway,
                    };
                    (
                        outcome,
                        Some(PeerStream {
                            tls,
                            peer,
                            reserved,
                        }),
                    )
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

    async fn shake_hands(&self, tcp: TcpStream) -> io::Result<(TlsStream<TcpStream>, Identity)> {
        tcp.set_nodelay(true)?;
        let tls = self.tls.accept(tcp).await?;
        let identity = Identity::of(tls.get_ref().1).map_err(io::Error::other)?;
        Ok((tls, identity))
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
                let place = Arc::clone(&self.turned_away)
                    .try_acquire_owned()
                    .map_err(|_| ())?;
                let reserved = Reserved {
                    _place: Some(place),
                    _of_device: None,
                    _open: self.metrics.connection(Kind::TurnedAway),
                    end: Box::pin(sleep(self.limits.turned_away_time)),
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
        let place = Arc::clone(&self.devices)
            .try_acquire_owned()
            .map_err(|_| ("this gateway has as many devices as it may", RETRY_DEVICE))?;
        let reserved = Reserved {
            _place: Some(place),
            _of_device: Some(of_device),
            _open: self.metrics.connection(Kind::Device),
            end: Box::pin(hang_up.told()),
        };
        Ok((Admission::Device, reserved))
    }

    fn place_stranger(
        &self,
        remote: SocketAddr,
    ) -> Result<(Admission, Reserved), (&'static str, Duration)> {
        let of_origin = self
            .stranger_origins
            .enter(Origin::from(remote.ip()), self.limits.strangers_per_address)
            .ok_or(("too many enrol from this address", RETRY_STRANGER))?;
        let among_all = Arc::clone(&self.strangers)
            .try_acquire_owned()
            .map_err(|_| ("too many enrol at this gateway", RETRY_STRANGER))?;
        let place = Place::Stranger {
            among_all,
            of_origin,
        };
        let until = Instant::now() + self.limits.stranger_time;
        let stay = Arc::new(Stay::new(place, until, Arc::clone(&self.waiting)));
        let reserved = Reserved {
            _place: None,
            _of_device: None,
            _open: self.metrics.connection(Kind::Enrollee),
            end: Box::pin(stay.over()),
        };
        Ok((Admission::Enrollee(stay), reserved))
    }
}

/// A connection and who is at its other end. Kept small: there are as many as devices.
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    reserved: Reserved,
}

struct Reserved {
    /// An enrollee's place is in its [`Stay`].
    _place: Option<OwnedSemaphorePermit>,
    _of_device: Option<HeldPlace<KeyFingerprint>>,
    _open: Open,
    /// Devices may stay until they are told otherwise.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl PeerStream {
    /// Asked on reading and on writing: HTTP/2 always waits for one of both, so this is where a connection notices
    /// that its time is up, even one that never reads what we write.
    fn check_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.reserved.end.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        // Whoever asks again gets the same answer; what has ended must not be polled.
        self.reserved.end = Box::pin(std::future::ready(()));
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_end(cx)?;
        Pin::new(&mut this.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_end(cx)?;
        Pin::new(&mut this.tls).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_end(cx)?;
        Pin::new(&mut this.tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_end(cx)?;
        Pin::new(&mut this.tls).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one per device, and HTTP/2 and TLS need most of what a device may cost.
    #[test]
    fn a_connection_is_small() {
        let ours = size_of::<PeerStream>() - size_of::<TlsStream<TcpStream>>();
        assert!(ours <= 128, "{ours} bytes beside TLS");
    }
}
