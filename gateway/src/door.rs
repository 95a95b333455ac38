//! In front of every service: who may call which, before a byte of what they send is kept.
//!
//! A call that is refused here costs nothing. That matters most for strangers: without it, what a device may send would
//! be what a stranger can make us hold.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::Either;
use http::{Request, Response};
use jiff::Timestamp;
use proto::node::enrollment_server;
use tokio::sync::Semaphore;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    clock,
    inflow::Inflow,
    peer::{Admission, Identity, Peer},
    status::full,
};

/// Puts a [`Door`] in front of a service.
#[derive(Clone, Debug)]
pub struct DoorLayer {
    memory: Arc<Semaphore>,
}

impl DoorLayer {
    /// `message_memory`: bytes that large messages of devices may take together while they arrive.
    pub fn new(message_memory: usize) -> Self {
        Self {
            memory: Arc::new(Semaphore::new(message_memory / Inflow::UNIT)),
        }
    }
}

impl<S> Layer<S> for DoorLayer {
    type Service = Door<S>;

    fn layer(&self, inner: S) -> Door<S> {
        Door {
            inner,
            memory: Arc::clone(&self.memory),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Door<S> {
    inner: S,
    memory: Arc<Semaphore>,
}

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(peer) = request.extensions().get::<Arc<Peer>>() else {
            let status = Status::internal("served over a connection that names no peer");
            return Either::Left(ready(Ok(status.into_http())));
        };
        if let Err(status) = may_call(peer, request.uri().path(), clock::now()) {
            return Either::Left(ready(Ok(status.into_http())));
        }
        // What strangers may send is small, and their number is bounded.
        let request = match peer.identity {
            Identity::Device(_) => {
                let memory = Arc::clone(&self.memory);
                request.map(|body| Body::new(Inflow::new(body, memory)))
            }
            Identity::Enrollee { .. } => request,
        };
        Either::Right(self.inner.call(request))
    }
}

/// Strangers may enrol and nothing else; devices whatever they like while their certificate is valid; and those without
/// a place nothing.
fn may_call(peer: &Peer, path: &str, now: Timestamp) -> Result<(), Status> {
    if let Admission::TurnedAway { why, retry_after } = peer.admission {
        return Err(full(why, retry_after));
    }
    let service = path
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    match &peer.identity {
        Identity::Enrollee { .. } if service != enrollment_server::SERVICE_NAME => Err(
            Status::permission_denied("enrol first: this certificate is self-signed"),
        ),
        Identity::Enrollee { .. } => Ok(()),
        Identity::Device(certified) => certified.check(now),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pairing::{exporter::Exporter, key::KeyFingerprint, spiffe::SpiffeId};
    use proto::RETRY_AFTER;
    use tonic::Code;

    use super::*;
    use crate::{domain::fixtures::at, peer::Certified};

    const ENROLL: &str = "/fairlead.node.v1.Enrollment/Enroll";
    const REGISTER: &str = "/fairlead.node.v1.NodeService/Register";

    fn peer(identity: Identity, admission: Admission) -> Peer {
        Peer {
            remote: ([192, 0, 2, 1], 1).into(),
            identity,
            admission,
            hang_up: crate::hang_up::HangUp::default(),
        }
    }

    fn device() -> Identity {
        let id = SpiffeId::new("home.example", "kitchen", "lamp").unwrap();
        Identity::Device(Certified {
            key: KeyFingerprint::of_spki(b"key"),
            id,
            not_after: at(100),
        })
    }

    fn stranger() -> Identity {
        Identity::Enrollee {
            key: KeyFingerprint::of_spki(b"key"),
            exporter: Exporter::from_bytes([0; 32]),
        }
    }

    #[test]
    fn a_stranger_reaches_enrolment_alone() {
        // The kind of place does not matter here.
        let stranger = peer(stranger(), Admission::Device);
        assert!(may_call(&stranger, ENROLL, at(0)).is_ok());
        for path in [
            REGISTER,
            "/",
            "",
            "/fairlead.node.v1.EnrollmentX/Enroll",
            "//Enroll",
        ] {
            assert_eq!(
                may_call(&stranger, path, at(0)).unwrap_err().code(),
                Code::PermissionDenied,
                "{path}"
            );
        }
        assert!(may_call(&peer(device(), Admission::Device), REGISTER, at(0)).is_ok());
    }

    #[test]
    fn a_device_is_served_until_its_certificate_expires_and_no_longer() {
        let device = peer(device(), Admission::Device);
        assert!(may_call(&device, REGISTER, at(100)).is_ok());
        let refused = may_call(&device, REGISTER, at(101)).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(
            refused.message(),
            "the certificate expired at 1970-01-01T00:01:40Z"
        );
    }

    #[test]
    fn who_was_turned_away_is_told_when_to_come_back_whatever_he_calls() {
        let full = Admission::TurnedAway {
            why: "full",
            retry_after: Duration::from_secs(1),
        };
        let status = may_call(&peer(device(), full), REGISTER, at(0)).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.metadata().contains_key(RETRY_AFTER));
    }
}
