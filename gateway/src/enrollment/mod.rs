//! `Enrollment`: turns a stranger who knows a pairing code into a device that holds a certificate.
//!
//! [`exchange`] tells the story of one call. What it decides is in [`decide`] (codes and requests), [`application`]
//! (what a device asks for) and [`answer`] (what it is told), all pure; what it reads and writes is in [`codes`] and
//! [`requests`]. Everything that lasts is in the API server, so a device may go on at any gateway.

mod answer;
pub(crate) mod api;
pub mod application;
mod codes;
mod decide;
mod exchange;
mod requests;

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt as _,
    stream::{self, PollNext},
};
use pairing::opaque::Setup;
use proto::{
    MAX_ENROLLEE_MESSAGE_BYTES,
    node::{
        EnrollRequest, EnrollResponse,
        enrollment_server::{Enrollment, EnrollmentServer},
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    metrics::Metrics,
    mounted::Current,
    peer::{self, Admission, Identity},
    status::full,
    tries::Tries,
};
use codes::Codes;
use exchange::Exchange;
use requests::Requests;

/// What an operator of this gateway decides.
pub struct Settings {
    /// Name of this gateway.
    pub gateway: String,
    /// How long a request waits for a decision.
    pub request_time: Duration,
    /// HOST:PORT of every gateway, as devices are told.
    pub gateways: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Tries of codes per minute, of all strangers together.
    pub tries_per_minute: u32,
    /// The same, per address.
    pub tries_per_minute_per_address: u32,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// What every call needs.
struct Context {
    settings: Settings,
    codes: Codes,
    requests: Requests,
    setup: Current<Setup>,
    tries: Tries,
    /// Apart from the tries: devices that come back must not be kept out by those who guess.
    resumes: Tries,
    metrics: Metrics,
    stop: CancellationToken,
}

/// The service.
#[derive(Clone)]
pub struct Enroller(Arc<Context>);

impl Enroller {
    /// Ends its calls when `stop` is cancelled.
    pub fn new(
        client: &kube::Client,
        settings: Settings,
        setup: Current<Setup>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let tries = || {
            Tries::per_minute(
                settings.tries_per_minute,
                settings.tries_per_minute_per_address,
            )
        };
        Self(Arc::new(Context {
            codes: Codes::new(client.clone()),
            requests: Requests::new(client.clone()),
            setup,
            tries: tries(),
            resumes: tries(),
            metrics,
            stop,
            settings,
        }))
    }

    pub fn service(&self) -> EnrollmentServer<Self> {
        EnrollmentServer::new(self.clone()).max_decoding_message_size(MAX_ENROLLEE_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Enrollment for Enroller {
    type EnrollStream = Pin<Box<dyn Stream<Item = Result<EnrollResponse, Status>> + Send>>;

    async fn enroll(
        &self,
        request: Request<Streaming<EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        let peer = Arc::clone(peer::of(&request)?);
        let (&Identity::Enrollee { key, exporter }, Admission::Enrollee(stay)) =
            (&peer.identity, &peer.admission)
        else {
            return Err(Status::permission_denied(
                "already enrolled: to enrol anew, connect with a self-signed certificate",
            ));
        };
        let stay = Arc::clone(stay);
        let busy = stay
            .begin()
            .ok_or_else(|| full("one enrolment at a time", Duration::from_secs(1)))?;
        let (answers, outgoing) = mpsc::channel(1);
        let exchange = Exchange {
            context: Arc::clone(&self.0),
            remote: peer.remote.ip(),
            key,
            exporter,
            stay,
            steps: request.into_inner(),
            answers,
        };
        let ending = stream::once(async move {
            let outcome = exchange.run().await;
            drop(busy);
            outcome
        })
        .filter_map(|outcome| std::future::ready(outcome.err().map(Err)));
        // The exchange runs where its answers are sent from: when the device is gone, so is the exchange. Answers come
        // before the end, or a refusal could overtake what led to it.
        let answers = ReceiverStream::new(outgoing).map(Ok);
        let stream = stream::select_with_strategy(answers, ending, |(): &mut ()| PollNext::Left);
        Ok(Response::new(Box::pin(stream)))
    }
}
