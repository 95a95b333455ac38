//! What changes, as server-sent events.
//!
//! A subscriber holds a cursor into what all share and nothing else: one that reads slowly falls behind and is told to
//! resync. What the caller may see is looked at again every few seconds; a right that is gone ends the stream.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse as _,
    sse::{Event, KeepAlive, Sse},
};
use console_api::{
    event::{ConsoleEvent, LAST_EVENT_ID},
    problem::ProblemCode,
};
use futures::stream;
use tokio::time::{Instant, sleep_until};

use super::{call::Call, inventory::synced};
use crate::{
    access::Epoch,
    changes::{EventId, Subscriber},
    clock::{self, now},
    inventory::See,
    metrics::Open,
    problem::Answer,
    registry::Permission,
    session::life,
};

/// How often it is looked whether the caller may still see it, where roles changed or may have changed unseen.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often the API server is asked in any case: a token may have ended.
const ASK_AGAIN: Duration = Duration::from_mins(1);
/// A connection through which nothing goes is closed by what stands in between.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bounds of the pause, in milliseconds.
const COME_BACK: std::ops::Range<u64> = 500..3000;
/// The client comes back after that, with `Last-Event-ID`: so that streams spread over gateways again.
const LONGEST: Duration = Duration::from_hours(1);

pub async fn follow(call: Call) -> Answer {
    synced(&call)?;
    let from = match call.headers.get(LAST_EVENT_ID) {
        None => None,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            // One that cannot be read is of another version: the client is told to resync.
            Some(text.parse().unwrap_or(EventId::NOTHING))
        }
    };
    let epoch = call.console.access.epoch();
    let see = see(&call).await?;
    let scope = call.target.namespace.clone();
    let subscriber = call.console.index.changes().subscribe(from, scope, see);
    let now = clock::instant();
    let stream = Stream {
        _counted: call.console.metrics.subscriber(),
        see,
        look_at: now + LOOK_AGAIN,
        asked: (epoch, now),
        ends_at: now + LONGEST,
        subscriber,
        call,
        ended: false,
        come_back: Some(come_back()),
    };
    let events = stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// Returns the pause before a client connects again: random, because the streams of one connection end together, and
/// all streams of a gateway when it stops.
fn come_back() -> Duration {
    Duration::from_millis(rand::random_range(COME_BACK))
}

/// What the caller may see beside devices.
async fn see(call: &Call) -> Answer<See> {
    Ok(See {
        pairings: call.has(Permission::PairingRead, &call.target).await?,
        invocations: call.has(Permission::InvocationRead, &call.target).await?,
        events: false,
    })
}

struct Stream {
    call: Call,
    subscriber: Subscriber,
    see: See,
    look_at: Instant,
    /// When the API server was asked last.
    asked: (Option<Epoch>, Instant),
    ends_at: Instant,
    ended: bool,
    /// Pause before the client connects again; sent once.
    come_back: Option<Duration>,
    _counted: Open,
}

impl Stream {
    /// `None` at its end.
    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            let leaving = self.call.leaving.clone();
            tokio::select! {
                // Rights before news.
                biased;
                () = leaving.cancelled() => return None,
                () = sleep_until(self.look_at) => {
                    if clock::instant() >= self.ends_at || self.is_over() {
                        return None;
                    }
                    match self.look().await {
                        Seen::Same => self.look_at = clock::instant() + LOOK_AGAIN,
                        Seen::Less => {
                            self.ended = true;
                            return denied();
                        }
                        Seen::Nobody => return None,
                    }
                }
                told = self.subscriber.next() => {
                    let event = Event::default().event(told.event).id(told.id.to_string()).data(told.data);
                    return Some(match self.come_back.take() {
                        Some(pause) => event.retry(pause),
                        None => event,
                    });
                }
            }
        }
        None
    }

    /// Whether the session has ended meanwhile, by time or by a logout.
    fn is_over(&self) -> bool {
        let Some(session) = &self.call.session else {
            return false;
        };
        // The stream itself is use: only the absolute end counts.
        let is_logged_out = self.call.caller.as_ref().is_some_and(|caller| {
            let logouts = &self.call.console.logouts;
            logouts.is_over(&caller.who.user, session) == Some(true)
        });
        now() >= life::absolute_end(session) || is_logged_out
    }

    /// Whether the caller may see what he saw.
    async fn look(&mut self) -> Seen {
        let (epoch, now) = (self.call.console.access.epoch(), clock::instant());
        let (asked_in, asked_at) = self.asked;
        if epoch.is_some() && epoch == asked_in && now < asked_at + ASK_AGAIN {
            return Seen::Same;
        }
        match self.may_see().await {
            Ok(true) => {
                self.asked = (epoch, now);
                Seen::Same
            }
            Ok(false) => Seen::Less,
            Err(fault) if fault.0.code == ProblemCode::Unauthenticated => Seen::Nobody,
            // The API server cannot be asked. What was decided holds until it can, or until the end.
            Err(_) => Seen::Same,
        }
    }

    async fn may_see(&self) -> Answer<bool> {
        let call = &self.call;
        if !call
            .has(Permission::ObservabilityRead, &call.target)
            .await?
        {
            return Ok(false);
        }
        // More than before takes another stream, too: what was left out is not known any more.
        Ok(see(call).await? == self.see)
    }
}

/// What became of the rights of who follows.
enum Seen {
    Same,
    Less,
    /// The token is not taken any more.
    Nobody,
}

fn denied() -> Option<Event> {
    let event = ConsoleEvent::Denied;
    Some(
        Event::default()
            .event(event.name())
            .data(event.data().ok()?),
    )
}
