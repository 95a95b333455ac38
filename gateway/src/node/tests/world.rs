//! A gateway's node service over connections in memory, without TLS, and devices that call it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::http::Uri;
use crds::v1alpha1::{CapabilityInvocation, Device};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use pairing::{key::KeyFingerprint, spiffe::SpiffeId};
use prometheus_client::registry::Registry;
use proto::node::{
    self, DeviceEvent, GatewayEvent, RegisterRequest, device_event, gateway_event::Event,
    node_service_client::NodeServiceClient,
};
use runtime::shutdown::Supervisor;
use tokio::{io::DuplexStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    service::InterceptorLayer,
    transport::{Channel, Endpoint, Server},
};

use super::cluster::Cluster;
use crate::{
    clock::now,
    domain::fixtures,
    hang_up::HangUp,
    node::{Node, Settings},
    peer::{Admission, Certified, Identity, Peer},
    renewal::Renewals,
};

pub const GATEWAY: &str = "gateway-a";
/// A device whose certificates are valid for a minute.
pub const BRIEF: &str = "brief";

/// How long anything may take. The clock is paused, so this costs nothing.
const DEADLINE: Duration = Duration::from_mins(1);

pub struct World {
    pub cluster: Cluster,
    pub node: Node,
    connections: mpsc::Sender<std::io::Result<DuplexStream>>,
    _supervisor: Supervisor,
}

/// A key that is the device's own: no two names have the same.
pub fn key_of(device: &str) -> KeyFingerprint {
    KeyFingerprint::of_spki(device.as_bytes())
}

/// kitchen/NAME, which may run `echo`.
pub fn device(name: &str) -> Device {
    let mut device = fixtures::device_object();
    device.metadata.name = Some(name.to_owned());
    device.spec.public_key_sha256 = key_of(name).to_string();
    device
}

/// The uid of the invocation of that name.
pub fn uid(name: &str) -> String {
    use std::fmt::Write as _;

    name.bytes().fold(String::new(), |mut uid, byte| {
        write!(uid, "{byte:02x}").unwrap();
        uid
    })
}

/// `echo` on that device, created now. Written down in whole seconds, and after every stream that there is: rounded up.
pub fn invocation(name: &str, device: &str) -> CapabilityInvocation {
    let mut invocation = fixtures::invocation_object(now() + Duration::from_secs(1));
    invocation.metadata.name = Some(name.to_owned());
    invocation.metadata.uid = Some(uid(name));
    invocation.spec.device_ref.name = device.to_owned();
    invocation
}

pub fn settings() -> Settings {
    Settings::new(GATEWAY, "fairlead-system", "gateway-a.example:7443")
}

pub fn renewals(cluster: &Cluster) -> Renewals {
    Renewals::new(cluster.client())
}

impl World {
    /// With devices `lamp-1` and `lamp-2`.
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let cluster = Cluster::new();
        cluster.add_device(&device("lamp-1"));
        cluster.add_device(&device("lamp-2"));
        Self::at(cluster, settings).await
    }

    /// Another gateway of that cluster.
    pub async fn at(cluster: Cluster, settings: Settings) -> Self {
        let supervisor = Supervisor::new();
        let node = Node::start(
            cluster.client(),
            settings,
            renewals(&cluster),
            &supervisor.tasks(),
            &mut Registry::default(),
        );
        node.ready().await;

        let (connections, incoming) = mpsc::channel(1);
        let server = Server::builder()
            .layer(InterceptorLayer::new(name_the_peer))
            .add_service(node.service())
            .serve_with_incoming(ReceiverStream::new(incoming));
        supervisor
            .tasks()
            .spawn(async move { server.await.unwrap() });
        Self {
            cluster,
            node,
            connections,
            _supervisor: supervisor,
        }
    }

    /// A new connection.
    pub async fn connect(&self) -> NodeServiceClient<Channel> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.connections.send(Ok(far)).await.unwrap();
        let mut near = Some(near);
        // A device that does not read: the window is all that it takes.
        let channel = Endpoint::from_static("http://gateway")
            .initial_stream_window_size(16 * 1024)
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let near = near.take().ok_or_else(|| std::io::Error::other("used"));
                async move { near.map(TokioIo::new) }
            }))
            .await
            .unwrap();
        NodeServiceClient::new(channel)
    }

    /// A device with a stream, which has been welcomed.
    pub async fn device(&self, name: &str) -> FakeDevice {
        let mut client = self.connect().await;
        let registration = register(&mut client, name).await.unwrap();
        let mut device = FakeDevice::open(client, name).await.unwrap();
        device
            .send(device_event::Event::Hello(node::Hello { registration }))
            .await;
        device
    }

    pub async fn welcomed(&self, name: &str) -> FakeDevice {
        let mut device = self.device(name).await;
        match device.next().await {
            Ok(Event::Welcome(welcome)) => device.welcome = Some(welcome),
            other => panic!("{other:?} is no welcome"),
        }
        device
    }

    /// Waits until the gateway has so many streams.
    pub async fn until_streams(&self, count: usize) {
        let wait = async {
            while self.node.shared.live.count() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("there are not {count} streams"));
    }
}

/// Until when the certificate of a device is valid that connects now.
fn not_after_of(device: &str) -> Timestamp {
    if device == BRIEF {
        now() + Duration::from_mins(1)
    } else {
        Timestamp::MAX
    }
}

/// What TLS does elsewhere.
fn name_the_peer(mut request: Request<()>) -> Result<Request<()>, Status> {
    let named = request.metadata().get("test-device");
    let device = named
        .and_then(|name| name.to_str().ok())
        .unwrap_or_default();
    let id = SpiffeId::new("fairlead.example", "kitchen", device)
        .map_err(|error| Status::internal(error.to_string()))?;
    let identity = Identity::Device(Certified {
        key: key_of(device),
        id,
        not_after: not_after_of(device),
    });
    let remote = SocketAddr::from(([127, 0, 0, 1], 1));
    request.extensions_mut().insert(Arc::new(Peer {
        remote,
        identity,
        admission: Admission::Device,
        hang_up: HangUp::default(),
    }));
    Ok(request)
}

fn from<T>(device: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("test-device", device.parse().unwrap());
    request
}

pub async fn register(
    client: &mut NodeServiceClient<Channel>,
    device: &str,
) -> Result<String, Status> {
    let mut request = RegisterRequest::default();
    request.capabilities.push(node::Capability {
        name: "echo".to_owned(),
        ..node::Capability::default()
    });
    Ok(client
        .register(from(device, request))
        .await?
        .into_inner()
        .registration)
}

pub struct FakeDevice {
    pub events: Streaming<GatewayEvent>,
    pub sender: mpsc::Sender<DeviceEvent>,
    pub welcome: Option<node::Welcome>,
}

impl FakeDevice {
    pub async fn open(
        mut client: NodeServiceClient<Channel>,
        device: &str,
    ) -> Result<Self, Status> {
        let (sender, events) = mpsc::channel(1);
        let stream = client
            .event_stream(from(device, ReceiverStream::new(events)))
            .await?;
        Ok(Self {
            events: stream.into_inner(),
            sender,
            welcome: None,
        })
    }

    pub async fn send(&mut self, event: device_event::Event) {
        // It may have been cut: then what comes next says so.
        let _ = self.sender.send(DeviceEvent { event: Some(event) }).await;
    }

    /// The next event, or how the stream ended.
    pub async fn next(&mut self) -> Result<Event, Status> {
        let message = timeout(DEADLINE, self.events.message())
            .await
            .expect("the gateway says something");
        let message = message?.ok_or_else(|| Status::ok("the stream ended"))?;
        Ok(message.event.expect("every event has content"))
    }

    pub async fn dispatch(&mut self) -> node::Dispatch {
        match self.next().await {
            Ok(Event::Dispatch(dispatch)) => dispatch,
            other => panic!("{other:?} is no dispatch"),
        }
    }

    pub async fn ack(&mut self) -> String {
        match self.next().await {
            Ok(Event::ResultAck(ack)) => ack.uid,
            other => panic!("{other:?} is no ack"),
        }
    }

    pub async fn heartbeat(&mut self) {
        self.send(device_event::Event::Heartbeat(node::Heartbeat {}))
            .await;
        match self.next().await {
            Ok(Event::HeartbeatAck(_)) => {}
            other => panic!("{other:?} is no answer to a heartbeat"),
        }
    }

    pub async fn result(&mut self, result: node::Result) {
        self.send(device_event::Event::Result(result)).await;
    }

    /// How the stream ends; what comes before is dropped.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// It succeeded with that output.
pub fn succeeded(dispatch: &node::Dispatch, output: &str) -> node::Result {
    use sha2::{Digest as _, Sha256};

    let mut result = node::Result {
        uid: dispatch.uid.clone(),
        name: dispatch.name.clone(),
        output: output.as_bytes().to_vec(),
        output_sha256: Sha256::digest(output.as_bytes()).to_vec(),
        ..node::Result::default()
    };
    result.set_outcome(node::Outcome::Succeeded);
    result
}
