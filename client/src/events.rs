//! What changes, as a stream that goes on where it was.
//!
//! ```text
//! connect ──▶ read ──▶ event ──▶ read …
//!    ▲          │ broken, silent, drained
//!    └── pause ◀┘   (full jitter; with Last-Event-ID of the last event)
//! ```

use std::{collections::VecDeque, num::NonZeroUsize, time::Duration};

use console_api::{
    event::{ConsoleEvent, LAST_EVENT_ID},
    query::ScopeQuery,
    routes,
};
use futures::{StreamExt as _, stream::BoxStream};
use http::{HeaderName, HeaderValue, header::ACCEPT};
use reqwest::Response;
use sse_core::{MessageEvent, SseDecoder, SseEvent};
use tokio::time::Instant;

use crate::{
    ControlPlaneClient,
    error::{Error, Result},
    retry::{self, Retries},
    transport::Ask,
};

/// Longest id that is remembered. The console's own are much shorter.
const MAX_ID: usize = 1024;

/// An event, and where in the stream it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// To go on after it: [`ControlPlaneClient::events_after`].
    pub id: Option<String>,
    /// What happened.
    pub event: ConsoleEvent,
}

impl ControlPlaneClient {
    /// What changes from now on, of one namespace or of all.
    ///
    /// The stream reconnects by itself, to whatever gateway answers, and goes on after the last event that it has given.
    /// It begins each connection with [`ConsoleEvent::Hello`]. After [`ConsoleEvent::Resync`] something may have been
    /// missed: read the inventory again, then go on with the same stream. After [`ConsoleEvent::Denied`] it ends.
    ///
    /// It ends with an error where trying again is of no use, or has been in vain for
    /// [`Retries::reconnects`](crate::Retries::reconnects) times in a row. Events that this version does not know are
    /// left out. Nothing is read ahead: who reads slowly is told to resync.
    pub fn events(&self, scope: &ScopeQuery) -> BoxStream<'static, Result<Received>> {
        self.events_after(scope, None)
    }

    /// The same, from after the event with that id on.
    pub fn events_after(
        &self,
        scope: &ScopeQuery,
        id: Option<&str>,
    ) -> BoxStream<'static, Result<Received>> {
        let watch = Watch {
            client: self.clone(),
            scope: scope.clone(),
            last: id.map(str::to_owned),
            connection: None,
            ready: VecDeque::new(),
            failures: 0,
            asked: None,
            over: false,
        };
        futures::stream::unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Some((next, watch))
        })
        .boxed()
    }
}

struct Watch {
    client: ControlPlaneClient,
    scope: ScopeQuery,
    /// Id of the last event that was given.
    last: Option<String>,
    connection: Option<Connection>,
    /// Events of the bytes that were read last.
    ready: VecDeque<Received>,
    /// Connections in a row that came to nothing.
    failures: u32,
    /// When the console wants to be asked again.
    asked: Option<Duration>,
    over: bool,
}

struct Connection {
    response: Response,
    decoder: SseDecoder,
    since: Instant,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Received>> {
        loop {
            if let Some(received) = self.ready.pop_front() {
                if received.id.is_some() {
                    self.last.clone_from(&received.id);
                }
                self.over |= received.event == ConsoleEvent::Denied;
                return Some(Ok(received));
            }
            if self.over {
                return None;
            }
            let outcome = match self.connection.take() {
                Some(connection) => self.read(connection).await,
                None => self.connect().await,
            };
            if let Err(error) = outcome
                && let Err(error) = self.pause(error).await
            {
                self.over = true;
                return Some(Err(error));
            }
        }
    }

    async fn connect(&mut self) -> Result<()> {
        let mut ask = Ask::get(routes::EVENTS)
            .query(&self.scope)?
            .header(ACCEPT, "text/event-stream")?;
        if let Some(id) = &self.last {
            ask = ask.header(HeaderName::from_static(LAST_EVENT_ID), id)?;
        }
        let response = self.client.inner.stream(&ask).await?;
        let limit =
            NonZeroUsize::new(self.client.inner.limits.event_bytes).unwrap_or(NonZeroUsize::MIN);
        self.connection = Some(Connection {
            response,
            decoder: SseDecoder::with_limit(limit),
            since: Instant::now(),
        });
        Ok(())
    }

    /// Reads the next bytes. The connection is kept where they came; else it is gone, and that is an error.
    async fn read(&mut self, mut connection: Connection) -> Result<()> {
        let silence = self.client.inner.timeouts.silence;
        // A quiet stream that lasted was none in vain; one that says hello and breaks, again and again, is.
        if connection.since.elapsed() > self.client.inner.retries.longest_pause {
            self.failures = 0;
        }
        let chunk = tokio::time::timeout(silence, connection.response.chunk())
            .await
            .map_err(|_| Error::Timeout(silence))?
            .map_err(|error| Error::of_transport(error, silence))?;
        // A console that is about to stop ends its streams: the next connection finds another one.
        let mut bytes = chunk.ok_or(Error::Ended)?;
        while let Some(event) = connection.decoder.next(&mut bytes) {
            match event.map_err(|_| Error::TooLarge(self.client.inner.limits.event_bytes))? {
                SseEvent::Retry(milliseconds) => {
                    self.asked = Some(Duration::from_millis(milliseconds.into()));
                }
                SseEvent::Message(message) => {
                    if let Some(received) = understood(&message)? {
                        if received.event != ConsoleEvent::Hello {
                            self.failures = 0;
                        }
                        self.ready.push_back(received);
                    }
                }
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Waits before the next connection, or gives the error up to the caller.
    async fn pause(&mut self, error: Error) -> Result<()> {
        let retries = &self.client.inner.retries;
        self.failures = self.failures.saturating_add(1);
        let pause =
            next_pause(retries, &error, self.failures, self.asked, retry::random()).ok_or(error)?;
        tracing::debug!(
            ?pause,
            failures = self.failures,
            "Connecting to the console's events again"
        );
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// What to do about a stream that ended; `None`: nothing, the error stands. Pure.
fn next_pause(
    retries: &Retries,
    error: &Error,
    failures: u32,
    asked: Option<Duration>,
    random: f64,
) -> Option<Duration> {
    if !error.retryable() || failures > retries.reconnects {
        return None;
    }
    let asked = error.retry_after().max(asked);
    Some(retries.reconnect(failures, asked, random))
}

/// An event as the API says it; `None` for one that this version does not know.
fn understood(message: &MessageEvent) -> Result<Option<Received>> {
    let event =
        ConsoleEvent::read(&message.event, &message.data).map_err(|source| Error::Answer {
            path: routes::EVENTS.to_owned(),
            source,
        })?;
    let id = message
        .last_event_id
        .as_deref()
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID && HeaderValue::from_str(id).is_ok())
        .map(str::to_owned);
    Ok(event.map(|event| Received { id, event }))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn status(code: u16, retry_after: Option<u64>) -> Error {
        Error::Status {
            status: StatusCode::from_u16(code).unwrap(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_stream_goes_on_after_what_passes_and_for_so_long() {
        let retries = Retries {
            reconnects: 3,
            ..Retries::default()
        };
        let pause = |error: &Error, failures| next_pause(&retries, error, failures, None, 1.0);
        assert!(pause(&status(503, None), 1).is_some());
        assert!(pause(&status(503, None), 3).is_some());
        assert!(
            pause(&status(503, None), 4).is_none(),
            "in vain for too often"
        );
        assert!(pause(&status(403, None), 1).is_none(), "no use");
        assert!(pause(&Error::TooLarge(1), 1).is_none());
        assert!(
            pause(&Error::Ended, 1).is_some(),
            "a console that stops ends its streams"
        );
        assert!(pause(&Error::Incomplete("CSRF token"), 1).is_none());
    }

    #[test]
    fn the_console_says_when_to_come_back() {
        let retries = Retries::default();
        let second = Duration::from_secs(1);
        let pause = next_pause(&retries, &status(429, Some(5)), 1, Some(second), 0.0);
        assert_eq!(pause, Some(5 * second));
        assert_eq!(
            next_pause(&retries, &status(503, None), 1, Some(second), 0.0),
            Some(second)
        );
    }

    #[test]
    fn an_id_that_could_not_be_sent_back_is_none() {
        let id = |id: &str| {
            let message = MessageEvent {
                event: "hello".into(),
                data: "{}".to_owned(),
                last_event_id: Some(id.into()),
            };
            understood(&message).unwrap().unwrap().id
        };
        assert_eq!(id("d12.i7").as_deref(), Some("d12.i7"));
        for bad in ["", "a\u{1}", &"x".repeat(MAX_ID + 1)] {
            assert_eq!(id(bad), None, "{bad:?}");
        }
    }
}
