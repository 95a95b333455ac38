//! The first connections to a gateway, as types that carry what is known.
//!
//! - [`Unproven`]: somebody is there. All that can be done is to prove a code to them, which lets them prove themselves.
//! - [`Proved`]: they know the code, and are at the other end of this very connection. Their authority is known; what
//!   goes on is only possible once that is on the disk ([`Saved`]).
//! - [`Applied`]: our proof and our application are out. What is answered can be believed.
//! - [`Recognised`]: a later connection, to a gateway of the saved authority. It can be asked how things stand.
//!
//! The verifier that accepts anybody is used in [`dial`] alone, and what that returns can do nothing else.

use std::time::Duration;

use pairing::{
    code::PairingCode,
    exporter::Exporter,
    key::KeyFingerprint,
    opaque::{self, Claim},
};
use proto::node::{
    Application, Begin, Challenge, EnrollRequest, EnrollResponse, Proof, Resume,
    enroll_request::Step, enroll_response::Step as Answer, enrollment_client::EnrollmentClient,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    Error,
    verify::{FirstContact, Trust, authority_of},
};
use crate::{
    state::{DeviceKey, Saved},
    upstream::{
        connect::{self, Connection, Liveness},
        dial::Dialer,
    },
};

/// How long a gateway may take for one step. It may have to wait for others who try the same code.
const STEP_TIME: Duration = Duration::from_secs(30);

/// Opens a connection on which the code still has to be proved, whatever the trust: a pin says that the gateway is the
/// right one, not that this device is.
pub(super) async fn dial(
    dialer: &Dialer,
    gateway: &str,
    pin: Option<KeyFingerprint>,
    key: &DeviceKey,
) -> Result<Unproven, Error> {
    let trust = pin.map_or(Trust::CodeOnly, Trust::Pin);
    let unreachable = |source| Error::of_connect(gateway, source);
    let verifier = FirstContact::new(trust);
    let stream = connect::open(dialer, gateway, verifier, key.self_signed()?)
        .await
        .map_err(unreachable)?;
    let tls = stream.get_ref().1;
    let exporter = Exporter::of(tls).map_err(|error| Error::of_connect(gateway, error.into()))?;
    let presented = tls.peer_certificates().unwrap_or_default().to_vec();
    Ok(Unproven {
        connection: connect::channel_over(stream, Liveness::Pings)
            .await
            .map_err(unreachable)?,
        exporter,
        presented,
        trust,
    })
}

/// A connection to somebody.
pub(super) struct Unproven {
    connection: Connection,
    exporter: Exporter,
    presented: Vec<CertificateDer<'static>>,
    trust: Trust,
}

impl Unproven {
    /// Lets the gateway prove that it knows the code and is not behind a relay. Our own proof is made and kept back.
    ///
    /// Whoever is at the other end gets one guess at the code per call, and nobody counts it: after a failure a person
    /// must decide to try again, never a loop.
    pub(super) async fn prove(self, code: PairingCode) -> Result<Proved, Error> {
        let code_id = code.id().to_owned();
        let (claim, ke1) = Claim::start(code).map_err(of_opaque)?;
        let mut exchange = Exchange::open(self.connection);
        exchange.send(Step::Begin(Begin { code_id, ke1 }))?;
        let Answer::Challenge(Challenge { ke2 }) = exchange.next_within(STEP_TIME).await? else {
            return Err(Error::Protocol("something else than a challenge"));
        };
        let exporter = self.exporter;
        // Stretching takes a while and 8 MiB.
        let ke3 = tokio::task::spawn_blocking(move || claim.prove(&ke2, &exporter))
            .await
            .map_err(|_| Error::Protocol("a challenge that cannot be answered"))?
            .map_err(of_opaque)?;
        let authority = match self.trust {
            Trust::Pin(pin) => pin,
            Trust::CodeOnly => {
                authority_of(&self.presented, UnixTime::now()).ok_or(Error::Protocol(
                    "no certificate of its authority that holds by this device's clock",
                ))?
            }
        };
        Ok(Proved {
            exchange,
            ke3,
            authority,
        })
    }
}

fn of_opaque(error: opaque::Error) -> Error {
    match error {
        opaque::Error::NotProved => Error::CodeNotProved,
        opaque::Error::Malformed | opaque::Error::Stored => {
            Error::Protocol("a challenge that is none")
        }
    }
}

/// A connection to a gateway that knows the code. Our proof did not leave yet.
pub(super) struct Proved {
    exchange: Exchange,
    ke3: Vec<u8>,
    authority: KeyFingerprint,
}

impl Proved {
    /// Whose certificate to expect from now on.
    pub(super) fn authority(&self) -> KeyFingerprint {
        self.authority
    }

    /// Sends proof and application back to back. From here on the code may be used up, and the key is the ticket: so
    /// `_saved` must be on the disk.
    pub(super) fn apply(
        mut self,
        _saved: &Saved,
        application: Application,
    ) -> Result<Applied, Error> {
        self.exchange.send(Step::Proof(Proof { ke3: self.ke3 }))?;
        self.exchange.send(Step::Application(application))?;
        Ok(Applied {
            exchange: self.exchange,
        })
    }
}

/// Opens a connection to a gateway of the saved authority.
pub(super) async fn recognise(
    dialer: &Dialer,
    saved: &Saved,
    key: &DeviceKey,
) -> Result<Recognised, Error> {
    let pairing = saved.pairing();
    let unreachable = |source| Error::of_connect(&pairing.gateway, source);
    let verifier = FirstContact::new(Trust::Pin(pairing.authority));
    let stream = connect::open(dialer, &pairing.gateway, verifier, key.self_signed()?)
        .await
        .map_err(unreachable)?;
    Ok(Recognised {
        connection: connect::channel_over(stream, Liveness::Pings)
            .await
            .map_err(unreachable)?,
    })
}

/// A connection to a gateway of the authority that proved itself before.
pub(super) struct Recognised {
    connection: Connection,
}

impl Recognised {
    /// Asks for the request of this device's key.
    pub(super) fn resume(self) -> Result<Applied, Error> {
        let mut exchange = Exchange::open(self.connection);
        exchange.send(Step::Resume(Resume {}))?;
        Ok(Applied { exchange })
    }
}

/// A conversation with a gateway that is proved and knows our key.
pub(super) struct Applied {
    exchange: Exchange,
}

impl Applied {
    /// What the gateway says first. It has to look for the request, or make it.
    pub(super) async fn first(&mut self) -> Result<Answer, Error> {
        self.exchange.next_within(STEP_TIME).await
    }

    /// What the gateway says next: for a person may think as long as he likes.
    pub(super) async fn next(&mut self) -> Result<Answer, Error> {
        self.exchange.next().await
    }

    /// Answers `Describe`.
    pub(super) fn describe(&mut self, application: Application) -> Result<(), Error> {
        self.exchange.send(Step::Application(application))
    }
}

/// The two directions of one `Enroll`. The call begins with the first answer that is waited for.
struct Exchange {
    steps: mpsc::Sender<EnrollRequest>,
    answers: Answers,
    connection: Connection,
}

enum Answers {
    NotAsked(Option<mpsc::Receiver<EnrollRequest>>),
    Streaming(Box<Streaming<EnrollResponse>>),
}

impl Exchange {
    fn open(connection: Connection) -> Self {
        // Begin, Proof and Application: more is never on its way.
        let (steps, outgoing) = mpsc::channel(4);
        Self {
            steps,
            answers: Answers::NotAsked(Some(outgoing)),
            connection,
        }
    }

    fn send(&mut self, step: Step) -> Result<(), Error> {
        let request = EnrollRequest { step: Some(step) };
        self.steps
            .try_send(request)
            .map_err(|_| Error::lost(&Status::cancelled("the gateway hung up")))
    }

    async fn next_within(&mut self, time: Duration) -> Result<Answer, Error> {
        timeout(time, self.next())
            .await
            .map_err(|_| Error::lost(&Status::deadline_exceeded("the gateway took too long")))?
    }

    async fn next(&mut self) -> Result<Answer, Error> {
        if let Answers::NotAsked(outgoing) = &mut self.answers {
            let outgoing = outgoing.take().ok_or(Error::Protocol("nothing"))?;
            let streaming = EnrollmentClient::new(self.connection.channel.clone())
                .max_decoding_message_size(proto::MAX_GATEWAY_MESSAGE_BYTES)
                .enroll(ReceiverStream::new(outgoing))
                .await
                .map_err(|status| Error::of_status(&status))?
                .into_inner();
            self.answers = Answers::Streaming(Box::new(streaming));
        }
        let Answers::Streaming(streaming) = &mut self.answers else {
            return Err(Error::Protocol("nothing"));
        };
        streaming
            .message()
            .await
            .map_err(|status| Error::of_status(&status))?
            .ok_or_else(|| Error::lost(&Status::unavailable("the gateway ended the exchange")))?
            .step
            .ok_or(Error::Protocol("an answer that this version does not know"))
    }
}
