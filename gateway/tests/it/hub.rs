//! A gateway's door to knock at, with a stand-in for what is behind it for devices.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use gateway::{
    enrollment::{Enroller, Settings},
    listener::{Limits, Listener},
    metrics::Metrics,
    mounted::{Current, Mounted},
    peer, server, tls,
};
use pairing::{code::PairingCode, opaque::Setup};
use proto::node::{
    DeviceEvent, GatewayEvent, HeartbeatAck, RegisterRequest, RegisterResponse, gateway_event,
    node_service_server::{NodeService, NodeServiceServer},
};
use runtime::shutdown::{Supervisor, Tasks};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, sync::watch, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    api::{FakeApi, seconds_from_now},
    authority::{Authority, TRUST_DOMAIN},
};

/// Long enough for anything that happens at all.
pub const SOON: Duration = Duration::from_secs(10);

pub struct Hub {
    pub address: SocketAddr,
    pub authority: Authority,
    pub api: FakeApi,
    pub tls_dir: TempDir,
    setup: Arc<Setup>,
    material: Current<tls::Material>,
    tasks: Tasks,
    _supervisor: Supervisor,
}

/// How many tries there are.
#[derive(Clone, Copy)]
pub struct Tries {
    pub all: u32,
    pub each: u32,
}

impl Hub {
    pub async fn start() -> Self {
        Self::with(
            Limits::default(),
            Tries {
                all: 60_000,
                each: 60_000,
            },
        )
        .await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        Self::with(
            limits,
            Tries {
                all: 60_000,
                each: 60_000,
            },
        )
        .await
    }

    pub async fn with(limits: Limits, tries: Tries) -> Self {
        let authority = Authority::new("fairlead");
        let tls_dir = tempfile::tempdir().unwrap();
        authority.write(tls_dir.path());
        let supervisor = Supervisor::new();
        let tasks = supervisor.tasks();
        let mounted = Mounted::new(tls_dir.path().to_owned(), tls::FILES, tls::Material::parse);
        let mut material = mounted.current();
        let stop = tasks.token();
        tasks.spawn(async move { mounted.follow(stop).await.unwrap() });
        gateway::mounted::loaded(&mut material).await.unwrap();

        let tls = tls::server(&material, TRUST_DOMAIN).unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(anywhere, tls, limits, Metrics::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let api = FakeApi::new();
        let setup = Arc::new(Setup::generate());
        let (_, current) = watch::channel(Some(Arc::clone(&setup)));
        let settings = Settings {
            gateway: "gateway-0".to_owned(),
            request_time: Duration::from_mins(15),
            gateways: Box::new(|| vec!["gateway-0:7443".to_owned()]),
            tries_per_minute: tries.all,
            tries_per_minute_per_address: tries.each,
        };
        let enroller = Enroller::new(
            &api.client(),
            settings,
            current,
            Metrics::default(),
            tasks.token(),
        );
        let (accepted, incoming) = mpsc::channel(1);
        let accepting = listener.accept(tasks.clone(), accepted);
        tasks.spawn(async move { accepting.await.unwrap() });
        let stop = tasks.token();
        tasks.spawn(async move {
            server::new(limits)
                .add_service(enroller.service())
                .add_service(NodeServiceServer::new(BehindTheDoor))
                .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.cancelled_owned())
                .await
                .unwrap();
        });
        Self {
            address,
            authority,
            api,
            tls_dir,
            setup,
            material,
            tasks,
            _supervisor: supervisor,
        }
    }

    /// A code in the API server that admits `uses` devices and takes `attempts` wrong tries.
    pub fn add_code(&self, attempts: i64, uses: i64) -> PairingCode {
        let code = PairingCode::parse("7KQ2-000001").unwrap();
        self.put_code("lobby", &code, attempts, uses);
        code
    }

    pub fn put_code(&self, name: &str, code: &PairingCode, attempts: i64, uses: i64) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        self.api.put(
            "pairingcodes",
            json!({
                "apiVersion": "fairlead.dev/v1alpha1", "kind": "PairingCode",
                "metadata": { "namespace": "kitchen", "name": name },
                "spec": { "maxAttempts": attempts, "maxUses": uses },
                "status": {
                    "phase": "Active", "codeId": code.id(), "expiresAt": seconds_from_now(600),
                    "passwordFile": STANDARD.encode(self.setup.password_file(code).unwrap()),
                    "uses": 0, "attempts": 0,
                },
            }),
        );
    }

    /// Attempts and uses of the code.
    pub fn counts(&self) -> (i64, i64) {
        let status = self.code_status();
        (
            status["attempts"].as_i64().unwrap(),
            status["uses"].as_i64().unwrap(),
        )
    }

    pub fn code_status(&self) -> Value {
        self.api.get("pairingcodes", "kitchen", "lobby").unwrap()["status"].clone()
    }

    pub fn change_code(&self, status: &Value) {
        self.api
            .merge_status("pairingcodes", "kitchen", "lobby", status);
    }

    /// Decides on a request, as approver and operator would.
    pub fn decide(&self, request: &str, status: &Value) {
        self.api
            .merge_status("pairingrequests", "kitchen", request, status);
    }

    /// Waits until the files of `tls_dir` were read anew.
    pub async fn reloaded(&mut self) {
        timeout(SOON, self.material.changed())
            .await
            .unwrap()
            .unwrap();
    }

    pub fn mark_loaded(&mut self) {
        self.material.mark_unchanged();
    }

    pub fn stop(&self) {
        self.tasks.token().cancel();
    }
}

/// Answers devices who they are, and acknowledges each event of a stream.
struct BehindTheDoor;

#[tonic::async_trait]
impl NodeService for BehindTheDoor {
    type EventStreamStream = Pin<Box<dyn Stream<Item = Result<GatewayEvent, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let id = &peer::device(&request)?.id;
        Ok(Response::new(RegisterResponse {
            namespace: id.namespace.clone(),
            device: id.device.clone(),
            registration: String::new(),
        }))
    }

    async fn event_stream(
        &self,
        request: Request<Streaming<DeviceEvent>>,
    ) -> Result<Response<Self::EventStreamStream>, Status> {
        let acknowledge = |event: Result<DeviceEvent, Status>| {
            event.map(|_| GatewayEvent {
                event: Some(gateway_event::Event::HeartbeatAck(HeartbeatAck {})),
            })
        };
        let acks = request.into_inner().map(acknowledge);
        Ok(Response::new(Box::pin(acks)))
    }
}
