//! One TLS 1.3 connection, and gRPC over it and over no other.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::ServerName,
    version::TLS13,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::dial::Dialer;
use crate::state::key::Credentials;

/// How often a silent connection is asked for a sign of life, and how long it may take to give one.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(20);
/// Bytes of headers that are read of one answer.
const MAX_HEADERS: u32 = 16 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connect")]
    Tcp(#[source] io::Error),
    #[error("no answer within {} seconds", .0.as_secs())]
    TooSlow(Duration),
    /// The name of the gateway or of the proxy.
    #[error("look up {hop}")]
    LookUp {
        hop: String,
        #[source]
        source: io::Error,
    },
    #[error("connect through the proxy {proxy}")]
    Proxy {
        /// Without credentials.
        proxy: String,
        #[source]
        source: io::Error,
    },
    /// Each of several addresses with its reason.
    #[error("no address answers: {0}")]
    NoneAnswered(String),
    /// Somebody answered who is not a gateway of our authority.
    #[error("{}", untrusted(.0))]
    Untrusted(CertificateError),
    #[error("TLS")]
    Tls(#[source] io::Error),
    #[error("set TLS up")]
    Setup(#[from] rustls::Error),
    #[error("HTTP/2")]
    Http(#[from] tonic::transport::Error),
}

/// The words say no time: a device whose clock runs would say something else at each attempt, and log it.
fn untrusted(why: &CertificateError) -> String {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let by_the_clock = if matches!(why, Expired | ExpiredContext { .. }) {
        "has expired"
    } else if matches!(why, NotValidYet | NotValidYetContext { .. }) {
        "is not valid yet"
    } else {
        return format!(
            "the gateway's certificate is not from the authority that this device trusts ({why:?})"
        );
    };
    format!(
        "the gateway's certificate {by_the_clock} by this device's clock; see that the clock is right: timedatectl"
    )
}

/// Accepts servers of the given authorities that carry the name of a gateway.
pub fn trusting(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), pairing::crypto())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Connects with a client certificate, to a gateway that is `HOST:PORT`. Returning says nothing about whether the gateway
/// accepted the certificate: in TLS 1.3 the refusal comes with the first read.
pub async fn open(
    dialer: &Dialer,
    gateway: &str,
    verifier: Arc<dyn ServerCertVerifier>,
    credentials: Credentials,
) -> Result<TlsStream<TcpStream>, Error> {
    dialer.open(gateway, &tls(verifier, credentials)?).await
}

/// Shakes hands with this certificate.
pub fn tls(
    verifier: Arc<dyn ServerCertVerifier>,
    Credentials { chain, key }: Credentials,
) -> Result<TlsConnector, Error> {
    let mut tls = ClientConfig::builder_with_provider(pairing::crypto())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the verifier.
    tls.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(tls)))
}

pub(super) async fn handshake(
    tcp: TcpStream,
    tls: &TlsConnector,
) -> Result<TlsStream<TcpStream>, Error> {
    let name = ServerName::try_from(proto::SERVER_NAME)
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    tls.connect(name, tcp).await.map_err(of_handshake)
}

fn of_handshake(error: io::Error) -> Error {
    match tls_error(&error) {
        Some(rustls::Error::InvalidCertificate(reason)) => Error::Untrusted(reason.clone()),
        _ => Error::Tls(error),
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Waits for the first word of the server's, which it says unasked, and leaves it unread. In TLS 1.3 the client does not
/// learn before that whether its certificate was accepted; and who writes first may lose the reason to a reset.
/// `Ok(Some(_))` is the refusal.
pub async fn first_word(stream: &mut TlsStream<TcpStream>) -> io::Result<Option<AlertDescription>> {
    match stream.fill_buf().await {
        Ok([]) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(None),
        Err(error) => match tls_error(&error) {
            Some(rustls::Error::AlertReceived(alert)) if is_about_our_certificate(*alert) => {
                Ok(Some(*alert))
            }
            _ => Err(error),
        },
    }
}

/// A channel over one connection, and what the gateway said when it refused our certificate.
pub struct Connection {
    pub channel: Channel,
    refusal: Arc<OnceLock<AlertDescription>>,
}

impl Connection {
    /// Why the gateway refused this device's certificate, where it did. gRPC only tells that the connection broke.
    pub fn refusal(&self) -> Option<AlertDescription> {
        self.refusal.get().copied()
    }
}

/// How a dead peer is noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Liveness {
    /// By HTTP/2 pings: for a stream on which nobody says anything for minutes.
    Pings,
    /// By heartbeats of a protocol above: pings would only double them.
    Heartbeats,
}

/// Speaks gRPC over `stream`, and over no other: tonic redials by itself, but a verified peer and an exporter belong to
/// one connection.
pub async fn channel_over(
    stream: TlsStream<TcpStream>,
    liveness: Liveness,
) -> Result<Connection, Error> {
    let refusal = Arc::new(OnceLock::new());
    let mut stream = Some(TokioIo::new(Listening {
        stream,
        refusal: Arc::clone(&refusal),
    }));
    let connector = service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or(io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // Not `https`, which would make tonic look for a TLS configuration of its own. The name is for the logs of proxies
    // that do not exist; the certificate was checked already.
    let mut endpoint = Endpoint::from_static("http://gateway.fairlead.internal")
        .initial_stream_window_size(proto::STREAM_WINDOW)
        .initial_connection_window_size(proto::CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADERS)
        .buffer_size(8);
    if liveness == Liveness::Pings {
        endpoint = endpoint
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIME);
    }
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok(Connection { channel, refusal })
}

/// A stream that remembers the TLS alert that ended it.
struct Listening {
    stream: TlsStream<TcpStream>,
    refusal: Arc<OnceLock<AlertDescription>>,
}

impl AsyncRead for Listening {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read
            && let Some(rustls::Error::AlertReceived(alert)) = tls_error(error)
            && is_about_our_certificate(*alert)
        {
            let _ = this.refusal.set(*alert);
        }
        read
    }
}

fn is_about_our_certificate(alert: AlertDescription) -> bool {
    [
        AlertDescription::AccessDenied,
        AlertDescription::BadCertificate,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateUnknown,
        AlertDescription::CertificateRequired,
        AlertDescription::DecryptError,
        AlertDescription::UnknownCA,
        AlertDescription::UnsupportedCertificate,
    ]
    .contains(&alert)
}

impl AsyncWrite for Listening {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// An error and its causes in one line.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !line.ends_with(&cause_text) {
            line.push_str(": ");
            line.push_str(&cause_text);
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_clock_that_runs_says_the_same_at_each_attempt() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let said = |seconds| {
            let why = CertificateError::NotValidYetContext {
                time: at(seconds),
                not_before: at(1_000_000),
            };
            Error::Untrusted(why).to_string()
        };
        assert_eq!(said(1), said(2));
        assert!(said(1).contains("not valid yet by this device's clock"));
        let stranger = Error::Untrusted(CertificateError::UnknownIssuer).to_string();
        assert!(stranger.contains("not from the authority"), "{stranger}");
    }
}
