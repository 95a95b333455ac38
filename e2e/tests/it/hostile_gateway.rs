//! A gateway that was taken over: with its token and with its serving key it cannot make a device trust an authority of
//! its own, and the device goes on with the honest gateways.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crds::{Device, PairingRequest, names};
use e2e::authority::Authority;
use e2e::cluster::Cluster;
use e2e::install::SYSTEM_NAMESPACE;
use e2e::private;
use e2e::stack::{Agent, TRUST_DOMAIN};
use e2e::wait::now;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use libtest_mimic::Trial;
use pairing::bundle::{Bundle, Signature, SignedBundle};
use pairing::key::KeyFingerprint;
use proto::node::device_event::Event as Said;
use proto::node::gateway_event::Event as Heard;
use proto::node::node_service_server::{NodeService, NodeServiceServer};
use proto::node::{
    DeviceEvent, GatewayEvent, HeartbeatAck, RegisterRequest, RegisterResponse, Renewed, Welcome,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    IsCa, KeyPair, PublicKeyData as _, SigningKey as _,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::agent::{invoke, online, run, succeeded};
use crate::fixture::{Fixture, Scene};

/// Of a certificate that lives for a day: late enough to ask for the next.
const AGE: SignedDuration = SignedDuration::from_hours(20);
const DAY: SignedDuration = SignedDuration::from_hours(24);

pub fn trials(fixture: &Arc<Fixture>) -> Vec<Trial> {
    vec![
        fixture.trial(
            "hostile_gateway::its_token_writes_no_trust_bundle",
            forged_by_token,
        ),
        fixture.trial(
            "hostile_gateway::its_serving_key_makes_no_device_trust_its_authority",
            forged_on_the_wire,
        ),
    ]
}

/// Whatever roles a gateway has, the API server keeps its bytes out of where devices' trust comes from.
async fn forged_by_token(scene: Scene) -> anyhow::Result<()> {
    let mut agent = online(&scene, "guarded").await?;
    let stack_folder = {
        let stack = scene.stack().await?;
        stack.as_ref().context("no stack")?.folder().to_owned()
    };
    let kubectl = scene.fixture.cluster().kubectl().to_owned();
    let kubeconfig = stack_folder.join("gateway.kubeconfig");
    let gateway = Cluster::connect(&kubeconfig, &kubectl).await?.client();
    let forged = json!({ "status": { "signedBundle": "AAAA" } });
    let requests: Api<PairingRequest> = Api::namespaced(gateway.clone(), &scene.namespace);
    for request in requests.list(&ListParams::default()).await?.items {
        let written = requests
            .patch_status(
                &request.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&forged),
            )
            .await;
        forbidden(written)?;
    }
    let devices: Api<Device> = Api::namespaced(gateway.clone(), &scene.namespace);
    for renewal in [
        json!({ "csr": "CSR", "requestedAt": now(), "signedBundle": "AAAA" }),
        json!({ "csr": "CSR", "signedBundle": "AAAA", "chain": "CHAIN", "generation": 1 }),
    ] {
        let written = devices
            .patch_status(
                "guarded",
                &PatchParams::default(),
                &Patch::Merge(json!({ "status": { "renewal": renewal } })),
            )
            .await;
        forbidden(written)?;
    }
    let authority = json!({ "status": { "certificate": { "authority": "00".repeat(32) } } });
    let written = devices
        .patch_status("guarded", &PatchParams::default(), &Patch::Merge(authority))
        .await;
    forbidden(written)?;
    let bundles: Api<ConfigMap> = Api::namespaced(gateway, SYSTEM_NAMESPACE);
    let forged = json!({ "data": { "signed-bundle": "AAAA" } });
    let written = bundles
        .patch(
            names::TRUST_BUNDLE,
            &PatchParams::default(),
            &Patch::Merge(forged),
        )
        .await;
    forbidden(written)?;
    agent.stop().await
}

fn forbidden<T>(written: kube::Result<T>) -> anyhow::Result<()> {
    match written {
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(()),
        Err(error) => Err(error).context("not refused for the right reason"),
        Ok(_) => anyhow::bail!("it was written"),
    }
}

async fn forged_on_the_wire(scene: Scene) -> anyhow::Result<()> {
    let honest = scene.gateways().await?;
    let mut agent = online(&scene, "besieged").await?;
    agent.stop().await?;
    let authority = Authority::of_cluster(&scene.client).await?;
    let hostile = Hostile {
        authority,
        namespace: scene.namespace.clone(),
        device: "besieged".to_owned(),
        honest,
        own: own_authority()?,
        of_cluster: published(&scene).await?,
    };
    let thief = Thief::start(&scene, hostile).await?;
    let before = lead_to(&scene, &agent, &thief.address).await?;

    let mut agent = run(&scene, "besieged", agent).await?;
    invoke(&scene, "besieged", "after-the-siege").await?;
    succeeded(&scene, "after-the-siege").await?;
    let status = agent.status().await?;
    let reason = status["certificate"]["refused"]["reason"].as_str();
    ensure!(
        reason.is_some_and(|reason| reason.contains("not signed by an authority")),
        "{status}"
    );
    let after: Value = serde_json::from_slice(&std::fs::read(agent.identity())?)?;
    for field in ["bundle", "bundleSequence", "chain"] {
        ensure!(after[field] == before[field], "{field} changed: {after}");
    }
    agent.stop().await
}

/// The certificate of the cluster's authority, DER.
async fn published(scene: &Scene) -> anyhow::Result<CertificateDer<'static>> {
    let bundles: Api<ConfigMap> = Api::namespaced(scene.client.clone(), SYSTEM_NAMESPACE);
    let data = bundles.get(names::TRUST_BUNDLE).await?.data;
    let data = data.context("the trust bundle is empty")?;
    ensure!(
        data.contains_key(names::TRUST_BUNDLE_SIGNED),
        "the trust bundle is not signed"
    );
    let pem = data
        .get(names::TRUST_BUNDLE_CERTIFICATES)
        .context("no certificate")?;
    Ok(CertificateDer::from_pem_slice(pem.as_bytes())?)
}

fn own_authority() -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
        .distinguished_name
        .push(DnType::CommonName, "the gateway's own");
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Lets the device know no other gateway, and its certificate look old. Returns its identity.
async fn lead_to(scene: &Scene, agent: &Agent, address: &str) -> anyhow::Result<Value> {
    let mut identity: Value = serde_json::from_slice(&std::fs::read(agent.identity())?)?;
    ensure!(
        identity["bundleSequence"].as_u64() > Some(0),
        "it was paired without a signed bundle: {identity}"
    );
    let key = KeyPair::from_pem(&std::fs::read_to_string(agent.state().join("key.pem"))?)?;
    let life = (now() - AGE, now() - AGE + DAY);
    let old = Authority::of_cluster(&scene.client).await?.certify_for(
        &key,
        &scene.namespace,
        "besieged",
        life,
    )?;
    identity["chain"][0] = STANDARD.encode(&old).into();
    identity["gateways"] = json!([address]);
    identity["pairedAt"] = address.into();
    private::write(&agent.identity(), &serde_json::to_vec(&identity)?)?;
    Ok(identity)
}

/// What a thief of a gateway's key answers with.
struct Hostile {
    /// Stands for a certificate that the thief had the operator issue, by the gateway's own way.
    authority: Authority,
    namespace: String,
    device: String,
    honest: Vec<String>,
    own: CertifiedIssuer<'static, KeyPair>,
    of_cluster: CertificateDer<'static>,
}

impl Hostile {
    fn welcome(&self) -> Heard {
        Heard::Welcome(Welcome {
            heartbeat_interval_ms: 1000,
            epoch: 1,
            gateway: "thief".to_owned(),
            gateways: self.honest.clone(),
            max_artefact_bytes: 0,
        })
    }

    /// A good certificate, and the thief's own authority beside the cluster's.
    fn renewed(&self, pkcs10: &[u8]) -> anyhow::Result<Renewed> {
        let key = CertificateSigningRequestParams::from_der(&pkcs10.to_vec().into())?.public_key;
        let life = (now(), now() + DAY);
        let leaf = self
            .authority
            .certify_for(&key, &self.namespace, &self.device, life)?;
        let members = vec![self.of_cluster.clone(), self.own.der().clone()];
        let sequence = u64::try_from(now().as_second())? + 1;
        let bundle = Bundle::new(TRUST_DOMAIN, sequence, members)?;
        let signature = Signature {
            by: KeyFingerprint::of_spki(&self.own.key().subject_public_key_info()),
            bytes: self.own.key().sign(&bundle.to_be_signed())?,
        };
        Ok(Renewed {
            chain: vec![leaf.to_vec(), self.of_cluster.to_vec()],
            signed_bundle: SignedBundle::new(bundle, vec![signature])?.to_bytes(),
        })
    }

    /// Says welcome, answers one request for a certificate, and ends the stream some messages of the device later: by then
    /// the device has read the answer.
    async fn converse(
        &self,
        mut heard: Streaming<DeviceEvent>,
        answers: &mpsc::Sender<Result<GatewayEvent, Status>>,
    ) -> Result<(), Status> {
        let answer = async |event| {
            let event = GatewayEvent { event: Some(event) };
            let sent = answers.send(Ok(event)).await;
            sent.map_err(|_| Status::cancelled("the device is gone"))
        };
        answer(self.welcome()).await?;
        let mut beats_left = None;
        while let Some(said) = heard.message().await? {
            match said.event {
                Some(Said::Renew(renew)) => {
                    let renewed = self.renewed(&renew.pkcs10);
                    let renewed = renewed.map_err(|error| Status::internal(error.to_string()))?;
                    answer(Heard::Renewed(renewed)).await?;
                    beats_left = Some(2_u32);
                }
                Some(Said::Heartbeat(_)) => {
                    answer(Heard::HeartbeatAck(HeartbeatAck {})).await?;
                    beats_left = beats_left.map(|left| left.saturating_sub(1));
                    if beats_left == Some(0) {
                        return Ok(());
                    }
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

/// Serves as a gateway, with the key that gateways serve with.
struct Thief {
    address: String,
    _tasks: JoinSet<()>,
}

struct Service {
    hostile: Arc<Hostile>,
    tasks: Mutex<JoinSet<()>>,
}

#[tonic::async_trait]
impl NodeService for Service {
    type EventStreamStream = ReceiverStream<Result<GatewayEvent, Status>>;

    async fn register(
        &self,
        _: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Ok(Response::new(RegisterResponse {
            namespace: self.hostile.namespace.clone(),
            device: self.hostile.device.clone(),
            registration: "00".repeat(16),
        }))
    }

    async fn event_stream(
        &self,
        request: Request<Streaming<DeviceEvent>>,
    ) -> Result<Response<Self::EventStreamStream>, Status> {
        let (answers, outgoing) = mpsc::channel(4);
        let hostile = Arc::clone(&self.hostile);
        let conversing = async move {
            let ended = hostile.converse(request.into_inner(), &answers).await;
            if let Err(status) = ended {
                let _ = answers.send(Err(status)).await;
            }
        };
        let mut tasks = self.tasks.lock().expect("nothing panics while it is held");
        tasks.spawn(conversing);
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl Thief {
    async fn start(scene: &Scene, hostile: Hostile) -> anyhow::Result<Self> {
        let tls = TlsAcceptor::from(Arc::new(stolen(scene).await?));
        // gRPC in the clear, behind a port that speaks TLS.
        let inner = TcpListener::bind("127.0.0.1:0").await?;
        let behind = inner.local_addr()?;
        let front = TcpListener::bind("127.0.0.1:0").await?;
        let address = front.local_addr()?.to_string();
        let service = Service {
            hostile: Arc::new(hostile),
            tasks: Mutex::default(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let served = Server::builder()
                .add_service(NodeServiceServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(inner))
                .await;
            served.expect("the listener stays");
        });
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = front.accept().await {
                let tls = tls.clone();
                connections.spawn(async move {
                    let mut tls = tls.accept(tcp).await?;
                    let mut tcp = TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut tls, &mut tcp).await
                });
            }
        });
        Ok(Self {
            address,
            _tasks: tasks,
        })
    }
}

/// TLS with what is in the Secret that gateways mount.
async fn stolen(scene: &Scene) -> anyhow::Result<ServerConfig> {
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), SYSTEM_NAMESPACE);
    let data = secrets.get(names::GATEWAY_TLS_SECRET).await?.data;
    let data = data.context("the Secret is empty")?;
    let pem = |key: &str| {
        let value = data.get(key).with_context(|| format!("no {key}"))?;
        anyhow::Ok(value.0.as_slice())
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem("ca.crt")?)?)?;
    let devices = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), pairing::crypto());
    let chain = CertificateDer::pem_slice_iter(pem("tls.crt")?).collect::<Result<_, _>>()?;
    let mut tls = ServerConfig::builder_with_provider(pairing::crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(devices.build()?)
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(pem("tls.key")?)?)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}
