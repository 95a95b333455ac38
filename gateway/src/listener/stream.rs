//! A connection whose handshake is over, as the server of HTTP/2 reads and writes it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pairing::key::KeyFingerprint;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::{limits::HeldPlace, metrics::Open, peer::Peer, pool::Member};

/// A connection and who is at its other end. Kept small: there are as many as devices.
pub struct PeerStream {
    pub(super) tls: TlsStream<TcpStream>,
    pub(super) peer: Arc<Peer>,
    pub(super) reserved: Reserved,
}

pub(super) struct Reserved {
    pub(super) _place: Reservation,
    pub(super) _open: Open,
    /// A device that has not sent anything yet.
    pub(super) is_new: bool,
    /// Devices may stay until they are told otherwise, once they have sent something.
    pub(super) end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What the connection occupies, given back when dropped.
pub(super) enum Reservation {
    Device {
        _among_all: OwnedSemaphorePermit,
        _of_device: HeldPlace<KeyFingerprint>,
    },
    /// An enrollee's place is in its [`crate::stay::Stay`].
    Enrollee,
    TurnedAway(#[expect(dead_code, reason = "held while the connection is open")] Member),
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
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.tls).poll_read(cx, buffer);
        if this.reserved.is_new && buffer.filled().len() > before {
            this.reserved.is_new = false;
            this.reserved.end = Box::pin(this.peer.hang_up.told());
        }
        read
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
