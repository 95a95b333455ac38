//! One session with one gateway: Register, Hello, Welcome, then events both ways until it ends.

use std::{
    future::pending,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use proto::node::{
    self, CapabilityUpdate, DeviceEvent, Drain, GatewayEvent, Heartbeat, Hello, RegisterRequest,
    RegisterResponse, Welcome, device_event::Event as ToGateway,
    gateway_event::Event as FromGateway, node_service_client::NodeServiceClient,
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    Upstream, Word,
    attempts::End,
    connect::{self, Connection, Liveness, chain},
};
use crate::{
    capability::live::Live, enrol::error::retry_after, host::clock, renewal::Renewing,
    terminal::printable,
};

/// How long a gateway may take for each answer at the beginning.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Events on their way out. A result may have 256 KiB: few.
const OUTBOUND: usize = 8;
/// Heartbeats without an answer after which the gateway counts as dead.
const MAX_UNANSWERED: u32 = 3;
/// The intervals that a gateway may ask for, and what is meant where it asks for none.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
const MAX_INTERVAL: Duration = Duration::from_mins(5);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

/// A session that began.
pub(super) struct Opened {
    /// Name of the gateway.
    pub(super) gateway: String,
    pub(super) gateways: Vec<String>,
    pub(super) epoch: u64,
    pub(super) max_artefact_bytes: u64,
    interval: Duration,
    declared: Declared,
    outbound: mpsc::Sender<DeviceEvent>,
    events: Streaming<GatewayEvent>,
    connection: Connection,
}

/// What the gateway was told that this device can do.
struct Declared {
    live: Live,
    last: Vec<node::Capability>,
}

impl Declared {
    /// Says it again whenever it is something else. Never ends by itself.
    async fn keep(mut self, outbound: &mpsc::Sender<DeviceEvent>) -> End {
        loop {
            self.live.changed().await;
            let capabilities = self.live.see().declared();
            if capabilities == self.last {
                continue;
            }
            self.last.clone_from(&capabilities);
            tracing::info!(
                capabilities = capabilities.len(),
                "Declaring the capabilities anew"
            );
            let update = ToGateway::CapabilityUpdate(CapabilityUpdate { capabilities });
            let event = Some(update);
            if outbound.send(DeviceEvent { event }).await.is_err() {
                // Whoever listens learns why.
                pending::<()>().await;
            }
        }
    }
}

/// Connects, registers, and waits for the welcome.
pub(super) async fn open(upstream: &Upstream, address: &str) -> Result<Opened, End> {
    let connection = dial(upstream, address)
        .await
        .map_err(|error| End::Unreachable {
            reason: chain(&error),
        })?;
    let mut live = upstream.capabilities.clone();
    let declared = Declared {
        last: live.see().declared(),
        live,
    };
    match begin(upstream, &connection, &declared).await {
        Ok((welcome, outbound, events)) => Ok(Opened {
            gateway: welcome.gateway,
            gateways: welcome.gateways,
            epoch: welcome.epoch,
            max_artefact_bytes: welcome.max_artefact_bytes,
            interval: interval_of(welcome.heartbeat_interval_ms),
            declared,
            outbound,
            events,
            connection,
        }),
        Err(status) => Err(end_of(&status, &connection)),
    }
}

async fn dial(upstream: &Upstream, address: &str) -> Result<Connection, connect::Error> {
    let Upstream {
        key,
        identity,
        dialer,
        ..
    } = upstream;
    let verifier = connect::trusting(identity.roots()?)?;
    let stream = connect::open(dialer, address, verifier, key.certified(identity.chain())).await?;
    connect::channel_over(stream, Liveness::Heartbeats).await
}

type Begun = (Welcome, mpsc::Sender<DeviceEvent>, Streaming<GatewayEvent>);

async fn begin(
    upstream: &Upstream,
    connection: &Connection,
    declared: &Declared,
) -> Result<Begun, Status> {
    let mut client = NodeServiceClient::new(connection.channel.clone())
        .max_decoding_message_size(proto::MAX_GATEWAY_MESSAGE_BYTES);
    let request = RegisterRequest {
        platform: Some(upstream.platform.clone()),
        capabilities: declared.last.clone(),
        concurrency: upstream.concurrency,
    };
    let RegisterResponse {
        namespace,
        device,
        registration,
    } = soon(client.register(request)).await?.into_inner();
    let identity = &upstream.identity;
    if (&namespace, &device) != (&identity.namespace, &identity.device) {
        return Err(Status::internal(
            "the gateway takes this device for another",
        ));
    }
    let (outbound, outgoing) = mpsc::channel(OUTBOUND);
    let hello = ToGateway::Hello(Hello { registration });
    outbound
        .try_send(DeviceEvent { event: Some(hello) })
        .map_err(|_| Status::internal("no room for a hello"))?;
    let mut events = soon(client.event_stream(ReceiverStream::new(outgoing)))
        .await?
        .into_inner();
    match soon(events.message()).await?.and_then(|event| event.event) {
        Some(FromGateway::Welcome(welcome)) => Ok((welcome, outbound, events)),
        Some(_) | None => Err(Status::internal("the gateway does not say welcome")),
    }
}

async fn soon<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(ANSWER_TIME, answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the gateway takes too long")))
}

fn interval_of(millis: u32) -> Duration {
    match millis {
        0 => DEFAULT_INTERVAL,
        _ => Duration::from_millis(millis.into()).clamp(MIN_INTERVAL, MAX_INTERVAL),
    }
}

/// What a status means; an alert about this device's certificate, where there was one, says more.
fn end_of(status: &Status, connection: &Connection) -> End {
    match connection.refusal() {
        Some(alert) => End::Refused {
            reason: format!("it does not accept this device's certificate ({alert:?})"),
        },
        None => end_of_status(status),
    }
}

fn end_of_status(status: &Status) -> End {
    let reason = match status.message() {
        "" => format!("{:?}", status.code()),
        message => printable(message),
    };
    let after = retry_after(status);
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => End::Refused { reason },
        Code::ResourceExhausted => End::Busy { after },
        Code::Unavailable if after.is_some() => End::Busy { after },
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => End::Lost { reason },
    }
}

impl Opened {
    /// Where events for the gateway go.
    pub(super) fn outbound(&self) -> mpsc::Sender<DeviceEvent> {
        self.outbound.clone()
    }

    /// Passes events on until the session ends. Heartbeats do not wait for who hears the events.
    pub(super) async fn serve(self, words: &mpsc::Sender<Word>, renewing: &Renewing<'_>) -> End {
        let Self {
            interval,
            declared,
            outbound,
            mut events,
            connection,
            ..
        } = self;
        let unanswered = AtomicU32::new(0);
        tokio::select! {
            end = beat(&outbound, interval, &unanswered) => end,
            end = listen(&mut events, words, &unanswered, &connection, renewing) => end,
            end = declared.keep(&outbound) => end,
            never = renewing.ask(&outbound) => match never {},
        }
    }
}

/// Sends heartbeats until too many are not answered.
async fn beat(
    outbound: &mpsc::Sender<DeviceEvent>,
    every: Duration,
    unanswered: &AtomicU32,
) -> End {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, and Hello was a sign of life.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if unanswered.fetch_add(1, Ordering::Relaxed) >= MAX_UNANSWERED {
            return End::Lost {
                reason: format!("{MAX_UNANSWERED} heartbeats were not answered"),
            };
        }
        let heartbeat = ToGateway::Heartbeat(Heartbeat {});
        // Where there is no room, the gateway does not read, and will be found silent.
        let _ = outbound.try_send(DeviceEvent {
            event: Some(heartbeat),
        });
    }
}

async fn listen(
    events: &mut Streaming<GatewayEvent>,
    words: &mpsc::Sender<Word>,
    unanswered: &AtomicU32,
    connection: &Connection,
    renewing: &Renewing<'_>,
) -> End {
    let mut drain_at = None;
    loop {
        let next = match drain_at {
            None => events.message().await,
            Some(at) => {
                let remaining = clock::Moment::since(at, clock::now());
                match timeout(remaining, events.message()).await {
                    Ok(next) => next,
                    Err(_) => {
                        return End::Drained {
                            remaining: Duration::ZERO,
                        };
                    }
                }
            }
        };
        let received_at = clock::now();
        let event = match next {
            Ok(Some(GatewayEvent { event })) => event,
            ended => {
                // A gateway that goes may end the stream before the moment that it named; the moment stands.
                if let Some(at) = drain_at {
                    return End::Drained {
                        remaining: clock::Moment::since(at, clock::now()),
                    };
                }
                return match ended {
                    Err(status) => end_of(&status, connection),
                    Ok(_) => End::Lost {
                        reason: "the gateway ended it".to_owned(),
                    },
                };
            }
        };
        match event {
            Some(FromGateway::HeartbeatAck(_)) => unanswered.store(0, Ordering::Relaxed),
            Some(FromGateway::Drain(Drain { reconnect_after_ms })) => {
                let after = Duration::from_millis(reconnect_after_ms.into());
                tracing::info!(?after, "The gateway goes: connecting to another one");
                drain_at = Some(clock::now().after(after));
            }
            Some(FromGateway::Renewed(renewed)) => {
                // Here, so that whatever came before it was passed on. A gateway that goes has named the moment.
                let is_renewed = renewing.take(renewed);
                if is_renewed && drain_at.is_none() {
                    return End::Renewed;
                }
            }
            Some(event) => {
                let heard = words.send(Word::Event(event, received_at)).await;
                if heard.is_err() {
                    return End::Stopped;
                }
            }
            // From a later version.
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_asks_for_an_interval_within_reason() {
        for (asked, expected) in [
            (0, DEFAULT_INTERVAL),
            (1, MIN_INTERVAL),
            (15_000, Duration::from_secs(15)),
            (u32::MAX, MAX_INTERVAL),
        ] {
            assert_eq!(interval_of(asked), expected);
        }
    }

    #[test]
    fn only_who_says_so_refuses_this_device() {
        for (code, refused) in [
            (Code::PermissionDenied, true),
            (Code::Unauthenticated, true),
            (Code::Unavailable, false),
            (Code::Internal, false),
            (Code::FailedPrecondition, false),
        ] {
            let end = end_of_status(&Status::new(code, "why"));
            assert_eq!(matches!(end, End::Refused { .. }), refused, "{code:?}");
        }
        let end = end_of_status(&Status::resource_exhausted("full"));
        assert_eq!(end, End::Busy { after: None });
    }
}
