//! A peer that speaks to a gateway over the wire and need not play by the rules: what the agent would never do.
//!
//! It checks nothing of the gateway but what it is told to; that is the agent's business and has its own tests.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pairing::code::PairingCode;
use pairing::exporter::Exporter;
use pairing::key::KeyFingerprint;
use pairing::opaque::{self, Claim};
use proto::node::device_event::Event as Said;
use proto::node::enroll_request::Step;
use proto::node::enroll_response::Step as Answer;
use proto::node::enrollment_client::EnrollmentClient;
use proto::node::gateway_event::Event as Heard;
use proto::node::node_service_client::NodeServiceClient;
use proto::node::{
    Application, Begin, Capability, Challenge, ClientKind, DeviceEvent, EnrollRequest,
    EnrollResponse, GatewayEvent, Hello, Issued, Outcome, PairingMethod, Platform, Proof,
    RegisterRequest, Result as Report, Resume,
};
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::hang_up::{HangUp, overhear};

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A TLS connection to a gateway.
pub type Connection = TlsStream<tokio::net::TcpStream>;

/// A key, and an address of its own on loopback, so that what a gateway counts by address does not mix trials.
pub struct Stranger {
    key: KeyPair,
    source: IpAddr,
}

/// What is shown in the handshake.
pub enum Shown {
    /// A certificate signed with its own key.
    SelfSigned,
    /// Somebody's certificate for the key, leaf first.
    Issued(Vec<CertificateDer<'static>>),
    /// None.
    Nothing,
}

impl Stranger {
    /// With a new key.
    pub fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ok(Self {
            key: KeyPair::generate().context("make a key")?,
            source: Ipv4Addr::new(127, 77, number[2], number[3]).into(),
        })
    }

    /// Its identity.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of_spki(&self.key.subject_public_key_info())
    }

    /// The key, for certificates that a trial makes itself.
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// A certificate request for its key, DER.
    pub fn pkcs10(&self) -> anyhow::Result<Vec<u8>> {
        Ok(CertificateParams::default()
            .serialize_request(&self.key)?
            .der()
            .to_vec())
    }

    /// Connects. In TLS 1.3 success says nothing: a refusal comes with the first read.
    pub async fn connect(&self, gateway: &str, shown: Shown) -> io::Result<Connection> {
        self.connect_with(gateway, shown, &rustls::version::TLS13)
            .await
    }

    /// Connects with one version of TLS.
    pub async fn connect_with(
        &self,
        gateway: &str,
        shown: Shown,
        version: &'static SupportedProtocolVersion,
    ) -> io::Result<Connection> {
        let other = io::Error::other::<rustls::Error>;
        let builder = ClientConfig::builder_with_provider(pairing::crypto())
            .with_protocol_versions(&[version])
            .map_err(other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous));
        let private = || PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        let mut tls = match shown {
            Shown::SelfSigned => {
                let mut params = CertificateParams::default();
                params
                    .distinguished_name
                    .push(DnType::CommonName, "stranger");
                let own = params.self_signed(&self.key).map_err(io::Error::other)?;
                builder
                    .with_client_auth_cert(vec![own.der().clone()], private())
                    .map_err(other)?
            }
            Shown::Issued(chain) => builder
                .with_client_auth_cert(chain, private())
                .map_err(other)?,
            Shown::Nothing => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        let tcp = self.dial(gateway).await?;
        let name = ServerName::try_from(proto::SERVER_NAME).map_err(io::Error::other)?;
        timeout(
            ANSWER_WITHIN,
            TlsConnector::from(Arc::new(tls)).connect(name, tcp),
        )
        .await?
    }

    /// A TCP connection from this stranger's address.
    pub async fn dial(&self, gateway: &str) -> io::Result<tokio::net::TcpStream> {
        let gateway: SocketAddr = gateway.parse().map_err(io::Error::other)?;
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.source, 0))?;
        let tcp = timeout(ANSWER_WITHIN, socket.connect(gateway)).await??;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    /// Opens an exchange, as an enrollee.
    pub async fn enroll(&self, gateway: &str) -> anyhow::Result<Exchange> {
        let connection = self
            .connect(gateway, Shown::SelfSigned)
            .await
            .context("connect as an enrollee")?;
        Exchange::over(connection).await
    }

    /// Proves a code and asks for a certificate, as a well-behaved device would.
    pub async fn apply(
        &self,
        gateway: &str,
        code: &PairingCode,
        name: &str,
    ) -> anyhow::Result<Exchange> {
        let mut exchange = self.enroll(gateway).await?;
        exchange.prove(code).await?;
        exchange
            .send(Step::Application(self.application(name)?))
            .await?;
        Ok(exchange)
    }

    /// What this stranger would like to be.
    pub fn application(&self, name: &str) -> anyhow::Result<Application> {
        let capability = |name: &str| Capability {
            name: name.to_owned(),
            ..Capability::default()
        };
        Ok(Application {
            pkcs10: self.pkcs10()?,
            requested_name: name.to_owned(),
            client_kind: ClientKind::Node.into(),
            method: PairingMethod::Pin.into(),
            platform: Some(Platform {
                os: "linux".to_owned(),
                arch: "x86_64".to_owned(),
                agent_version: "0.0.0".to_owned(),
                hostname: name.to_owned(),
            }),
            capabilities: ["echo", "system.health"].map(capability).into(),
        })
    }
}

/// A run of `Enrollment.Enroll`.
pub struct Exchange {
    exporter: Exporter,
    steps: mpsc::Sender<EnrollRequest>,
    answers: Streaming<EnrollResponse>,
    hang_up: HangUp,
    /// Kept, or we would hang up as soon as the call is over.
    _channel: Channel,
}

/// Why a proof did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Unproved {
    /// The gateway's challenge does not fit the code, or this connection.
    #[error("the challenge does not fit the code")]
    Challenge(#[source] opaque::Error),
    /// The gateway said so.
    #[error("the gateway refused: {0}")]
    Refused(#[from] Status),
    /// The gateway answered with something else.
    #[error("the gateway answered with another step")]
    OutOfOrder,
}

impl Exchange {
    /// Begins an exchange on a connection.
    pub async fn over(connection: Connection) -> anyhow::Result<Self> {
        let exporter = Exporter::of(connection.get_ref().1).context("export keying material")?;
        let (connection, hang_up) = overhear(connection);
        let channel = channel(connection).await?;
        let (steps, outgoing) = mpsc::channel(4);
        let answers = EnrollmentClient::new(channel.clone())
            .enroll(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        Ok(Self {
            exporter,
            steps,
            answers,
            hang_up,
            _channel: channel,
        })
    }

    /// Waits until the gateway hangs up.
    ///
    /// # Errors
    /// When it does not in that time.
    pub async fn hung_up(&mut self, within: Duration) -> anyhow::Result<()> {
        self.hang_up.within(within).await
    }

    /// Sends a step, whichever it is.
    pub async fn send(&self, step: Step) -> anyhow::Result<()> {
        self.steps
            .send(EnrollRequest { step: Some(step) })
            .await
            .context("the gateway hung up")
    }

    /// The gateway's next answer.
    pub async fn next(&mut self) -> Result<Answer, Status> {
        timeout(ANSWER_WITHIN, self.answers.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no answer"))??
            .and_then(|response| response.step)
            .ok_or_else(|| Status::cancelled("the gateway ended the exchange"))
    }

    /// Asks for a challenge and gives it back unanswered: an attempt.
    pub async fn challenge(&mut self, code: &PairingCode) -> Result<(Claim, Vec<u8>), Unproved> {
        let (claim, ke1) = Claim::start(code.clone()).map_err(Unproved::Challenge)?;
        let begin = Begin {
            code_id: code.id().to_owned(),
            ke1,
        };
        // A gateway that hung up says why in its answer.
        let _ = self.send(Step::Begin(begin)).await;
        let Answer::Challenge(Challenge { ke2 }) = self.next().await? else {
            return Err(Unproved::OutOfOrder);
        };
        Ok((claim, ke2))
    }

    /// Proves a code.
    pub async fn prove(&mut self, code: &PairingCode) -> Result<(), Unproved> {
        let (claim, ke2) = self.challenge(code).await?;
        let exporter = self.exporter;
        let ke3 = tokio::task::spawn_blocking(move || claim.prove(&ke2, &exporter))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(Unproved::Challenge)?;
        let _ = self.send(Step::Proof(Proof { ke3 })).await;
        Ok(())
    }

    /// Asks for what this key asked for before.
    pub async fn resume(&mut self) -> Result<Answer, Status> {
        let _ = self.send(Step::Resume(Resume {})).await;
        self.next().await
    }

    /// Waits for the certificate.
    pub async fn issued(&mut self) -> anyhow::Result<Issued> {
        loop {
            let answer = self.next().await?;
            if let Answer::Issued(issued) = answer {
                return Ok(issued);
            }
            ensure!(
                matches!(answer, Answer::Pending(_)),
                "no certificate but {answer:?}"
            );
        }
    }
}

/// A paired device's stream, with nobody behind it: it answers what a trial tells it to.
pub struct DeviceStream {
    said: mpsc::Sender<DeviceEvent>,
    heard: Streaming<GatewayEvent>,
}

impl DeviceStream {
    /// Registers with these capabilities and opens the stream, up to the Welcome.
    pub async fn open(connection: Connection, capabilities: &[&str]) -> anyhow::Result<Self> {
        let channel = channel(connection).await?;
        let registration = register(channel.clone(), capabilities).await?;
        Self::begin(channel, registration).await
    }

    /// Opens the stream with a registration, whosever it is, up to the Welcome.
    pub async fn begin(channel: Channel, registration: String) -> anyhow::Result<Self> {
        let (said, outgoing) = mpsc::channel(8);
        let hello = DeviceEvent {
            event: Some(Said::Hello(Hello { registration })),
        };
        said.send(hello).await.context("say hello")?;
        let heard = NodeServiceClient::new(channel)
            .event_stream(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        let mut stream = Self { said, heard };
        let first = stream.next().await?;
        ensure!(
            matches!(first, Heard::Welcome(_)),
            "no welcome but {first:?}"
        );
        Ok(stream)
    }

    /// Says something.
    pub async fn say(&self, event: Said) -> anyhow::Result<()> {
        self.said
            .send(DeviceEvent { event: Some(event) })
            .await
            .context("the gateway hung up")
    }

    /// The gateway's next event; answers to heartbeats are left out.
    pub async fn next(&mut self) -> Result<Heard, Status> {
        loop {
            let event = timeout(ANSWER_WITHIN, self.heard.message())
                .await
                .map_err(|_| Status::deadline_exceeded("nothing heard"))??
                .and_then(|event| event.event)
                .ok_or_else(|| Status::cancelled("the gateway ended the stream"))?;
            if !matches!(event, Heard::HeartbeatAck(_)) {
                return Ok(event);
            }
        }
    }
}

/// Says what a device can do. Gives what it then says Hello with.
pub async fn register(channel: Channel, capabilities: &[&str]) -> Result<String, Status> {
    let capability = |name: &&str| Capability {
        name: (*name).to_owned(),
        ..Capability::default()
    };
    let request = RegisterRequest {
        platform: Some(Platform::default()),
        capabilities: capabilities.iter().map(capability).collect(),
        ..RegisterRequest::default()
    };
    let registered = NodeServiceClient::new(channel).register(request).await?;
    Ok(registered.into_inner().registration)
}

/// The report of a capability that succeeded with this output.
pub fn success(uid: &str, name: &str, output: &serde_json::Value) -> Said {
    let output = output.to_string().into_bytes();
    Said::Result(Report {
        uid: uid.to_owned(),
        name: name.to_owned(),
        outcome: Outcome::Succeeded.into(),
        output_sha256: Sha256::digest(&output).to_vec(),
        output,
        ..Report::default()
    })
}

/// Speaks gRPC over a connection, and over no other.
pub async fn channel<C>(connection: C) -> anyhow::Result<Channel>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    speak(connection, endpoint()).await
}

/// The same, and takes no more than so many bytes of a call before they are read.
pub async fn narrow_channel(connection: Connection, bytes: u32) -> anyhow::Result<Channel> {
    speak(connection, endpoint().initial_stream_window_size(bytes)).await
}

fn endpoint() -> Endpoint {
    // Not `https`, which would make tonic look for a TLS configuration of its own.
    Endpoint::from_static("http://gateway.fairlead.internal")
}

async fn speak<C>(connection: C, endpoint: Endpoint) -> anyhow::Result<Channel>
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Some(hyper_util::rt::TokioIo::new(connection));
    let connector = tower::service_fn(move |_| {
        let connection = connection.take();
        async move { connection.ok_or(io::Error::from(io::ErrorKind::NotConnected)) }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .context("speak HTTP/2")
}

/// Believes every server.
#[derive(Debug)]
pub struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &pairing::crypto().signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &pairing::crypto().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        pairing::crypto()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
