//! Accepts connections and bounds everything that a stranger can hold.
//!
//! Ours rather than tonic's, so that [`Peer`](crate::peer::Peer) reaches the handlers, and so that every stage of a
//! connection has bounds of its own:
//!
//! ```text
//! accepted ── silent ──────────── a turn ── handshaking ──── a turn ── device, enrollee or turned away
//!             a socket, no TLS     key       TLS state,       check
//!             state; [`hello`]     exchange  client's flight  of the client
//! ```
//!
//! A connection that waits for its peer is a member of a [`Pool`], which ends a random one of the source that holds most
//! when it is full, so that silence keeps nobody out. Only computing needs one of the few slots, and
//! [`Turns`](crate::turns::Turns) gives them to all sources alike.

mod gate;
mod hello;
mod stream;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use crds::names::PROOF_SECONDS;
use runtime::{origin::Origin, shutdown::Tasks};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use self::gate::Gate;
pub use self::stream::PeerStream;
use crate::{
    descriptors,
    limits::{Bucket, Paces},
    metrics::{Handshake, Metrics},
    pool::{Bounds, Member, Pool, Yields},
};

/// What connections may hold. Together they bound the memory of the process: so many connections of each kind, with
/// windows and headers of a few kilobytes each, and so much for messages beyond that.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that were accepted and have not sent a whole ClientHello, or wait for their turn. Each costs a socket
    /// and about 6 KiB.
    pub silent: usize,
    /// Handshakes that wait for the client's answer. Each costs about 30 KiB.
    pub handshakes: usize,
    /// From the connection to the ClientHello, from the first turn to the end of the handshake, and from there to the first
    /// bytes of HTTP/2. The first of these is shorter while many are silent.
    pub handshake_time: Duration,
    /// Handshakes begun, on the average; a second's worth at once.
    pub handshakes_per_second: u32,
    /// Connections of one address per second. One that connects more often waits for a moment, and is dropped beyond that,
    /// before it costs the others anything.
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
            silent: 4096,
            handshakes: 512,
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

impl Limits {
    /// Keeps so few silent connections that the others find file descriptors within `limit`.
    pub fn within(self, limit: usize) -> Self {
        let connections =
            self.handshakes + self.devices + self.strangers + self.waiting + self.turned_away;
        Self {
            silent: descriptors::silent(self.silent, connections, limit),
            ..self
        }
    }
}

/// Pause after an `accept` that failed for want of a resource. It would fail again at once.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const MOST_ACCEPT_BACKOFF: Duration = Duration::from_secs(2);

/// Connections that are accepted before others have their turn at the thread.
const ACCEPTS_IN_A_ROW: u64 = 16;
/// How long a connection may wait for the turn of its address.
const PATIENCE: Duration = Duration::from_secs(1);
/// Origins whose pace is known.
const MOST_ORIGINS: usize = 4096;
/// How long a connection may wait for its turn, once its ClientHello is there. Agents give up after as long.
const TURN_TIME: Duration = Duration::from_secs(5);

/// Bytes that the kernel keeps for a connection each way. By itself it lets them grow to megabytes, for one who never
/// reads as for everybody else.
const SOCKET_BUFFER: u32 = 64 * 1024;
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 4096;

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
        let gate = Gate::new(tls, limits, metrics);
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
        let silent = Pool::new(Bounds {
            members: limits.silent,
            per_origin: limits.silent,
            yields: Yields::Member,
        });
        let own_pace = a_second_at_once(limits.handshakes_per_second_per_address);
        let mut paces = Paces::new(own_pace, MOST_ORIGINS);
        let mut backoff = ACCEPT_BACKOFF;
        for number in 0_u64.. {
            // A flood must not keep what else runs on this thread waiting.
            if number.is_multiple_of(ACCEPTS_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
            let connection = tokio::select! {
                connection = tcp.accept() => connection,
                () = stop.cancelled() => break,
                () = accepted.closed() => break,
            };
            let (tcp, remote) = match connection {
                Ok(connection) => connection,
                // The other end was quicker to go than we to accept.
                Err(error) if is_the_others_fault(&error) => continue,
                // Out of sockets or of memory, most likely.
                Err(error) if silent.shed() => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "Accepting failed: ended a silent connection"
                    );
                    tokio::task::yield_now().await;
                    continue;
                }
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
            // First, so that one address cannot use up what all share.
            let origin = Origin::from(remote.ip());
            let entered = paces
                .turn(origin, PATIENCE, Instant::now())
                .ok()
                .and_then(|turn| Some((turn, silent.enter(origin)?)));
            let Some((turn, member)) = entered else {
                gate.metrics.handshake(Handshake::Dropped);
                continue;
            };
            let arriving = Arriving {
                tcp,
                remote,
                origin,
                turn,
                time: silence(limits.handshake_time, silent.fill()),
                member,
            };
            let (gate, accepted, stop) = (gate.clone(), accepted.clone(), stop.clone());
            tasks.spawn(async move {
                let admitted = tokio::select! {
                    admitted = arriving.admit(&gate) => admitted,
                    () = stop.cancelled() => None,
                };
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

/// A connection that has not sent its ClientHello. Small: there may be thousands.
struct Arriving {
    tcp: TcpStream,
    remote: SocketAddr,
    origin: Origin,
    /// How long until it is the turn of its address.
    turn: Duration,
    /// How long it may be silent from then on.
    time: Duration,
    member: Member,
}

impl Arriving {
    async fn admit(self, gate: &Gate) -> Option<PeerStream> {
        let Self {
            tcp,
            remote,
            origin,
            turn,
            time,
            member,
        } = self;
        let ready = async {
            sleep(turn).await;
            match timeout(time, hello::arrived(&tcp)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%remote, error = &error as &dyn std::error::Error, "A handshake failed");
                    return Err(Handshake::Failed);
                }
                Err(_) => return Err(Handshake::TimedOut),
            }
            match timeout(TURN_TIME, gate.first.turn(origin)).await {
                Ok(Some(turn)) => Ok(turn),
                Ok(None) | Err(_) => Err(Handshake::TimedOut),
            }
        };
        let ready = tokio::select! {
            ready = ready => ready,
            () = member.ended() => Err(Handshake::Shed),
        };
        match ready {
            Ok(turn) => {
                drop(member);
                // Boxed, so that a silent connection does not have the memory of one that shakes hands.
                Box::pin(gate.admit(tcp, remote, turn)).await
            }
            Err(outcome) => {
                gate.metrics.handshake(outcome);
                None
            }
        }
    }
}

/// How long a newcomer may be silent: a quarter of the time when the pool is full. `fill` is in thousandths.
fn silence(time: Duration, fill: usize) -> Duration {
    let fill = u32::try_from(fill.min(1000)).unwrap_or(1000);
    time * (4000 - 3 * fill) / 4000
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_silence_shrinks_as_the_pool_fills() {
        let time = Duration::from_secs(8);
        let rows = [(0, 8000), (500, 5000), (1000, 2000), (usize::MAX, 2000)];
        for (fill, millis) in rows {
            assert_eq!(silence(time, fill), Duration::from_millis(millis));
        }
    }
}
