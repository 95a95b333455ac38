//! A gateway in the hands of a test: it listens, and gives each call to the test to answer.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pairing::{
    bundle::{Bundle, Signature, SignedBundle},
    exporter::Exporter,
    key::KeyFingerprint,
};
use proto::node::{
    DeviceEvent, EnrollRequest, EnrollResponse, GatewayEvent, RegisterRequest, RegisterResponse,
    Welcome,
    device_event::Event as FromDevice,
    enroll_request::Step,
    enroll_response,
    enrollment_server::{Enrollment, EnrollmentServer},
    gateway_event::Event as FromGateway,
    node_service_server::{NodeService, NodeServiceServer},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, PublicKeyData, SanType,
    SigningKey as _,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName as TlsName, Error as TlsError, RootCertStore,
    ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::Connected},
};

/// Longest wait of a test: far longer than anything takes.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits with a deadline.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("in time")
}

/// Of the bundle that a paired device holds.
pub const SEQUENCE: u64 = 7;

/// A certificate authority in memory.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = dated();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    pub fn pin(&self) -> KeyFingerprint {
        KeyFingerprint::of_spki(&self.issuer.key().subject_public_key_info())
    }

    pub fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// A bundle with these authorities, signed by this one.
    pub fn signed_bundle(&self, sequence: u64, members: &[&Self]) -> Vec<u8> {
        let members = members.iter().map(|one| one.issuer.der().clone()).collect();
        let bundle = Bundle::new("test.example", sequence, members).unwrap();
        let signature = Signature {
            by: self.pin(),
            bytes: self.issuer.key().sign(&bundle.to_be_signed()).unwrap(),
        };
        let signed = SignedBundle::new(bundle, vec![signature]).unwrap();
        signed.to_bytes()
    }

    /// With nothing but this one in it.
    pub fn own_bundle(&self) -> Vec<u8> {
        self.signed_bundle(SEQUENCE, &[self])
    }

    /// A device's certificate, for the key of a PKCS#10 request.
    pub fn device(&self, pkcs10: &[u8], namespace: &str, device: &str) -> Vec<u8> {
        self.device_in(dated(), pkcs10, namespace, device)
    }

    /// The same, that holds from then until then, in seconds since 1970.
    pub fn device_for(
        &self,
        (from, until): (u64, u64),
        pkcs10: &[u8],
        namespace: &str,
        device: &str,
    ) -> Vec<u8> {
        let at = |second| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(second);
        let mut params = dated();
        params.not_before = at(from);
        params.not_after = at(until);
        self.device_in(params, pkcs10, namespace, device)
    }

    fn device_in(
        &self,
        mut params: CertificateParams,
        pkcs10: &[u8],
        namespace: &str,
        device: &str,
    ) -> Vec<u8> {
        let name = format!("spiffe://test.example/ns/{namespace}/device/{device}");
        let key = CertificateSigningRequestParams::from_der(&pkcs10.to_vec().into())
            .unwrap()
            .public_key;
        params.subject_alt_names = vec![SanType::URI(name.as_str().try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }

    fn server(&self) -> (Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = dated();
        params.subject_alt_names = vec![SanType::DnsName(proto::SERVER_NAME.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone(), self.issuer.der().clone()];
        (chain, PrivatePkcs8KeyDer::from(key.serialize_der()))
    }
}

fn dated() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params
}

/// One `Enroll`, to be answered by the test.
pub struct EnrollCall {
    pub exporter: Exporter,
    pub key: KeyFingerprint,
    steps: Streaming<EnrollRequest>,
    answers: mpsc::Sender<Result<EnrollResponse, Status>>,
}

impl EnrollCall {
    pub async fn next(&mut self) -> Step {
        soon(self.steps.message())
            .await
            .unwrap()
            .unwrap()
            .step
            .unwrap()
    }

    /// Whether the device hung up without another word.
    pub async fn is_over(&mut self) -> bool {
        matches!(soon(self.steps.message()).await, Ok(None) | Err(_))
    }

    pub async fn answer(&self, step: enroll_response::Step) {
        let response = EnrollResponse { step: Some(step) };
        self.answers.send(Ok(response)).await.unwrap();
    }

    pub async fn fail(&self, status: Status) {
        self.answers.send(Err(status)).await.unwrap();
    }
}

/// One `EventStream` that was welcomed.
pub struct StreamCall {
    /// The certificate that the device showed.
    pub leaf: Vec<u8>,
    events: Streaming<DeviceEvent>,
    answers: mpsc::Sender<Result<GatewayEvent, Status>>,
}

impl StreamCall {
    /// The next event that is no heartbeat; those are answered, and are no reason to wait for ever.
    pub async fn next(&mut self) -> FromDevice {
        soon(async {
            loop {
                match self.any().await {
                    FromDevice::Heartbeat(_) => {
                        self.send(FromGateway::HeartbeatAck(proto::node::HeartbeatAck {}))
                            .await;
                    }
                    event => return event,
                }
            }
        })
        .await
    }

    pub async fn any(&mut self) -> FromDevice {
        self.any_or_end().await.unwrap()
    }

    /// `None` where the device is gone.
    pub async fn any_or_end(&mut self) -> Option<FromDevice> {
        soon(self.events.message()).await.ok()??.event
    }

    /// The next event, which must be a result.
    pub async fn result(&mut self) -> proto::node::Result {
        loop {
            match self.next().await {
                FromDevice::Result(result) => return result,
                FromDevice::Accepted(_) => {}
                other => unreachable!("{other:?}"),
            }
        }
    }

    pub async fn send(&self, event: FromGateway) {
        assert!(self.try_send(event).await, "the device is there");
    }

    /// Whether the device was still there.
    pub async fn try_send(&self, event: FromGateway) -> bool {
        let event = GatewayEvent { event: Some(event) };
        self.answers.send(Ok(event)).await.is_ok()
    }

    pub async fn fail(&self, status: Status) {
        self.answers.send(Err(status)).await.unwrap();
    }
}

/// What a gateway does with the devices that register.
#[derive(Clone)]
pub struct Manners {
    pub heartbeat: Duration,
    pub gateways: Vec<String>,
    /// Refuses everybody.
    pub refuses: Option<Status>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            gateways: Vec::new(),
            refuses: None,
        }
    }
}

/// A gateway. It dies when dropped: connections and all.
pub struct Gateway {
    pub address: SocketAddr,
    pub enrolments: mpsc::Receiver<EnrollCall>,
    pub registrations: mpsc::UnboundedReceiver<RegisterRequest>,
    pub streams: mpsc::Receiver<StreamCall>,
    _tasks: JoinSet<()>,
}

impl Gateway {
    /// Lets in whoever has a certificate of the authority, and strangers.
    pub async fn start(authority: &Authority, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, authority, authority, manners)
    }

    /// With a certificate of one authority, for devices of another.
    pub fn start_on(
        listener: TcpListener,
        authority: &Authority,
        devices: &Authority,
        manners: Manners,
    ) -> Self {
        Self::start_as(listener, authority.server(), devices, manners)
    }

    /// With a certificate of one authority, and another one's own certificate sent along with it.
    pub async fn impostor(authority: &Authority, claims: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut chain, key) = authority.server();
        chain.push(CertificateDer::from(claims.der()));
        Self::start_as(listener, (chain, key), claims, Manners::default())
    }

    fn start_as(
        listener: TcpListener,
        (chain, key): (Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>),
        devices: &Authority,
        manners: Manners,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(devices.issuer.der().clone()).unwrap();
        let verifier = Lenient {
            devices: WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots),
                pairing::crypto(),
            )
            .build()
            .unwrap(),
        };
        let mut tls = ServerConfig::builder_with_provider(pairing::crypto())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain, key.into())
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];

        let (enrolling, enrolments) = mpsc::channel(8);
        let (registering, registrations) = mpsc::unbounded_channel();
        let (streaming, streams) = mpsc::channel(8);
        let (accepted, incoming) = mpsc::channel::<io::Result<Peer>>(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), accepted));
        tasks.spawn(async move {
            let served = Server::builder()
                .add_service(EnrollmentServer::new(Enroller { enrolling }))
                .add_service(NodeServiceServer::new(Node {
                    registering,
                    streaming,
                    manners,
                }))
                .serve_with_incoming(ReceiverStream::new(incoming))
                .await;
            served.unwrap();
        });
        Self {
            address,
            enrolments,
            registrations,
            streams,
            _tasks: tasks,
        }
    }

    pub async fn enrolment(&mut self) -> EnrollCall {
        soon(self.enrolments.recv()).await.unwrap()
    }

    pub async fn stream(&mut self) -> StreamCall {
        soon(self.streams.recv()).await.unwrap()
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<Peer>>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        handshakes.spawn(async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let _ = accepted.send(Ok(Peer(tls))).await;
            }
        });
    }
}

/// Strangers by their own signature, devices by the authority's.
#[derive(Debug)]
struct Lenient {
    devices: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[TlsName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        match pairing::certificate::Presented::read(end_entity)? {
            pairing::certificate::Presented::SelfSigned { .. } => {
                Ok(ClientCertVerified::assertion())
            }
            pairing::certificate::Presented::Device { .. } => {
                self.devices
                    .verify_client_cert(end_entity, intermediates, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = pairing::crypto().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.devices.supported_verify_schemes()
    }
}

/// A connection and what is known of its other end.
struct Peer(TlsStream<TcpStream>);

#[derive(Clone)]
struct Known {
    exporter: Exporter,
    key: KeyFingerprint,
    leaf: Vec<u8>,
}

impl Connected for Peer {
    type ConnectInfo = Known;

    fn connect_info(&self) -> Known {
        let tls = self.0.get_ref().1;
        let leaf = &tls.peer_certificates().unwrap()[0];
        Known {
            exporter: Exporter::of(tls).unwrap(),
            key: KeyFingerprint::of_certificate(leaf).unwrap(),
            leaf: leaf.to_vec(),
        }
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

struct Enroller {
    enrolling: mpsc::Sender<EnrollCall>,
}

#[tonic::async_trait]
impl Enrollment for Enroller {
    type EnrollStream = ReceiverStream<Result<EnrollResponse, Status>>;

    async fn enroll(
        &self,
        request: Request<Streaming<EnrollRequest>>,
    ) -> Result<Response<Self::EnrollStream>, Status> {
        let Known { exporter, key, .. } = request.extensions().get::<Known>().unwrap().clone();
        let (answers, outgoing) = mpsc::channel(8);
        let call = EnrollCall {
            exporter,
            key,
            steps: request.into_inner(),
            answers,
        };
        self.enrolling
            .send(call)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

struct Node {
    registering: mpsc::UnboundedSender<RegisterRequest>,
    streaming: mpsc::Sender<StreamCall>,
    manners: Manners,
}

#[tonic::async_trait]
impl NodeService for Node {
    type EventStreamStream = ReceiverStream<Result<GatewayEvent, Status>>;

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let _ = self.registering.send(request.into_inner());
        match &self.manners.refuses {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(RegisterResponse {
                namespace: "kitchen".to_owned(),
                device: "lamp".to_owned(),
                registration: "r1".to_owned(),
            })),
        }
    }

    async fn event_stream(
        &self,
        request: Request<Streaming<DeviceEvent>>,
    ) -> Result<Response<Self::EventStreamStream>, Status> {
        let leaf = request.extensions().get::<Known>().unwrap().leaf.clone();
        let mut events = request.into_inner();
        let (answers, outgoing) = mpsc::channel(64);
        let hello = events.next().await.unwrap()?.event;
        assert!(matches!(hello, Some(FromDevice::Hello(hello)) if hello.registration == "r1"));
        let welcome = FromGateway::Welcome(Welcome {
            heartbeat_interval_ms: u32::try_from(self.manners.heartbeat.as_millis()).unwrap(),
            epoch: 1,
            gateway: "gateway-0".to_owned(),
            gateways: self.manners.gateways.clone(),
            ..Welcome::default()
        });
        let welcome = GatewayEvent {
            event: Some(welcome),
        };
        answers.send(Ok(welcome)).await.unwrap();
        let call = StreamCall {
            leaf,
            events,
            answers,
        };
        self.streaming
            .send(call)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
