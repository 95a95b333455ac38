//! NodeService, as gRPC calls it. Nothing is decided here.

use std::sync::Arc;

use proto::node::{
    DeviceEvent, RegisterRequest, RegisterResponse, node_service_server::NodeService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Shared,
    outbox::{self, Outgoing},
    status::Refusal,
    stream::{self, Arrival, Caller},
};
use crate::{
    domain::{
        device::DeviceKey,
        register::{self, Declared},
    },
    heavy, peer,
};

/// The service of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Service(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl NodeService for Service {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let Caller {
            key, fingerprint, ..
        } = caller(&request)?;
        self.0.admit(&key, &fingerprint).await?;
        let paced = self.0.pace.declaration(fingerprint);
        paced.map_err(Refusal::TooManyDeclarations)?;
        let declared = self.0.read(&key, request.into_inner()).await?;
        let registration = self
            .0
            .registrations
            .insert(key.clone(), fingerprint, declared);
        let DeviceKey {
            namespace,
            name: device,
        } = key;
        Ok(Response::new(RegisterResponse {
            namespace,
            device,
            registration,
        }))
    }

    type EventStreamStream = Outgoing;

    async fn event_stream(
        &self,
        request: Request<Streaming<DeviceEvent>>,
    ) -> Result<Response<Outgoing>, Status> {
        let (shared, caller) = (Arc::clone(&self.0), caller(&request)?);
        shared.admit(&caller.key, &caller.fingerprint).await?;
        let (outbox, outgoing) = outbox::new();
        let inbound = request.into_inner();
        let stream = stream::run(Arrival {
            shared,
            caller,
            inbound,
            outbox,
        });
        self.0.tasks.spawn(self.0.streams.track_future(stream));
        Ok(Response::new(outgoing))
    }
}

impl Shared {
    /// Reads what a device says about itself, on another thread where that may take long.
    async fn read(&self, key: &DeviceKey, request: RegisterRequest) -> Result<Declared, Refusal> {
        let read = if heavy::is_small(register::schema_bytes(&request.capabilities)) {
            register::read(request)
        } else {
            let read = || register::read(request);
            self.heavy.run(key.to_string(), read).await?
        };
        Ok(read?)
    }
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let device = peer::device(request)?;
    let hang_up = peer::of(request)?.hang_up.clone();
    Ok(Caller {
        key: DeviceKey::new(&device.id.namespace, &device.id.device),
        fingerprint: device.key,
        not_after: device.not_after,
        hang_up,
    })
}
