//! NodeService as JSON, for devices that cannot speak gRPC: `POST /node/v1/register`, and `POST /node/v1/event-stream`
//! with one JSON object a line both ways (HTTP/2). See docs/node-json.md.
//!
//! This is a translator in front of the door and nothing else: what a device says becomes the gRPC call that it would be,
//! with the same bounds, the same identity and the same handlers, and what they answer becomes JSON. So the two cannot
//! disagree.
//!
//! - [`lines`]: what the device sends;
//! - [`frames`]: what it is answered;
//! - [`refusal`]: how a gRPC status looks.

mod frames;
mod lines;
mod refusal;

#[cfg(test)]
mod tests;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE},
    uri::PathAndQuery,
};
use proto::node::{DeviceEvent, GatewayEvent, RegisterRequest, RegisterResponse};
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use self::{
    frames::{Answer, Answers},
    lines::{Lines, Said},
};

/// Where a device says what it is and can do: one RegisterRequest, answered by one RegisterResponse.
pub const REGISTER: &str = "/node/v1/register";
/// Where it holds its stream: DeviceEvents one way, GatewayEvents the other, one a line.
pub const EVENT_STREAM: &str = "/node/v1/event-stream";

const GRPC_REGISTER: &str = "/fairlead.node.v1.NodeService/Register";
const GRPC_EVENT_STREAM: &str = "/fairlead.node.v1.NodeService/EventStream";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// Puts [`Json`] in front of a service.
#[derive(Clone, Debug)]
pub struct JsonLayer {
    memory: Arc<Semaphore>,
}

impl JsonLayer {
    /// `message_memory`: bytes that long lines of all devices may take together while they arrive.
    pub fn new(message_memory: usize) -> Self {
        Self {
            memory: Arc::new(Semaphore::new(message_memory / lines::UNIT)),
        }
    }
}

impl<S> Layer<S> for JsonLayer {
    type Service = Json<S>;

    fn layer(&self, inner: S) -> Json<S> {
        Json {
            inner,
            memory: Arc::clone(&self.memory),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Json<S> {
    inner: S,
    memory: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    Register,
    EventStream,
}

impl Call {
    fn of(path: &str) -> Option<Self> {
        match path {
            REGISTER => Some(Self::Register),
            EVENT_STREAM => Some(Self::EventStream),
            _ => None,
        }
    }

    fn grpc(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Register => GRPC_REGISTER,
            Self::EventStream => GRPC_EVENT_STREAM,
        })
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Register => JSON,
            Self::EventStream => NDJSON,
        }
    }
}

type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Json<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = futures::future::Either<S::Future, Answering<S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        use futures::future::Either;
        let Some(call) = Call::of(request.uri().path()) else {
            return Either::Left(self.inner.call(request));
        };
        if let Err(refused) = may_be_read(call, request.method(), request.headers()) {
            return Either::Right(Box::pin(std::future::ready(Ok(*refused))));
        }
        let answered = self.inner.call(to_grpc(call, request, &self.memory));
        Either::Right(Box::pin(async move {
            answered.await.map(|answer| from_grpc(call, answer))
        }))
    }
}

/// The body is read as what it is said to be: a form that a web page sends is none of it.
fn may_be_read(
    call: Call,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Box<Response<Body>>> {
    if method != Method::POST {
        let mut response = refusal::plain(
            http::StatusCode::METHOD_NOT_ALLOWED,
            &Status::unimplemented("use POST"),
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return Err(Box::new(response));
    }
    let said = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim);
    if said.eq_ignore_ascii_case(call.media_type()) {
        Ok(())
    } else {
        let what = Status::invalid_argument(format!("send Content-Type: {}", call.media_type()));
        Err(Box::new(refusal::plain(
            http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
            &what,
        )))
    }
}

/// The call that it would have been.
fn to_grpc(call: Call, request: Request<Body>, memory: &Arc<Semaphore>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let mut uri = parts.uri.into_parts();
    uri.path_and_query = Some(call.grpc());
    // Only the path has changed, to one that is known to be good.
    parts.uri = http::Uri::from_parts(uri).unwrap_or_else(|_| http::Uri::from(call.grpc()));
    parts.headers.insert(CONTENT_TYPE, GRPC);
    parts.headers.remove(CONTENT_LENGTH);
    // A device that is refused half-way would be told in an encoding that we do not read.
    parts.headers.remove("grpc-accept-encoding");
    parts.headers.remove("grpc-encoding");
    let body = match call {
        Call::Register => Body::new(Lines::new(
            body,
            Said::One(lines::read::<RegisterRequest>),
            memory,
        )),
        Call::EventStream => Body::new(Lines::new(
            body,
            Said::Many(lines::read::<DeviceEvent>),
            memory,
        )),
    };
    Request::from_parts(parts, body)
}

fn from_grpc(call: Call, answer: Response<Body>) -> Response<Body> {
    // An answer that is nothing but a status has it among its headers.
    if let Some(status) = Status::from_header_map(answer.headers())
        && status.code() != Code::Ok
    {
        return refusal::response(&status);
    }
    let body = answer.into_body();
    let body = match call {
        Call::Register => Body::new(Answers::new(
            body,
            Answer::One(frames::write::<RegisterResponse>),
        )),
        Call::EventStream => Body::new(Answers::new(
            body,
            Answer::Many(frames::write::<GatewayEvent>),
        )),
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(call.media_type()));
    response
}
