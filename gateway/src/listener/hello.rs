//! Waits for a whole ClientHello without keeping anything for it: the bytes stay in the kernel's buffer, which is bounded.
//!
//! A peer that is silent, or sends a byte now and then, costs a socket and a small task. TLS begins when there is
//! something to compute.

use std::io::{self, ErrorKind};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::{io::Interest, net::TcpStream};

/// Largest ClientHello, with the headers of its records, in bytes. One with a post-quantum key share takes 2 KiB.
const MOST: usize = 8 * 1024;
/// Most times that bytes may arrive before the ClientHello is whole. The smallest packets of IPv4 carry it in four.
const MOST_PIECES: usize = 8;

const RECORD_HEADER: usize = 5;
/// RFC 8446, section 5.1.
const HANDSHAKE: u8 = 22;
/// RFC 8446, section 4.
const CLIENT_HELLO: u8 = 1;
const MESSAGE_HEADER: usize = 4;

/// Returns when a whole ClientHello can be read.
///
/// # Errors
/// Where the peer hung up, or sends something else, too much or in too many pieces.
pub async fn arrived(tcp: &TcpStream) -> io::Result<()> {
    for _ in 0..MOST_PIECES {
        let ready = tcp.ready(Interest::READABLE).await?;
        // An incomplete hello is reported as "would block", so that the next wait is for more bytes.
        match tcp.try_io(Interest::READABLE, || look(tcp)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && ready.is_read_closed() => {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            seen => return seen,
        }
    }
    Err(not_a_hello("a ClientHello in too many pieces"))
}

fn look(tcp: &TcpStream) -> io::Result<()> {
    let mut bytes = [0; MOST];
    let (_, count) = match recv(tcp, &mut bytes, RecvFlags::PEEK) {
        Ok(read) => read,
        Err(Errno::INTR) => return Err(ErrorKind::WouldBlock.into()),
        Err(error) => return Err(error.into()),
    };
    if count == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let seen = bytes.get(..count).unwrap_or(&bytes);
    match is_whole(seen) {
        Ok(true) => Ok(()),
        Ok(false) if seen.len() < MOST => Err(ErrorKind::WouldBlock.into()),
        Ok(false) => Err(not_a_hello("a ClientHello that is too long")),
        Err(error) => Err(error),
    }
}

/// Whether the bytes begin with a whole ClientHello, in one record or several. Fails where they begin with anything
/// else.
fn is_whole(mut bytes: &[u8]) -> io::Result<bool> {
    let mut header = [0; MESSAGE_HEADER];
    let mut seen = 0;
    while let Some((&[kind, _, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEADER>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || length == 0 || length > MOST {
            return Err(not_a_hello("not a TLS handshake"));
        }
        let fragment = rest.get(..length).unwrap_or(rest);
        for (place, byte) in header.iter_mut().skip(seen).zip(fragment) {
            *place = *byte;
        }
        seen += fragment.len();
        let [message, a, b, c] = header;
        if seen > 0 && message != CLIENT_HELLO {
            return Err(not_a_hello("not a ClientHello"));
        }
        if seen >= MESSAGE_HEADER {
            let body = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
            if body > MOST {
                return Err(not_a_hello("a ClientHello that is too long"));
            }
            if seen >= MESSAGE_HEADER + body {
                return Ok(true);
            }
        }
        let Some(next) = rest.get(length..) else {
            return Ok(false);
        };
        bytes = next;
    }
    // A peer that does not speak TLS is not waited for.
    match bytes.first() {
        Some(&kind) if kind != HANDSHAKE => Err(not_a_hello("not a TLS handshake")),
        Some(_) | None => Ok(false),
    }
}

fn not_a_hello(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use pairing::crypto;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn hello() -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = "gateway.example".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of so many bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let (header, message) = hello.split_at(RECORD_HEADER);
        let record = |piece: &[u8]| {
            let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
            [&header[..3], &length, piece].concat()
        };
        message.chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_hello_is_whole_with_its_last_byte() {
        let hello = hello();
        for bytes in [
            hello.clone(),
            in_records(&hello, 100),
            in_records(&hello, 2),
        ] {
            for cut in 0..bytes.len() {
                assert!(
                    !is_whole(&bytes[..cut]).unwrap(),
                    "{cut} of {}",
                    bytes.len()
                );
            }
            assert!(is_whole(&bytes).unwrap());
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_first_bytes() {
        for bytes in [
            &b"G"[..],
            b"GET / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n",
            &[0; 16],
            // An empty record, one that is too long, another message, and a message that is too long.
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0xff, 0xff],
            &[22, 3, 1, 0, 1, 2],
            &[22, 3, 1, 0, 4, 1, 1, 0, 0],
        ] {
            assert!(is_whole(bytes).is_err(), "{bytes:?}");
        }
    }

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_hello_that_comes_in_pieces_is_waited_for_and_not_consumed() {
        let (mut client, server) = connected().await;
        let arriving = tokio::spawn(async move {
            arrived(&server).await.unwrap();
            server
        });
        let hello = hello();
        for piece in hello.chunks(hello.len().div_ceil(7)) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let server = timeout(SOON, arriving).await.unwrap().unwrap();
        let mut bytes = vec![0; hello.len()];
        assert_eq!(server.peek(&mut bytes).await.unwrap(), hello.len());
        assert_eq!(bytes, hello);
    }

    #[tokio::test]
    async fn a_peer_that_hangs_up_in_the_middle_is_not_waited_for() {
        let (mut client, server) = connected().await;
        client.write_all(&hello()[..10]).await.unwrap();
        client.shutdown().await.unwrap();
        let error = timeout(SOON, arrived(&server)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_hello_without_an_end_is_refused() {
        let (mut client, server) = connected().await;
        let arriving = tokio::spawn(async move { arrived(&server).await });
        // Empty extensions for ever, in records of 4 KiB.
        let record = [&[22, 3, 1, 0x10, 0][..], &[1, 0, 0x1f, 0xff], &[0; 4092]].concat();
        let _ = client.write_all(&record.repeat(3)).await;
        let error = timeout(SOON, arriving).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
