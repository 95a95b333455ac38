//! One connection, from its handshake to its end.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, body::Body};
use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    ConnectionLimits,
    activity::{Activity, Due, Exchange},
};
use crate::{
    clock::instant,
    guard::{
        bounds::{MAX_HEADER_COUNT, MAX_HEADERS, SHORT},
        connection::Connection,
        crowd::Member,
        pool::Pool,
    },
    http::{Lasts, Remote, held::keeping},
    metrics::{Closed, Metrics},
};

/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Bytes of bodies that an HTTP/2 connection may send ahead of their being read, of one request and of all.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 128 * 1024;
/// Requests that a peer may reset before they are looked at; one more closes the connection.
const RESETS: usize = 32;
/// A peer that says nothing is asked as often whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(10);
/// Bytes that wait to be sent on one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// How long what is under way may take once the gateway stops, or nothing is under way.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How long what is under way may take once the connection is old.
const LEAVE_TIME: Duration = Duration::from_secs(SHORT.as_secs() + 5);
/// Ages of connections differ by a tenth, so that those that began together do not end together.
const SPREAD: std::ops::Range<f64> = 0.9..1.0;

/// What a connection is served with.
#[derive(Clone)]
pub struct Service {
    pub tls: TlsAcceptor,
    pub router: Router,
    pub limits: ConnectionLimits,
    /// Places of connections with users.
    pub users: Pool,
    pub metrics: Metrics,
}

/// Serves a connection until its end.
///
/// # Errors
/// If the peer broke it.
pub async fn serve(
    tcp: TcpStream,
    address: SocketAddr,
    member: Member,
    service: Service,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let evicted = member.evicted();
    tcp.set_nodelay(true)?;
    let handshake = timeout(service.limits.handshake, service.tls.accept(tcp));
    let tls = tokio::select! {
        tls = handshake => tls.context("shake hands")??,
        () = evicted.cancelled() => {
            service.metrics.closed(Closed::Evicted);
            return Ok(());
        }
        () = stop.cancelled() => return Ok(()),
    };
    let connection = Connection::new(member, service.users.clone(), stop.child_token());
    let remote = Remote {
        address,
        connection: Arc::new(connection),
    };
    let metrics = service.metrics.clone();
    let closed = exchanges(tls, remote, service, evicted, stop).await?;
    if let Some(cause) = closed {
        metrics.closed(cause);
    }
    Ok(())
}

/// Serves requests. Returns why this side closed the connection, if it did.
async fn exchanges(
    tls: TlsStream<TcpStream>,
    remote: Remote,
    service: Service,
    evicted: CancellationToken,
    stop: CancellationToken,
) -> anyhow::Result<Option<Closed>> {
    let Service { router, limits, .. } = service;
    let begun = instant();
    let activity = Arc::new(Activity::new(begun));
    let (answered, connection) = (Arc::clone(&activity), Arc::clone(&remote.connection));
    let exchange = limits.exchange;
    let answer = tower::service_fn(move |request| {
        answer(
            router.clone(),
            request,
            remote.clone(),
            answered.begin(instant() + exchange),
        )
    });
    let builder = builder(is_http2(&tls));
    let served = builder.serve_connection(TokioIo::new(tls), TowerToHyperService::new(answer));
    let mut served = pin!(served);
    let old_at = begun + limits.age.mul_f64(rand::random_range(SPREAD));
    // Set once the connection is to close: then no request begins any more.
    let mut closing = None;
    loop {
        let due = activity.due(limits.patience, connection.has_user());
        let (at, act) = next(due, closing, old_at);
        tokio::select! {
            ended = served.as_mut() => {
                ended.map_err(|error| anyhow::anyhow!(error))?;
                return Ok(closing.map(|(why, _)| why));
            }
            () = evicted.cancelled() => return Ok(Some(Closed::Evicted)),
            () = stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                let ended = timeout(STOP_TIME, served).await;
                ended.unwrap_or(Ok(())).map_err(|error| anyhow::anyhow!(error))?;
                return Ok(None);
            }
            () = activity.changed() => {}
            () = sleep_until(at) => match act {
                Act::Close(cause) => return Ok(Some(cause)),
                Act::Leave(cause, time) => {
                    connection.leaving().cancel();
                    served.as_mut().graceful_shutdown();
                    closing = Some((cause, instant() + time));
                }
            },
        }
    }
}

/// What is done to a connection when it is time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Act {
    /// Takes no more requests, and closes after that time at the latest.
    Leave(Closed, Duration),
    Close(Closed),
}

/// Decides what is done next, and when. `closing`: why the connection is about to close, and when at the latest.
fn next(due: Due, closing: Option<(Closed, Instant)>, old_at: Instant) -> (Instant, Act) {
    let of_age = match closing {
        Some((cause, end)) => (end, Act::Close(cause)),
        None => (old_at, Act::Leave(Closed::Aged, LEAVE_TIME)),
    };
    let of_due = match due {
        // A peer that does not read gets nothing more.
        Due::Answer(at) => Some((at, Act::Close(Closed::Stalled))),
        Due::Idle(at) if closing.is_none() => Some((at, Act::Leave(Closed::Idle, STOP_TIME))),
        Due::Idle(_) | Due::Never => None,
    };
    match of_due {
        Some(of_due) if of_due.0 < of_age.0 => of_due,
        Some(_) | None => of_age,
    }
}

/// The protocol is the one that the handshake agreed on: nothing is guessed from the first bytes, for which a peer could
/// have waited.
fn builder(is_http2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if is_http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        // Headers that do not end are idleness.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEADERS)
        .max_headers(MAX_HEADER_COUNT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEADERS).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIME);
    builder
}

fn is_http2(tls: &TlsStream<TcpStream>) -> bool {
    tls.get_ref().1.alpn_protocol() == Some(b"h2")
}

async fn answer<B>(
    router: Router,
    mut request: Request<B>,
    remote: Remote,
    exchange: Exchange,
) -> Result<Response<Body>, std::convert::Infallible>
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    request.extensions_mut().insert(remote);
    let response = router.oneshot(request.map(Body::new)).await?;
    if response.extensions().get::<Lasts>().is_some() {
        exchange.lasts();
    }
    Ok(response.map(|body| keeping(body, exchange)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_first_ends_a_connection() {
        let now = instant();
        let at = |seconds| now + Duration::from_secs(seconds);
        let old_at = at(100);
        let aged = Act::Leave(Closed::Aged, LEAVE_TIME);
        let idle = Act::Leave(Closed::Idle, STOP_TIME);
        let stalled = Act::Close(Closed::Stalled);
        for (due, expected) in [
            (Due::Idle(at(10)), (at(10), idle)),
            (Due::Idle(at(200)), (old_at, aged)),
            (Due::Answer(at(10)), (at(10), stalled)),
            (Due::Answer(at(200)), (old_at, aged)),
            (Due::Never, (old_at, aged)),
        ] {
            assert_eq!(next(due, None, old_at), expected, "{due:?}");
        }
        let closing = Some((Closed::Aged, at(130)));
        let end = (at(130), Act::Close(Closed::Aged));
        for (due, expected) in [
            (Due::Idle(at(110)), end),
            (Due::Never, end),
            (Due::Answer(at(110)), (at(110), stalled)),
            (Due::Answer(at(200)), end),
        ] {
            assert_eq!(next(due, closing, old_at), expected, "{due:?}");
        }
    }
}
