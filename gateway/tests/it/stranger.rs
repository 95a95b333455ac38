//! Those who knock: they speak TLS and gRPC well, and what they say is up to the test.

use std::{io, net::SocketAddr, sync::Arc};

use hyper_util::rt::TokioIo;
use pairing::{code::PairingCode, crypto, exporter::Exporter, opaque::Claim};
use proto::{
    SERVER_NAME,
    node::{
        Application, Begin, ClientKind, EnrollRequest, EnrollResponse, PairingMethod, Proof,
        RegisterRequest, Resume, enroll_request::Step, enroll_response::Step as Answer,
        enrollment_client::EnrollmentClient, node_service_client::NodeServiceClient,
    },
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use crate::{
    authority::{DeviceKey, Identity},
    hub::SOON,
};

pub type Tls = TlsStream<TcpStream>;

/// Connects with that certificate. That it succeeds says nothing: in TLS 1.3 a refusal comes with the first read.
pub async fn connect(address: SocketAddr, identity: Identity) -> Tls {
    handshake(address, config_of(identity)).await.unwrap()
}

pub fn config_of(Identity { chain, key }: Identity) -> ClientConfig {
    client_config().with_client_auth_cert(chain, key).unwrap()
}

pub async fn connect_without_certificate(address: SocketAddr) -> Tls {
    handshake(address, client_config().with_no_client_auth())
        .await
        .unwrap()
}

fn client_config() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
}

pub async fn handshake(address: SocketAddr, config: ClientConfig) -> io::Result<Tls> {
    handshake_from([127, 0, 0, 1], address, config).await
}

/// From that address of the loopback.
pub async fn handshake_from(
    source: [u8; 4],
    address: SocketAddr,
    mut config: ClientConfig,
) -> io::Result<Tls> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    // Small, so that what is not read is soon felt at the other end.
    socket.set_recv_buffer_size(16 * 1024)?;
    let tcp = socket.connect(address).await?;
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    timeout(
        SOON,
        TlsConnector::from(Arc::new(config)).connect(name, tcp),
    )
    .await?
}

/// Speaks gRPC over this connection and no other.
pub async fn channel_over(stream: Tls) -> Channel {
    let mut stream = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    Endpoint::from_static("http://gateway")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

/// What the device with this certificate is called behind the door.
pub async fn register(address: SocketAddr, identity: Identity) -> Result<String, Status> {
    let channel = channel_over(connect(address, identity).await).await;
    let mut node = NodeServiceClient::new(channel);
    Ok(timeout(SOON, node.register(RegisterRequest::default()))
        .await
        .unwrap()?
        .into_inner()
        .device)
}

/// A call of `Enroll`.
pub struct Enrolling {
    pub exporter: Exporter,
    steps: mpsc::Sender<EnrollRequest>,
    answers: Streaming<EnrollResponse>,
}

impl Enrolling {
    pub async fn start(address: SocketAddr, key: &DeviceKey) -> Result<Self, Status> {
        Self::over(connect(address, key.self_signed()).await).await
    }

    pub async fn over(stream: Tls) -> Result<Self, Status> {
        let exporter = Exporter::of(stream.get_ref().1).unwrap();
        let channel = channel_over(stream).await;
        let (steps, outgoing) = mpsc::channel(4);
        let mut call = EnrollmentClient::new(channel);
        let answers = timeout(SOON, call.enroll(ReceiverStream::new(outgoing)))
            .await
            .unwrap()?;
        Ok(Self {
            exporter,
            steps,
            answers: answers.into_inner(),
        })
    }

    pub async fn send(&self, step: Step) {
        // Whoever is refused learns it from the answer.
        let _ = self.steps.send(EnrollRequest { step: Some(step) }).await;
    }

    pub async fn next(&mut self) -> Result<Answer, Status> {
        let answer = timeout(SOON * 2, self.answers.message())
            .await
            .expect("no answer in time")?;
        Ok(answer.expect("an answer before the end").step.unwrap())
    }

    /// Asks for a challenge, and returns KE3 to it.
    pub async fn challenge(&mut self, code: &PairingCode) -> Result<Vec<u8>, Refused> {
        let (claim, ke1) = Claim::start(code.clone()).unwrap();
        self.send(Step::Begin(Begin {
            code_id: code.id().to_owned(),
            ke1,
        }))
        .await;
        let answer = self.next().await.map_err(Refused::ByGateway)?;
        let Answer::Challenge(challenge) = answer else {
            panic!("{answer:?} is no challenge");
        };
        claim
            .prove(&challenge.ke2, &self.exporter)
            .map_err(|_| Refused::ByDevice)
    }

    pub async fn prove(&mut self, code: &PairingCode) -> Result<(), Refused> {
        let ke3 = self.challenge(code).await?;
        self.send(Step::Proof(Proof { ke3 })).await;
        Ok(())
    }

    pub async fn resume(&mut self) -> Result<Answer, Status> {
        self.send(Step::Resume(Resume {})).await;
        self.next().await
    }

    pub async fn apply(&mut self, key: &DeviceKey) -> Result<Answer, Status> {
        self.send(Step::Application(application(key))).await;
        self.next().await
    }
}

/// Who gave up.
#[derive(Debug)]
pub enum Refused {
    ByGateway(Status),
    /// The gateway could not show that it knows the code: it is wrong, or no code.
    ByDevice,
}

pub fn application(key: &DeviceKey) -> Application {
    Application {
        pkcs10: key.signing_request(),
        requested_name: "kiosk".to_owned(),
        client_kind: ClientKind::Node.into(),
        method: PairingMethod::Pin.into(),
        platform: None,
        capabilities: Vec::new(),
    }
}

/// Believes every server: who it is does not matter here.
#[derive(Debug)]
pub struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &crypto().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
